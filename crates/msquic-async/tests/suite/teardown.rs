//! Handles dropped in any order, in a living process and at its end.

use super::peers::{Pair, pair, pair_with, pattern, settings};
use crate::executors::{block_on, run_tokio};
use msquic_async::{ReceiveEnd, ReceiveSink, Stream, StreamLimits, StreamType};
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Names the scenario that a child process plays.
const SCENARIO: &str = "TEARDOWN_SCENARIO";

/// How often a child process is made to end.
const CHILDREN: u32 = 50;

/// How many of them run at once.
const SIDE_BY_SIDE: u32 = 5;

/// How long a child process may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that can be dropped, with traffic in flight.
async fn busy_handles() -> Vec<Box<dyn Any + Send>> {
    let settings = settings().zero_copy_receive(true);
    let Pair { registration, listener, client, server } =
        pair_with(settings, StreamLimits::default()).await;
    let stream = client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
    let (read, write) = stream.split();
    let mut write: msquic_async::WriteStream = write.unwrap();
    write.write_chunk(&pattern(300_000), false).await.unwrap();
    let accepted: Stream = server.accept_inbound_stream().await.unwrap();
    let (accepted, answer) = accepted.split();
    let held = accepted.as_ref().unwrap().read_chunk().await.unwrap();
    let mut unaccepted =
        client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
    unaccepted.write_all(b"never accepted").await.unwrap();
    let pending = tokio::spawn({
        let client = client.clone();
        async move { client.accept_inbound_uni_stream().await.map(|_| ()) }
    });
    let observing = tokio::spawn({
        let client = client.clone();
        async move { while client.next_change().await.is_ok() {} }
    });
    // Calls that go on, or are taken back, when their futures are dropped.
    let mut calls = {
        let client = client.clone();
        Box::pin(async move {
            let address = "127.0.0.1:0".parse().unwrap();
            let export = client.export_keying_material(b"label", b"", 32);
            let _ = futures::join!(client.rebind(address), client.statistics(), export);
        })
    };
    let _ = futures::poll!(&mut calls);
    vec![
        Box::new(registration),
        Box::new(listener),
        Box::new((client, unaccepted)),
        Box::new(server),
        Box::new((read, write)),
        Box::new((accepted, answer)),
        Box::new(held),
        Box::new((AbortOnDrop(pending), AbortOnDrop(observing), calls)),
    ]
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes the elements out of `handles` in the order that `seed` names (a number in the factorial
/// system).
fn permute<T>(mut handles: Vec<T>, mut seed: usize) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || {
        let count = handles.len();
        (count > 0).then(|| {
            let index = seed % count;
            seed /= count;
            handles.remove(index)
        })
    })
}

#[test]
fn every_order_of_dropping_ends_in_an_idle_registration() {
    const ORDERS: usize = 40_320; // 8!
    const STEP: usize = 113; // 357 rounds, with every first, second and third choice
    run_tokio(async || {
        for seed in (0..ORDERS).step_by(STEP) {
            let handles = busy_handles().await;
            let registration =
                handles[0].downcast_ref::<msquic_async::Registration>().unwrap().clone();
            permute(handles, seed).for_each(drop);
            let idle = tokio::time::timeout(Duration::from_secs(10), registration.wait_idle());
            idle.await.unwrap_or_else(|_| panic!("order {seed} leaves something open"));
        }
    });
}

#[test]
fn a_panic_while_the_raw_handle_is_used_leaves_nothing_open() {
    run_tokio(async || {
        let Pair { registration, listener, client, server } = pair().await;
        let panics = || client.with_raw(|_| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        drop((client, server, listener));
        let idle = tokio::time::timeout(Duration::from_secs(10), registration.wait_idle());
        idle.await.expect("the connection is closed");
    });
}

/// Does nothing on its own: `a_process_ends_cleanly_with_handles_in_any_state` runs it in a process
/// of its own.
#[test]
fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let scenario: usize = scenario.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handles = block_on(&runtime, busy_handles());
    let mut handles = permute(handles, scenario / 5);
    match scenario % 5 {
        0 => handles.for_each(drop),
        // The runtime goes first, and with it the tasks that would wake.
        1 => {
            runtime.shutdown_background();
            handles.for_each(drop);
        }
        // Some handles are never dropped.
        2 => {
            handles.next();
            handles.for_each(std::mem::forget);
        }
        3 => {
            let _alive = handles.collect::<Vec<_>>();
            std::process::exit(0);
        }
        _ => {
            let (dropped, is_dropped) = mpsc::channel();
            std::thread::spawn(move || {
                for handle in handles {
                    drop(handle);
                    let _ = dropped.send(()); // the process may be ending
                }
            });
            // The process ends while the thread goes on dropping.
            for _ in 0..scenario / 5 % 7 {
                is_dropped.recv().unwrap();
            }
        }
    }
}

