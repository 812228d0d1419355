//! Identities of peers, trust, and how rejections are reported.

use crate::Harness;
use crate::stage::{
    ALPN, Connected, Pair, Stage, credential, credentials, greet, introduce, number, numbered,
};
use net_traits::{
    CertHash, CertificateDer, CloseReason, ConnectError, EndorsementValidity, Endorser, Endorsers,
    IdentityKey, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    PeerIdentity, PeerVerifier, RecvError, Rejection, RejectionBy, TrustPolicy, close_code,
};
use std::time::{Duration, SystemTime};

/// Each side knows both identities: the hashes of the certificates that were presented.
///
/// Nothing else identifies a peer.
pub async fn identities_match<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (of_listener, of_dialler) = (for_listener.identity(), for_dialler.identity());
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
    let sides =
        [(dialled.unwrap(), of_dialler, of_listener), (accepted.unwrap(), of_listener, of_dialler)];
    for (connection, local, remote) in sides {
        assert_eq!(connection.local_identity(), local.to_string());
        assert_eq!(connection.remote_identity(), remote.to_string());
        assert_eq!(connection.peer_identity().hash, remote);
        let certificate = connection.remote_certificate();
        assert!(certificate.is_none_or(|certificate| CertHash::of(&certificate) == remote));
    }
}

/// Each side knows which keys endorse the other.
///
/// The permissions of a peer often depend on its endorsers.
pub async fn endorsers_are_reported<H: Harness>(stage: Stage<H>) {
    let endorser = Endorser::generate().unwrap();
    let trust = TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]));
    let (for_listener, for_dialler) = (endorsed(&endorser, &trust), endorsed(&endorser, &trust));
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
    for connection in [dialled.unwrap(), accepted.unwrap()] {
        assert_eq!(connection.peer_identity().endorsers, [endorser.key()]);
    }
}

fn endorsed(endorser: &Endorser, trust: &TrustPolicy) -> NetCredential {
    endorsed_for(endorser, trust, EndorsementValidity::unlimited())
}

fn endorsed_for(
    endorser: &Endorser,
    trust: &TrustPolicy,
    validity: EndorsementValidity,
) -> NetCredential {
    let key = IdentityKey::generate().unwrap();
    let endorsement = endorser.endorse(&key.public_key_info(), validity);
    let signed = key.self_sign(&["conformance.example"], &[endorsement]).unwrap();
    signed.credential(trust.clone()).unwrap()
}

/// Every kind of [`TrustPolicy`] accepts exactly the trusted peers, as dialler and as listener.
///
/// A transport that ignores a kind or a side accepts untrusted peers, and no other behaviour
/// detects it.
pub async fn every_trust_policy_is_applied<H: Harness>(stage: Stage<H>) {
    let (endorser, stranger) = (Endorser::generate().unwrap(), Endorser::generate().unwrap());
    let peer = endorsed(&endorser, &TrustPolicy::Any);
    let another = credential(TrustPolicy::Any).identity();
    let endorsers = |endorser: &Endorser| Endorsers::new([endorser.key()]);
    let policies = [
        (TrustPolicy::Any, true),
        (TrustPolicy::reject_all(), false),
        (TrustPolicy::hashes([another, peer.identity()]), true),
        (TrustPolicy::hashes([another]), false),
        (TrustPolicy::endorsed_by(endorsers(&endorser)), true),
        (TrustPolicy::endorsed_by(endorsers(&stranger)), false),
        (TrustPolicy::hashes_or_endorsed_by([another], endorsers(&endorser)), true),
        (TrustPolicy::hashes_or_endorsed_by([peer.identity()], endorsers(&stranger)), true),
        (TrustPolicy::hashes_or_endorsed_by([another], endorsers(&stranger)), false),
        (TrustPolicy::custom(Only(peer.identity())), true),
        (TrustPolicy::custom(Only(another)), false),
    ];
    for (policy, accepts) in policies {
        for judge_listens in [true, false] {
            let judge = credential(policy.clone());
            let (for_listener, for_dialler) =
                if judge_listens { (judge, peer.clone()) } else { (peer.clone(), judge) };
            let (transport, dialler) = (stage.transport(), stage.transport());
            let listener = stage.listen(&transport, for_listener).await;
            let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
            let judged = if judge_listens { &accepted } else { &dialled };
            assert_eq!(judged.is_ok(), accepts, "{policy:?}, listening: {judge_listens}");
        }
    }
}

struct Only(CertHash);

impl PeerVerifier for Only {
    fn verify(&self, peer: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        if peer.hash == self.0 { Ok(()) } else { Err("another identity was expected".to_owned()) }
    }
}

