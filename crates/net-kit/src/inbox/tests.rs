//! Tests of the [inbox](super).

use super::*;
use std::time::Duration;

fn entry(size: usize) -> Received {
    Ok((vec![1; size].into(), Duration::ZERO))
}

#[test]
fn a_full_inbox_says_when_to_resume() {
    let inbox = Inbox::new(2 * (ENTRY_COST + 10));
    inbox.push(&mut vec![entry(10), entry(10)]);
    assert!(inbox.is_full());
    assert_eq!(inbox.room(), 0);
    assert_eq!(inbox.pop(), Some((entry(10), true)));
    assert_eq!(inbox.room(), ENTRY_COST + 10);
    assert_eq!(inbox.pop(), Some((entry(10), false)), "it was resumed already");
    assert_eq!(inbox.pop(), None);
}

#[test]
fn many_messages_are_taken_up_to_the_limit_or_an_error() {
    let inbox = Inbox::new(4 * ENTRY_COST);
    let cut = RecvError::Truncated { received: 1, announced: 2 };
    inbox.push(&mut vec![entry(1), entry(2), entry(3), Err(cut.clone())]);
    inbox.push_marked(entry(4), 7);
    assert_eq!(inbox.room(), 0);
    let mut messages = Vec::new();
    assert_eq!(inbox.pop_many(&mut messages, 2), Some((Ok(2), false)));
    assert_eq!(inbox.pop_many(&mut messages, 2), Some((Ok(1), false)), "an error follows");
    assert_eq!(inbox.pop_many(&mut messages, 2), Some((Err(cut), true)));
    assert_eq!(inbox.pop_many(&mut messages, 2), Some((Ok(1), false)));
    assert_eq!(inbox.take_due(), [7]);
    assert_eq!(inbox.pop_many(&mut messages, 2), None);
    assert!(messages.iter().map(|(message, _)| message.len()).eq(1..=4));
    assert_eq!(inbox.room(), 4 * ENTRY_COST);
}

#[test]
fn one_message_of_any_size_fits_into_an_empty_inbox() {
    let inbox = Inbox::new(0);
    assert!(inbox.room() > 0);
    inbox.push_one(entry(1000));
    assert_eq!(inbox.room(), 0);
    assert_eq!(inbox.pop(), Some((entry(1000), true)));
}

#[test]
fn errors_in_a_row_do_not_exceed_the_limit() {
    let inbox = Inbox::new(3 * ENTRY_COST);
    let cut = || Err(RecvError::Truncated { received: 1, announced: 2 });
    inbox.push(&mut vec![cut(), entry(ENTRY_COST)]);
    (0..100).for_each(|_| inbox.push_one(cut()));
    let errors: Vec<_> = std::iter::from_fn(|| inbox.pop()).map(|(it, _)| it.is_err()).collect();
    assert_eq!(errors, [true, false, true], "one says that something was not received");
}

#[test]
fn without_excess_entries_are_kept_up_to_the_first_one_without_room() {
    let inbox = Inbox::new(2 * (ENTRY_COST + 10));
    inbox.push_one(entry(10));
    inbox.drop_excess();
    assert_eq!(inbox.room(), usize::MAX);
    inbox.push_marked(entry(20), 1);
    assert!(!inbox.is_discarding());
    inbox.push_marked(entry(30), 2);
    assert!(inbox.is_discarding());
    assert!(inbox.pop() == Some((entry(10), false)) && inbox.pop() == Some((entry(20), false)));
    inbox.push_one(entry(40));
    inbox.push(&mut vec![entry(50)]);
    assert_eq!((inbox.pop(), inbox.take_due()), (None, vec![1]), "nothing follows a gap");
}

#[test]
fn a_receipt_can_wait_until_the_message_was_handled() {
    let inbox = Inbox::new(100 * ENTRY_COST);
    inbox.push_one(entry(1));
    inbox.push_marked(entry(2), 7);
    assert_eq!(inbox.pop_with_mark(), Some(((entry(1), None), false)));
    assert_eq!(inbox.pop_with_mark(), Some(((entry(2), Some(7)), false)));
    assert!(!inbox.has_due());
    inbox.add_due(7);
    assert_eq!((inbox.has_due(), inbox.take_due()), (true, vec![7]));
}

#[test]
fn receipts_are_due_once_their_messages_are_popped() {
    let inbox = Inbox::new(100 * ENTRY_COST);
    inbox.push_one(entry(1));
    inbox.push_marked(entry(2), 7);
    inbox.push(&mut vec![entry(3), entry(4)]);
    inbox.push_marked(entry(5), 8);
    for due in [&[][..], &[7], &[], &[], &[8]] {
        inbox.pop();
        assert_eq!((inbox.has_due(), inbox.take_due()), (!due.is_empty(), due.to_vec()));
    }
    (0..1000).for_each(|number| {
        inbox.push_marked(entry(0), number);
        inbox.pop();
    });
    let due = inbox.take_due();
    assert_eq!(due.len(), MAX_UNWRITTEN);
    inbox.push_marked(entry(1), 9);
    inbox.pop();
    inbox.postpone_due(&due[1..]);
    let due = inbox.take_due();
    assert_eq!((due.len(), due[0], due[due.len() - 1]), (MAX_UNWRITTEN, 1, 9));
    inbox.push_marked(entry(1), 9);
    inbox.clear();
    assert!(inbox.pop().is_none() && !inbox.has_due());
}

#[tokio::test]
async fn entries_are_returned_before_the_end() {
    let inbox = Inbox::new(1000);
    inbox.push(&mut vec![entry(1), Err(RecvError::Truncated { received: 1, announced: 2 })]);
    let end = || Some(CloseReason::TimedOut);
    assert_eq!(inbox.recv(end).await.0, entry(1));
    assert!(matches!(inbox.recv(end).await.0, Err(RecvError::Truncated { .. })));
    assert_eq!(inbox.recv(end).await.0, Err(RecvError::Closed(CloseReason::TimedOut)));
}

#[tokio::test]
async fn each_of_several_readers_gets_an_entry() {
    let inbox = Inbox::new(1000);
    let recv = || inbox.recv(|| None);
    let push = async { inbox.push(&mut vec![entry(1), entry(2), entry(3)]) };
    let (one, two, three, ()) = tokio::join!(recv(), recv(), recv(), push);
    let sizes = [one, two, three].map(|(entry, _)| entry.unwrap().0.len());
    assert_eq!(sizes, [1, 2, 3]);
}
