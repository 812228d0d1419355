//! The codes with which the program closes a connection.

/// All that was asked for is done.
pub(crate) const DONE: u64 = 0;
/// This side failed; the reason says how.
pub(crate) const FAILED: u64 = 1;
/// The listener rejects the name of the file.
pub(crate) const NAME_REJECTED: u64 = 2;
/// Another file of that name exists.
pub(crate) const NAME_EXISTS: u64 = 3;
/// The file is larger than the listener accepts.
pub(crate) const TOO_LARGE: u64 = 4;
/// The listener serves its maximum of peers.
pub(crate) const BUSY: u64 = 5;
/// The same peer sends a file of the same name on a newer connection.
pub(crate) const REPLACED: u64 = 6;

/// Whether a listener with this code rejects one file, so that it may accept another one.
pub(crate) fn is_about_file(code: u64) -> bool {
    matches!(code, NAME_REJECTED | NAME_EXISTS | TOO_LARGE | REPLACED)
}
