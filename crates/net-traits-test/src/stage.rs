//! `Stage`: the environment of a behaviour: transports, credentials and connected peers.

use crate::{Harness, Limits, Path, RawPeer};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use net_traits::{
    ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    TrustPolicy,
};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::time::sleep;

/// The application protocol of peers, unless a behaviour is about protocols.
pub(crate) const ALPN: &str = "conformance/1";

/// How long to wait for an event that should not happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

/// Polling interval for an event that happens soon.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

pub(crate) type Transport<H> = <H as Harness>::Transport;
pub(crate) type Listener<H> = <Transport<H> as NetTransport>::Listener;
pub(crate) type Connection<H> = <Transport<H> as NetTransport>::Connection;
pub(crate) type Connected<H> = Result<Connection<H>, ConnectError>;

/// The argument of a behaviour: the harness, and which peer dials.
pub struct Stage<H> {
    pub(crate) harness: Arc<H>,
    pub(crate) is_swapped: bool,
}

/// Two connected peers. Which of them dialled depends on the stage.
pub struct Pair<H: Harness> {
    /// One end.
    pub one: Connection<H>,
    /// The other end.
    pub other: Connection<H>,
    /// The listener that accepted one of them.
    pub listener: Listener<H>,
    /// The transports of the dialler and the listener.
    pub transports: [H::Transport; 2],
}

impl<H: Harness> Stage<H> {
    pub(crate) fn transport(&self) -> H::Transport {
        self.harness.transport(&Limits::default())
    }

    pub(crate) fn transport_with(&self, limits: Limits) -> H::Transport {
        self.harness.transport(&limits)
    }

    pub(crate) async fn listen(
        &self,
        transport: &H::Transport,
        credential: NetCredential,
    ) -> Listener<H> {
        let listener = transport.create_listener(self.harness.bind_addr(), &[ALPN], credential);
        listener.await.expect("listening on a free port works")
    }

    /// Connects a raw peer to a listener; returns it and the accepted connection.
    pub(crate) async fn meet_raw(
        &self,
        listener: &Listener<H>,
    ) -> (Box<dyn RawPeer>, Connection<H>) {
        let dialler = credential(TrustPolicy::Any);
        let dial = self.harness.raw_peer(listener.local_addr(), ALPN, dialler);
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        tokio::join!(dial, accept)
    }

    /// Connects two peers with the default limits.
    pub(crate) async fn meet(&self) -> Pair<H> {
        self.meet_with(Limits::default()).await
    }

    /// Connects two peers with these limits.
    pub(crate) async fn meet_with(&self, limits: Limits) -> Pair<H> {
        self.meet_at(limits, async |listener| listener).await
    }

    /// Connects two peers over a path that can be interrupted.
    pub(crate) async fn meet_over_path(&self) -> (Pair<H>, Box<dyn Path>) {
        let mut path = None;
        let pair = self.meet_at(Limits::default(), async |listener| {
            path.insert(self.harness.path(listener).await).address()
        });
        let pair = pair.await;
        (pair, path.expect("the path was created before the peers have met"))
    }

    /// Connects two peers. The one that dials uses the address that `address` returns for that of
    /// the listener.
    async fn meet_at(
        &self,
        limits: Limits,
        address: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
    ) -> Pair<H> {
        let (for_listener, for_dialler) = credentials();
        let transports = [self.transport_with(limits.clone()), self.transport_with(limits)];
        let listener = self.listen(&transports[1], for_listener).await;
        let address = address(listener.local_addr()).await;
        let (dialled, accepted) =
            introduce_at::<H>(&transports[0], &listener, address, for_dialler).await;
        let dialled = dialled.expect("peers that trust each other connect");
        let accepted = accepted.expect("peers that trust each other are accepted");
        let (one, other) = if self.is_swapped { (accepted, dialled) } else { (dialled, accepted) };
        Pair { one, other, listener, transports }
    }
}

/// Dials and accepts; returns the result of each side. A fallback may make a further attempt after
/// one that failed: the last one counts.
pub(crate) async fn introduce<H: Harness>(
    transport: &H::Transport,
    listener: &Listener<H>,
    credential: NetCredential,
) -> (Connected<H>, Connected<H>) {
    introduce_at::<H>(transport, listener, listener.local_addr(), credential).await
}

