//! Errors of streams, one type per operation.

use crate::Status;
use crate::connection::ConnectionError;
use std::io;

/// Why a stream was not opened.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::{StreamStartError, StreamType};
///
/// match connection.open_outbound_stream(StreamType::Bidirectional, true).await {
///     Err(StreamStartError::LimitReached) => println!("the peer is busy"),
///     result => println!("stream {:?}", result?.id()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The peer allows no further stream for now, and the caller asked not to wait. The peer allows
    /// another one when a stream is closed, or with a larger number in its
    /// [`Settings`](crate::Settings).
    #[error("the peer allows no further stream for now")]
    LimitReached,
    /// This side aborted the stream before it was started.
    #[error("the stream was aborted before it was started")]
    Closed,
    /// The connection has ended, or was not started.
    #[error("the connection has ended")]
    ConnectionLost(#[source] ConnectionError),
    /// msquic failed.
    #[error("msquic could not start the stream")]
    Other(#[source] Status),
}

/// Why bytes were not read.
///
/// ```no_run
/// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::ReadError;
///
/// match stream.read_chunk().await {
///     Err(ReadError::Reset(code)) => println!("the peer reset the stream with code {code}"),
///     result => println!("{:?}", result?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This side stopped reading, or the stream only sends.
    #[error("the stream is closed for reading")]
    Closed,
    /// The peer reset the stream with this code.
    #[error("the peer reset the stream with code {0}")]
    Reset(u64),
    /// The connection has ended.
    #[error("the connection has ended")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why a stream was not read to its end.
///
/// ```no_run
/// # async fn example(mut stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::ReadToEndError;
///
/// match stream.read_to_end(64 * 1024).await {
///     Err(ReadToEndError::TooLong { .. }) => stream.abort_read(1)?,
///     result => println!("{} bytes", result?.len()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadToEndError {
    /// The peer sent more bytes than the limit. The stream remains open: abort it.
    #[error("the stream is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<ReadToEndError> for io::Error {
    fn from(error: ReadToEndError) -> Self {
        match error {
            ReadToEndError::TooLong { .. } => Self::new(io::ErrorKind::InvalidData, error),
            ReadToEndError::Read(error) => error.into(),
        }
    }
}

/// Why bytes were not written.
///
/// ```no_run
/// # async fn example(mut stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::WriteError;
///
/// match stream.write_chunk(&"news".into(), false).await {
///     Err(WriteError::Stopped(code)) => println!("the peer needs no more: code {code}"),
///     result => println!("{} bytes", result?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The stream is not started, see [`Stream::poll_start`](super::Stream::poll_start).
    #[error("the stream is not started")]
    NotStarted,
    /// This side finished or aborted the stream, or the stream only receives.
    #[error("the stream is closed for writing")]
    Closed,
    /// The peer asked this side to stop sending (STOP_SENDING), with this code. It needs no more of
    /// the stream.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u64),
    /// The connection has ended.
    #[error("the connection has ended")]
    ConnectionLost(#[source] ConnectionError),
    /// msquic failed.
    #[error("msquic could not send")]
    Other(#[source] Status),
}

impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        let kind = match &error {
            StartError::LimitReached => io::ErrorKind::WouldBlock,
            StartError::Closed | StartError::ConnectionLost(_) => io::ErrorKind::NotConnected,
            StartError::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Closed => io::ErrorKind::NotConnected,
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::ConnectionLost(error) => error.io_kind(),
        };
        Self::new(kind, error)
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::NotStarted | WriteError::Closed => io::ErrorKind::NotConnected,
            WriteError::Stopped(_) => io::ErrorKind::BrokenPipe,
            WriteError::ConnectionLost(error) => error.io_kind(),
            WriteError::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
