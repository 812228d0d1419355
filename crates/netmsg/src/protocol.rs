//! The application protocols of the program, as names for ALPN.

/// Files, see [`file`](crate::file).
pub(crate) const FILE: &str = "netmsg-file/3";

/// Every message is returned, up to [`MAX_PING`] bytes.
pub(crate) const PING: &str = "netmsg-ping/1";

/// Measurements, see [`perf`](crate::perf).
pub(crate) const PERF: &str = "netmsg-perf/1";

/// Lines of a chat.
pub(crate) const CHAT: &str = "netmsg-chat/1";

/// The largest message that is returned, in bytes.
pub(crate) const MAX_PING: usize = 64 * 1024;
