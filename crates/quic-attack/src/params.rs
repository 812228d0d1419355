//! Transport parameters (RFC 9000, section 18), valid or invalid.

use crate::varint::{Reader, put};

/// A list of transport parameters in the order in which they are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters(Vec<(u64, Vec<u8>)>);

/// `original_destination_connection_id`.
pub const ORIGINAL_DST: u64 = 0x00;
/// `max_idle_timeout`, in milliseconds.
pub const MAX_IDLE_TIMEOUT: u64 = 0x01;
/// `initial_max_data`.
pub const MAX_DATA: u64 = 0x04;
/// `initial_max_stream_data_bidi_local`.
pub const MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
/// `initial_max_stream_data_bidi_remote`.
pub const MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
/// `initial_max_stream_data_uni`.
pub const MAX_STREAM_DATA_UNI: u64 = 0x07;
/// `initial_max_streams_bidi`.
pub const MAX_STREAMS_BIDI: u64 = 0x08;
/// `initial_max_streams_uni`.
pub const MAX_STREAMS_UNI: u64 = 0x09;
/// `active_connection_id_limit`.
pub const ACTIVE_ID_LIMIT: u64 = 0x0e;
/// `initial_source_connection_id`.
pub const INITIAL_SRC: u64 = 0x0f;
/// `retry_source_connection_id`.
pub const RETRY_SRC: u64 = 0x10;

impl Parameters {
    /// Creates parameters with generous limits and an idle timeout of 30 s.
    pub fn generous() -> Self {
        let mut parameters = Self::default();
        parameters.set_integer(MAX_IDLE_TIMEOUT, 30_000);
        for limit in
            [MAX_DATA, MAX_STREAM_DATA_BIDI_LOCAL, MAX_STREAM_DATA_BIDI_REMOTE, MAX_STREAM_DATA_UNI]
        {
            parameters.set_integer(limit, 16 << 20);
        }
        parameters.set_integer(MAX_STREAMS_BIDI, 100);
        parameters.set_integer(MAX_STREAMS_UNI, 100);
        parameters.set_integer(ACTIVE_ID_LIMIT, 8);
        parameters
    }

    /// Sets a parameter to bytes, replacing its value.
    pub fn set(&mut self, id: u64, value: impl Into<Vec<u8>>) {
        self.0.retain(|(other, _)| *other != id);
        self.0.push((id, value.into()));
    }

    /// Sets a parameter to an integer.
    pub fn set_integer(&mut self, id: u64, value: u64) {
        let mut bytes = Vec::new();
        put(&mut bytes, value);
        self.set(id, bytes);
    }

    /// Returns the bytes of a parameter.
    pub fn get(&self, id: u64) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == id).map(|(_, value)| &value[..])
    }

    /// Encodes the parameters.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, value) in &self.0 {
            put(&mut out, *id);
            put(&mut out, value.len() as u64);
            out.extend_from_slice(value);
        }
        out
    }

    /// Decodes parameters up to the first invalid one.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut reader = Reader::new(bytes);
        let mut parameters = Self::default();
        while let (Ok(id), Ok(value)) = (reader.varint(), reader.counted()) {
            parameters.0.push((id, value.to_vec()));
        }
        parameters
    }
}
