//! `Store`: the trust file, and the policy that it makes.
//!
//! ```text
//! # comments and empty lines are ignored
//! peer 64-HEXADECIMAL-DIGITS a name
//! endorser 64-HEXADECIMAL-DIGITS a name
//! revoked 64-HEXADECIMAL-DIGITS a name
//! ```

use crate::home::{Home, read_private, store_private};
use crate::output::is_hidden;
use anyhow::{Context, Result, bail, ensure};
use net_traits::{CertHash, CertificateDer, EndorsingKey, PeerIdentity, PeerVerifier, TrustPolicy};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

/// What a line says about its 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This identity is accepted.
    Peer,
    /// Identities that this key endorses are accepted.
    Endorser,
    /// This identity is rejected, also if it is endorsed, or every identity of this public key.
    Revoked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) id: CertHash,
    /// For people; may be empty.
    pub(crate) name: String,
}

/// The entries of the trust file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) entries: Vec<Entry>,
}

impl Store {
    /// Reads the trust file; without one, no peer is trusted.
    pub(crate) fn load(home: &Home) -> Result<Self> {
        let path = home.trust();
        let Some(content) = read_private(&path, false)? else { return Ok(Self::default()) };
        let text = String::from_utf8(content);
        let text = text.with_context(|| format!("{} is not UTF-8", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is invalid", path.display()))
    }

    /// Writes the trust file. The caller holds the lock of `home` since it was read.
    pub(crate) fn store(&self, home: &Home) -> Result<()> {
        let mut text = HEADER.to_owned();
        for Entry { kind, id, name } in &self.entries {
            let _ = writeln!(text, "{}", format!("{kind} {id} {name}").trim_end());
        }
        store_private(&home.trust(), text.as_bytes(), true)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut store = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            store.entries.push(entry(line).with_context(|| format!("line {}", index + 1))?);
        }
        Ok(store)
    }

    /// Adds an entry, which replaces those with the same identity or key.
    pub(crate) fn add(&mut self, entry: Entry) {
        self.entries.retain(|other| other.id != entry.id);
        self.entries.push(entry);
    }

    /// Returns the policy, which also accepts `more`.
    pub(crate) fn policy(&self, more: &[CertHash]) -> TrustPolicy {
        let of = |kind| self.entries.iter().filter(move |it| it.kind == kind).map(|it| it.id);
        TrustPolicy::custom(Listed {
            peers: of(Kind::Peer).chain(more.iter().copied()).collect(),
            endorsers: of(Kind::Endorser)
                .map(|id| EndorsingKey::from_bytes(*id.as_bytes()))
                .collect(),
            revoked: of(Kind::Revoked).collect(),
        })
    }
}

fn entry(line: &str) -> Result<Entry> {
    let (kind, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (id, name) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let kind = match kind {
        "peer" => Kind::Peer,
        "endorser" => Kind::Endorser,
        "revoked" => Kind::Revoked,
        other => bail!("a line begins with peer, endorser or revoked, not {other:?}"),
    };
    let id = id.parse().with_context(|| format!("{id:?} is no identity"))?;
    Ok(Entry { kind, id, name: name_of(name)? })
}

/// Checks a name for people.
pub(crate) fn name_of(name: &str) -> Result<String> {
    let name = name.trim();
    ensure!(name.len() <= MAX_NAME, "the name has {} bytes, more than {MAX_NAME}", name.len());
    if let Some(hidden) = name.chars().find(|character| is_hidden(*character)) {
        bail!("the name {name:?} contains {hidden:?}");
    }
    Ok(name.to_owned())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::Endorser => "endorser",
            Self::Revoked => "revoked",
        })
    }
}

/// The policy of the trust file: `TrustPolicy::hashes_or_endorsed_by` without what is revoked.
struct Listed {
    peers: HashSet<CertHash>,
    endorsers: HashSet<EndorsingKey>,
    revoked: HashSet<CertHash>,
}

