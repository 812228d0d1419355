//! The `AsyncRead` and `AsyncWrite` traits of tokio and of futures-io.
//!
//! `poll_flush` is [`WriteStream::flush`]; closing finishes the stream and waits for the peer to
//! acknowledge.

use super::{ReadStream, Stream, WriteStream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

macro_rules! impl_read {
    ($type:ident, $reader:expr) => {
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let reader: &ReadStream = $reader(&*self)?;
                let target = buf.initialize_unfilled();
                let read = ready!(reader.poll_read(cx, target))?;
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
        }

        impl futures_io::AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                let reader: &ReadStream = $reader(&*self)?;
                reader.poll_read(cx, buf).map_err(Into::into)
            }
        }
    };
}

macro_rules! impl_write {
    ($type:ident, $writer:expr) => {
        impl tokio::io::AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                let writer: &WriteStream = $writer(&*self)?;
                writer.poll_write(cx, buf, false).map_err(Into::into)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let writer: &WriteStream = $writer(&*self)?;
                let offset = writer.0.queued();
                let flushed =
                    writer.0.progress.pollers.poll_registered(cx, || writer.0.completed(offset));
                flushed.map_err(Into::into)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let writer: &WriteStream = $writer(&*self)?;
                writer.poll_finish_write(cx).map_err(Into::into)
            }
        }

        impl futures_io::AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                tokio::io::AsyncWrite::poll_write(self, cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                tokio::io::AsyncWrite::poll_flush(self, cx)
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                tokio::io::AsyncWrite::poll_shutdown(self, cx)
            }
        }
    };
}

fn itself<T>(stream: &T) -> io::Result<&T> {
    Ok(stream)
}

fn reader(stream: &Stream) -> io::Result<&ReadStream> {
    Ok(stream.reader()?)
}

fn writer(stream: &Stream) -> io::Result<&WriteStream> {
    Ok(stream.writer()?)
}

impl_read!(ReadStream, itself);
impl_read!(Stream, reader);
impl_write!(WriteStream, itself);
impl_write!(Stream, writer);
