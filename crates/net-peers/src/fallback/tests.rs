//! Which of two errors is returned, and changes of both listeners.

use super::*;
use net_traits::{AcceptError, Cause, CredentialError, Rejection, close_code};
use net_traits_test::memory::{MemoryConnection, MemoryIncomingRequest};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Which error is returned: the row is that of the primary transport, the column that of the
/// secondary. An uppercase letter is a retryable error; that of a final error stands for both.
const TABLE: [&str; 12] = [
    "  p u c r n f t l i k s",
    "p p p P p p P p P p p p",
    "u p u U u u U u U u u u",
    "c P U C C C C C C C C C",
    "r p u R r r R r R r r r",
    "n p u C r n N n N n n n",
    "f P U C R N F F F F F F",
    "t p u C r n F T T T T T",
    "l P U C R N F L L L L L",
    "i p u C r n F T L i i i",
    "k p u C r n F T L k k k",
    "s p u C r n F T L s s s",
];

#[test]
fn the_error_of_a_dial_tells_what_to_do_and_whether_to_dial_again() {
    let remote_addr = SocketAddr::from(([192, 0, 2, 1], 443));
    let reason = String::new;
    let rejected = |by| ConnectError::Rejected(Rejection::new(by, remote_addr, ""));
    let closed_by_peer = |code| CloseReason::Peer { code, reason: reason() };
    let lost = CloseReason::Transport(Cause::new(io::Error::from(io::ErrorKind::ConnectionReset)));
    let errors = [
        ('p', rejected(RejectionBy::Peer)),
        ('u', rejected(RejectionBy::Us)),
        ('c', ConnectError::Closed(closed_by_peer(1))),
        ('r', ConnectError::Closed(closed_by_peer(close_code::REVOKED))),
        ('n', ConnectError::NoCommonAlpn { remote_addr, offered: Vec::new() }),
        ('f', ConnectError::Refused(remote_addr)),
        ('t', ConnectError::TimedOut { remote_addr, after: Duration::from_secs(10) }),
        ('l', ConnectError::Closed(lost)),
        ('i', ConnectError::InvalidInput("port 0".to_owned())),
        ('k', ConnectError::Credential(CredentialError::NoCertificate)),
        ('s', ConnectError::Closed(CloseReason::Local { code: 0, reason: reason() })),
    ];
    let letter = |error: &ConnectError| {
        let plain = match error.clone() {
            ConnectError::Rejected(rejection) => rejection.with_retryable(false).into(),
            ConnectError::BothFailed { specific, .. } => *specific,
            error => error,
        };
        let (letter, _) = errors.iter().find(|(_, it)| *it == plain).unwrap();
        if error.is_retryable() { letter.to_ascii_uppercase() } else { *letter }
    };
    let header = errors.iter().map(|(column, _)| format!(" {column}")).collect::<String>();
    assert_eq!(TABLE[0], format!(" {header}"));
    for ((row, primary), expected) in errors.iter().zip(&TABLE[1..]) {
        let returned = errors.iter().map(|(_, secondary)| {
            format!(" {}", letter(&combined(primary.clone(), secondary.clone())))
        });
        assert_eq!(*expected, format!("{row}{}", returned.collect::<String>()));
    }
}

/// A listener that is slow to replace its credential: a change of trust can overtake it.
#[derive(Debug, Default)]
struct Slow {
    has_credential: AtomicBool,
    rejects_all: AtomicBool,
}

#[async_trait]
impl NetListener for Slow {
    type Connection = MemoryConnection;
    type IncomingRequest = MemoryIncomingRequest;

    async fn accept(&self) -> Result<MemoryIncomingRequest, AcceptError> {
        Err(AcceptError::Closed)
    }

    fn local_addr(&self) -> SocketAddr {
        ([10, 0, 0, 1], 1).into()
    }

    fn set_credential(&self, _trusts_all: NetCredential) -> Result<(), ListenError> {
        self.has_credential.store(true, Ordering::SeqCst);
        for _ in 0..2_000 {
            if self.rejects_all.load(Ordering::SeqCst) {
                break;
            }
            thread::yield_now();
        }
        self.rejects_all.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn set_trust(&self, _rejects_all: TrustPolicy) {
        self.rejects_all.store(true, Ordering::SeqCst);
    }
}

#[test]
fn both_listeners_have_the_same_trust() {
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    for _ in 0..5 {
        let (primary, secondary) = Default::default();
        let of_listener = Mutex::new(credential.clone());
        let listener: FallbackListener<Slow, Slow> =
            FallbackListener { primary, secondary, credential: of_listener };
        thread::scope(|scope| {
            scope.spawn(|| listener.set_credential(credential.clone()).unwrap());
            while !listener.secondary.has_credential.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            listener.set_trust(TrustPolicy::reject_all());
        });
        for transport in [&listener.primary, &listener.secondary] {
            assert!(
                transport.rejects_all.load(Ordering::SeqCst),
                "the last change applies to both"
            );
        }
    }
}
