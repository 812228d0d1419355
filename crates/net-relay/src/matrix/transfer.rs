//! The transfers of the matrix. Each checks what arrives, and notifies `event` after a third.

use super::{Outcome, words};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::{Either, join, select};
use futures_util::stream::{StreamExt, iter};
use net_traits::{
    CloseOutcome, DatagramError, NetConnection, NetDatagrams, NetRequests, serve_requests,
};
use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Sends numbered messages and closes. What arrives must be the first ones, in order; if the close
/// is confirmed, all of them.
pub(super) async fn messages<C: NetConnection>(
    [sender, receiver]: [C; 2],
    rng: &mut Rng,
    event: &Notify,
) -> Result<Outcome, String> {
    let messages: Vec<_> = (0..MESSAGES).map(|number| payload(number, rng, 20_000)).collect();
    let send = async {
        for message in &messages {
            if let Err(error) = sender.send_bytes(message.clone()).await {
                sender.abort(0, ""); // the receiver waits for the end
                return Err(words(error));
            }
        }
        Ok(sender.close(0, "").await)
    };
    let receive = async {
        let mut count = 0;
        while let Ok((message, _)) = receiver.recv().await {
            if messages.get(count) != Some(&message) {
                return Err(format!("message {count} is another one or changed"));
            }
            count += 1;
            if count == messages.len() / 3 {
                event.notify_one();
            }
        }
        Ok(count)
    };
    let (sent, received) = join(send, receive).await;
    let missing = (messages.len() - received?) as u64;
    match sent {
        Ok(outcome) if outcome.is_confirmed() && missing == 0 => Ok(Outcome::Complete),
        Ok(CloseOutcome::Undelivered { messages, .. }) if messages >= missing => {
            Ok(Outcome::Reported(format!("at most {messages} messages are undelivered")))
        }
        Ok(CloseOutcome::AlreadyClosed(reason)) => Ok(Outcome::Reported(words(reason))),
        Ok(outcome) => Err(format!("{missing} messages are missing after {outcome:?}")),
        Err(error) => Ok(Outcome::Reported(error)),
    }
}

/// Asks, eight questions at once. Each answer must be the reversed question.
pub(super) async fn requests<C: NetRequests>(
    [asker, answerer]: [C; 2],
    rng: &mut Rng,
    event: &Notify,
) -> Result<Outcome, String> {
    let questions: Vec<_> = (0..REQUESTS).map(|number| payload(number, rng, 10_000)).collect();
    let asker = &asker;
    let ask = async {
        let mut outcome = Outcome::Complete;
        let ask = async |question: &Bytes| {
            let answer = asker.request(question.clone(), DEADLINE);
            (question.clone(), timeout(DEADLINE + GRACE, answer).await)
        };
        let mut answers = iter(&questions).map(ask).buffer_unordered(8);
        let mut count = 0;
        while let Some((question, answer)) = answers.next().await {
            match answer {
                Ok(Ok(answer)) if answer == reversed(&question) => {}
                Ok(Ok(_)) => return Err("an answer belongs to another question".to_owned()),
                Ok(Err(error)) => outcome = Outcome::Reported(words(error)),
                Err(_) => return Err("a request does not end at its deadline".to_owned()),
            }
            count += 1;
            if count == questions.len() / 3 {
                event.notify_one();
            }
        }
        Ok(outcome)
    };
    let serve = serve_requests(&answerer, 16, async |question| reversed(&question));
    match select(pin!(ask), pin!(serve)).await {
        Either::Left((outcome, _)) => outcome,
        // The asker has its own error, after which it asks no more.
        Either::Right((_, ask)) => ask.await,
    }
}

/// Sends numbered datagrams, and then a message. Of the datagrams none may arrive twice or changed.
pub(super) async fn datagrams<C: NetConnection>(
    [sender, receiver]: [C; 2],
    rng: &mut Rng,
    event: &Notify,
) -> Result<Outcome, String> {
    let sent: Vec<_> = (0..DATAGRAMS).map(|number| payload(number, rng, 1100)).collect();
    let send = async {
        let sent = async {
            let datagrams = sender.datagrams().map_err(words)?;
            for (number, datagram) in sent.iter().enumerate() {
                send_datagram(datagrams, datagram).await.map_err(words)?;
                if number == sent.len() / 3 {
                    event.notify_one();
                }
            }
            sender.send(b"end").await.map_err(words)
        };
        sent.await.inspect_err(|_| sender.abort(0, "")) // the receiver waits for the end
    };
    let receive = async {
        let datagrams = receiver.datagrams().map_err(words)?;
        let mut end = receiver.recv();
        let mut received = HashSet::new();
        loop {
            match select(datagrams.recv_datagram(), end).await {
                Either::Left((Ok(datagram), rest)) => {
                    if !sent.contains(&datagram) {
                        return Err("a datagram is changed".to_owned());
                    }
                    if !received.insert(datagram) {
                        return Err("a datagram arrived twice".to_owned());
                    }
                    end = rest;
                }
                Either::Left((Err(error), _)) => return Ok(Outcome::Reported(words(error))),
                Either::Right((Err(error), _)) => return Ok(Outcome::Reported(words(error))),
                Either::Right((Ok(_), _)) if received.is_empty() => {
                    return Err(format!("none of {} datagrams arrived", sent.len()));
                }
                Either::Right((Ok(_), _)) => return Ok(Outcome::Complete),
            }
        }
    };
    let (sent, received) = join(send, receive).await;
    let received = received?;
    Ok(sent.map_or_else(Outcome::Reported, |()| received))
}

/// Queues a datagram, as soon as there is room and the peer is known to accept datagrams.
async fn send_datagram(
    datagrams: &dyn NetDatagrams,
    datagram: &Bytes,
) -> Result<(), DatagramError> {
    for _ in 0..DATAGRAM_ATTEMPTS {
        match datagrams.send_datagram(datagram.clone()) {
            Err(DatagramError::WouldBlock | DatagramError::Unsupported) => {
                sleep(Duration::from_millis(1)).await;
            }
            result => return result,
        }
    }
    Err(DatagramError::WouldBlock)
}

/// Creates a payload that differs from all others: its number, then random bytes.
fn payload(number: u32, rng: &mut Rng, max: usize) -> Bytes {
    let size = rng.usize(..max);
    let random = std::iter::repeat_with(|| rng.u8(..)).take(size);
    number.to_be_bytes().into_iter().chain(random).collect()
}

fn reversed(bytes: &Bytes) -> Bytes {
    bytes.iter().rev().copied().collect()
}

/// Messages of a transfer, 1 MB.
const MESSAGES: u32 = 100;

/// Requests of a transfer.
const REQUESTS: u32 = 40;

/// Datagrams of a transfer.
const DATAGRAMS: u32 = 300;

/// The deadline of a request.
const DEADLINE: Duration = Duration::from_secs(10);

/// The time in which a request ends after its deadline, on a busy machine.
const GRACE: Duration = Duration::from_secs(5);

/// Attempts to queue a datagram, one each millisecond.
const DATAGRAM_ATTEMPTS: u32 = 20_000;
