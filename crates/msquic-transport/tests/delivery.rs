//! What was sent before an orderly close arrives, however slow the receiver is.

mod common;

use common::{Pair, has_patch, lacks_patch, pair_with, pattern, run};
use msquic_transport::MsQuicTransportConfig;
use net_traits::{CloseReason, NetConnection, RecvError};

/// Receives until the end and returns the number of messages.
async fn count(connection: &impl NetConnection) -> (usize, CloseReason) {
    let mut count = 0;
    loop {
        match connection.recv().await {
            Ok(_) => count += 1,
            Err(RecvError::Closed(reason)) => return (count, reason),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_receiver_that_reads_after_the_close_loses_nothing() {
    if lacks_patch("N60") {
        return;
    }
    run(async {
        for streams in [1, 3] {
            // A queue of four messages; the window of each stream holds all the others.
            let server = MsQuicTransportConfig::new().receive_queue(64 * 1024);
            let client = MsQuicTransportConfig::new().send_streams(streams);
            let Pair { client, server, .. } = pair_with(server, client).await;
            for _ in 0..30 {
                client.send_bytes(pattern(16 * 1024)).await.unwrap();
            }
            client.close(9, "").await;
            let end = CloseReason::Peer { code: 9, reason: String::new() };
            assert_eq!(count(&server).await, (30, end), "with {streams} streams");
        }
    });
}

#[test]
fn a_long_first_message_arrives_before_the_close() {
    run(async {
        for _ in 0..if has_patch("N60") { 50 } else { 0 } {
            let config = MsQuicTransportConfig::new;
            let Pair { client, server, .. } = pair_with(config(), config()).await;
            let receive = count(&client);
            let send = async {
                server.send_bytes(pattern(300_000)).await.unwrap();
                server.close(9, "").await;
            };
            let ((count, _), ()) = tokio::join!(receive, send);
            assert_eq!(count, 1);
        }
    });
}
