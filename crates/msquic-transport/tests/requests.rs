//! Requests: questions and their answers.

mod common;

use common::{Pair, pair, pair_with, pattern, run};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use msquic_transport::MsQuicTransportConfig;
use net_traits::{
    CloseReason, NetConnection, NetQuestion, NetRequests, RequestError, request_code,
    serve_requests,
};
use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn many_questions_at_once_get_their_own_answers() {
    run(async {
        let Pair { client, server, listener: _listener } = pair().await;
        let ask = async {
            let ask = |number: usize| {
                let client = &client;
                async move {
                    let question = pattern(number * 997);
                    let answer = client.request(question.clone(), LONG).await.unwrap();
                    assert!(answer == [&question[..], b"!"].concat(), "question {number}");
                }
            };
            join_all((0..200).map(ask)).await;
            client.close(7, "enough").await;
        };
        let answer = async |question: bytes::Bytes| [&question[..], b"!"].concat().into();
        let (reason, ()) = tokio::join!(serve_requests(&server, 8, answer), ask);
        assert_eq!(reason, CloseReason::Peer { code: 7, reason: "enough".into() });
    });
}

#[test]
fn thousands_of_questions_at_once_take_turns_in_order() {
    /// How far out of order a question may arrive: the number of streams that the peer allows.
    const SIDE_BY_SIDE: usize = 64;
    run(async {
        let Pair { client, server, listener: _listener } = pair().await;
        let ask = async {
            let ask = async |number: u32| {
                let question = number.to_be_bytes().to_vec();
                client.request(question.into(), LONG).await.unwrap();
            };
            join_all((0..3000).map(ask)).await;
            client.close(0, "").await;
        };
        let arrived = RefCell::new(Vec::new());
        let answer = async |question: bytes::Bytes| {
            arrived.borrow_mut().push(u32::from_be_bytes(question[..].try_into().unwrap()));
            question
        };
        tokio::join!(serve_requests(&server, 16, answer), ask);
        for (turn, number) in arrived.into_inner().into_iter().enumerate() {
            let distance = turn.abs_diff(number as usize);
            assert!(distance <= SIDE_BY_SIDE, "question {number} came as number {turn}");
        }
    });
}

#[test]
fn a_deadline_reaches_the_peer() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let after = Duration::from_millis(50);
        let ask = client.request("?".into(), after);
        let serve = async {
            let mut request = server.accept_request().await.unwrap();
            // On a busy machine the deadline may pass before the question has arrived.
            if let Ok(question) = request.question().await {
                assert_eq!(question, "?");
            }
            request.canceled().await;
            assert_eq!(request.answer("late".into()).await, Err(RequestError::Canceled));
        };
        let (asked, ()) = tokio::join!(ask, serve);
        assert_eq!(asked, Err(RequestError::TimedOut { after }));
        // A dropped future does the same.
        let ask = async {
            let _ = tokio::time::timeout(after, client.request("?".into(), LONG)).await;
        };
        let serve = async { server.accept_request().await.unwrap().canceled().await };
        tokio::join!(ask, serve);
    });
}

#[test]
fn a_dropped_or_rejected_question_has_no_answer() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let serve = async {
            drop(server.accept_request().await.unwrap());
            server.accept_request().await.unwrap().refuse(77);
        };
        let ask = async {
            let dropped = client.request("?".into(), LONG).await;
            assert_eq!(dropped, Err(RequestError::NoAnswer { code: request_code::NO_ANSWER }));
            let refused = client.request("?".into(), LONG).await;
            assert_eq!(refused, Err(RequestError::NoAnswer { code: 77 }));
        };
        tokio::join!(serve, ask);
    });
}