/// A listener that rejects a dialler reports its identity and the reason, and the dialler reports a
/// rejection by the peer.
///
/// With TLS 1.3 the dialler may be connected first. Otherwise operators look for a network fault.
pub async fn a_rejection_by_the_listener_is_reported<H: Harness>(stage: Stage<H>) {
    let for_listener = credential(TrustPolicy::reject_all());
    let for_dialler = credential(TrustPolicy::Any);
    let identity = for_dialler.identity();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
    let by_us = rejected::<H>(accepted).await;
    assert_eq!((by_us.by, by_us.identity), (RejectionBy::Us, Some(identity)));
    assert!(!by_us.reason.is_empty(), "there is a reason");
    let by_peer = rejected::<H>(dialled).await;
    assert_eq!((by_peer.by, by_peer.remote_addr), (RejectionBy::Peer, listener.local_addr()));
}

/// A dialler that rejects a listener reports its identity and the reason, and the listener reports
/// a rejection by the peer.
///
/// The listener's operator may have to renew its certificate.
pub async fn a_rejection_by_the_dialler_is_reported<H: Harness>(stage: Stage<H>) {
    let for_listener = credential(TrustPolicy::Any);
    let identity = for_listener.identity();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let (dialled, accepted) =
        introduce::<H>(&dialler, &listener, credential(TrustPolicy::reject_all())).await;
    let by_us = rejected::<H>(dialled).await;
    assert_eq!((by_us.by, by_us.identity), (RejectionBy::Us, Some(identity)));
    assert_eq!(by_us.remote_addr, listener.local_addr());
    assert!(!by_us.reason.is_empty(), "there is a reason");
    let by_peer = rejected::<H>(accepted).await;
    assert_eq!(by_peer.by, RejectionBy::Peer);
}

pub(crate) async fn rejected<H: Harness>(connected: Connected<H>) -> Rejection {
    match connected {
        Err(ConnectError::Rejected(rejection)) => rejection,
        Err(error) => panic!("a rejection is a typed error, not: {error}"),
        Ok(connection) => match connection.watch_close().await {
            CloseReason::Rejected(rejection) => rejection,
            reason => panic!("a rejection is a typed reason, not: {reason}"),
        },
    }
}

/// A peer without a certificate is rejected under every policy.
///
/// Every peer must have an identity.
pub async fn a_peer_without_a_certificate_is_rejected<H: Harness>(stage: Stage<H>) {
    let transport = stage.transport();
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let dial = stage.harness.anonymous_peer(listener.local_addr(), ALPN);
    let accept = async { listener.accept().await.unwrap().accept().await };
    let ((), accepted) = tokio::join!(dial, accept);
    let rejection = rejected::<H>(accepted).await;
    assert_eq!((rejection.by, rejection.identity), (RejectionBy::Us, None));
}

/// A listener uses a replaced credential, both certificate and trust, for new peers.
///
/// Established connections remain open. Keys are rotated while nodes run.
pub async fn a_new_credential_applies_to_new_peers<H: Harness>(stage: Stage<H>) {
    let before = credential(TrustPolicy::Any);
    let after = credential(TrustPolicy::reject_all());
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, before.clone()).await;
    let meet = || introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any));
    let (old, old_accepted) = meet().await;
    let (old, old_accepted) = (old.unwrap(), old_accepted.unwrap());
    assert_eq!(old.peer_identity().hash, before.identity());

    let friend = credential(TrustPolicy::Any);
    let trust = TrustPolicy::hashes([friend.identity()]);
    listener.set_credential(after.with_trust(trust)).unwrap();
    let (_, stranger) = meet().await;
    assert!(stranger.is_err(), "the new trust applies");
    let (new, _accepted) = introduce::<H>(&dialler, &listener, friend).await;
    assert_eq!(new.unwrap().peer_identity().hash, after.identity(), "the new certificate is used");
    greet(&old, &old_accepted).await;
}

/// A listener applies a new trust policy to new handshakes and keeps its identity.
///
/// Peers are added and removed while nodes run.
pub async fn a_new_trust_policy_applies_to_new_peers<H: Harness>(stage: Stage<H>) {
    let own = credential(TrustPolicy::Any);
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, own.clone()).await;
    let (old, old_accepted) =
        introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any)).await;
    let friend = credential(TrustPolicy::Any);
    listener.set_trust(TrustPolicy::hashes([friend.identity()]));
    let (_, stranger) = introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any)).await;
    assert!(stranger.is_err(), "the new trust applies");
    let (new, accepted) = introduce::<H>(&dialler, &listener, friend).await;
    assert_eq!(new.unwrap().peer_identity().hash, own.identity(), "the identity stays");
    drop(accepted.unwrap());
    greet(&old.unwrap(), &old_accepted.unwrap()).await;
}

