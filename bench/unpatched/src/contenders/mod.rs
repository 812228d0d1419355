//! The contenders.

pub(crate) mod published;
#[path = "../../../src/contenders/raw.rs"]
pub(crate) mod raw;
#[path = "../../../src/contenders/streams.rs"]
pub(crate) mod streams;
