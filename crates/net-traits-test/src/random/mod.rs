//! Random schedules: both sides of a connection use it at random, and the result is checked.
//!
//! A seed determines a *schedule*: what each side sends, when it receives, and how it ends. Two transports play
//! it, and afterwards the messages are compared with what `docs/delivery.md` promises:
//!
//! - Messages arrive complete, once, and in order, and only those that were sent.
//! - If one side closes or drops its connection and the other one reads until the end, everything arrives, or
//!   the outcome of the close and the statistics count at least what did not.
//! - A message whose `send_acked` has returned was received.
//! - The code and the reason of the end arrive.
//! - Nothing hangs, and neither connections nor memory stay behind.
//!
//! The tasks of a schedule run side by side, so the seed does not determine their interleaving. With the
//! in-memory transport on a runtime with one thread and a paused clock, it does.

mod check;
mod choices;
mod play;
mod script;

pub use play::{play, play_bytes, run};
