//! `DnsResolver`: looks up the addresses of a name, or of the targets of a service.

use super::{Endpoint, ResolveError, Resolver};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use net_kit::blocking::Threads;
use net_traits::Cause;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The thread that reads the configuration of the system.
static SYSTEM: Threads = Threads::new("net-peers-dns", 1);

/// The bounds of the time between two lookups.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
const MAX_INTERVAL: Duration = Duration::from_secs(300);

/// How many targets of a service are looked up at once. Their number is limited by the size of a
/// DNS response, 64 KiB.
const CONCURRENT_TARGETS: usize = 8;

/// Resolves peers by DNS, such as the members of a headless service of an orchestrator.
///
/// [`addresses`](Self::addresses) uses the A and AAAA records of a name. [`service`](Self::service)
/// uses the SRV records (RFC 2782) of a service and the addresses of their targets; priorities and
/// weights are ignored. The lookup is repeated when the records expire, but after 5 s at the
/// earliest and 5 min at the latest. A name without records, or one that does not exist, is an
/// empty list; a server that fails or does not answer is an error.
///
/// DNS is not authenticated. Since peers prove their identities, a forged response can only add
/// addresses to dial, and hide others.
///
/// ```
/// use net_peers::DnsResolver;
///
/// let resolver = DnsResolver::addresses("peers.default.svc.cluster.local.", 4433);
/// let service = DnsResolver::service("_chat._udp.example.org.");
/// ```
#[derive(Debug)]
pub struct DnsResolver {
    name: String,
    kind: Kind,
    /// `None` for those of the system.
    name_servers: Option<Vec<SocketAddr>>,
    min_interval: Duration,
    max_interval: Duration,
    /// Created by the first lookup.
    resolver: Option<TokioResolver>,
    /// When to look up next; `None` for immediately.
    due: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Addresses { port: u16 },
    Service,
}

impl DnsResolver {
    /// Looks up the addresses of `name`, at which peers listen on `port`.
    ///
    /// A name with a final dot is absolute; otherwise the search domains of the system are tried
    /// too.
    pub fn addresses(name: impl Into<String>, port: u16) -> Self {
        Self::new(name.into(), Kind::Addresses { port })
    }

    /// Looks up the service `name`, such as `_chat._udp.example.org.`
    pub fn service(name: impl Into<String>) -> Self {
        Self::new(name.into(), Kind::Service)
    }

    fn new(name: String, kind: Kind) -> Self {
        let (min_interval, max_interval) = (MIN_INTERVAL, MAX_INTERVAL);
        let (name_servers, resolver, due) = (None, None, None);
        Self { name, kind, name_servers, min_interval, max_interval, resolver, due }
    }

