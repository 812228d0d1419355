//! Requests: questions and their answers.

use super::operation::fill;
use crate::stage::{MOMENT, PAUSE, Pair, Stage, greet, number, numbered};
use crate::{Harness, Limits};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use net_traits::{
    CloseReason, NetConnection, NetQuestion, NetRequests, NetTransport, RequestError, TrustPolicy,
    close_code, request_code, serve_requests,
};
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;

/// Longer than any request here takes.
const LONG: Duration = Duration::from_secs(60);

/// Every question gets its own answer, in both directions at once, whatever their order and size.
pub async fn each_question_gets_its_answer<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let ask = |connection: &crate::stage::Connection<H>| {
        let connection = connection.clone();
        let ask = move |asked: u32| {
            let connection = connection.clone();
            async move {
                let question = numbered(asked, 9 + 1_000 * asked as usize);
                let answer = connection.request(question, LONG).await.unwrap();
                assert_eq!(number(&answer), asked + 1);
                assert_eq!(answer.len(), 9 + 1_000 * asked as usize);
            }
        };
        async move {
            join_all((0..40).map(ask)).await;
        }
    };
    let answer = async |question: Bytes| {
        let asked = number(&question);
        if asked.is_multiple_of(3) {
            sleep(PAUSE).await; // others are answered first
        }
        numbered(asked + 1, question.len())
    };
    let serve =
        async { tokio::join!(serve_requests(one, 8, answer), serve_requests(other, 8, answer)) };
    tokio::select! {
        _ = serve => panic!("the connection stays"),
        ((), ()) = async { tokio::join!(ask(one), ask(other)) } => {}
    }
    assert_eq!(
        tokio::join!(one.request(Bytes::new(), LONG), serve_one(other, Bytes::new())),
        (Ok(Bytes::new()), Ok(())),
        "a question and an answer may be empty"
    );
    greet(one, other).await;
}

async fn serve_one(connection: &impl NetRequests, answer: Bytes) -> Result<(), RequestError> {
    let mut question = connection.accept_request().await?;
    question.question().await?;
    question.answer(answer).await
}

/// A question that is refused or dropped fails at the side that asked, with the code.
pub async fn refused_questions_are_reported<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let refuse = async { other.accept_request().await.unwrap().refuse(77) };
    let (refused, ()) = tokio::join!(one.request("may I?".into(), LONG), refuse);
    assert_eq!(refused, Err(RequestError::NoAnswer { code: 77 }));
    let refuse = async { other.accept_request().await.unwrap().refuse(u64::MAX) };
    let (refused, ()) = tokio::join!(one.request("may I now?".into(), LONG), refuse);
    assert_eq!(refused, Err(RequestError::NoAnswer { code: close_code::MAX }));
    let forget = async { drop(other.accept_request().await.unwrap()) };
    let (forgotten, ()) = tokio::join!(one.request("and now?".into(), LONG), forget);
    assert_eq!(forgotten, Err(RequestError::NoAnswer { code: request_code::NO_ANSWER }));
    greet(one, other).await;
}

/// A question whose future is dropped is cancelled at the peer, which can stop its work.
pub async fn cancelled_questions_are_reported<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let question = {
        let mut ask = pin!(one.request("never mind".into(), LONG));
        tokio::select! {
            answer = &mut ask => panic!("answered early: {answer:?}"),
            question = async {
                let mut question = other.accept_request().await.unwrap();
                assert_eq!(question.question().await.unwrap(), "never mind");
                question
            } => question,
        }
    };
    question.canceled().await;
    assert_eq!(question.answer("late".into()).await, Err(RequestError::Canceled));
    greet(one, other).await;
}

/// Refusals and cancellations are not lost if the send queue is full. They arrive at the latest
/// when the peer has received the messages before them.
pub async fn refusals_and_cancellations_pass_full_queues<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let mut ask = pin!(one.request("may I?".into(), LONG));
    let question = tokio::select! {
        answer = &mut ask => panic!("answered early: {answer:?}"),
        question = other.accept_request() => question.unwrap(),
    };
    fill(other).await;
    question.refuse(78);
    let refused = while_receiving(one, ask).await;
    assert_eq!(refused, Err(RequestError::NoAnswer { code: 78 }));

    let question = {
        let mut ask = pin!(one.request("can you wait?".into(), LONG));
        let question = tokio::select! {
            answer = &mut ask => panic!("answered early: {answer:?}"),
            question = other.accept_request() => question.unwrap(),
        };
        fill(one).await;
        question
    };
    while_receiving(other, question.canceled()).await;
}

