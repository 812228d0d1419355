//! The load: random schedules, and long connections, over each transport.

use anyhow::Result;
use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use net_traits_test::{Harness, Limits, random};
use quinn_transport::{QuinnConfig, QuinnTransport};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};
use tokio::task::JoinSet;
use tokio::time::sleep;

const ALPN: &str = "soak/1";

/// The pause between two round trips of a long connection.
const PAUSE: Duration = Duration::from_millis(5);

/// The size of the messages of long connections, in bytes.
const SIZE: usize = 1000;

/// What the load has done.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) schedules: AtomicU64,
    pub(crate) round_trips: AtomicU64,
    /// The durations of the round trips since the last sample.
    recent: Mutex<Vec<Duration>>,
}

impl Counters {
    fn add(&self, duration: Duration) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).push(duration);
    }

    /// Returns the 99th percentile of the round trips since the last call.
    pub(crate) fn take_p99(&self) -> Duration {
        let mut recent =
            std::mem::take(&mut *self.recent.lock().unwrap_or_else(PoisonError::into_inner));
        recent.sort_unstable();
        recent.get(recent.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// Starts the load. Its tasks end after `is_over` is set, or with an error.
pub(crate) fn start(
    load: &mut JoinSet<Result<()>>,
    seed: u64,
    is_over: &Arc<AtomicBool>,
    counters: &Arc<Counters>,
) {
    start_over(load, MsQuic, seed, is_over, counters);
    start_over(load, Quinn, seed, is_over, counters);
    start_over(load, Tcp, seed, is_over, counters);
}

fn start_over<H: Harness>(
    load: &mut JoinSet<Result<()>>,
    harness: H,
    seed: u64,
    is_over: &Arc<AtomicBool>,
    counters: &Arc<Counters>,
) {
    let harness = Arc::new(harness);
    let (over, counted, of_schedules) = (is_over.clone(), counters.clone(), harness.clone());
    load.spawn(async move {
        for seed in seed.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            random::play(&of_schedules, seed).await;
            counted.schedules.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let (over, counted) = (is_over.clone(), counters.clone());
    load.spawn(async move { exchange(&*harness, &over, &counted).await });
}

/// Exchanges messages over one connection.
async fn exchange<H: Harness>(
    harness: &H,
    is_over: &AtomicBool,
    counters: &Counters,
) -> Result<()> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let transport = harness.transport(&Limits::default());
    let listener =
        transport.create_listener(harness.bind_addr(), &[ALPN], credential.clone()).await?;
    let dial = transport.connect(listener.local_addr(), &[ALPN], credential);
    let accept = async { anyhow::Ok(listener.accept().await?.accept().await?) };
    let (dialled, accepted) = tokio::join!(dial, accept);
    let (dialled, accepted) = (dialled?, accepted?);
    let echo = tokio::spawn(async move {
        while let Ok((message, _)) = accepted.recv().await {
            accepted.send_bytes(message).await?;
        }
        anyhow::Ok(())
    });
    while !is_over.load(Ordering::Relaxed) {
        let started = Instant::now();
        dialled.send(&[7; SIZE]).await?;
        anyhow::ensure!(dialled.recv().await?.0.len() == SIZE, "a message was cut");
        counters.add(started.elapsed());
        sleep(PAUSE).await;
    }
    dialled.close(0, "the end").await;
    echo.await?
}

/// Passes the limits on; all transports have the same options.
macro_rules! harness {
    ($name:ident, $transport:ty, $config:expr, $progress:ident) => {
        struct $name;

        impl Harness for $name {
            type Transport = $transport;

            fn transport(&self, limits: &Limits) -> Self::Transport {
                let config = $config
                    .max_message_size(limits.max_message_size)
                    .max_request_size(limits.max_request_size)
                    .receive_queue(limits.receive_queue)
                    .handshake_timeout(limits.handshake_timeout)
                    .$progress(limits.no_progress_timeout)
                    .operation_timeout(limits.operation_timeout)
                    .linger(limits.linger)
                    .max_connections(limits.max_connections)
                    .max_connections_per_identity(limits.max_connections_per_identity)
                    .max_memory(limits.max_memory)
                    .message_timeout(limits.message_timeout);
                Self::Transport::with_config(config).expect("the limits are valid")
            }
        }
    };
}

harness!(MsQuic, MsQuicTransport, MsQuicTransportConfig::new(), stream_op_timeout);
harness!(Quinn, QuinnTransport, QuinnConfig::new(), no_progress_timeout);
harness!(Tcp, TcpTlsTransport, TcpTlsConfig::new(), no_progress_timeout);
