//! A `send` that is interrupted within a lane until the connection has almost closed.

use crate::{MsQuicNetConnection, MsQuicTransport};
use bytes::Bytes;
use net_kit::frame;
use net_traits::{
    CloseOutcome, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    TrustPolicy,
};
use std::future::poll_fn;
use std::pin::pin;

const ALPN: &str = "test/1";

const MESSAGE: Bytes = Bytes::from_static(b"a message");

async fn count(connection: MsQuicNetConnection) -> u64 {
    let mut received = 0;
    while connection.recv().await.is_ok() {
        received += 1;
    }
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_counts_what_is_queued_until_its_end() {
    if !msquic_async::library_patches().iter().any(|patch| patch.fault == "N60") {
        return; // the library may discard what it has acknowledged
    }
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let (server, dialler) = (MsQuicTransport::new(), MsQuicTransport::new());
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = server.create_listener(address, &[ALPN], credential.clone()).await.unwrap();
    for round in 0..20 {
        let dial = dialler.connect(listener.local_addr(), &[ALPN], credential.clone());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let client = dialled.unwrap();
        client.send_bytes(MESSAGE).await.unwrap();
        let received = tokio::spawn(count(accepted));
        let header = frame::header(MESSAGE.len()).unwrap();
        let lane = client.shared.stream_pool.ordinary(0);
        let Ok(stream) = lane.try_send(&header, &[MESSAGE]) else { panic!("it is open") };
        let (mut sent, mut close) = (2, pin!(client.close(9, "")));
        let outcome = poll_fn(|context| {
            let closed = close.as_mut().poll(context);
            if closed.is_pending() && matches!(stream.try_enqueue(&header, &[MESSAGE]), Ok(Some(_)))
            {
                sent += 1; // by a `send` that found the stream open before the close
            }
            closed
        });
        let lost = match outcome.await {
            CloseOutcome::Acknowledged => 0,
            CloseOutcome::Undelivered { messages, .. } => messages,
            outcome => panic!("{outcome:?}"),
        };
        let received = received.await.unwrap();
        assert!(
            received <= sent && sent <= received + lost,
            "round {round}: {sent} sent, {received} received, {lost} lost"
        );
    }
}