/// Revocation closes exactly the connections with peers that are no longer trusted, on both sides.
///
/// A stolen key remains useful as long as its connections are open.
pub async fn a_revocation_closes_untrusted_connections<H: Harness>(stage: Stage<H>) {
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (bad, good) = (credential(TrustPolicy::Any), credential(TrustPolicy::Any));
    let trust = TrustPolicy::hashes([good.identity()]);
    let (dialled_bad, accepted_bad) = introduce::<H>(&dialler, &listener, bad).await;
    let (dialled_good, accepted_good) = introduce::<H>(&dialler, &listener, good).await;
    let (dialled_bad, accepted_bad) = (dialled_bad.unwrap(), accepted_bad.unwrap());
    assert_eq!(transport.revoke(&trust).await, 1);
    assert!(matches!(accepted_bad.watch_close().await, CloseReason::Local { .. }));
    assert!(matches!(dialled_bad.watch_close().await, CloseReason::Peer { .. }));
    greet(&dialled_good.unwrap(), &accepted_good.unwrap()).await;
}

/// Once a revocation has returned, nothing that the peer has sent is received, alone or in a batch,
/// even if it arrived before or the peer has closed meanwhile.
///
/// Messages of a stolen key must not be acted on.
pub async fn nothing_of_a_revoked_peer_is_received<H: Harness>(stage: Stage<H>) {
    for has_closed in [false, true] {
        let Pair { one, other, listener: _listener, transports: [dialler, transport] } =
            stage.meet().await;
        let receiving = if stage.is_swapped { &dialler } else { &transport };
        for sent in 0..20 {
            one.send_bytes(numbered(sent, 100)).await.unwrap();
        }
        if has_closed {
            one.close(0, "").await;
        }
        assert_eq!(number(&other.recv().await.unwrap().0), 0);
        assert!(other.is_trusted());
        let revoked = receiving.revoke(&TrustPolicy::reject_all()).await;
        assert!(has_closed || revoked == 1);
        assert!(!other.is_trusted());
        let is_closed = |error: Option<_>| matches!(error, Some(RecvError::Closed(_)));
        for _ in 0..10 {
            let mut batch = Vec::new();
            let error = other.recv_many(&mut batch, 1).await.err();
            assert!(is_closed(error) && batch.is_empty(), "{batch:?} of a revoked peer");
            let tried = other.try_recv(); // `None` until the end is known
            assert!(!matches!(tried, Ok(Some(_))), "{tried:?} of a revoked peer");
            let received = other.recv().await;
            assert!(is_closed(received.clone().err()), "{received:?} of a revoked peer");
        }
        other.watch_close().await;
    }
}

/// A connection is closed when the endorsement of its peer expires, on both sides, unless the
/// policy applies to the handshake only. `trusted_until` returns the time before.
///
/// An endorser that no longer endorses a node thus disconnects it without contacting its peers.
pub async fn a_connection_ends_with_the_endorsement_of_its_peer<H: Harness>(stage: Stage<H>) {
    let endorser = Endorser::generate().unwrap();
    let strict = TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]));
    let (transport, dialler) = (stage.transport(), stage.transport());
    // The lenient connection first: when the other one ends, its own endorsement has expired too.
    let mut connections = Vec::new();
    let begin = SystemTime::now();
    let validity = EndorsementValidity::for_duration(Duration::from_secs(3));
    for trust in [strict.clone().at_handshake(), strict] {
        let guest = endorsed_for(&endorser, &TrustPolicy::Any, validity);
        let host = credential(trust);
        let (for_listener, for_dialler) =
            if stage.is_swapped { (guest, host) } else { (host, guest) };
        let listener = stage.listen(&transport, for_listener).await;
        let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        let (at_host, at_guest) =
            if stage.is_swapped { (dialled, accepted) } else { (accepted, dialled) };
        greet(&at_host, &at_guest).await;
        let left = at_host.trusted_until().unwrap().duration_since(begin).unwrap();
        assert!((2..=4).contains(&left.as_secs()), "trust ends after {left:?}");
        connections.push((at_host, at_guest));
    }
    let code = close_code::TRUST_ENDED;
    let (at_host, at_guest) = &connections[1];
    let reason = at_host.watch_close().await;
    assert!(matches!(&reason, CloseReason::Local { code: c, .. } if *c == code), "{reason:?}");
    let reason = at_guest.watch_close().await;
    assert!(matches!(&reason, CloseReason::Peer { code: c, .. } if *c == code), "{reason:?}");
    assert!(!at_host.is_trusted());
    let (at_host, at_guest) = &connections[0];
    assert!(at_host.is_trusted());
    greet(at_host, at_guest).await;
}

/// Private keys do not appear in `Debug` output, which ends up in logs.
pub async fn debug_output_contains_no_secrets<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener.clone()).await;
    let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler.clone()).await;
    let shown = format!("{transport:?}{dialler:?}{listener:?}{dialled:?}{accepted:?}");
    for credential in [for_listener, for_dialler] {
        // Search for the second half of the key; all keys of a kind begin alike.
        let key = credential.private_key().secret_der();
        let half = &key[key.len() / 4..key.len() * 3 / 4];
        let hex = data_encoding::HEXLOWER.encode(half);
        let list = format!("{half:?}");
        for form in [hex.clone(), hex.to_uppercase(), list.trim_matches(['[', ']']).to_owned()] {
            assert!(!shown.contains(&form), "a private key is printed");
        }
    }
}
