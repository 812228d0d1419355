//! The memory of sends, which is their native context until libmsquic returns it with their last
//! event.

use super::status::Status;
use bytes::Bytes;
use msquic::ffi;
use std::mem;
use std::ptr;

/// The memory of one StreamSend: libmsquic reads the array and the bytes until SEND_COMPLETE (C23).
pub(super) struct StreamSendContext {
    array: Vec<ffi::QUIC_BUFFER>,
    _data: Vec<Bytes>,
}

impl StreamSendContext {
    pub(super) fn new(data: Vec<Bytes>) -> Result<Box<Self>, Status> {
        let array = data.iter().map(buffer).collect::<Result<_, _>>()?;
        Ok(Box::new(Self { array, _data: data }))
    }

    pub(super) fn array(&self) -> &[ffi::QUIC_BUFFER] {
        &self.array
    }
}

/// The memory of one DatagramSend: libmsquic reads array and bytes until the datagram is `SENT` or
/// `CANCELED`, and keeps the context until its final state (C26).
pub(super) struct DatagramContext {
    /// The number of the datagram in this crate.
    pub(super) id: usize,
    buffer: ffi::QUIC_BUFFER,
    data: Bytes,
}

impl DatagramContext {
    pub(super) fn new(id: usize, data: Bytes) -> Result<Box<Self>, Status> {
        Ok(Box::new(Self { id, buffer: buffer(&data)?, data }))
    }

    /// An array of one.
    pub(super) fn array(&self) -> &[ffi::QUIC_BUFFER; 1] {
        std::array::from_ref(&self.buffer)
    }

    /// Frees the bytes, which are in a packet now.
    pub(super) fn release_data(&mut self) {
        self.buffer = ffi::QUIC_BUFFER { Length: 0, Buffer: ptr::null_mut() };
        drop(mem::take(&mut self.data));
    }
}

/// A view of bytes, which libmsquic only reads although the pointer is not const.
fn buffer(bytes: &Bytes) -> Result<ffi::QUIC_BUFFER, Status> {
    Ok(ffi::QUIC_BUFFER {
        Length: u32::try_from(bytes.len()).map_err(|_| Status::INVALID_PARAMETER)?,
        Buffer: bytes.as_ptr().cast_mut(),
    })
}
