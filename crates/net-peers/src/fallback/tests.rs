//! Which of two errors is returned, and changes of both listeners.

use super::*;
use net_traits::{AcceptError, Cause, CredentialError, Rejection};
use net_traits_test::memory::{MemoryConnection, MemoryIncomingRequest};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[test]
fn of_two_errors_the_more_specific_one_is_returned() {
    let remote_addr = SocketAddr::from(([192, 0, 2, 1], 443));
    let closed = |code| CloseReason::Peer { code, reason: String::new() };
    let local = CloseReason::Local { code: 0, reason: String::new() };
    let lost = CloseReason::Transport(Cause::new("lost"));
    let timed_out = ConnectError::TimedOut { remote_addr, after: Duration::from_secs(10) };
    let rejected = |by| ConnectError::Rejected(Rejection::new(by, remote_addr, ""));
    let descending: Vec<(usize, ConnectError)> = [
        vec![rejected(RejectionBy::Peer)],
        vec![rejected(RejectionBy::Us)],
        vec![ConnectError::Closed(closed(1))],
        vec![ConnectError::NoCommonAlpn { remote_addr, offered: Vec::new() }],
        vec![ConnectError::Refused(remote_addr)],
        vec![timed_out, ConnectError::Closed(lost)],
        vec![
            ConnectError::InvalidInput("port 0".to_owned()),
            ConnectError::Credential(CredentialError::NoCertificate),
            ConnectError::Closed(local),
        ],
    ]
    .into_iter()
    .enumerate()
    .flat_map(|(place, errors)| errors.into_iter().map(move |error| (place, error)))
    .collect();
    for (place, primary) in &descending {
        for (other, secondary) in &descending {
            let expected = if other < place { secondary } else { primary };
            let chosen = most_specific(primary.clone(), secondary.clone());
            assert_eq!(&chosen, expected, "{primary} and {secondary}");
        }
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
