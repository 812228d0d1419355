//! `Peer`: the address of a peer as it is typed, `[IDENTITY@]HOST:PORT`.

use crate::exit::Exit;
use crate::home::Home;
use crate::{id, trust};
use anyhow::{Context, Result, anyhow};
use net_traits::{CertHash, DynConnection, DynTransport, NetCredential, NetTransport};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A peer to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The only accepted identity, unless it is revoked; without it, the trust file decides.
    identity: Option<CertHash>,
    /// Host name or IP address, an IPv6 address in brackets, and port.
    address: String,
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (identity, address) = match text.split_once('@') {
            Some((identity, address)) => {
                let parsed = identity.parse();
                let parsed = parsed.map_err(|error| anyhow!("{identity:?}: {error}"))?;
                (Some(parsed), address)
            }
            None => (None, text),
        };
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || is_bare_v6 || port.parse::<u16>().is_err() {
            let what = format!("{address:?} is not HOST:PORT or [IPv6]:PORT");
            return Err(anyhow!(what));
        }
        Ok(Self { identity, address: address.to_owned() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Peer {
    /// Resolves the name and dials its addresses, until one answers. `more` are trusted identities
    /// besides those of the trust file.
    pub(crate) async fn dial(
        &self,
        home: &Home,
        transport: &DynTransport,
        alpn: &str,
        more: &[CertHash],
    ) -> Result<DynConnection> {
        let trust = match self.identity {
            Some(identity) => trust::policy_of(home, identity)?,
            None => trust::policy(home, more)?,
        };
        let credential = id::load(home, trust)?;
        let addresses = self.resolve().await?;
        let connected = race(transport, addresses, alpn, &credential).await;
        connected.with_context(|| match self.identity {
            Some(identity) => format!("cannot connect to {identity}@{self}"),
            None => format!("cannot connect to {self}"),
        })
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let resolved = timeout(RESOLVE, lookup_host(&self.address)).await;
        let resolved = resolved.map_err(|_| anyhow!("no answer within {} s", RESOLVE.as_secs()));
        let resolved = resolved.and_then(|resolved| Ok(resolved?.take(ADDRESSES).collect()));
        resolved.with_context(|| format!("cannot resolve {self}")).context(Exit::Unreachable)
    }
}

/// Parses an address to listen on.
pub(crate) fn local_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "it is not IP:PORT, such as 0.0.0.0:4433 or [::]:4433")
}

/// Dials the addresses in order, each when the attempts before have failed or after [`DELAY`], and
/// returns the first connection (RFC 8305).
///
/// # Errors
///
/// The first error that is not about reachability, otherwise the last.
async fn race(
    transport: &DynTransport,
    addresses: Vec<SocketAddr>,
    alpn: &str,
    credential: &NetCredential,
) -> Result<DynConnection> {
    let mut failure = anyhow!("it has no address").context(Exit::Unreachable);
    let (mut addresses, mut attempts) = (addresses.into_iter(), JoinSet::new());
    loop {
        if let Some(address) = addresses.next() {
            let (transport, alpn, credential) =
                (transport.clone(), alpn.to_owned(), credential.clone());
            attempts.spawn(async move { transport.connect(address, &[&alpn], credential).await });
        }
        tokio::select! {
            attempt = attempts.join_next() => match attempt {
                None => return Err(failure),
                Some(attempt) => match attempt? {
                    Ok(connection) => return Ok(connection),
                    Err(error) if Exit::of(&failure) == Exit::Unreachable => failure = error.into(),
                    Err(_) => {}
                },
            },
            () = sleep(DELAY), if addresses.len() > 0 => {}
        }
    }
}

/// How long an attempt runs before the next address is dialled too.
const DELAY: Duration = Duration::from_millis(250);

/// How long the resolver may take.
const RESOLVE: Duration = Duration::from_secs(10);

/// How many addresses of a name are tried.
const ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::TrustPolicy;
    use net_traits::{NetConnection, NetIncomingRequest, NetListener};
    use net_traits_test::memory::MemoryNetwork;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_delays_the_next_one_shortly() {
        let network = MemoryNetwork::new(0);
        let (transport, server) = (DynTransport::new(network.transport()), network.transport());
        let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let bind_addr = "0.0.0.0:0".parse().unwrap();
        let listener = server.create_listener(bind_addr, &["a"], credential.clone()).await.unwrap();
        let (address, gone) = (listener.local_addr(), "10.9.9.9:1".parse().unwrap());
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            while let Ok(request) = listener.accept().await {
                accepted.push(request.accept().await);
            }
        });
        let begin = Instant::now();
        let connected = race(&transport, vec![gone, address], "a", &credential).await;
        assert_eq!(connected.unwrap().remote_addr(), address);
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());

        let stranger = credential.with_trust(TrustPolicy::reject_all());
        let failed = race(&transport, vec![address, gone], "a", &stranger).await.unwrap_err();
        assert_eq!(Exit::of(&failed), Exit::Untrusted, "{failed:#}");
        let failed = race(&transport, vec![gone, gone], "a", &stranger).await.unwrap_err();
        assert_eq!(Exit::of(&failed), Exit::Unreachable, "{failed:#}");
        assert!(race(&transport, vec![], "a", &stranger).await.is_err());
    }

    #[test]
    fn a_peer_has_host_and_port_and_perhaps_an_identity() {
        let identity = CertHash::from_bytes([0xab; 32]);
        for text in ["localhost:1", "127.0.0.1:65535", "[::1]:4433"] {
            let peer: Peer = text.parse().unwrap();
            assert_eq!(peer, Peer { identity: None, address: text.to_owned() });
            let peer: Peer = format!("{identity}@{text}").parse().unwrap();
            assert_eq!(peer, Peer { identity: Some(identity), address: text.to_owned() });
        }
        for (text, expected) in [
            ("localhost", "not HOST:PORT"),
            (":1", "not HOST:PORT"),
            ("::1:4433", "[IPv6]:PORT"),
            ("host:65536", "\"host:65536\""),
            ("ab@host:1", "64 hexadecimal digits"),
        ] {
            let error = text.parse::<Peer>().unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }
}
