//! Tests of the [outbox](super).

use super::state::ENTRY_COST;
use super::*;
use crate::control_record::Control;
use crate::frame::HEADER;
use crate::progress::{Timeouts, unless_stuck};
use futures_util::FutureExt;
use std::time::Duration;
use tokio::time::sleep;

fn message(size: usize) -> Vec<Bytes> {
    vec![vec![7; size].into()]
}

fn local(code: u64) -> CloseReason {
    CloseReason::Local { code, reason: String::new() }
}

async fn write_one(outbox: &Outbox) {
    let Work::Frame(frame) = outbox.work().await else { panic!("nothing is queued") };
    outbox.wrote(frame.pieces.iter().map(Bytes::len).sum());
    outbox.wrote_frame(&frame);
}

#[tokio::test]
async fn a_full_outbox_makes_senders_wait_in_order() {
    let outbox = Outbox::new(ENTRY_COST);
    outbox.try_push(&mut message(1000)).unwrap(); // one may exceed the limit
    let mut pieces = message(1);
    assert_eq!(outbox.try_push(&mut pieces), Err(SendError::WouldBlock));
    assert_eq!(pieces, message(1), "a rejected message is not taken");
    let (mut first, mut second) = (pin!(outbox.push(message(1))), pin!(outbox.push(message(2))));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    write_one(&outbox).await;
    assert_eq!(first.now_or_never(), Some(Ok(())));
    assert!(second.as_mut().now_or_never().is_none());
    write_one(&outbox).await;
    assert_eq!(second.now_or_never(), Some(Ok(())));
    assert_eq!(outbox.snapshot(), Snapshot { done: 1001, is_moving: false });
}

#[tokio::test]
async fn control_records_need_no_room() {
    let outbox = Outbox::new(ENTRY_COST);
    outbox.try_push(&mut message(1)).unwrap();
    assert_eq!(outbox.try_push(&mut message(1)), Err(SendError::WouldBlock));
    assert_eq!(outbox.push_control(message(2)), Ok(2));
    write_one(&outbox).await;
    assert_eq!(outbox.try_push(&mut message(1)), Err(SendError::WouldBlock));
    assert_eq!(outbox.written(), 1);
    write_one(&outbox).await;
    assert_eq!(outbox.written(), 2);
    outbox.close(9, "");
    assert_eq!(outbox.push_control(message(1)), Err(SendError::Closed(local(9))));
}

#[tokio::test]
async fn flushed_waits_for_the_messages_queued_before() {
    let outbox = Outbox::new(1000);
    assert_eq!(outbox.flushed().await, Ok(()));
    outbox.try_push(&mut message(1)).unwrap();
    let mut flushed = pin!(outbox.flushed());
    assert!(flushed.as_mut().now_or_never().is_none());
    outbox.try_push(&mut message(1)).unwrap();
    write_one(&outbox).await;
    assert_eq!(flushed.await, Ok(()));
    let failed = CloseReason::TimedOut;
    let mut flushed = pin!(outbox.flushed());
    assert!(flushed.as_mut().now_or_never().is_none());
    outbox.fail(failed.clone());
    assert_eq!(flushed.await, Err(SendError::Closed(failed)));
}

#[tokio::test]
async fn a_loss_is_reported_to_all_that_wait_or_else_to_the_next_send() {
    let outbox = Outbox::new(ENTRY_COST);
    let stopped = || SendError::Stopped { code: 7 };
    let mut losses = 0;
    let mut stop = || outbox.report(None, stopped(), || losses += 1);
    stop(); // no message was on the stream
    outbox.try_push(&mut message(1)).unwrap();
    write_one(&outbox).await;
    stop();
    let mut pieces = message(1);
    assert_eq!(outbox.try_push(&mut pieces), Err(stopped()));
    assert_eq!(outbox.try_push(&mut pieces), Ok(()));
    let (mut one, mut other) = (pin!(outbox.push(message(1))), pin!(outbox.push(message(1))));
    assert!(one.as_mut().now_or_never().is_none());
    assert!(other.as_mut().now_or_never().is_none());
    write_one(&outbox).await;
    stop();
    assert_eq!((one.await, other.await), (Err(stopped()), Err(stopped())));
    assert_eq!(outbox.try_push(&mut message(1)), Ok(()), "the loss is reported once");
    assert_eq!(losses, 2);
}