/// Waits for `end`, and receives messages meanwhile.
async fn while_receiving<T>(connection: &impl NetConnection, end: impl Future<Output = T>) -> T {
    let receive = async {
        loop {
            connection.recv().await.unwrap();
        }
    };
    tokio::select! {
        end = end => end,
        () = receive => unreachable!("it never ends"),
    }
}

/// A question without an answer ends at its deadline, with a typed error that names it. The
/// connection remains usable.
pub async fn questions_have_a_deadline<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let asked = one.request("anybody?".into(), MOMENT).await;
    let error = asked.unwrap_err();
    assert_eq!(error, RequestError::TimedOut { after: MOMENT });
    assert!(error.is_retryable());
    greet(one, other).await;
}

/// A question or an answer over the limit is refused with a typed error, on both sides for an
/// answer. The connection remains usable.
pub async fn questions_over_the_limit_are_rejected<H: Harness>(stage: Stage<H>) {
    let limits = Limits { max_request_size: 10_000, ..Limits::default() };
    let Pair { one, other, .. } = &stage.meet_with(limits).await;
    let too_large = RequestError::TooLarge { size: 10_001, limit: 10_000 };
    assert_eq!(one.request(numbered(0, 10_001), LONG).await, Err(too_large.clone()));
    let longest = numbered(0, 10_000);
    let served = serve_one(other, longest.clone());
    let (answer, served) = tokio::join!(one.request(longest.clone(), LONG), served);
    assert_eq!((answer, served), (Ok(longest), Ok(())));
    let served = serve_one(other, numbered(0, 10_001));
    let (answer, served) = tokio::join!(one.request("short".into(), LONG), served);
    assert_eq!(served, Err(too_large));
    assert_eq!(answer, Err(RequestError::NoAnswer { code: request_code::TOO_LARGE }));
    greet(one, other).await;
}

/// Pending requests end with the connection, on both sides.
pub async fn closing_ends_requests<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let mut ask = pin!(one.request("are you there?".into(), LONG));
    let question = tokio::select! {
        answer = &mut ask => panic!("answered early: {answer:?}"),
        question = other.accept_request() => question.unwrap(),
    };
    let mut accept = pin!(other.accept_request());
    assert!((&mut accept).now_or_never().is_none());
    other.abort(5, "no more questions");
    assert!(matches!(ask.await, Err(RequestError::Closed(CloseReason::Peer { .. }))));
    assert!(matches!(accept.await, Err(RequestError::Closed(CloseReason::Local { .. }))));
    assert!(matches!(one.request("still?".into(), LONG).await, Err(RequestError::Closed(_))));
    assert!(question.answer("late".into()).await.is_err());
}

/// Once a revocation has returned, neither a question of its peer nor the content of an accepted
/// one is handed out, and the peer gets no answer.
pub async fn questions_of_a_revoked_peer_are_not_handed_out<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener: _listener, transports: [dialler, transport] } =
        stage.meet().await;
    let answering = if stage.is_swapped { &dialler } else { &transport };
    let ask = |question: &'static str| one.request(question.into(), LONG);
    let revoke = async {
        let mut first = other.accept_request().await.unwrap();
        assert_eq!(answering.revoke(&TrustPolicy::reject_all()).await, 1);
        let read = first.question().await;
        assert!(matches!(read, Err(RequestError::Closed(_) | RequestError::Canceled)), "{read:?}");
        let next = other.accept_request().await.err();
        assert!(matches!(next, Some(RequestError::Closed(_))), "{next:?}");
    };
    let (first, second, ()) = tokio::join!(ask("may I still?"), ask("and this?"), revoke);
    for answer in [first, second] {
        assert!(matches!(answer, Err(RequestError::Closed(_))), "{answer:?}");
    }
}
