//! A node that operators can monitor: it serves its metrics as Prometheus text over HTTP, and logs
//! its events.
//!
//! ```sh
//! cargo run --example observe --features metrics
//! curl http://127.0.0.1:9464/metrics
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::Result;
use clap::Parser;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use net_peers::FallbackTransport;
use net_traits::{NetConnection, NetCredential, NetListener, NetTransport, TrustPolicy};
use quinn_transport::QuinnTransport;
use std::net::SocketAddr;
use std::time::Duration;
use tcp_tls_transport::TcpTlsTransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, timeout};
use tracing::Level;

const ALPN: &str = "observe/1";

/// How long a client may take to send its request and to read the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest request that is read, in bytes.
const REQUEST: usize = 8 * 1024;

/// Echo messages, serve metrics and log events
#[derive(Debug, Parser)]
struct Options {
    /// The address that serves metrics. It has no access control, so it should not be public
    #[arg(long, default_value = "127.0.0.1:9464")]
    metrics: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt().with_max_level(Level::DEBUG).init();
    // Before the transports are created, because they look their metrics up once.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let scrapes = TcpListener::bind(options.metrics).await?;
    println!("metrics: http://{}/metrics", scrapes.local_addr()?);
    tokio::spawn(serve_metrics(scrapes, metrics));

    let transport = FallbackTransport::new(QuinnTransport::new(), TcpTlsTransport::new());
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let here = "127.0.0.1:0".parse()?;
    let listener = transport.create_listener(here, &[ALPN], credential.clone()).await?;
    let address = listener.local_addr();
    println!("peers: {address}");
    tokio::spawn(async move { net_peers::serve(&listener, echo).await });

    // Connections and messages, so that there is something to observe.
    let connection = transport.connect(address, &[ALPN], credential).await?;
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                connection.send(b"tick").await?;
                connection.recv().await?;
            }
            done = tokio::signal::ctrl_c() => break done?,
        }
    }
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    Ok(())
}

/// Returns each message.
async fn echo(connection: impl NetConnection) {
    while let Ok((message, _)) = connection.recv().await {
        if connection.send_bytes(message).await.is_err() {
            break;
        }
    }
}

/// Answers each HTTP request with the metrics, and drops connections that take too long.
async fn serve_metrics(listener: TcpListener, metrics: PrometheusHandle) {
    let mut upkeep = interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            // Histograms keep what was recorded until then.
            _ = upkeep.tick() => metrics.run_upkeep(),
            Ok((stream, _)) = listener.accept() => {
                let text = metrics.render();
                tokio::spawn(timeout(TIMEOUT, answer(stream, text)));
            }
        }
    }
}

async fn answer(mut stream: TcpStream, text: String) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(request.len() < REQUEST, "the request is too long");
        request.push(stream.read_u8().await?);
    }
    let (status, text) = match String::from_utf8_lossy(&request).split(' ').nth(1) {
        Some("/metrics") => ("200 OK", text),
        _ => ("404 Not Found", "see /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all((head + &text).as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

#[cfg(test)]
#[path = "observability/scrape.rs"]
mod tests;
