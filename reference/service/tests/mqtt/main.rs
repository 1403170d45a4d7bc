//! The MQTT client against scripted peers: what a real broker does only on a bad day.

mod flow;
mod peer;
mod refusals;
mod tls;
