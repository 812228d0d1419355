//! A listener at which attempts arrive faster than it refuses them, and a connection that ends at once.

use super::*;
use crate::admission::Place;
use crate::backend::{PeerQuestion, Secured, Session, Transport};
use crate::facts::ConnectionFacts;
use crate::handshake::Handshake;
use crate::options::tests::Config;
use crate::outbox::Work;
use crate::receipts::Control;
use crate::tls::TlsIdentity;
use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{
    CloseOutcome, CloseReason, ConnectError, Limit, NetConnection, NetTransport, RequestError,
};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A backend whose attempts have all arrived. None becomes a connection; what it dials does.
struct Flood;

/// How many attempts there are, more than a task may refuse without yielding.
const ATTEMPTS: u64 = 10_000;

#[expect(unused_variables, reason = "there is no network")]
impl Backend for Flood {
    const NAME: &'static str = "flood";
    const CONFIRMED: CloseOutcome = CloseOutcome::Acknowledged;

    type Config = Config;
    type Socket = Arc<AtomicU64>;
    type Attempt = ();
    type Native = ();
    type Io = ();
    type Question = Infallible;

    fn new(_: &Config) -> Self {
        Self
    }

    async fn listen(
        &self,
        bind_addr: SocketAddr,
        _: &[String],
        _: &TlsIdentity,
    ) -> Result<(Arc<AtomicU64>, SocketAddr), ListenError> {
        coop::yield_now().await; // a shutdown may begin
        Ok((Arc::default(), bind_addr))
    }

    async fn accept(accepted: &Arc<AtomicU64>, _: &ListenerAdmission) -> Option<((), SocketAddr)> {
        let is_left = accepted.fetch_add(1, Ordering::Relaxed) < ATTEMPTS;
        is_left.then_some(((), ([127, 0, 0, 1], 9).into()))
    }

    fn refuse((): (), _: u64) {}

    fn stop(_: Arc<AtomicU64>) {}

    async fn handshake(
        &self,
        (): (),
        local_addr: SocketAddr,
        identity: &TlsIdentity,
        handshake: &Handshake,
        place: Place,
    ) -> Result<(Secured<Self>, Place), ConnectError> {
        unreachable!()
    }

    fn reject(secured: Secured<Self>, limit: Limit, place: Place) {}

    async fn dial(
        &self,
        identity: &TlsIdentity,
        handshake: &Handshake,
    ) -> Result<Secured<Self>, ConnectError> {
        let (local, remote) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let own = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let peer = TrustPolicy::Any.verify(own.certificate_chain().first()).unwrap();
        let facts =
            ConnectionFacts::new(local, remote, own.identity(), peer, None, "test/1".into());
        Ok(Secured { native: (), io: (), facts: facts.with_receipts(true) })
    }

    /// Reads a receipt for the first message after it has found the end of the connection.
    async fn drive(session: Arc<Session<Self>>, (): (), handshake: Handshake) {
        let Work::Frame(_) = session.lane().work().await else { panic!("no message") };
        session.end(CloseReason::TimedOut);
        for _ in 0..10 {
            coop::yield_now().await;
        }
        session.on_control(Control::Receipt { number: 1, is_taken: true });
        session.drained();
    }

    fn abort(session: &Session<Self>, code: u64, reason: &str) {}

    async fn request(session: &Session<Self>, question: Bytes) -> Result<Bytes, RequestError> {
        unreachable!()
    }

    async fn accept_request(session: &Session<Self>) -> Result<Infallible, RequestError> {
        unreachable!()
    }
}

impl PeerQuestion<Flood> for Infallible {
    async fn read(&mut self, _: &Session<Flood>) -> Result<Bytes, RequestError> {
        match *self {}
    }

    async fn answer(&mut self, _: &Session<Flood>, _: Bytes) -> Result<(), RequestError> {
        match *self {}
    }

    fn end(&mut self, _: &Session<Flood>, _: u64) {
        match *self {}
    }

    async fn canceled(&self) {
        match *self {}
    }
}

/// Polls an `accept` that refuses all attempts, since the only place is occupied, until there are none.
async fn accept_in_a_flood() {
    let config = Config::new().max_connections(1);
    let transport = Transport::<Flood>::with_config(config).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let address = ([127, 0, 0, 1], 1).into();
    let listener = transport.create_listener(address, &["test/1"], credential).await.unwrap();
    let mut only = listener.admission.admit(address).unwrap();
    only.complete().unwrap();
    let mut accept = pin!(listener.accept());
    let mut refused = 0;
    loop {
        let accepted = accept.as_mut().now_or_never();
        let before = std::mem::replace(&mut refused, transport.statistics().refused_connections);
        assert!(refused - before < 1000, "{} refused without yielding", refused - before);
        if accepted.is_some() {
            break;
        }
        coop::yield_now().await; // a runtime gives the task a new budget
    }
    assert_eq!(refused, ATTEMPTS);
}

#[tokio::test]
async fn a_receipt_that_arrived_with_the_end_counts() {
    let transport = Transport::<Flood>::new();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let dial = transport.connect(([127, 0, 0, 1], 2).into(), &["test/1"], credential);
    let connection = dial.await.unwrap();
    let sent = tokio::spawn(async move { connection.send_acked("taken".into()).await });
    assert_eq!(sent.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_shutdown_closes_a_listener_that_is_being_created() {
    let transport = Transport::<Flood>::new();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let create = transport.create_listener(([127, 0, 0, 1], 1).into(), &["test/1"], credential);
    let shutdown = transport.shutdown(Duration::ZERO, "");
    let (listener, ()) = tokio::join!(biased; create, shutdown);
    assert!(matches!(listener, Err(ListenError::Transport(_))), "{listener:?}");
}

#[tokio::test]
async fn accept_yields_while_it_refuses_attempts_in_tokio() {
    accept_in_a_flood().await;
}

#[test]
fn accept_yields_while_it_refuses_attempts_in_any_executor() {
    let mut test = pin!(accept_in_a_flood());
    while test.as_mut().now_or_never().is_none() {}
}
