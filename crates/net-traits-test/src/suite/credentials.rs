//! Keys, certificates and verifiers of all kinds.
//!
//! The credentials of `credentials/` were made with OpenSSL. They are not secret.

use crate::Harness;
use crate::stage::{ALPN, Stage, credential, dial, greet, introduce};
use crate::suite::identity::rejected;
use net_traits::{
    CertificateDer, ConnectError, ListenError, NetCredential, NetIncomingRequest, NetListener,
    NetTransport, PeerIdentity, PeerVerifier, Rejection, RejectionBy, TrustError, TrustPolicy,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

macro_rules! credentials {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("credentials/", $name, ".pem")))),*]
    };
}

const COMMON: [(&str, &str); 9] = credentials! {
    "p256" "p256-sec1" "p384" "p384-sec1" "ed25519" "ed25519-pkcs8-v2" "rsa" "rsa-pkcs1"
    "1950-to-9999"
};

const UNSUPPORTED: [(&str, &str); 2] = credentials! { "p521" "secp256k1" };

fn parse(pem: &str) -> NetCredential {
    NetCredential::from_pem(pem.as_bytes(), TrustPolicy::Any).expect("it is a credential")
}

/// Common keys are accepted in each of their encodings, and certificates of any validity period.
///
/// A node keeps its key when it changes its transport. Tools write keys in different encodings.
pub async fn common_keys_are_accepted<H: Harness>(stage: Stage<H>) {
    let peer = credential(TrustPolicy::Any);
    for (name, pem) in COMMON {
        for (for_listener, for_dialler) in [(parse(pem), peer.clone()), (peer.clone(), parse(pem))]
        {
            let (transport, dialler) = (stage.transport(), stage.transport());
            let listener = stage.listen(&transport, for_listener).await;
            let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
            let connected = (dialled, accepted);
            let (Ok(dialled), Ok(accepted)) = &connected else { panic!("{name}: {connected:?}") };
            greet(dialled, accepted).await;
        }
    }
}

/// An unsupported key is a typed error that names it, for its owner or at the peer that rejects it: if its
/// owner dials, listens, or replaces the credential of a listener by it.
///
/// Otherwise operators would look for a damaged file.
pub async fn unsupported_keys_are_reported<H: Harness>(stage: Stage<H>) {
    for (name, pem) in UNSUPPORTED {
        let identity = parse(pem).identity();
        let check = |rejection: Rejection| match rejection.cause.as_deref() {
            Some(TrustError::Unsupported { identity: of_it, .. }) => assert_eq!(*of_it, identity),
            cause => panic!("{name}: {cause:?}"),
        };
        let (transport, dialler) = (stage.transport(), stage.transport());
        let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
        let dial = dial::<H>(&dialler, listener.local_addr(), parse(pem));
        let accept = async { listener.accept().await.unwrap().accept().await };
        tokio::select! {
            biased;
            accepted = accept => check(rejected::<H>(accepted).await),
            Err(ConnectError::Credential(_)) = dial => {}
        }

        let replaced = listener.set_credential(parse(pem)).map(|()| listener);
        let created =
            transport.create_listener(stage.harness.bind_addr(), &[ALPN], parse(pem)).await;
        for listener in [replaced, created] {
            match listener {
                Ok(listener) => {
                    let peer = credential(TrustPolicy::Any);
                    let (dialled, _) = introduce::<H>(&dialler, &listener, peer).await;
                    check(rejected::<H>(dialled).await);
                }
                Err(ListenError::Credential(_)) => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

/// A verifier that panics rejects the peer, and the panic is the cause of the error. The verifier
/// is called again for the next peer.
///
/// A verifier processes data of the peer, which can make it panic.
pub async fn a_verifier_that_panics_rejects<H: Harness>(stage: Stage<H>) {
    let peer = credential(TrustPolicy::Any);
    for judge_listens in [true, false] {
        let is_well = Arc::new(AtomicBool::new(false));
        let judge = credential(TrustPolicy::custom(PanicsUntil(is_well.clone())));
        let (for_listener, for_dialler) =
            if judge_listens { (judge, peer.clone()) } else { (peer.clone(), judge) };
        let (transport, dialler) = (stage.transport(), stage.transport());
        let listener = stage.listen(&transport, for_listener).await;
        let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler.clone()).await;
        let (ours, of_peer) = if judge_listens { (accepted, dialled) } else { (dialled, accepted) };
        let ours = rejected::<H>(ours).await;
        let (identity, what) = (peer.identity(), "out of ideas".to_owned());
        let cause = TrustError::VerifierPanicked { identity, what };
        assert_eq!((ours.by, ours.cause.as_deref()), (RejectionBy::Us, Some(&cause)));
        assert_eq!(rejected::<H>(of_peer).await.by, RejectionBy::Peer);
        is_well.store(true, Ordering::SeqCst);
        let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
        greet(&dialled.unwrap(), &accepted.unwrap()).await;
    }
}

/// Panics until the flag is set.
struct PanicsUntil(Arc<AtomicBool>);

impl PeerVerifier for PanicsUntil {
    fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        assert!(self.0.load(Ordering::SeqCst), "out of ideas");
        Ok(())
    }

    /// Distinguishes it in tests of the suite.
    fn reads_legacy_endorsements(&self) -> bool {
        true
    }
}
