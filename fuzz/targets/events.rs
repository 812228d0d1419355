//! Events of a connection and of its streams, calls, polls and drops, in any order, with a script instead of libmsquic.
//! Nothing is lost, nothing hangs, and everything is closed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net_traits::{NetCredential, TrustPolicy};
use std::sync::OnceLock;

fuzz_target!(|bytes: &[u8]| {
    static CREDENTIAL: OnceLock<NetCredential> = OnceLock::new();
    let credential = CREDENTIAL
        .get_or_init(|| NetCredential::self_signed(TrustPolicy::Any).expect("a certificate"));
    msquic_async::testing::play(credential, bytes);
});
