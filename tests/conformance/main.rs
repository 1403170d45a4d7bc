//! What the pipeline relies on in the servers around it, proven of each: one body, an embedded arm and a real one.
//!
//! The embedded arms always run. Those on Apache Kafka and Mosquitto run with the cargo feature `containers`, in
//! containers; without Docker they say so, and fail if `CI` is set. Where two products differ, [`mqtt::Product`] declares
//! the difference, the body holds each to its own, and shows that the pipeline comes to the same end with either.
//!
//! The suite of the stores stands with their code, in `reference/service/tests/store`.

/// Runs every sentence of a body on the arms of its kind. The functions take a bench, which an arm without a server has
/// none of.
macro_rules! on_each_arm {
    (@arm $arm:ident, $bench:ty, $($module:ident::$sentence:ident),*) => {
        mod $arm {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $sentence() {
                    if let Some(bench) = <$bench>::$arm(stringify!($sentence)).await {
                        super::$module::$sentence(&bench).await;
                    }
                }
            )*
        }
    };
    ($bench:ty, $($module:ident::$sentence:ident),* $(,)?) => {
        on_each_arm!(@arm embedded, $bench, $($module::$sentence),*);
        #[cfg(feature = "containers")]
        on_each_arm!(@arm real, $bench, $($module::$sentence),*);
    };
}

#[path = "../common/mod.rs"]
mod common;
mod kafka;
mod mqtt;
#[cfg(feature = "containers")]
mod real;

/// Says once, past the capture of output, what this build leaves out.
#[cfg(not(feature = "containers"))]
fn say_what_is_left_out() {
    static SAID: std::sync::Once = std::sync::Once::new();
    let words = b"\nNOT RUN: the arms on Apache Kafka and Mosquitto; --features containers adds them\n";
    SAID.call_once(|| drop(std::io::Write::write_all(&mut std::io::stderr(), words)));
}