impl PeerVerifier for Listed {
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        if self.revoked.contains(&peer.hash) {
            return Err("it is revoked in the trust file".to_owned());
        }
        // An endorsement is of a public key, for which its owner can make any number of certificates.
        if !self.revoked.is_empty() {
            let key = key_of(certificate);
            let key = key.map_err(|error| format!("its public key cannot be read: {error}"))?;
            if self.revoked.contains(&key) {
                return Err("its public key is revoked in the trust file".to_owned());
            }
        }
        match self.peers.contains(&peer.hash) || !peer.endorsers.is_empty() {
            true => Ok(()),
            false => Err("it is not in the trust file, see `netmsg trust add`".to_owned()),
        }
    }

    fn counts(&self, key: &EndorsingKey) -> bool {
        self.endorsers.contains(key)
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> x509_cert::der::Result<CertHash> {
    let certificate = Certificate::from_der(certificate)?;
    Ok(key_hash(&certificate.tbs_certificate().subject_public_key_info().to_der()?))
}

/// Returns the SHA-256 of a public key (SubjectPublicKeyInfo, DER), by which it is revoked.
pub(crate) fn key_hash(public_key_info: &[u8]) -> CertHash {
    CertHash::from_bytes(Sha256::digest(public_key_info).into())
}

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

const HEADER: &str = "# Peers that netmsg trusts; see `netmsg trust --help`.\n";

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::{EndorsementValidity, Endorser, IdentityKey, NetCredential, SelfSigned};
    use std::time::Duration;

    fn id(byte: u8) -> CertHash {
        CertHash::from_bytes([byte; 32])
    }

    fn accepts(policy: &TrustPolicy, peer: &NetCredential) -> bool {
        policy.verify(peer.certificate_chain().first()).is_ok()
    }

    #[test]
    fn a_file_is_read_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(Some(directory.path())).unwrap();
        assert_eq!(Store::load(&home).unwrap(), Store::default());
        let mut store = Store::default();
        for (kind, byte, name) in
            [(Kind::Peer, 1, "Ada of x"), (Kind::Endorser, 2, ""), (Kind::Revoked, 3, "é")]
        {
            store.add(Entry { kind, id: id(byte), name: name.to_owned() });
        }
        store.store(&home).unwrap();
        assert_eq!(Store::load(&home).unwrap(), store);
        store.add(Entry { kind: Kind::Revoked, id: id(1), name: String::new() });
        assert_eq!(store.entries.len(), 3, "an identity occurs once");
    }

    #[test]
    fn invalid_lines_are_reported_with_their_number() {
        let hash = id(7);
        for (line, expected) in [
            (format!("friend {hash}"), "not \"friend\""),
            ("peer 12".to_owned(), "64 hexadecimal digits"),
            (format!("peer {hash} {}", "n".repeat(65)), "65 bytes"),
            (format!("peer {hash} a\u{1b}b"), "contains '\\u{1b}'"),
        ] {
            let error = Store::parse(&format!("# comment\n\n{line}\n")).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.starts_with("line 3: ") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn listed_and_endorsed_peers_are_accepted_and_revoked_ones_are_not() {
        let endorser = Endorser::generate().unwrap();
        let key = IdentityKey::generate().unwrap();
        let day = EndorsementValidity::for_duration(Duration::from_secs(86_400));
        let endorsement = endorser.endorse(&key.public_key_info(), day);
        let key_hash = key_hash(&key.public_key_info());
        let endorsed = key.self_sign(&["n"], &[endorsement]).unwrap();
        let endorsed = endorsed.credential(TrustPolicy::reject_all()).unwrap();
        let plain = SelfSigned::generate(&["n"]).unwrap();
        let plain = plain.credential(TrustPolicy::reject_all()).unwrap();

        let mut store = Store::default();
        assert!(!accepts(&store.policy(&[]), &plain));
        assert!(!accepts(&store.policy(&[]), &endorsed), "any endorser would do");
        assert!(accepts(&store.policy(&[plain.identity()]), &plain));
        let endorser = CertHash::from_bytes(*endorser.key().as_bytes());
        store.add(Entry { kind: Kind::Endorser, id: endorser, name: String::new() });
        assert!(accepts(&store.policy(&[]), &endorsed));
        assert!(!accepts(&store.policy(&[]), &plain));
        store.add(Entry { kind: Kind::Revoked, id: endorsed.identity(), name: String::new() });
        assert!(!accepts(&store.policy(&[]), &endorsed));
        assert!(!accepts(&store.policy(&[endorsed.identity()]), &endorsed));

        // Every certificate of the key.
        store.entries.retain(|entry| entry.kind != Kind::Revoked);
        assert!(accepts(&store.policy(&[]), &endorsed));
        store.add(Entry { kind: Kind::Revoked, id: key_hash, name: String::new() });
        assert!(!accepts(&store.policy(&[]), &endorsed));
        assert!(!accepts(&store.policy(&[endorsed.identity()]), &endorsed));
        assert!(accepts(&store.policy(&[plain.identity()]), &plain));
    }
}
