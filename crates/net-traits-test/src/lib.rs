//! Tools.
#![forbid(unsafe_code)]
mod limits;
pub mod memory;
pub use limits::Limits;
