//! `Peer`: one side of a connection, which follows a script.
//!
//! The peer performs the handshake and follows its [`Policy`]: it acknowledges, answers path
//! challenges and confirms the handshake. The script does the rest with [`send`](Peer::send) and
//! [`wait`](Peer::wait). The peer is idle between calls.

mod handshake;
mod host;
mod script;
mod space;

pub use host::{First, Host};
pub use script::{PeerError, Policy, Received};

use crate::frame::Frame;
use crate::gso::Burst;
use crate::initial::initial_keys;
use crate::packet::{Draft, MIN_INITIAL, Protected, Space, VERSION_1};
use crate::params::{INITIAL_SRC, ORIGINAL_DST, Parameters};
use crate::tls::Identity;
use rustls::Side;
use rustls::quic::Connection;
use space::SpaceState;
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// One side of a connection.
///
/// ```no_run
/// use quic_attack::{Frame, Identity, Parameters, Peer, Space};
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let identity = Identity::new(&["test/1"]);
/// let address = "127.0.0.1:4433".parse()?;
/// let mut peer = Peer::connect(address, &identity, Parameters::generous(), second)?;
/// peer.send(Space::Data, &[Frame::Ping])?;
/// let close = peer.wait(second, |received| received.has_close());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Peer {
    /// The automatic behaviour of the peer. The script may change it at any time.
    pub policy: Policy,
    /// Connection IDs of the other side by sequence number; the first is in use.
    pub remote_ids: Vec<(u64, Vec<u8>)>,
    /// The index of the default socket for sending; initially 0.
    pub socket: usize,
    sockets: Vec<UdpSocket>,
    remote: SocketAddr,
    src: Vec<u8>,
    tls: Connection,
    spaces: [SpaceState; 3],
    /// Where TLS writes next.
    write_space: Space,
    is_confirmed: bool,
    closed: Option<Frame>,
    /// Packets whose keys are not available yet.
    early: Vec<(Protected, usize)>,
    held: Vec<(usize, Vec<u8>)>,
    /// How many packets could not be decrypted.
    unreadable: usize,
}

impl Peer {
    /// Creates a client and sends its ClientHello.
    ///
    /// # Errors
    ///
    /// [`PeerError::Io`].
    pub fn client(
        remote: SocketAddr,
        identity: &Identity,
        mut parameters: Parameters,
        policy: Policy,
    ) -> Result<Self, PeerError> {
        let mut rng = fastrand::Rng::new();
        let (dst, src) = (random_id(&mut rng), random_id(&mut rng));
        parameters.set(INITIAL_SRC, &src[..]);
        let tls = identity.client(&parameters);
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let mut peer = Self::new(socket, remote, tls, src, dst.clone(), policy);
        peer.spaces[0].keys = Some(initial_keys(&dst, Side::Client));
        peer.flush()?;
        Ok(peer)
    }

