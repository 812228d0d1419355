//! A node that operators can monitor: it serves its metrics as Prometheus text over HTTP, and logs
//! its events.
//!
//! ```sh
//! cargo run --example observe --features metrics
//! curl http://127.0.0.1:9464/metrics
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Context, Result};
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
    /// The address to listen on for peers
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
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
    let listener = transport.create_listener(options.listen, &[ALPN], credential.clone()).await?;
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
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).context("the request has no path")?;
    let (status, text) = match path {
        "/metrics" => ("200 OK", text),
        _ => ("404 Not Found", "see /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_kit::telemetry::{METRICS, MetricKind};
    use prometheus_parse::{Scrape, Value};

    async fn get(address: SocketAddr, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn scrape(address: SocketAddr) -> Result<Scrape> {
        let answer = get(address, "/metrics").await?;
        let (head, text) = answer.split_once("\r\n\r\n").context("there is no body")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        Ok(Scrape::parse(text.lines().map(|line| Ok(line.to_owned())))?)
    }

    /// The sum of a counter or gauge of a transport.
    fn sum(scrape: &Scrape, name: &str, transport: &str) -> f64 {
        let of_it = scrape.samples.iter().filter(|sample| {
            sample.metric == name && sample.labels.get("transport") == Some(transport)
        });
        of_it
            .map(|sample| match sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
                _ => 0.0,
            })
            .sum()
    }

    #[tokio::test]
    async fn a_scrape_shows_what_happened() -> Result<()> {
        let metrics = PrometheusBuilder::new().install_recorder()?;
        let scrapes = TcpListener::bind("127.0.0.1:0").await?;
        let address = scrapes.local_addr()?;
        let serving = tokio::spawn(serve_metrics(scrapes, metrics));
        assert!(get(address, "/other").await?.starts_with("HTTP/1.1 404 "));

        let transport = TcpTlsTransport::new();
        let credential = NetCredential::self_signed(TrustPolicy::Any)?;
        let here = "127.0.0.1:0".parse()?;
        let listener = transport.create_listener(here, &[ALPN], credential.clone()).await?;
        let peers = listener.local_addr();
        let listening = tokio::spawn(async move { net_peers::serve(&listener, echo).await });
        let connection = transport.connect(peers, &[ALPN], credential.clone()).await?;
        connection.send(&[7; 100]).await?;
        connection.recv().await?;
        let during = scrape(address).await?;
        assert_eq!(sum(&during, "net_connections_open", "tcp"), 2.0);
        assert_eq!(sum(&during, "net_messages_sent_total", "tcp"), 2.0);
        assert_eq!(sum(&during, "net_bytes_received_total", "tcp"), 200.0);
        assert_eq!(
            during.docs["net_bytes_sent_total"],
            "Bytes of messages queued, without headers"
        );

        let gone = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        transport.connect(gone, &[ALPN], credential).await.unwrap_err();
        connection.close(0, "done").await;
        transport.shutdown(Duration::from_secs(5), "").await;
        let after = scrape(address).await?;
        assert_eq!(sum(&after, "net_handshakes_failed_total", "tcp"), 1.0);
        assert_eq!(sum(&after, "net_connections_closed_total", "tcp"), 2.0);
        assert_eq!(sum(&after, "net_connections_open", "tcp"), 0.0, "a handle lives");
        for sample in &after.samples {
            let name = &sample.metric;
            let is_known = METRICS.iter().any(|metric| match metric.kind {
                MetricKind::Histogram => name.starts_with(metric.name),
                _ => name == metric.name,
            });
            assert!(is_known, "{name}");
        }
        drop(connection);
        serving.abort();
        listening.abort();
        Ok(())
    }
}
