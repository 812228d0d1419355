//! `DnsResolver`: the addresses of a name, or of the targets of a service.

use super::{Endpoint, ResolveError, Resolver};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use net_traits::Cause;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The bounds of the time between two lookups.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
const MAX_INTERVAL: Duration = Duration::from_secs(300);

/// How many targets of a service are looked up at once, and at all.
const CONCURRENT_TARGETS: usize = 8;
const MAX_TARGETS: usize = 1024;

/// The peers that DNS lists, such as the members of a headless service of an orchestrator.
///
/// [`addresses`](Self::addresses) takes the A and AAAA records of a name,
/// [`service`](Self::service) the SRV records (RFC 2782) of a service and the addresses of their
/// targets, in which priorities and weights do not matter. The lookup is repeated when the records
/// expire, but not before 5 s and not after 5 min. A name without records, or one that does not
/// exist, is an empty list; a server that fails or does not answer is an error.
///
/// DNS is not authenticated. Peers prove their identities, so a forged answer can add addresses
/// that are dialled and hide others.
///
/// ```no_run
/// use net_peers::DnsResolver;
///
/// let resolver = DnsResolver::addresses("peers.default.svc.cluster.local.", 4433)?;
/// let service = DnsResolver::service("_chat._udp.example.org.")?;
/// # Ok::<(), net_peers::ResolveError>(())
/// ```
#[derive(Debug)]
pub struct DnsResolver {
    resolver: TokioResolver,
    name: String,
    kind: Kind,
    min_interval: Duration,
    max_interval: Duration,
    /// When to look up; at once if it is not set.
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
    /// The name servers are those of the system. A final dot says that the name is complete.
    ///
    /// # Errors
    ///
    /// [`ResolveError::Dns`] if the configuration of the system cannot be read.
    pub fn addresses(name: impl Into<String>, port: u16) -> Result<Self, ResolveError> {
        Self::with_builder(name.into(), Kind::Addresses { port }, TokioResolver::builder_tokio)
    }

    /// Looks up the service `name`, such as `_chat._udp.example.org.`
    ///
    /// # Errors
    ///
    /// See [`addresses`](Self::addresses).
    pub fn service(name: impl Into<String>) -> Result<Self, ResolveError> {
        Self::with_builder(name.into(), Kind::Service, TokioResolver::builder_tokio)
    }

    /// Asks these name servers instead of those of the system, over UDP and where necessary TCP.
    ///
    /// # Errors
    ///
    /// [`ResolveError::Dns`] if the resolver cannot be created.
    pub fn name_servers(
        self,
        servers: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, ResolveError> {
        let servers = servers.into_iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let provider = TokioRuntimeProvider::default();
        let resolver = Self::with_builder(self.name, self.kind, || {
            Ok(TokioResolver::builder_with_config(config, provider))
        })?;
        Ok(resolver.interval(self.min_interval, self.max_interval))
    }

    /// Bounds the time between two lookups, which is that for which the records are valid.
    /// Default: 5 s to 5 min.
    #[must_use]
    pub fn interval(mut self, min: Duration, max: Duration) -> Self {
        self.min_interval = min;
        self.max_interval = max.max(min);
        self
    }

    fn with_builder(
        name: String,
        kind: Kind,
        builder: impl FnOnce() -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError>,
    ) -> Result<Self, ResolveError> {
        let resolver = builder().and_then(|mut builder| {
            builder.options_mut().cache_size = 0; // lookups are made when they are due
            builder.build()
        });
        let resolver = resolver.map_err(|error| failed(&name, error))?;
        let (min_interval, max_interval) = (MIN_INTERVAL, MAX_INTERVAL);
        Ok(Self { resolver, name, kind, min_interval, max_interval, due: None })
    }

    /// Looks up, and returns until when the records are valid; `None` if there are no records.
    async fn look_up(&self) -> Result<(Vec<Endpoint>, Option<Instant>), ResolveError> {
        match self.kind {
            Kind::Addresses { port } => {
                let (addresses, valid_until) = self.ips(&self.name).await?;
                let endpoint = |ip| Endpoint::new(SocketAddr::new(ip, port));
                Ok((addresses.into_iter().map(endpoint).collect(), valid_until))
            }
            Kind::Service => self.look_up_service().await,
        }
    }

    async fn look_up_service(&self) -> Result<(Vec<Endpoint>, Option<Instant>), ResolveError> {
        let services = match self.resolver.srv_lookup(self.name.as_str()).await {
            Ok(services) => services,
            Err(error) if error.is_no_records_found() => return Ok((Vec::new(), None)),
            Err(error) => return Err(failed(&self.name, error)),
        };
        let targets = services.answers().iter().filter_map(|record| match &record.data {
            // A target that is the root says that there is no such service.
            RData::SRV(srv) if !srv.target.is_root() => Some((srv.target.to_utf8(), srv.port)),
            _ => None,
        });
        let targets: Vec<_> = targets.take(MAX_TARGETS).collect();
        let lookups = stream::iter(targets).map(|(target, port)| async move {
            let (ips, valid_until) = self.ips(&target).await?;
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

    /// Looks up the addresses of a name in both families. One that fails does not hide the other.
    async fn ips(&self, name: &str) -> Result<(Vec<IpAddr>, Option<Instant>), ResolveError> {
        let resolver = &self.resolver;
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
}

#[async_trait]
impl Resolver for DnsResolver {
    async fn resolve(&mut self) -> Result<Vec<Endpoint>, ResolveError> {
        if let Some(due) = self.due.take() {
            sleep(due.saturating_duration_since(Instant::now())).await;
        }
        // If it fails or is dropped, the next call looks up after the shortest interval.
        self.due = Instant::now().checked_add(self.min_interval);
        let (endpoints, valid_until) = self.look_up().await?;
        let now = Instant::now();
        let valid =
            valid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        self.due = now.checked_add(valid.clamp(self.min_interval, self.max_interval));
        Ok(endpoints)
    }
}

fn failed(name: &str, error: NetError) -> ResolveError {
    ResolveError::Dns { name: name.to_owned(), cause: Cause::new(error) }
}
