//! Spans of `tracing`: the events of the application are inside the span of their connection, which names
//! the peer, and inside a span of each request.
//!
//! ```sh
//! cargo run --example spans
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Result, ensure};
use bytes::Bytes;
use net_traits::{
    NetConnection, NetCredential, NetListener, NetRequests, NetTransport, TrustPolicy,
    serve_requests,
};
use quinn_transport::{QuinnConnection, QuinnTransport};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing::{Instrument, Level, info, info_span};

const ALPN: &str = "spans/1";

/// Serves a connection inside of its span.
async fn serve(connection: QuinnConnection) {
    let span = connection.span().clone();
    let numbers = AtomicU64::new(1);
    serve_requests(&connection, 4, |question| {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        answer(question).instrument(info_span!("request", number))
    })
    .instrument(span)
    .await;
}

async fn answer(question: Bytes) -> Bytes {
    // The text of a peer is untrusted: `?` escapes it.
    info!(question = ?String::from_utf8_lossy(&question), "answering");
    question.to_ascii_uppercase().into()
}

#[tokio::main]
async fn main() -> Result<()> {
    // `RUST_LOG` and formats for machines: see the crate tracing-subscriber.
    tracing_subscriber::fmt().with_max_level(Level::DEBUG).without_time().init();

    let client = NetCredential::self_signed(TrustPolicy::reject_all())?;
    let server = NetCredential::self_signed(TrustPolicy::hashes([client.identity()]))?;
    let client = client.expecting(server.identity());
    let transport = QuinnTransport::new();
    let listener = transport.create_listener("127.0.0.1:0".parse()?, &[ALPN], server).await?;
    let address = listener.local_addr();
    tokio::spawn(async move { net_peers::serve(&listener, serve).await });

    let connection = transport.connect(address, &[ALPN], client).await?;
    for question in ["what?", "and then?\n(a line that is not one)"] {
        let answer = connection.request(question.into(), Duration::from_secs(5)).await?;
        ensure!(answer == question.to_ascii_uppercase(), "another answer arrived");
    }
    connection.close(0, "done").await;
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    Ok(())
}
