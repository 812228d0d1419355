//! `Context`: what a broken transport and its handles share.

use super::{BrokenConnection, Fault, Shared};
use net_traits::{
    ConnectError, CredentialError, NetCredential, PrivateKeyDer, TrustError, TrustPolicy,
};
use net_traits_test::Limits;
use net_traits_test::memory::MemoryConnection;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};

#[derive(Debug)]
pub(super) struct Context {
    pub(super) fault: Fault,
    pub(super) limits: Limits,
    pub(super) listening: Arc<Mutex<HashSet<SocketAddr>>>,
    pub(super) connections: Mutex<Vec<Weak<Shared>>>,
    pub(super) dropped_revocations: AtomicUsize,
    /// Messages sent by `try_send`.
    pub(super) tried: AtomicU64,
}

impl Context {
    pub(super) fn connection(self: &Arc<Self>, inner: MemoryConnection) -> BrokenConnection {
        let shared = Arc::new(Shared::new(inner, self));
        self.connections.lock().push(Arc::downgrade(&shared));
        BrokenConnection(shared)
    }

    /// Returns the connections that exist.
    pub(super) fn live(&self) -> Vec<Arc<Shared>> {
        self.connections.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns the credential, with another policy if that is the fault.
    pub(super) fn credential(&self, credential: NetCredential) -> NetCredential {
        match (self.fault, credential.trust()) {
            // The verifier that panics belongs to another behaviour.
            (Fault::CustomPoliciesAreIgnored, TrustPolicy::Custom(verifier))
                if !verifier.reads_legacy_endorsements() =>
            {
                credential.with_trust(TrustPolicy::Any)
            }
            (Fault::EndedTrustIsIgnored, trust) => {
                let trust = trust.clone().at_handshake();
                credential.with_trust(trust)
            }
            _ => credential,
        }
    }

    /// Checks the form of a key.
    pub(super) fn check(&self, credential: &NetCredential) -> Result<(), CredentialError> {
        // Version 2 of PKCS#8 (RFC 5958), after the tag and the length.
        let is_new = credential.private_key().secret_der().get(2..5) == Some(&[2, 1, 1])
            && matches!(credential.private_key(), PrivateKeyDer::Pkcs8(_));
        match self.fault {
            Fault::NewerKeysAreRefused if is_new => Err(CredentialError::NoPrivateKey),
            _ => Ok(()),
        }
    }

    /// Returns the error of a handshake, with another cause if that is the fault.
    pub(super) fn falsify(&self, error: ConnectError) -> ConnectError {
        let ConnectError::Rejected(mut rejection) = error else { return error };
        let (identity, cause) = (rejection.identity, rejection.cause.take());
        let cause = match (self.fault, cause.as_deref(), identity) {
            (
                Fault::UnsupportedKeysAreDamage,
                Some(TrustError::Unsupported { .. }),
                Some(identity),
            ) => Some(Arc::new(TrustError::BadSignature { identity })),
            (
                Fault::PanicsOfVerifiersAreNotReported,
                Some(TrustError::VerifierPanicked { .. }),
                Some(identity),
            ) => Some(Arc::new(TrustError::Refused { identity, why: String::new() })),
            _ => cause,
        };
        rejection.cause = cause;
        rejection.into()
    }
}
