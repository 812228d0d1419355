//! The contenders, by their names. Each runs in a process of its own, with both peers.

mod ours;
mod quinn;
mod raw;
#[cfg(feature = "s2n")]
mod s2n;
mod streams;
mod tcp;

use crate::child::answer;
use anyhow::{Result, bail};
use metrics_exporter_prometheus::PrometheusBuilder;
use msquic_transport::{CongestionControl, MsQuicTransport, MsQuicTransportConfig};
use ours::{Batched, Node};
use quinn_transport::{QuinnConfig, QuinnTransport};
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;
use streams::Writes;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};
use tokio::runtime::Builder;

/// The suffix of a contender whose client has a certificate too. This project's transports always
/// have one.
pub(crate) const MUTUAL: &str = ", client certificates";

pub(crate) const BATCHED: &str = "ours, batched and inline";
pub(crate) const DRIVEN: &str = "ours, driven";
pub(crate) const DRIVEN_BATCHED: &str = "ours, driven, batched and inline";
pub(crate) const DRIVEN_ONE: &str = "ours, driven, one thread";
pub(crate) const POLLING: &str = "ours, polling";
pub(crate) const BBR: &str = "ours, BBR";
pub(crate) const JUMBO: &str = "ours, jumbo";
pub(crate) const METRICS: &str = "ours, driven, one thread, with metrics";
pub(crate) const AGAIN: &str = "ours, driven, one thread, again";
pub(crate) const OWN_SOCKETS: &str = "ours, own sockets";
pub(crate) const OVER_QUINN: &str = "ours over quinn";
pub(crate) const OVER_QUINN_JUMBO: &str = "ours over quinn, jumbo";
pub(crate) const OVER_TCP: &str = "ours over TCP";
pub(crate) const GATHERED: &str = "quinn, gathered";
pub(crate) const TCP_GATHERED: &str = "TCP+TLS, gathered";
pub(crate) const UNPATCHED: &str = "raw msquic, unpatched";
pub(crate) const UNPATCHED_MUTUAL: &str = "raw msquic, unpatched, client certificates";
pub(crate) const PUBLISHED: &str = "msquic-async 0.4.1";

/// The programs that contenders are processes of.
pub(crate) struct Programs {
    this: PathBuf,
    unpatched: Option<PathBuf>,
}

impl Programs {
    /// This program, and bench/unpatched if there is one.
    pub(crate) fn new(unpatched: Option<PathBuf>) -> Result<Self> {
        Ok(Self { this: env::current_exe()?, unpatched })
    }

    /// Returns the program of a contender; `None` if there is none.
    pub(crate) fn of(&self, name: &str) -> Option<&Path> {
        if [UNPATCHED, UNPATCHED_MUTUAL, PUBLISHED].contains(&name) {
            return self.unpatched.as_deref();
        }
        let exists = (!name.starts_with("s2n-quic") || cfg!(feature = "s2n"))
            && (!name.starts_with(DRIVEN) || cfg!(target_os = "linux"));
        exists.then_some(&self.this)
    }
}

/// Carries out the workloads that arrive at the standard input.
pub(crate) fn serve(name: String) -> Result<()> {
    let mut builder = match name.starts_with(DRIVEN_ONE) {
        true => Builder::new_current_thread(),
        false => Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build()?;
    // A task, because in a multi-threaded runtime the future of `block_on` does not run on the
    // runtime's own threads.
    let task = runtime.spawn(async move { create(&name).await });
    runtime.block_on(task)?
}

async fn create(name: &str) -> Result<()> {
    let config = msquic();
    match with_kind(name) {
        ("ours", _) => answer(node(config).await?).await,
        (POLLING, _) => {
            msquic_transport::set_busy_polling(POLLING_TIME)?;
            answer(node(config).await?).await
        }
        (BATCHED, _) => answer(Batched(node(config).await?)).await,
        #[cfg(target_os = "linux")]
        (DRIVEN | DRIVEN_BATCHED | DRIVEN_ONE | AGAIN | METRICS, _) => {
            if name == METRICS {
                PrometheusBuilder::new().install_recorder()?;
            }
            let driver = msquic_transport::ExecutionDriver::install()?;
            tokio::spawn(msquic_transport::drive(driver));
            match name {
                DRIVEN_BATCHED => answer(Batched(node(config).await?)).await,
                _ => answer(node(config).await?).await,
            }
        }
        (BBR, _) => answer(node(config.congestion_control(CongestionControl::Bbr)).await?).await,
        (JUMBO, _) => answer(node(config.maximum_mtu(9000)).await?).await,
        (OWN_SOCKETS, _) => answer(node(config.share_sockets(false)).await?).await,
        (OVER_QUINN, _) => answer(Node::new(QuinnTransport::with_config(quinn())?, 0).await?).await,
        (OVER_QUINN_JUMBO, _) => {
            let config = quinn().maximum_mtu(9000);
            answer(Node::new(QuinnTransport::with_config(config)?, 0).await?).await
        }
        (OVER_TCP, _) => answer(Node::new(TcpTlsTransport::with_config(tcp())?, 2).await?).await,
        ("quinn", mutual) => answer(quinn::Quinn::new(Writes::Single, mutual)?).await,
        (GATHERED, mutual) => answer(quinn::Quinn::new(Writes::Gathered, mutual)?).await,
        #[cfg(feature = "s2n")]
        ("s2n-quic", mutual) => answer(s2n::S2n::new(mutual)?).await,
        ("TCP+TLS", mutual) => answer(tcp::Tcp::new(Writes::Single, mutual).await?).await,
        (TCP_GATHERED, mutual) => answer(tcp::Tcp::new(Writes::Gathered, mutual).await?).await,
        ("raw msquic", mutual) => answer(raw::Raw::new(mutual)?).await,
        _ => bail!("this build has no contender {name:?}"),
    }
}

async fn node(config: MsQuicTransportConfig) -> Result<Node<MsQuicTransport>> {
    Node::new(MsQuicTransport::with_config(config)?, 0).await
}

/// Returns the name without [`MUTUAL`], and whether it had that.
fn with_kind(name: &str) -> (&str, bool) {
    name.strip_suffix(MUTUAL).map_or((name, false), |name| (name, true))
}

/// Configurations that are the default except for limits, since all connections are of one identity
/// and address.
macro_rules! unlimited {
    ($name:ident, $config:ty) => {
        fn $name() -> $config {
            <$config>::new()
                .max_connections(UNLIMITED)
                .max_connections_per_ip(UNLIMITED)
                .max_connections_per_identity(UNLIMITED)
        }
    };
}
unlimited!(msquic, MsQuicTransportConfig);
unlimited!(quinn, QuinnConfig);
unlimited!(tcp, TcpTlsConfig);

/// For how long msquic's threads poll: longer than a round trip through all threads takes.
const POLLING_TIME: Duration = Duration::from_micros(200);

/// More connections than are ever open.
const UNLIMITED: usize = 1_000_000;
