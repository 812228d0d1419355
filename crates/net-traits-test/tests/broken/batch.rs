//! Broken operations on several messages.

use super::{Fault, Shared};
use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{NetConnection, RecvError, SendError};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

type Message = (Bytes, Duration);

pub(super) async fn send_many(
    Shared { inner, fault, .. }: &Shared,
    messages: &mut VecDeque<Bytes>,
) -> Result<(), SendError> {
    match fault {
        Fault::SendManyKeepsWhatItQueued => {
            let all = messages.clone();
            let sent = inner.send_many(messages).await;
            if sent.is_err() {
                *messages = all;
            }
            sent
        }
        Fault::DroppedSendManyKeepsAll => {
            let mut copy = messages.clone();
            let sent = inner.send_many(&mut copy).await;
            *messages = copy;
            sent
        }
        Fault::SendManyNeverPauses => unconstrained(inner.send_many(messages)).await,
        _ => inner.send_many(messages).await,
    }
}

pub(super) fn try_recv(shared: &Shared) -> Result<Option<Message>, RecvError> {
    let Shared { inner, fault, .. } = shared;
    match fault {
        Fault::RevokedMessagesAreTried => match shared.next_that_arrived() {
            None => inner.try_recv(),
            arrived => Ok(arrived),
        },
        Fault::TryRecvFindsNothing => match inner.try_recv()? {
            Some((message, _)) if message.len() == 100 => Ok(None),
            received => Ok(received),
        },
        Fault::TryRecvNeverPauses => unconstrained(inner.recv()).now_or_never().transpose(),
        _ => inner.try_recv(),
    }
}

pub(super) async fn recv_many(
    shared: &Shared,
    messages: &mut Vec<Message>,
    limit: usize,
) -> Result<usize, RecvError> {
    let Shared { inner, fault, .. } = shared;
    match fault {
        Fault::RevokedBatchesAreHandedOut => match shared.next_that_arrived() {
            Some(message) => {
                messages.push(message);
                Ok(1)
            }
            None => inner.recv_many(messages, limit).await,
        },
        Fault::RecvManyIgnoresItsLimit if limit > 1 => {
            let before = messages.len();
            messages.push(inner.recv().await?);
            while let Some(message) = inner.try_recv()? {
                messages.push(message);
            }
            Ok(messages.len() - before)
        }
        Fault::DroppedRecvManyAppends => {
            let received = inner.recv_many(messages, limit).await;
            if limit > 1 {
                yield_now().await;
            }
            received
        }
        Fault::RecvManyNeverPauses => unconstrained(inner.recv_many(messages, limit)).await,
        _ => inner.recv_many(messages, limit).await,
    }
}
