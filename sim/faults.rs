//! What goes wrong, decided without I/O: when each fault begins and ends, whom it hits, and what becomes of a message.

mod poison;
mod tampering;
mod timeline;

pub use poison::{PoisonMessage, poison};
pub use tampering::{CommandHandling, Handling, HeldTail, Tampering};
pub use timeline::{Edge, Timeline};
