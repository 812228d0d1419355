//! `StreamType`: bidirectional or unidirectional.

/// The kind of a stream.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::StreamType;
///
/// let stream = connection.open_outbound_stream(StreamType::Unidirectional, false).await?;
/// let (read, write) = stream.split();
/// assert!(read.is_none() && write.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamType {
    /// Both sides send.
    Bidirectional,
    /// Only the side that opened it sends.
    Unidirectional,
}