    /// Sets the name servers, which are queried over UDP and, where necessary, TCP. Default: those
    /// of the system.
    #[must_use]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.name_servers = Some(servers.into_iter().collect());
        self
    }

    /// Sets the limits of the time between two lookups, which otherwise is the time to live of the
    /// records. Default: 5 s to 5 min.
    #[must_use]
    pub fn interval(mut self, min: Duration, max: Duration) -> Self {
        self.min_interval = min;
        self.max_interval = max.max(min);
        self
    }

    /// Looks up the endpoints, and returns until when the records are valid; `None` if there are no
    /// records.
    async fn look_up(
        &self,
        resolver: &TokioResolver,
    ) -> Result<(Vec<Endpoint>, Option<Instant>), ResolveError> {
        match self.kind {
            Kind::Addresses { port } => {
                let (addresses, valid_until) = ips(resolver, &self.name).await?;
                let endpoint = |ip| Endpoint::new(SocketAddr::new(ip, port));
                Ok((addresses.into_iter().map(endpoint).collect(), valid_until))
            }
            Kind::Service => self.look_up_service(resolver).await,
        }
    }

    async fn look_up_service(
        &self,
        resolver: &TokioResolver,
    ) -> Result<(Vec<Endpoint>, Option<Instant>), ResolveError> {
        let services = match resolver.srv_lookup(self.name.as_str()).await {
            Ok(services) => services,
            Err(error) if error.is_no_records_found() => return Ok((Vec::new(), None)),
            Err(error) => return Err(failed(&self.name, error)),
        };
        let targets = services.answers().iter().filter_map(|record| match &record.data {
            // The root as the target means that there is no such service (RFC 2782).
            RData::SRV(srv) if !srv.target.is_root() => Some((srv.target.to_utf8(), srv.port)),
            _ => None,
        });
        let targets: Vec<_> = targets.collect();
        let lookups = stream::iter(targets).map(|(target, port)| async move {
            let (ips, valid_until) = ips(resolver, &target).await?;
            Ok((ips, port, valid_until))
        });
        let found: Vec<_> = lookups.buffered(CONCURRENT_TARGETS).try_collect().await?;
        let valid_until = found.iter().filter_map(|(.., valid_until)| *valid_until).min();
        let valid_until = valid_until.map(|until| until.min(services.valid_until()));
        let endpoints = found.into_iter().flat_map(|(ips, port, _)| {
            ips.into_iter().map(move |ip| Endpoint::new(SocketAddr::new(ip, port)))
        });
        Ok((endpoints.collect(), valid_until))
    }
}

#[async_trait]
impl Resolver for DnsResolver {
    async fn resolve(&mut self) -> Result<Vec<Endpoint>, ResolveError> {
        if let Some(due) = self.due.take() {
            sleep(due.saturating_duration_since(Instant::now())).await;
        }
        // If the lookup fails or is dropped, the next call waits for the minimum interval.
        self.due = Instant::now().checked_add(self.min_interval);
        if self.resolver.is_none() {
            let servers = self.name_servers.clone();
            // The configuration of the system is read from files.
            let created = SYSTEM.run(move || create(servers)).await;
            let created = created.map_err(|error| ResolveError::Other(Cause::new(error)))?;
            self.resolver = Some(created.map_err(|error| failed(&self.name, error))?);
        }
        let Some(resolver) = &self.resolver else { unreachable!("it was created above") };
        let (endpoints, valid_until) = self.look_up(resolver).await?;
        let now = Instant::now();
        let valid =
            valid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        self.due = now.checked_add(valid.clamp(self.min_interval, self.max_interval));
        Ok(endpoints)
    }
}

/// Creates a resolver with these name servers, or those of the system.
fn create(servers: Option<Vec<SocketAddr>>) -> Result<TokioResolver, NetError> {
    let mut builder = match servers {
        None => TokioResolver::builder_tokio()?,
        Some(servers) => {
            let servers = servers.into_iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    builder.options_mut().cache_size = 0; // records have expired when a lookup is due
    builder.build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// Looks up the addresses of a name in both families. A failure is an error only if the other
/// family has no addresses.
async fn ips(
    resolver: &TokioResolver,
    name: &str,
) -> Result<(Vec<IpAddr>, Option<Instant>), ResolveError> {
    let (v4, v6) = tokio::join!(resolver.ipv4_lookup(name), resolver.ipv6_lookup(name));
    let (mut ips, mut valid_until, mut error) = (Vec::new(), Vec::new(), None);
    for found in [v4, v6] {
        match found {
            Ok(found) => {
                ips.extend(found.answers().iter().filter_map(|record| record.data.ip_addr()));
                valid_until.push(found.valid_until());
            }
            Err(none) if none.is_no_records_found() => {}
            Err(other) => error = Some(other),
        }
    }
    match error {
        Some(error) if ips.is_empty() => Err(failed(name, error)),
        _ => Ok((ips, valid_until.into_iter().min())),
    }
}

fn failed(name: &str, error: NetError) -> ResolveError {
    ResolveError::Dns { name: name.to_owned(), cause: Cause::new(error) }
}