#[tokio::test]
async fn a_message_that_a_stopped_stream_had_begun_is_lost() {
    let framed = |size: usize| vec![vec![7; HEADER + size].into()];
    let outbox = Outbox::new(1000);
    outbox.try_push(&mut framed(10)).unwrap();
    outbox.try_push(&mut framed(20)).unwrap();
    let flushed = outbox.flushed();
    write_one(&outbox).await;
    let Work::Frame(begun) = outbox.work().await else { panic!("nothing is queued") };
    outbox.report(Some(&begun), SendError::Stopped { code: 7 }, || {});
    assert_eq!(flushed.await, Ok(()));
    outbox.close(1, "");
    outbox.confirm();
    assert_eq!(outbox.unconfirmed(), (2, 30));
}

#[tokio::test]
async fn a_close_ends_queueing_and_is_written_after_the_messages() {
    let outbox = Outbox::new(ENTRY_COST);
    outbox.try_push(&mut message(1)).unwrap();
    let mut waits = pin!(outbox.push(message(2)));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(outbox.close(9, ""));
    assert!(!outbox.close(8, ""));
    assert_eq!(waits.await, Err(SendError::Closed(local(9))));
    write_one(&outbox).await;
    assert!(matches!(outbox.work().await, Work::Close(9, _)));
    outbox.wrote_all();
    assert!(outbox.snapshot().is_moving);
}

#[tokio::test]
async fn messages_are_unconfirmed_until_the_peer_has_all() {
    let framed = |size: usize| vec![vec![7; HEADER + size].into()];
    let outbox = Outbox::new(100_000);
    for size in [20_000, 30_000] {
        outbox.try_push(&mut framed(size)).unwrap();
    }
    write_one(&outbox).await;
    assert_eq!(outbox.unconfirmed(), (2, 50_000));
    outbox.close(1, "");
    write_one(&outbox).await;
    assert_eq!(outbox.unconfirmed(), (2, 50_000));
    outbox.confirm();
    assert_eq!(outbox.unconfirmed(), (0, 0));
}

#[test]
fn the_most_precise_reason_is_kept() {
    let outbox = Outbox::new(1000);
    outbox.fail(CloseReason::TimedOut);
    let peer = CloseReason::Peer { code: 1, reason: String::new() };
    assert_eq!(outbox.end(peer.clone()), peer);
    assert_eq!(outbox.end(CloseReason::TimedOut), peer);
    assert!(!outbox.close(1, ""));
    let outbox = Outbox::new(1000);
    outbox.try_push(&mut message(1)).unwrap();
    outbox.close(2, "");
    assert_eq!(outbox.end(peer), local(2));
    assert!(outbox.is_empty());
}

/// Takes the next frame, which has to be these control records.
async fn written(outbox: &Outbox, records: &[Control]) {
    let Work::Frame(frame) = outbox.work().await else { panic!("nothing is queued") };
    let expected: Vec<u8> = records.iter().flat_map(|record| record.encode()).collect();
    assert_eq!(frame.pieces.concat(), expected);
    outbox.wrote_frame(&frame);
}

/// The probe with this count on lane 2.
const fn number(count: u32) -> u32 {
    2 << 16 | count
}

#[tokio::test]
async fn a_flush_waits_until_the_peer_has_confirmed() {
    let outbox = Outbox::with_probes(1000, 2);
    assert_eq!(outbox.flushed().await, Ok(()), "nothing was queued");
    outbox.try_push(&mut message(1)).unwrap();
    let mut flushed = pin!(outbox.flushed());
    assert!(flushed.as_mut().now_or_never().is_none());
    write_one(&outbox).await;
    assert!(!outbox.snapshot().is_moving);
    outbox.try_push(&mut message(2)).unwrap();
    written(&outbox, &[Control::Probe(number(1))]).await; // it does not wait for an empty queue
    assert!(!outbox.snapshot().is_moving, "a message is not written");
    assert!(flushed.as_mut().now_or_never().is_none());
    outbox.confirmed(number(2));
    assert!(flushed.as_mut().now_or_never().is_none(), "it confirms nothing");
    let mut later = pin!(outbox.flushed());
    assert!(later.as_mut().now_or_never().is_none());
    write_one(&outbox).await;
    assert!(pin!(outbox.work()).now_or_never().is_none(), "one probe is asked at a time");
    assert!(outbox.snapshot().is_moving, "the rest is up to the peer");
    assert_eq!(outbox.suspected(), (2, 0));
    outbox.confirmed(number(1));
    assert_eq!(flushed.await, Ok(()));
    assert!(later.as_mut().now_or_never().is_none());
    assert_eq!(outbox.unconfirmed(), (2, 0));
    written(&outbox, &[Control::Probe(number(2))]).await;
    outbox.confirmed(number(2));
    assert_eq!((later.await, outbox.unconfirmed()), (Ok(()), (0, 0)));
    outbox.try_push(&mut message(3)).unwrap();
    write_one(&outbox).await;
    assert_eq!((outbox.unconfirmed().0, outbox.suspected().0), (1, 0), "no probe is asked");
}

