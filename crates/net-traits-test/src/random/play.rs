//! Plays schedules.

use super::check::{self, Fate, Message, Record, code, reason};
use super::script::{End, Operation, Script};
use crate::Harness;
use crate::stage::{ALPN, Connection, credentials, numbered};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::FutureExt;
use net_traits::{
    NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests, NetTransport,
    RecvError, RequestError, SendAckedError, SendError, TrustPolicy,
};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The time limit of a schedule.
const LIMIT: Duration = Duration::from_secs(60);

/// How long an end may take to become visible in the statistics.
const SETTLED: Duration = Duration::from_secs(10);

/// How many schedules run at once.
const AT_ONCE: usize = 4;

/// The seeds to play instead of those in the code, as `SEED` or `FIRST..END`.
const SEEDS: &str = "NET_TRAITS_TEST_SEEDS";

/// Plays the schedules of `seeds`, or of those in the environment variable `NET_TRAITS_TEST_SEEDS`, a few at
/// once.
///
/// ```no_run
/// # use net_traits_test::memory::{MemoryNetwork, MemoryTransport};
/// # use net_traits_test::{Harness, Limits, random};
/// # struct Memory(MemoryNetwork);
/// # impl Harness for Memory {
/// #     type Transport = MemoryTransport;
/// #     fn transport(&self, limits: &Limits) -> MemoryTransport {
/// #         self.0.transport_with(limits.clone())
/// #     }
/// # }
/// random::run(Memory(MemoryNetwork::new(0)), 0..100);
/// ```
///
/// # Panics
///
/// If a schedule violates the contract; the message has its seed.
pub fn run<H: Harness>(harness: H, seeds: Range<u64>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let (harness, mut seeds) = (Arc::new(harness), chosen().unwrap_or(seeds));
    runtime.block_on(async {
        let mut playing = JoinSet::new();
        loop {
            while playing.len() < AT_ONCE
                && let Some(seed) = seeds.next()
            {
                let harness = harness.clone();
                playing.spawn(async move { play(&harness, seed).await });
            }
            match playing.join_next().await {
                None => break,
                Some(played) => played.expect("the schedules keep the contract"),
            }
        }
    });
}

/// Returns the seeds in the environment.
fn chosen() -> Option<Range<u64>> {
    let text = std::env::var(SEEDS).ok()?;
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{SEEDS}={text}"));
    Some(match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&text)..number(&text) + 1,
    })
}

/// Plays one schedule.
///
/// # Panics
///
/// If the transport violates the contract, or the schedule takes longer than a minute. The message has the seed.
pub async fn play<H: Harness>(harness: &Arc<H>, seed: u64) {
    play_scripts(harness, Script::pair(&mut Rng::with_seed(seed)), &format!("{SEEDS}={seed}"))
        .await;
}

/// Plays the schedule that `bytes` determine, for a fuzzer.
///
/// # Panics
///
/// As [`play`]; the message has the bytes.
pub async fn play_bytes<H: Harness>(harness: &Arc<H>, bytes: &[u8]) {
    play_scripts(harness, Script::pair(&mut &*bytes), &format!("the bytes {bytes:?}")).await;
}

async fn play_scripts<H: Harness>(harness: &Arc<H>, scripts: [Script; 2], origin: &str) {
    let records = [Arc::<Mutex<Record>>::default(), Arc::default()];
    let transports = scripts.each_ref().map(|script| harness.transport(&script.limits));
    let played = timeout(LIMIT, meet(harness, &transports, &scripts, &records)).await;
    let records = records.map(|record| std::mem::take(&mut *record.lock()));
    let fail = |what: &str| -> ! {
        panic!("{what}, with {origin}: dialler and listener are {scripts:#?}, {records:#?}")
    };
    if played.is_err() {
        fail("the schedule hangs");
    }
    for [side, other] in [[0, 1], [1, 0]] {
        let (sender, receiver) =
            ((&scripts[side], &records[side]), (&scripts[other], &records[other]));
        check::messages(sender, receiver).unwrap_or_else(|what| fail(&what));
        let mut checked = check::statistics(sender, receiver, &transports[side].statistics());
        let settled = async {
            while checked.is_err() {
                sleep(Duration::from_millis(10)).await;
                checked = check::statistics(sender, receiver, &transports[side].statistics());
            }
        };
        let _ = timeout(SETTLED, settled).await;
        checked.unwrap_or_else(|what| fail(&what));
    }
}

/// Connects the transports, and plays both scripts until the connection has ended on both sides.
async fn meet<H: Harness>(
    harness: &Arc<H>,
    transports: &[H::Transport; 2],
    scripts: &[Script; 2],
    records: &[Arc<Mutex<Record>>; 2],
) {
    let (for_listener, for_dialler) = credentials();
    let listener = transports[1].create_listener(harness.bind_addr(), &[ALPN], for_listener);
    let listener = listener.await.expect("listening on a free port works");
    let dialler = async {
        let dial = transports[0].connect(listener.local_addr(), &[ALPN], for_dialler);
        let connection = late(scripts[0].delay, dial).await.expect("the dialler connects");
        side::<H>(&transports[0], connection, &scripts[0], &records[0]).await;
    };
    let accepter = async {
        let request = listener.accept().await.expect("a listener accepts until it is closed");
        sleep(scripts[1].delay).await;
        let connection = late(scripts[1].delay, request.accept()).await;
        let connection = connection.expect("the listener accepts");
        side::<H>(&transports[1], connection, &scripts[1], &records[1]).await;
    };
    tokio::join!(dialler, accepter);
}