/// Dials `address` of the listener and accepts, see [`introduce`].
pub(crate) async fn introduce_at<H: Harness>(
    transport: &H::Transport,
    listener: &Listener<H>,
    address: SocketAddr,
    credential: NetCredential,
) -> (Connected<H>, Connected<H>) {
    let failed = Mutex::new(None);
    let is_busy = AtomicBool::new(false);
    let accept = async {
        loop {
            let request = listener.accept().await.expect("a listener accepts until it is closed");
            is_busy.store(true, Ordering::SeqCst);
            match request.accept().await {
                Ok(connection) => return connection,
                Err(error) => *failed.lock() = Some(error),
            }
            is_busy.store(false, Ordering::SeqCst);
        }
    };
    let (dial, accept) = (pin!(dial::<H>(transport, address, credential)), pin!(accept));
    match select(dial, accept).await {
        Either::Right((accepted, dial)) => (dial.await, Ok(accepted)),
        Either::Left((dialled, mut accept)) => {
            let accepted = poll_fn(|context| match accept.as_mut().poll(context) {
                Poll::Ready(accepted) => Poll::Ready(Ok(accepted)),
                Poll::Pending if is_busy.load(Ordering::SeqCst) => Poll::Pending,
                Poll::Pending => {
                    failed.lock().take().map_or(Poll::Pending, |it| Poll::Ready(Err(it)))
                }
            });
            let accepted = accepted.await;
            (dialled, accepted)
        }
    }
}

pub(crate) async fn dial<H: Harness>(
    transport: &H::Transport,
    address: SocketAddr,
    credential: NetCredential,
) -> Connected<H> {
    transport.connect(address, &[ALPN], credential).await
}

/// Creates credentials of a listener and a dialler that trust only each other.
pub(crate) fn credentials() -> (NetCredential, NetCredential) {
    let listener = credential(TrustPolicy::reject_all());
    let dialler = credential(TrustPolicy::hashes([listener.identity()]));
    (listener.with_trust(TrustPolicy::hashes([dialler.identity()])), dialler)
}

/// Creates an identity with the policy `trust`.
pub(crate) fn credential(trust: TrustPolicy) -> NetCredential {
    NetCredential::self_signed(trust).expect("the system's random source works")
}

/// Sends one message each way.
pub(crate) async fn greet<C: NetConnection>(one: &C, other: &C) {
    for (from, to) in [(one, other), (other, one)] {
        from.send(b"hello").await.expect("a message can be sent");
        assert_eq!(to.recv().await.expect("it arrives").0, "hello");
    }
}

/// Creates a message of `length` ASCII characters that reveals swapped and lost parts.
pub(crate) fn pattern(length: usize) -> Bytes {
    const CHARACTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-abcdefghijklmnopqrs.";
    let mut pattern = CHARACTERS.repeat(length / CHARACTERS.len() + 1);
    pattern.truncate(length);
    pattern.into()
}

/// Creates a message of `length` bytes that begins with a number.
pub(crate) fn numbered(number: u32, length: usize) -> Bytes {
    let number = format!("{number:08} ");
    [number.as_bytes(), &pattern(length.saturating_sub(number.len()))].concat().into()
}

/// Returns the number of a [`numbered`] message, and checks that it is complete.
pub(crate) fn number(message: &Bytes) -> u32 {
    let text = std::str::from_utf8(message.get(..8).unwrap_or_default()).unwrap_or_default();
    let number = text.parse().unwrap_or_else(|_| panic!("{text:?} does not begin a message"));
    assert!(numbered(number, message.len()) == message, "message {number} arrived damaged");
    number
}

/// Polls futures of `make` once each, dropping them, until one is ready.
pub(crate) async fn poll_once_until_ready<F: Future>(mut make: impl FnMut() -> F) -> F::Output {
    loop {
        if let Some(output) = make().now_or_never() {
            return output;
        }
        sleep(PAUSE).await;
    }
}
