//! `netmsg trust`: which peers are accepted.

mod store;

pub(crate) use store::Store;

use crate::exit::Exit;
use crate::home::{Home, read_private, store_private};
use crate::output::Output;
use anyhow::{Context, Result, anyhow, ensure};
use clap::Subcommand;
use net_traits::{CertHash, EndorsementValidity, Endorser, IdentityKey, TrustPolicy};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use store::{Entry, Kind, key_hash, name_of};

/// Choose which peers are accepted
///
/// A running `netmsg listen` follows changes within two seconds, and closes the connections of peers
/// that are not trusted any more.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Accept a peer, or all peers that a key endorses
    Add {
        /// The identity that the peer's `netmsg id` prints: 64 hexadecimal digits
        #[arg(value_name = "IDENTITY")]
        id: CertHash,
        /// The digits are those of an endorsing key, which `netmsg trust endorser` prints
        #[arg(long)]
        endorser: bool,
        /// A name to remember it by, up to 64 bytes
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Show the trusted and the revoked peers
    List,
    /// Reject an identity or an endorsing key from now on, also if an accepted key endorses the identity
    ///
    /// An identity is one certificate. A peer that an accepted key endorses can make another
    /// certificate with the same public key and endorsement, which is another identity, and is accepted
    /// until the endorsement expires. To reject such a peer, give the hash of its public key, which
    /// `netmsg trust endorse` has printed, or revoke the endorsing key.
    Revoke {
        /// The identity, the hash of a public key, the endorsing key, or the name given with `add`
        #[arg(value_name = "IDENTITY|NAME")]
        id: String,
    },
    /// Show the key with which this user endorses peers, and create it first if there is none
    Endorser,
    /// Make an identity that is accepted wherever this user's endorsing key is
    ///
    /// Keep the printed hash of the public key: `netmsg trust revoke` with it rejects every certificate
    /// that the peer makes. The file has the private key of the new identity. Bring it to its user on a safe path, who
    /// takes it with `netmsg id --import FILE`.
    Endorse {
        /// The new file
        #[arg(value_name = "FILE")]
        out: PathBuf,
        /// How long the endorsement is valid, in days
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
    },
}

pub(crate) fn run(home: &Home, options: &Options, output: &Output) -> Result<()> {
    match &options.command {
        Command::Add { id, endorser, name } => {
            let kind = if *endorser { Kind::Endorser } else { Kind::Peer };
            let name = name_of(name).context(Exit::Usage)?;
            change(home, |store| {
                let entry = Entry { kind, id: *id, name };
                store.add(entry.clone());
                Ok(entry)
            })
            .map(|entry| print(&entry, output))
        }
        Command::List => {
            let store = Store::load(home)?;
            store.entries.iter().for_each(|entry| print(entry, output));
            Ok(())
        }
        Command::Revoke { id } => {
            change(home, |store| revoke(store, id)).map(|entry| print(&entry, output))
        }
        Command::Endorser => {
            let (key, new) = endorser(home)?;
            let (key, file) = (key.key().to_string(), home.endorser());
            let fields = json!({ "key": key, "new": new, "file": file.to_string_lossy() });
            output.event("endorser", &key, fields);
            Ok(())
        }
        Command::Endorse { out, days, force } => {
            let (endorser, _) = endorser(home)?;
            let validity = Duration::from_secs(u64::from(*days) * 24 * 3600);
            let key = IdentityKey::generate()?;
            let public_key = key.public_key_info();
            let endorsement =
                endorser.endorse(&public_key, EndorsementValidity::for_duration(validity));
            let public_key = key_hash(&public_key).to_string();
            let made = key.self_sign(&["localhost"], &[endorsement])?;
            store_private(out, made.to_pem().as_bytes(), *force)?;
            let identity = made.credential(TrustPolicy::reject_all())?.identity().to_string();
            let fields = json!({
                "identity": identity, "public_key": public_key, "days": days,
                "file": out.to_string_lossy(),
            });
            output.event("endorsed", format!("{identity}\npublic key {public_key}"), fields);
            Ok(())
        }
    }
}

