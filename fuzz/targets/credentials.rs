//! Files with certificates and keys, in PEM and DER: any bytes are loaded or rejected with an error that has a
//! text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net_traits::{NetCredential, TrustPolicy};

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (certificate, key) = input;
    let pem = [&certificate[..], b"\n", &key[..]].concat();
    for loaded in [
        NetCredential::from_pem(&pem, TrustPolicy::Any),
        NetCredential::from_der([certificate], key, TrustPolicy::Any),
    ] {
        match loaded {
            Ok(credential) => assert!(!credential.certificate_chain().is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