/// Polls `future` only some time after each time it was woken, as a busy program does.
async fn late<F: Future>(delay: Duration, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let mut is_polled = false;
        let polled = poll_fn(|cx| {
            if std::mem::replace(&mut is_polled, true) {
                return Poll::Ready(None); // it was woken
            }
            future.as_mut().poll(cx).map(Some)
        });
        if let Some(output) = polled.await {
            return output;
        }
        sleep(delay).await;
    }
}

/// Plays the script of one side.
async fn side<H: Harness>(
    transport: &H::Transport,
    connection: Connection<H>,
    script: &Script,
    record: &Arc<Mutex<Record>>,
) {
    let mut receiving = JoinSet::new();
    let (delay, pause, seed) = (script.delay, script.pause, script.seed);
    let (receiver, answerer, to) = (connection.clone(), connection.clone(), record.clone());
    receiving.spawn(async move {
        sleep(delay).await;
        receive(&receiver, pause, seed, &to).await;
    });
    receiving.spawn(async move { answer(&answerer).await });
    for operation in &script.operations {
        if !perform(&connection, *operation, record).await {
            break;
        }
    }
    match script.end {
        End::Close => {
            let outcome = connection.close(code(script), &reason(script)).await;
            record.lock().outcome = Some(outcome);
        }
        End::Drop => receiving.shutdown().await,
        End::Abort => connection.abort(code(script), &reason(script)),
        End::Shutdown => transport.shutdown(LIMIT, &reason(script)).await,
        End::Revoke => assert!(transport.revoke(&TrustPolicy::reject_all()).await <= 1),
        End::Wait => {}
    }
    if script.end != End::Drop {
        let ended = connection.watch_close().await;
        record.lock().ended = Some(ended);
    }
    drop(connection);
    while let Some(received) = receiving.join_next().await {
        received.expect("it does not panic");
    }
}

/// Receives until the connection ends.
async fn receive<C: NetConnection>(
    connection: &C,
    pause: Duration,
    seed: u64,
    record: &Mutex<Record>,
) {
    let mut random = Rng::with_seed(seed);
    loop {
        let received = if random.u32(..4) == 0 {
            let Some(received) = connection.recv().now_or_never() else {
                tokio::task::yield_now().await;
                continue;
            };
            received
        } else {
            connection.recv().await
        };
        match received {
            Ok((message, _)) => record.lock().received.push(Message(message)),
            Err(RecvError::Closed(_)) => return,
            Err(error) => record.lock().errors.push(error),
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

/// Answers each question with itself until the connection ends.
async fn answer<C: NetRequests>(connection: &C) {
    while let Ok(mut question) = connection.accept_request().await {
        if let Ok(text) = question.question().await {
            let _ = question.answer(text).await; // the peer may have cancelled it
        }
    }
}

/// Performs one operation. Returns false if the connection has ended.
async fn perform<C: NetRequests>(
    connection: &C,
    operation: Operation,
    record: &Mutex<Record>,
) -> bool {
    let next = |size| {
        let number = u32::try_from(record.lock().sent.len()).unwrap_or(u32::MAX);
        numbered(number, size)
    };
    let add = |message: Bytes, fate| record.lock().sent.push((Message(message), fate));
    match operation {
        Operation::Send(size) => {
            let message = next(size);
            let sent = connection.send_bytes(message.clone()).await;
            if sent.is_ok() {
                add(message, Fate::Queued);
            }
            goes_on(sent)
        }
        Operation::TrySend(size) => {
            let message = next(size);
            let sent = connection.try_send(message.clone());
            if sent.is_ok() {
                add(message, Fate::Queued);
            }
            goes_on(sent)
        }
        Operation::PollSend(size) => {
            let message = next(size);
            match connection.send_bytes(message.clone()).now_or_never() {
                Some(Ok(())) => add(message, Fate::Queued),
                Some(sent) => return goes_on(sent),
                None => add(message, Fate::Unknown),
            }
            true
        }
        Operation::SendAcked(size) => {
            let message = next(size);
            match connection.send_acked(message.clone()).await {
                Ok(()) => add(message, Fate::Taken),
                Err(SendAckedError::Unknown(error)) => {
                    add(message, Fate::Queued);
                    return goes_on(Err(error));
                }
                Err(SendAckedError::NotSent(error)) => return goes_on(Err(error)),
                Err(_) => {}
            }
            true
        }
        Operation::Flush => goes_on(connection.flush().await),
        Operation::Ask(size) => {
            let question = next(size);
            match connection.request(question.clone(), LIMIT).await {
                Ok(answer) => assert_eq!(answer, question),
                Err(RequestError::Closed(_)) => return false,
                // The other side ends, or has no requests.
                Err(RequestError::NoAnswer { .. } | RequestError::Unsupported) => {}
                Err(error) => panic!("a question failed: {error:?}"),
            }
            true
        }
        Operation::PollAsk(size) => {
            connection.request(next(size), LIMIT).now_or_never();
            true
        }
        Operation::Pause(pause) => {
            sleep(pause).await;
            true
        }
    }
}

/// Returns whether the connection can still be used. Other failures are violations.
fn goes_on(sent: Result<(), SendError>) -> bool {
    match sent {
        Ok(()) | Err(SendError::WouldBlock) => true,
        Err(SendError::Closed(_)) => false,
        Err(error) => panic!("sending failed: {error:?}"),
    }
}