    /// Creates a client and completes the handshake.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub fn connect(
        remote: SocketAddr,
        identity: &Identity,
        parameters: Parameters,
        timeout: Duration,
    ) -> Result<Self, PeerError> {
        let mut peer = Self::client(remote, identity, parameters, Policy::default())?;
        peer.handshake(timeout)?;
        Ok(peer)
    }

    fn server(
        socket: UdpSocket,
        first: &First,
        identity: &Identity,
        mut parameters: Parameters,
        policy: Policy,
    ) -> Result<Self, PeerError> {
        let src = random_id(&mut fastrand::Rng::new());
        if parameters.get(ORIGINAL_DST).is_none() {
            parameters.set(ORIGINAL_DST, &first.dst[..]);
        }
        parameters.set(INITIAL_SRC, &src[..]);
        let tls = identity.server(&parameters);
        let mut peer = Self::new(socket, first.remote, tls, src, first.src.clone(), policy);
        peer.spaces[0].keys = Some(initial_keys(&first.dst, Side::Server));
        peer.take_datagram(&first.datagram, 0)?;
        Ok(peer)
    }

    fn new(
        socket: UdpSocket,
        remote: SocketAddr,
        tls: Connection,
        src: Vec<u8>,
        dst: Vec<u8>,
        policy: Policy,
    ) -> Self {
        Self {
            policy,
            remote_ids: vec![(0, dst)],
            socket: 0,
            sockets: vec![socket],
            remote,
            src,
            tls,
            spaces: Default::default(),
            write_space: Space::Initial,
            is_confirmed: false,
            closed: None,
            early: Vec::new(),
            held: Vec::new(),
            unreadable: 0,
        }
    }

    /// Waits until the handshake is confirmed: a client for HANDSHAKE_DONE, a server for Finished.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub fn handshake(&mut self, timeout: Duration) -> Result<(), PeerError> {
        let deadline = Instant::now() + timeout;
        self.flush()?;
        while !self.is_confirmed {
            if let Some(frame) = &self.closed {
                return Err(PeerError::Closed(frame.clone()));
            }
            if self.receive(deadline)?.is_none() {
                return Err(PeerError::TimedOut);
            }
        }
        Ok(())
    }

    /// Sends one packet with `frames` and returns its number.
    ///
    /// # Errors
    ///
    /// [`PeerError::Io`].
    ///
    /// # Panics
    ///
    /// If the keys of the space are not available yet.
    pub fn send(&mut self, space: Space, frames: &[Frame]) -> Result<u64, PeerError> {
        self.send_from(self.socket, space, frames)
    }

    /// Sends one packet through a socket of the peer and returns its number.
    ///
    /// # Errors
    ///
    /// [`PeerError::Io`].
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send), and if there is no such socket.
    pub fn send_from(
        &mut self,
        socket: usize,
        space: Space,
        frames: &[Frame],
    ) -> Result<u64, PeerError> {
        let number = self.spaces[space as usize].next_number;
        let packet = self.seal(space, frames);
        self.transmit(socket, packet)?;
        Ok(number)
    }

    /// Returns a packet with `frames` without sending it. Initial packets have 1200 bytes.
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    pub fn seal(&mut self, space: Space, frames: &[Frame]) -> Vec<u8> {
        let mut payload = Frame::encode_all(frames);
        let state = &mut self.spaces[space as usize];
        let number = state.next_number;
        state.next_number += 1;
        let keys = &state.keys.as_ref().expect("the keys of this space").local;
        let (dst, src, version) = (&self.remote_ids[0].1[..], &self.src[..], VERSION_1);
        let draft = Draft { space, version, dst, src, token: &[], number };
        if space == Space::Initial {
            let without = draft.seal(keys, &[]).len();
            payload.resize(payload.len().max(MIN_INITIAL.saturating_sub(without)), 0);
        }
        draft.seal(keys, &payload)
    }

    /// Sends raw bytes through a socket of the peer.
    ///
    /// # Errors
    ///
    /// [`PeerError::Io`].
    ///
    /// # Panics
    ///
    /// If there is no such socket.
    pub fn transmit(&mut self, socket: usize, bytes: Vec<u8>) -> Result<(), PeerError> {
        if self.policy.holds {
            self.held.push((socket, bytes));
            return Ok(());
        }
        match self.sockets[socket].send_to(&bytes, self.remote) {
            // The error of an earlier datagram: the remote socket is closed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    /// Sends packets of equal length in as few system calls as the system allows, so that they
    /// arrive as a batch.
    ///
    /// # Errors
    ///
    /// [`PeerError::Io`].
    ///
    /// # Panics
    ///
    /// If there is no such socket, or no packet.
    pub fn transmit_batch(&mut self, socket: usize, packets: &[Vec<u8>]) -> Result<(), PeerError> {
        let socket = &self.sockets[socket];
        let burst = Burst::new(socket)?;
        for batch in packets.chunks(burst.limit()) {
            burst.send(socket, self.remote, &batch.concat(), packets[0].len())?;
        }
        Ok(socket.set_nonblocking(false)?)
    }

    /// Sends the held packets in order, and stops holding.
    ///
    /// # Errors
    ///
    /// [`PeerError::Io`].
    pub fn release(&mut self) -> Result<(), PeerError> {
        self.policy.holds = false;
        for (socket, bytes) in std::mem::take(&mut self.held) {
            self.transmit(socket, bytes)?;
        }
        Ok(())
    }

    /// Opens another socket, with another port, and returns its index. The first one has 0.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn add_socket(&mut self) -> io::Result<usize> {
        self.sockets.push(UdpSocket::bind("127.0.0.1:0")?);
        Ok(self.sockets.len() - 1)
    }

    /// Waits for a packet that satisfies `is_wanted`, and handles all earlier packets. `None` if
    /// none arrives in time.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub fn wait(
        &mut self,
        timeout: Duration,
        mut is_wanted: impl FnMut(&Received) -> bool,
    ) -> Result<Option<Received>, PeerError> {
        let deadline = Instant::now() + timeout;
        while let Some(packets) = self.receive(deadline)? {
            if let Some(found) = packets.into_iter().find(&mut is_wanted) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Handles one datagram and returns its packets; `None` if none arrives before `deadline`.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<Vec<Received>>, PeerError> {
        let mut buffer = vec![0; 65_536];
        loop {
            for socket in 0..self.sockets.len() {
                let left = deadline.saturating_duration_since(Instant::now());
                let slice = if self.sockets.len() == 1 { left } else { left.min(SLICE) };
                self.sockets[socket].set_read_timeout(Some(slice.max(SHORTEST)))?;
                let Ok((length, from)) = self.sockets[socket].recv_from(&mut buffer) else {
                    continue;
                };
                if from == self.remote {
                    return self.take_datagram(&buffer[..length], socket).map(Some);
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Returns the CONNECTION_CLOSE of the other side, if there was one.
    pub fn closed(&self) -> Option<&Frame> {
        self.closed.as_ref()
    }

    /// Returns the largest packet number of `space` that the other side acknowledged.
    pub fn acknowledged(&self, space: Space) -> Option<u64> {
        self.spaces[space as usize].acknowledged
    }

    /// Returns the number of the next packet.
    pub fn next_number(&self, space: Space) -> u64 {
        self.spaces[space as usize].next_number
    }

    /// Returns how many packets could not be decrypted, such as stateless resets.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Returns the transport parameters of the other side, when they are known.
    pub fn remote_parameters(&self) -> Option<Parameters> {
        self.tls.quic_transport_parameters().map(Parameters::decode)
    }

    /// Returns whether TLS has completed.
    pub fn is_complete(&self) -> bool {
        !self.tls.is_handshaking()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("remote", &self.remote).field("closed", &self.closed).finish()
    }
}

fn random_id(rng: &mut fastrand::Rng) -> Vec<u8> {
    rng.u64(..).to_be_bytes().to_vec()
}

/// How long one socket is polled before the next.
const SLICE: Duration = Duration::from_millis(2);

/// The smallest timeout, because zero means none.
const SHORTEST: Duration = Duration::from_micros(100);