#[test]
fn limits_apply_on_both_sides_and_the_connection_stays_usable() {
    run(async {
        let small = MsQuicTransportConfig::new().max_request_size(1000);
        let large = MsQuicTransportConfig::new().max_request_size(10_000);
        let Pair { client, server, .. } = pair_with(small, large).await;
        let too_large = RequestError::TooLarge { size: 10_001, limit: 10_000 };
        assert_eq!(client.request(pattern(10_001), LONG).await, Err(too_large));
        let serve = async {
            let mut request = server.accept_request().await.unwrap();
            let too_large = RequestError::TooLarge { size: 1001, limit: 1000 };
            assert_eq!(request.question().await, Err(too_large));
            drop(request);
            let mut request = server.accept_request().await.unwrap();
            assert_eq!(request.question().await.unwrap().len(), 1000);
            let too_large = RequestError::TooLarge { size: 1001, limit: 1000 };
            assert_eq!(request.answer(pattern(1001)).await, Err(too_large));
            server.accept_request().await.unwrap().answer("fine".into()).await.unwrap();
        };
        let ask = async {
            assert!(client.request(pattern(5000), LONG).await.is_err());
            assert!(client.request(pattern(1000), LONG).await.is_err());
            assert_eq!(client.request("?".into(), LONG).await.unwrap(), "fine");
            client.send(b"messages go on").await.unwrap();
        };
        tokio::join!(serve, ask);
        assert_eq!(server.recv().await.unwrap().0, "messages go on");
    });
}

#[test]
fn over_the_limit_of_requests_the_asker_waits() {
    run(async {
        let two = MsQuicTransportConfig::new().max_inbound_requests(2);
        let Pair { client, server, .. } = pair_with(two, MsQuicTransportConfig::new()).await;
        let release = Arc::new(Notify::new());
        let ask = async {
            join_all((0..10).map(|_| client.request("?".into(), LONG)))
                .await
                .into_iter()
                .all(|it| it.is_ok())
        };
        let serve = async {
            let first =
                [server.accept_request().await.unwrap(), server.accept_request().await.unwrap()];
            let third = tokio::time::timeout(Duration::from_millis(100), server.accept_request());
            assert!(third.await.is_err(), "a third question arrived");
            release.notify_one();
            for request in first {
                request.answer("!".into()).await.unwrap();
            }
            for _ in 0..8 {
                server.accept_request().await.unwrap().answer("!".into()).await.unwrap();
            }
        };
        let (answered, ()) = tokio::join!(ask, serve);
        assert!(answered);
    });
}

#[test]
fn the_end_of_the_connection_ends_requests() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let ask = client.request("?".into(), LONG);
        let serve = async {
            let request = server.accept_request().await.unwrap();
            server.close(5, "bye").await;
            drop(request);
            assert!(matches!(server.accept_request().await, Err(RequestError::Closed(_))));
        };
        let (asked, ()) = tokio::join!(ask, serve);
        let closed = CloseReason::Peer { code: 5, reason: "bye".into() };
        assert_eq!(asked, Err(RequestError::Closed(closed)));
    });
}

#[test]
fn closing_waits_for_answers_in_progress() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let answer = pattern(128 * 1024); // less than an asker buffers without being polled
        let ask = client.request("?".into(), LONG);
        let serve = async {
            let mut request = server.accept_request().await.unwrap();
            request.question().await.unwrap();
            let mut answered = pin!(request.answer(answer.clone()));
            // One poll queues the answer; it is not polled again.
            assert!(answered.as_mut().now_or_never().is_none());
            server.close(0, "").await;
        };
        let (asked, ()) = tokio::join!(ask, serve);
        assert!(asked.unwrap() == answer);
    });
}

/// Prints how long many requests at once take, and as many one at a time.
#[test]
#[ignore = "prints figures: add --ignored --nocapture, and --release"]
#[expect(clippy::print_stdout, reason = "it prints figures")]
fn figures_of_3000_requests() {
    const REQUESTS: usize = 3000;
    run(async {
        let Pair { client, server, listener: _listener } = pair().await;
        let ask_all = async {
            for at_once in [1, REQUESTS, 1, REQUESTS, 1, REQUESTS] {
                let started = std::time::Instant::now();
                let ask = async |_| drop(client.request("question".into(), LONG).await.unwrap());
                futures_util::stream::iter(0..REQUESTS).for_each_concurrent(at_once, ask).await;
                println!("{at_once} at once: {:?}", started.elapsed());
            }
            client.close(0, "").await;
        };
        tokio::join!(serve_requests(&server, 16, async |question| question), ask_all);
    });
}