#[tokio::test(start_paused = true)]
async fn each_confirmation_is_progress() {
    const INTERVAL: usize = 256 * 1024;
    let outbox = &Outbox::with_probes(INTERVAL, 2);
    let limit = Duration::from_secs(12);
    let timeouts = Timeouts::begin(limit, 100 * limit);
    outbox.try_push(&mut message(HEADER + INTERVAL)).unwrap();
    write_one(outbox).await;
    outbox.try_push(&mut message(1)).unwrap();
    let peer = async {
        written(outbox, &[Control::Probe(number(1))]).await;
        write_one(outbox).await;
        sleep(9 * limit).await; // its application receives slowly
        outbox.confirmed(number(1));
        written(outbox, &[Control::Probe(number(2))]).await;
        sleep(9 * limit).await;
        outbox.confirmed(number(2));
    };
    let flushed = unless_stuck(timeouts, || outbox.snapshot(), outbox.flushed());
    assert_eq!(tokio::join!(flushed, peer).0, Ok(Ok(())));
}

#[tokio::test]
async fn a_flush_does_not_wait_for_a_confirmation_from_a_stopped_stream() {
    let outbox = Outbox::with_probes(1000, 2);
    outbox.try_push(&mut message(1)).unwrap();
    let (flushed, later) = (outbox.flushed(), async {
        write_one(&outbox).await;
        written(&outbox, &[Control::Probe(number(1))]).await;
        outbox.try_push(&mut message(1)).unwrap();
        let later = outbox.flushed();
        outbox.report(None, SendError::Stopped { code: 7 }, || {});
        outbox.confirmed(number(1)); // it was on its way
        let next = async {
            write_one(&outbox).await;
            written(&outbox, &[Control::Probe(number(2))]).await;
            outbox.confirmed(number(2));
        };
        tokio::join!(later, next).0
    });
    assert_eq!(tokio::join!(flushed, later), (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_flush_ends_with_the_connection_or_with_its_close() {
    for is_confirmed in [false, true] {
        let outbox = Outbox::with_probes(1000, 2);
        outbox.try_push(&mut message(1)).unwrap();
        let mut flushed = pin!(outbox.flushed());
        assert!(flushed.as_mut().now_or_never().is_none());
        write_one(&outbox).await;
        outbox.close(9, "");
        written(&outbox, &[Control::Probe(number(1))]).await;
        assert!(matches!(outbox.work().await, Work::Close(9, _)));
        if is_confirmed {
            outbox.confirm();
        }
        outbox.end(CloseReason::TimedOut);
        let expected = if is_confirmed { Ok(()) } else { Err(SendError::Closed(local(9))) };
        assert_eq!(flushed.await, expected);
    }
}

#[tokio::test]
async fn confirmations_overtake_messages_in_turns_and_are_bounded() {
    let outbox = Outbox::with_probes(1000, 2);
    outbox.try_push(&mut message(1)).unwrap();
    outbox.push_confirmation(5);
    outbox.push_confirmation(6);
    written(&outbox, &[Control::Confirmation(5), Control::Confirmation(6)]).await;
    assert_eq!(outbox.written(), 0);
    (0..1_000_000).for_each(|number| outbox.push_confirmation(number));
    write_one(&outbox).await; // messages and confirmations are written in turns
    assert_eq!(outbox.written(), 1);
    let Work::Frame(frame) = outbox.work().await else { panic!("nothing is queued") };
    assert_eq!(frame.pieces.concat().len(), 9 * MAX_CONFIRMATIONS);
    outbox.push_confirmation(7);
    outbox.close(1, "");
    outbox.push_confirmation(8); // nothing is confirmed after the close
    written(&outbox, &[Control::Confirmation(7), Control::Probe(number(1))]).await;
    assert!(matches!(outbox.work().await, Work::Close(1, _)));
}
