//! `matrix`: combinations of losses, disturbances, events and transfers, and what must hold in each.
//!
//! Every message arrives once, in order and unchanged, or its sender gets an error. Every request
//! has the right answer or an error. Datagrams may be lost, but none arrives twice or changed.
//! A request ends at its deadline, and nothing takes longer than two minutes.
//!
//! [`run`] runs one combination for each pair of event and transfer. `NET_RELAY_ALL=1` runs all
//! combinations, `NET_RELAY_SEED=N` chooses others, and `NET_RELAY_ONLY=N` runs the one with this
//! number. A failure names the variables that repeat it.

mod combination;
mod transfer;

pub use combination::{Combination, Disturbance, Event, Loss, Transfer};

use crate::{Direction, Relay};
use futures_util::FutureExt;
use futures_util::future::{Either, select, try_join};
use futures_util::stream::{StreamExt, iter};
use net_traits::{
    NetCredential, NetIncomingRequest, NetListener, NetRequests, NetTransport, TrustPolicy,
    WithCauses,
};
use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What became of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything arrived; of datagrams, some.
    Complete,
    /// Not everything arrived, and the sender got this error.
    Reported(String),
}

/// Runs the chosen combinations, with two transports of `make` for each, and returns what became of
/// them.
///
/// # Panics
///
/// If a combination violates the contract, or if everything arrives in less than half of several.
pub fn run<T>(make: impl Fn() -> T) -> Vec<(Combination, Outcome)>
where
    T: NetTransport<Connection: NetRequests>,
{
    let seed = variable("NET_RELAY_SEED").unwrap_or(1);
    let chosen = if let Some(number) = variable("NET_RELAY_ONLY") {
        Combination::all().nth(number as usize).into_iter().collect()
    } else if variable("NET_RELAY_ALL").is_some() {
        Combination::all().collect()
    } else {
        Combination::selection(seed)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be created");
    let runs = chosen.into_iter().map(|combination| {
        let run = AssertUnwindSafe(timeout(HANG, survive([make(), make()], combination, seed)));
        async move {
            let result = match run.catch_unwind().await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(format!("it takes longer than {HANG:?}")),
                Err(_) => Err("a panic".to_owned()),
            };
            let number = combination.number();
            let repeat = format!("NET_RELAY_SEED={seed} NET_RELAY_ONLY={number}");
            let result = result.map(|outcome| (combination, outcome));
            result.map_err(|error| format!("{combination}: {error}; repeat with {repeat}"))
        }
    });
    let results = async { iter(runs).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await };
    let results = runtime.block_on(results);
    let (outcomes, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(failures.is_empty(), "{failures:#?}");
    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    let complete = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Complete).count();
    assert!(complete * 2 + 1 >= outcomes.len(), "in too few everything arrived: {outcomes:#?}");
    outcomes
}

/// Runs one combination between two transports.
///
/// # Errors
///
/// What violates the contract.
pub async fn survive<T>(
    transports: [T; 2],
    combination: Combination,
    seed: u64,
) -> Result<Outcome, String>
where
    T: NetTransport<Connection: NetRequests>,
{
    let [dialler, server] = &transports;
    let credential = || NetCredential::self_signed(TrustPolicy::Any).map_err(words);
    let loopback = ([127, 0, 0, 1], 0).into();
    let listener = server.create_listener(loopback, &[ALPN], credential()?).await;
    let listener = listener.map_err(words)?;
    let seed = seed ^ (combination.number() as u64) << 32;
    let relay = Relay::new(listener.local_addr(), combination.faults(), seed).map_err(words)?;
    let dialled = dialler.connect(relay.address(), &[ALPN], credential()?);
    let accepted = async {
        loop {
            // An attempt whose handshake fails is the dialler's to report.
            let request = listener.accept().await.expect("the listener is open");
            if let Ok(connection) = request.accept().await {
                return Ok(connection);
            }
        }
    };
    let (dialled, accepted) = match try_join(dialled, accepted).await {
        Ok(connected) => connected,
        Err(error) => return Ok(Outcome::Reported(words(error))),
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let ends = if rng.bool() { [dialled, accepted] } else { [accepted, dialled] };
    let event = Notify::new();
    let transfer = async {
        match combination.transfer {
            Transfer::Messages => transfer::messages(ends, &mut rng, &event).await,
            Transfer::Requests => transfer::requests(ends, &mut rng, &event).await,
            Transfer::Datagrams => transfer::datagrams(ends, &mut rng, &event).await,
        }
    };
    // The transfer goes on during the event.
    let happen = async {
        event.notified().await;
        combination.event.happen(&relay).await;
        pending::<Infallible>().await
    };
    let outcome = match select(pin!(transfer), pin!(happen)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right((never, _)) => match never {},
    };
    let counts = [Direction::Up, Direction::Down].map(|direction| relay.counts(direction));
    outcome.map_err(|error| format!("{error}, {counts:?}"))
}

/// Returns an error and its causes.
fn words(error: impl Error + 'static) -> String {
    WithCauses(&error).to_string()
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("the variable is a number"))
}

/// Combinations at once. They wait most of the time.
const AT_ONCE: usize = 4;

const ALPN: &str = "matrix/1";

/// A combination that takes longer hangs.
const HANG: Duration = Duration::from_secs(120);
