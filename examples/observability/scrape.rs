//! Tests of `observe`: a parser of Prometheus text reads what it serves.

use super::*;
use anyhow::Context;
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
    assert_eq!(during.docs["net_bytes_sent_total"], "Bytes of messages queued, without headers");

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
