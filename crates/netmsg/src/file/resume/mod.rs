//! Files that arrive in pieces and survive the end of the process at any moment.
//!
//! [`Ranges`] (which bytes are stored) and [`map`] (the file format of that record) are pure.
//! [`Partial`] is the file on disk with its map; it blocks. [`Turns`] gives each partial file one
//! writer at a time.
//!
//! A partial file has a hidden name, which no [`FilePath`](super::name::FilePath) can be, made of the
//! identity of its peer and a digest of the final name: partial files of two peers never mix.

mod map;
mod partial;
mod ranges;
mod turns;

pub(crate) use map::Transfer;
pub(crate) use partial::{Begun, Partial, PartialError, begin, hash_file, key};
pub(crate) use ranges::{MAX_RANGES, RangeError, Ranges};
pub(crate) use turns::{Turn, Turns};
