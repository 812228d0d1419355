//! The transfer of files in messages.
//!
//! For each file:
//!
//! 1. dialler → listener: the file's size, SHA-256 and name
//! 2. listener → dialler: its window, and the ranges of bytes that it lacks
//! 3. dialler → listener: the bytes of these ranges, each message with its offset
//! 4. listener → dialler, from time to time: how many of these bytes are safe on its disk
//! 5. listener → dialler: the SHA-256 of the stored file
//!
//! [`message`] has their encoding. After the last file, the dialler closes the connection with
//! [`DONE`](crate::close_code::DONE). A transfer that ends early is resumed when the dialler sends
//! the same file again: the listener keeps what it has ([`resume`]). The dialler sends at most a
//! window beyond what is safe, so that no more than a window is sent twice. A file with another
//! size or hash begins anew.
//!
//! A listener that does not store a file closes the connection with a code and a reason. The
//! dialler then sends the remaining files on a new connection.

pub(crate) mod message;
mod name;
mod receive;
mod resume;
mod send;

pub(crate) use message::{MIN_WINDOW, MessageError};
pub(crate) use name::FilePath;
pub(crate) use receive::Inbox;
pub(crate) use resume::Turns;
pub(crate) use send::Source;