#[test]
fn a_process_ends_cleanly_with_handles_in_any_state() {
    // A process waits for its end in some of them, so several run side by side.
    let next = AtomicU32::new(0);
    let run_some = || {
        let scenarios = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        scenarios
            .take_while(|scenario| *scenario < CHILDREN)
            .for_each(|scenario| ends_cleanly("child", scenario));
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(run_some);
        }
    });
}

/// Never lets go of msquic's thread: has another thread end the process, or ends it itself.
struct Stuck(Option<mpsc::Sender<()>>);

impl ReceiveSink for Stuck {
    fn receive(&mut self, _: &[u8]) -> usize {
        match &self.0 {
            Some(entered) => entered.send(()).unwrap(),
            None => std::process::exit(0),
        }
        loop {
            std::thread::park();
        }
    }

    fn end(&mut self, _: ReceiveEnd) {}
}

/// Does nothing on its own: `a_process_ends_although_a_callback_never_returns` runs it in a process of its own.
#[test]
fn stuck_child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let (entered, is_inside) = mpsc::channel();
    let sink = Box::new(Stuck((scenario == "0").then_some(entered)));
    std::thread::spawn(move || {
        if is_inside.recv().is_ok() {
            std::process::exit(0);
        }
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    block_on(&runtime, async {
        let pair = pair().await;
        let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
        let mut write = open.await.unwrap();
        write.write_all(b"first").await.unwrap();
        let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
        stream.read_chunk().await.unwrap();
        // The sink is called by msquic, since nothing waits to be read.
        assert!(stream.set_sink(sink).is_ok());
        write.write_all(b"second").await.unwrap();
        std::future::pending().await
    })
}

#[test]
fn a_process_ends_although_a_callback_never_returns() {
    (0..2).for_each(|scenario| ends_cleanly("stuck_child", scenario));
}

thread_local! {
    static OF_APPLICATION: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Uses a thread-local variable, which cannot be used on a thread that has destroyed it.
struct UsesThreadLocal;

impl ReceiveSink for UsesThreadLocal {
    fn receive(&mut self, data: &[u8]) -> usize {
        data.len()
    }

    fn end(&mut self, _: ReceiveEnd) {
        OF_APPLICATION.with_borrow_mut(|bytes| bytes.push(1));
    }
}

/// Does nothing on its own: `callbacks_at_the_end_of_a_process_have_thread_local_variables` runs it in a process of
/// its own.
#[test]
fn thread_local_child() {
    let Ok(_) = std::env::var(SCENARIO) else { return };
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    OF_APPLICATION.with_borrow_mut(|bytes| bytes.push(0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _handles = block_on(&runtime, async {
        let pair = pair().await;
        let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
        let mut write = open.await.unwrap();
        write.write_all(b"first").await.unwrap();
        let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
        assert!(stream.set_sink(Box::new(UsesThreadLocal)).is_ok());
        (pair, write, stream)
    });
    std::process::exit(0);
}

#[test]
fn callbacks_at_the_end_of_a_process_have_thread_local_variables() {
    ends_cleanly("thread_local_child", 0);
}

fn ends_cleanly(test: &str, scenario: u32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--test-threads=1", "--quiet"])
        .arg(format!("suite::teardown::{test}"))
        .env(SCENARIO, scenario.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let (ended, status) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let status: ExitStatus = match status.recv_timeout(TIMEOUT) {
        Ok(status) => status.unwrap(),
        Err(_) => {
            let _ = Command::new("kill").args(["-9", &pid]).status();
            panic!("scenario {scenario} hangs");
        }
    };
    assert!(status.success(), "scenario {scenario} ended with {status}");
}
