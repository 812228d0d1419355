//! `Holding`: how received bytes are kept beyond the callback that they came with.

/// How the streams of a connection hold received bytes in msquic's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Not at all: bytes are copied out.
    No,
    /// All that were offered are completed together.
    OneByOne,
    /// More are offered while some are held, and the oldest are completed up to the first that is
    /// in use.
    Several,
}
