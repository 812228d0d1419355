//! A service that answers requests: a counter for each client, with a question that must happen once.
//!
//! A client that does not know whether its question arrived asks again with the same number, and the
//! service then returns the answer that it gave before.
//!
//! ```sh
//! cargo run --example service
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use net_traits::{
    NetConnection, NetCredential, NetListener, NetRequests, NetTransport, RequestError,
    TrustPolicy, serve_requests,
};
use quinn_transport::QuinnTransport;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ALPN: &str = "counter/1";

/// How many questions of one client are answered at once.
const CONCURRENCY: usize = 16;

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The state of one client: its total, and the last question with its answer.
#[derive(Default)]
struct Counter {
    total: u64,
    last: Option<(u64, u64)>,
}

impl Counter {
    /// Adds `amount`, unless the question with this number was answered before.
    fn add(&mut self, number: u64, amount: u64) -> u64 {
        match self.last {
            Some((last, answer)) if last == number => answer,
            _ => {
                self.total = self.total.saturating_add(amount);
                self.last = Some((number, self.total));
                self.total
            }
        }
    }
}

/// The counters by identity: a client that reconnects finds its own. Only trusted clients have one.
#[derive(Clone, Default)]
struct Service(Arc<Mutex<HashMap<String, Counter>>>);

impl Service {
    async fn serve(self, connection: impl NetRequests) {
        let client = connection.remote_identity().to_owned();
        serve_requests(&connection, CONCURRENCY, async |question| self.answer(&client, &question))
            .await;
    }

    /// Returns the total in 8 bytes, and nothing for a question that is not two numbers.
    fn answer(&self, client: &str, question: &[u8]) -> Bytes {
        let Some((number, amount)) = decode(question) else { return Bytes::new() };
        let mut counters = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let total = counters.entry(client.to_owned()).or_default().add(number, amount);
        Bytes::copy_from_slice(&total.to_be_bytes())
    }
}

fn decode(question: &[u8]) -> Option<(u64, u64)> {
    let (number, amount) = question.split_at_checked(8)?;
    Some((u64::from_be_bytes(number.try_into().ok()?), u64::from_be_bytes(amount.try_into().ok()?)))
}

/// Asks until there is an answer, or an error that another attempt cannot change.
async fn add(connection: &impl NetRequests, number: u64, amount: u64) -> Result<u64> {
    let question = [number.to_be_bytes(), amount.to_be_bytes()].concat();
    for _ in 0..3 {
        match connection.request(Bytes::from(question.clone()), DEADLINE).await {
            Err(RequestError::TimedOut { .. }) => println!("no answer yet, asking again"),
            answer => return Ok(u64::from_be_bytes(answer?.as_ref().try_into()?)),
        }
    }
    None.context("the service does not answer")
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = NetCredential::self_signed(TrustPolicy::reject_all())?;
    let server = NetCredential::self_signed(TrustPolicy::hashes([client.identity()]))?;
    let client = client.expecting(server.identity());

    let transport = QuinnTransport::new();
    let listener = transport.create_listener("127.0.0.1:0".parse()?, &[ALPN], server).await?;
    let (address, service) = (listener.local_addr(), Service::default());
    let handler = move |connection| service.clone().serve(connection);
    tokio::spawn(async move { net_peers::serve(&listener, handler).await });

    let connection = transport.connect(address, &[ALPN], client).await?;
    for (number, amount, expected) in [(1, 5, 5), (2, 10, 15), (2, 10, 15), (3, 1, 16)] {
        let total = add(&connection, number, amount).await?;
        println!("question {number}: add {amount}, total {total}");
        ensure!(total == expected, "the total is not {expected}");
    }
    connection.close(0, "done").await;
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    Ok(())
}
