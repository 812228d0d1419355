//! The handles of the script, and what has happened to them.

use super::memory::Memory;
use super::tickets::Tickets;
use crate::DatagramCounts;
use msquic::ffi::{self, HQUIC, QUIC_STATUS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::c_void;

/// A pointer of this crate, which only its callbacks use.
#[derive(Clone, Copy)]
pub(super) struct Context(pub(super) *mut c_void);

// SAFETY: C1: callbacks may come from any thread.
unsafe impl Send for Context {}

pub(super) type StreamCallback =
    unsafe extern "C" fn(HQUIC, *mut c_void, *mut ffi::QUIC_STREAM_EVENT) -> QUIC_STATUS;
pub(super) type ConnectionCallback =
    unsafe extern "C" fn(HQUIC, *mut c_void, *mut ffi::QUIC_CONNECTION_EVENT) -> QUIC_STATUS;

pub(super) type ListenerCallback =
    unsafe extern "C" fn(HQUIC, *mut c_void, *mut ffi::QUIC_LISTENER_EVENT) -> QUIC_STATUS;

pub(super) struct World {
    pub(super) handles: usize,
    /// Configurations whose streams have several receives at a time.
    pub(super) receive_several: BTreeSet<usize>,
    pub(super) listeners: BTreeMap<usize, Listener>,
    /// How many listeners have had their last event.
    pub(super) stops: usize,
    pub(super) connections: BTreeMap<usize, Connection>,
    pub(super) streams: BTreeMap<usize, Stream>,
    /// The next call that may fail does.
    pub(super) fails: bool,
}

pub(super) struct Listener {
    pub(super) callback: Option<(ListenerCallback, Context)>,
    pub(super) is_listening: bool,
    pub(super) was_started: bool,
    pub(super) is_closed: bool,
}

pub(super) struct Connection {
    pub(super) callback: Option<(ConnectionCallback, Context)>,
    pub(super) is_started: bool,
    pub(super) is_judged: bool,
    pub(super) is_connected: bool,
    pub(super) is_closing: bool,
    /// The close of the peer or of the transport was reported, which may overlap with a close by this side.
    pub(super) is_initiated: bool,
    pub(super) is_complete: bool,
    pub(super) is_closed: bool,
    /// Its streams have several receives at a time.
    pub(super) receives_several: bool,
    /// The sends that are not in their final state, and whether they were sent.
    pub(super) datagrams: VecDeque<(Context, bool)>,
    pub(super) counts: DatagramCounts,
    pub(super) tickets: Tickets,
}

#[derive(PartialEq, Eq)]
pub(super) enum Start {
    No,
    Requested,
    Done,
    Failed,
}

pub(super) struct Stream {
    pub(super) connection: usize,
    pub(super) callback: Option<(StreamCallback, Context)>,
    pub(super) start: Start,
    /// The sends that are not completed, with their lengths.
    pub(super) sends: VecDeque<(Context, usize)>,
    pub(super) sent: Vec<u8>,
    /// How many bytes were completed and not cancelled.
    pub(super) completed: u64,
    pub(super) is_fin_sent: bool,
    pub(super) is_fin_acknowledged: bool,
    pub(super) is_send_aborted: bool,
    pub(super) is_send_over: bool,
    pub(super) memory: Memory,
    /// The end has arrived behind the bytes.
    pub(super) is_fin_arrived: bool,
    pub(super) receives_several: bool,
    pub(super) is_enabled: bool,
    pub(super) is_receive_aborted: bool,
    pub(super) is_receive_over: bool,
    /// The peer has reset its direction.
    pub(super) is_reset: bool,
    pub(super) is_of_peer: bool,
    pub(super) is_immediate: bool,
    pub(super) is_complete: bool,
    pub(super) is_closed: bool,
}

impl World {
    pub(super) const fn new() -> Self {
        Self {
            handles: 0,
            receive_several: BTreeSet::new(),
            listeners: BTreeMap::new(),
            stops: 0,
            connections: BTreeMap::new(),
            streams: BTreeMap::new(),
            fails: false,
        }
    }

    pub(super) fn add(&mut self) -> usize {
        self.handles += 1;
        self.handles
    }

    /// Adds a connection without a callback, until it is adopted.
    pub(super) fn add_connection(&mut self) -> usize {
        let id = self.add();
        let connection = Connection {
            callback: None,
            is_started: false,
            is_judged: false,
            is_connected: false,
            is_closing: false,
            is_initiated: false,
            is_complete: false,
            is_closed: false,
            receives_several: false,
            datagrams: VecDeque::new(),
            counts: DatagramCounts::default(),
            tickets: Tickets::default(),
        };
        self.connections.insert(id, connection);
        id
    }

    pub(super) fn add_stream(
        &mut self,
        connection: usize,
        callback: Option<(StreamCallback, Context)>,
        start: Start,
    ) -> usize {
        let id = self.add();
        let receives_several = self.connections[&connection].receives_several;
        let stream = Stream {
            connection,
            callback,
            start,
            sends: VecDeque::new(),
            sent: Vec::new(),
            completed: 0,
            is_fin_sent: false,
            is_fin_acknowledged: false,
            is_send_aborted: false,
            is_send_over: false,
            memory: Memory::default(),
            is_fin_arrived: false,
            receives_several,
            is_enabled: true,
            is_receive_aborted: false,
            is_receive_over: false,
            is_reset: false,
            is_of_peer: false,
            is_immediate: false,
            is_complete: false,
            is_closed: false,
        };
        self.streams.insert(id, stream);
        id
    }
}
