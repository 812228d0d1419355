//! Connections that are open while the runtime that drives msquic ends.
#![cfg(all(feature = "driver", target_os = "linux"))]

use futures_util::FutureExt;
use msquic_transport::{ExecutionDriver, MsQuicNetConnection, MsQuicTransport, drive};
use net_traits::{
    CloseOutcome, CloseReason, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetTransport, RecvError, TrustPolicy,
};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const ALPN: &str = "test/1";

/// What takes longer hangs.
const HANG: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn pair() -> [MsQuicNetConnection; 2] {
    let trusting = || NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let (listening, dialling) = (MsQuicTransport::new(), MsQuicTransport::new());
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = listening.create_listener(address, &[ALPN], trusting()).await.unwrap();
    let dial = dialling.connect(listener.local_addr(), &[ALPN], trusting());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    [dialled.unwrap(), accepted]
}

async fn exchange([one, other]: &[MsQuicNetConnection; 2]) {
    let (sent, received) = tokio::join!(one.send(b"hello"), other.recv());
    sent.unwrap();
    assert_eq!(received.unwrap().0, "hello");
}

/// In this process, no other test drives msquic.
#[test]
fn connections_of_all_runtimes_remain_usable_and_their_ends_are_reported() {
    let (driving, application) = (runtime(), runtime());
    let driver = ExecutionDriver::install().unwrap();
    driving.spawn(async move { drive(driver).await });
    let begin = async {
        let connected = pair().await;
        exchange(&connected).await;
        connected
    };
    let of_driving = driving.block_on(async { timeout(HANG, begin).await.expect("it hangs") });
    let hold = async {
        let of_application = pair().await;
        exchange(&of_application).await;
        let waiting = {
            let [_, other] = &of_application;
            let mut recv = std::pin::pin!(other.recv());
            assert!((&mut recv).now_or_never().is_none());
            // The runtime ends while `recv` waits; it may not be dropped in an async context.
            std::thread::spawn(move || drop(driving)).join().unwrap();
            let [one, _] = &of_application;
            let (sent, received) = tokio::join!(one.send(b"after the end"), recv);
            sent.unwrap();
            received.unwrap().0
        };
        assert_eq!(waiting, "after the end");
        for connected in [of_application, of_driving] {
            exchange(&connected).await;
            let [one, other] = connected;
            assert_eq!(one.close(7, "done").await, CloseOutcome::Acknowledged);
            let end = CloseReason::Peer { code: 7, reason: "done".to_owned() };
            assert_eq!(other.watch_close().await, end);
            assert_eq!(other.recv().await, Err(RecvError::Closed(end)));
        }
        exchange(&pair().await).await; // also new connections
    };
    application.block_on(async { timeout(HANG, hold).await.expect("it hangs") });
}