/// Changes the trust file, under its lock.
fn change(home: &Home, change: impl FnOnce(&mut Store) -> Result<Entry>) -> Result<Entry> {
    let _lock = home.lock()?;
    let mut store = Store::load(home)?;
    let changed = change(&mut store)?;
    store.store(home)?;
    Ok(changed)
}

/// Marks an identity as revoked, or removes an endorsing key.
fn revoke(store: &mut Store, id: &str) -> Result<Entry> {
    let named = || {
        // Entries without a name do not have the name "".
        let mut named = store.entries.iter().filter(|it| it.name == id && !id.is_empty());
        match (named.next(), named.next()) {
            (Some(entry), None) => Ok(entry.id),
            (None, _) => Err(anyhow!("{id:?} is neither an identity nor a name in the trust file")),
            _ => Err(anyhow!("several peers have the name {id:?}, give the identity")),
        }
    };
    let id = id.parse().or_else(|_| named()).context(Exit::Usage)?;
    let known = store.entries.iter().find(|entry| entry.id == id);
    let name = known.map(|entry| entry.name.clone()).unwrap_or_default();
    let was_endorser = known.is_some_and(|entry| entry.kind == Kind::Endorser);
    let entry = Entry { kind: Kind::Revoked, id, name };
    store.add(entry.clone());
    if was_endorser {
        // The line of a key that is not trusted says nothing.
        store.entries.retain(|other| other.id != id);
    }
    Ok(entry)
}

fn print(entry: &Entry, output: &Output) {
    let Entry { kind, id, name } = entry;
    let (kind, id) = (kind.to_string(), id.to_string());
    let text = format!("{kind:8} {id} {name}");
    output.event("trust", text.trim_end(), json!({ "kind": kind, "id": id, "name": name }));
}

/// Reads the endorsing key, or creates it. Returns whether it is new.
fn endorser(home: &Home) -> Result<(Endorser, bool)> {
    let _lock = home.lock()?;
    let path = home.endorser();
    if let Some(key) = read_private(&path, true)? {
        let key = Endorser::from_pkcs8(&key);
        let key = key.with_context(|| format!("{} holds no endorsing key", path.display()))?;
        return Ok((key, false));
    }
    let key = Endorser::generate()?;
    store_private(&path, key.secret_pkcs8(), false)?;
    Ok((key, true))
}

/// Returns the policy of the trust file and of `more`.
///
/// # Errors
///
/// If the file is invalid, or no peer at all is trusted.
pub(crate) fn policy(home: &Home, more: &[CertHash]) -> Result<TrustPolicy> {
    let store = Store::load(home)?;
    check(&store, more)?;
    Ok(store.policy(more))
}

/// Returns the policy that accepts one identity.
///
/// # Errors
///
/// If the file is invalid, or the identity is revoked.
pub(crate) fn policy_of(home: &Home, id: CertHash) -> Result<TrustPolicy> {
    let mut store = Store::load(home)?;
    store.entries.retain(|entry| entry.kind == Kind::Revoked);
    if store.entries.iter().any(|entry| entry.id == id) {
        return Err(anyhow!("{id} is revoked in the trust file").context(Exit::Untrusted));
    }
    // Its public key may be revoked, too, which the certificate shows.
    Ok(if store.entries.is_empty() { TrustPolicy::hashes([id]) } else { store.policy(&[id]) })
}

/// Fails if no peer at all is trusted.
pub(crate) fn check(store: &Store, more: &[CertHash]) -> Result<()> {
    let trusted = store.entries.iter().any(|entry| entry.kind != Kind::Revoked);
    ensure!(
        trusted || !more.is_empty(),
        "no peer is trusted: add one with `netmsg trust add`, or for this run with --trust"
    );
    Ok(())
}
