//! `netmsg id`: the identity of this user.

use crate::home::{Home, read_private, store_private};
use crate::output::Output;
use anyhow::{Context, Result};
use net_traits::{NetCredential, SelfSigned, TrustPolicy};
use serde_json::json;
use std::path::PathBuf;

/// Show the identity of this user, and create it first if there is none
///
/// The identity is the SHA-256 of a certificate. Tell it to your peers: `netmsg trust add` makes
/// them accept you. The private key is stored beside the certificate, where only you can read it,
/// and is never printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Replace the identity by a new one, which your peers do not trust yet
    #[arg(long, conflicts_with = "import")]
    force: bool,
    /// Take the certificate and key in this PEM file, such as one of `netmsg trust endorse`
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
}

pub(crate) fn run(home: &Home, options: &Options, output: &Output) -> Result<()> {
    let path = home.identity();
    let _lock = home.lock()?;
    let is_new = options.force || options.import.is_some() || !path.exists();
    if is_new {
        let pem = match &options.import {
            Some(file) => {
                let pem = read_private(file, true)?;
                pem.with_context(|| format!("{} does not exist", file.display()))?
            }
            None => SelfSigned::generate(&["localhost"])?.to_pem().into_bytes(),
        };
        let credential = NetCredential::from_pem(&pem, TrustPolicy::reject_all());
        let source = options.import.as_ref().unwrap_or(&path);
        credential.with_context(|| format!("{} holds no credential", source.display()))?;
        store_private(&path, &pem, options.force)?;
    }
    let identity = load(home, TrustPolicy::reject_all())?.identity().to_string();
    let fields = json!({ "identity": identity, "new": is_new, "file": path.to_string_lossy() });
    output.event("identity", &identity, fields);
    Ok(())
}

/// Reads the identity.
///
/// # Errors
///
/// If there is none, or its file is not private to its owner.
pub(crate) fn load(home: &Home, trust: TrustPolicy) -> Result<NetCredential> {
    let path = home.identity();
    let display = path.display();
    let pem = read_private(&path, true)?;
    let pem = pem.with_context(|| {
        format!("there is no identity in {display}, create one with `netmsg id`")
    })?;
    NetCredential::from_pem(&pem, trust).with_context(|| {
        format!("{display} holds no credential, restore it or replace it with `netmsg id --force`")
    })
}
