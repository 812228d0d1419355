//! `MessageStream` and `MessageSink` over a virtual network.

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt, stream};
use net_peers::{MessageSink, MessageStream};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, RecvError,
    SendError, TrustPolicy,
};
use net_traits_test::memory::{MemoryConnection, MemoryNetwork};

async fn pair() -> (MemoryConnection, MemoryConnection) {
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let network = MemoryNetwork::new(1);
    let server = network.transport();
    let address = "0.0.0.0:0".parse().unwrap();
    let listener = server.create_listener(address, &["test"], credential.clone()).await.unwrap();
    let client = network.transport();
    let dial = client.connect(listener.local_addr(), &["test"], credential);
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.unwrap(), accepted)
}

fn message(number: usize) -> Bytes {
    number.to_string().repeat(50_000).into()
}

#[tokio::test(start_paused = true)]
async fn a_sink_waits_for_room_and_its_close_flushes() {
    const COUNT: usize = 200;
    let (client, server) = pair().await;
    let send = async {
        let mut sink = MessageSink::new(client.clone());
        let messages = stream::iter((0..COUNT).map(|it| Ok(message(it))));
        messages.forward(&mut sink).await.unwrap();
        assert_eq!(sink.close().await, Ok(()));
        assert_eq!(sink.send("open".into()).await, Ok(()), "the connection is open");
    };
    let receive = async {
        let messages: Vec<_> = MessageStream::new(server).take(COUNT + 1).collect().await;
        for (expected, received) in messages[..COUNT].iter().enumerate() {
            assert!(received.as_ref().unwrap().0 == message(expected));
            assert!(received.is_ok());
        }
        assert_eq!(messages[COUNT].as_ref().unwrap().0, "open");
    };
    tokio::join!(send, receive);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_of_the_sink_loses_nothing() {
    let (client, server) = pair().await;
    let mut sink = MessageSink::new(client);
    let mut sent = 0;
    while sink.feed(message(sent)).now_or_never().is_some() {
        sent += 1;
        assert!(sent < 2000, "the sink is full in the end");
    }
    assert!(sink.flush().now_or_never().is_none());
    let send = async {
        sink.send("last".into()).await.unwrap();
    };
    let receive = async {
        for expected in 0..sent {
            assert!(server.recv().await.unwrap().0 == message(expected));
        }
        assert_eq!(server.recv().await.unwrap().0, "last");
    };
    tokio::join!(send, receive);
}

#[tokio::test(start_paused = true)]
async fn errors_of_one_message_do_not_end_the_sink() {
    let (client, server) = pair().await;
    let mut sink = MessageSink::new(client.clone());
    let too_large = vec![0; 65 * 1024 * 1024].into();
    assert!(matches!(sink.send(too_large).await, Err(SendError::TooLarge { .. })));
    let (sent, received) = tokio::join!(sink.send("small".into()), server.recv());
    assert_eq!((sent, received.unwrap().0), (Ok(()), "small".into()));
    client.close(0, "").await;
    assert!(matches!(sink.send("late".into()).await, Err(SendError::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_after_the_end_of_the_connection() {
    let (client, server) = pair().await;
    let mut messages = MessageStream::new(server.clone());
    assert!(messages.next().now_or_never().is_none());
    client.send(b"one").await.unwrap();
    drop(messages); // with a `recv` that waits
    let mut messages = MessageStream::new(server);
    assert_eq!(messages.next().await.unwrap().unwrap().0, "one");
    client.close(7, "").await;
    let end = messages.next().await;
    assert!(matches!(&end, Some(Err(RecvError::Closed(_)))), "{end:?}");
    assert!(messages.next().await.is_none());
}
