//! Futures that violate the contract of `Future::poll`, or are disturbed by others that were dropped.

use super::guards::CountIfDropped;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// Polls `future` with the waker of the first poll only.
pub(super) async fn with_its_first_waker<F: Future>(future: F) -> F::Output {
    let (mut future, mut first) = (pin!(future), None);
    poll_fn(|cx| {
        let first: &Waker = first.get_or_insert_with(|| cx.waker().clone());
        future.as_mut().poll(&mut Context::from_waker(first))
    })
    .await
}

/// Polls `future` with a waker that does nothing.
pub(super) async fn without_waker<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|_| future.as_mut().poll(&mut Context::from_waker(Waker::noop()))).await
}

/// Polls `future` until another future of this function is dropped.
pub(super) async fn until_another_is_dropped<F: Future>(
    dropped: &AtomicUsize,
    future: F,
) -> F::Output {
    let (before, mut future) = (dropped.load(Ordering::SeqCst), pin!(future));
    let mut guard = CountIfDropped(dropped, false);
    let output = poll_fn(|cx| match dropped.load(Ordering::SeqCst) == before {
        true => future.as_mut().poll(cx),
        false => Poll::Pending,
    });
    let output = output.await;
    guard.1 = true;
    output
}

/// Polls `future`, unless an earlier future of this function was dropped.
pub(super) async fn one_at_a_time<F: Future>(dropped: &AtomicUsize, future: F) -> F::Output {
    if dropped.load(Ordering::SeqCst) > 0 {
        return pending().await;
    }
    until_another_is_dropped(dropped, future).await
}
