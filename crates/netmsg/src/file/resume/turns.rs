//! `Turns`: one writer at a time for each partial file, where the newest one replaces the others.
//!
//! A peer whose process was killed cannot close its connection. When the peer dials again, its
//! new transfer must not wait until the old one times out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, watch};

/// The current writers, by the key of their partial file.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    places: Mutex<HashMap<String, Arc<Place>>>,
}

#[derive(Debug, Default)]
struct Place {
    /// The number of the newest writer.
    newest: watch::Sender<u64>,
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// The right to write. The next writer begins when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    place: Arc<Place>,
    number: u64,
    _writing: OwnedMutexGuard<()>,
}

impl Turns {
    /// Ends the turn of the current writer, and waits until it is dropped. Returns `None` if a
    /// newer caller replaced this one meanwhile.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has replaced the writer before it, and has no turn.
    pub(crate) async fn take(&self, key: &str) -> Option<Turn> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            // Only the map holds a place that no writer uses.
            places.retain(|_, place| Arc::strong_count(place) > 1);
            places.entry(key.to_owned()).or_default().clone()
        };
        let mut number = 0;
        place.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        let _writing = place.writing.clone().lock_owned().await;
        let turn = Turn { place, number, _writing };
        (!turn.is_replaced()).then_some(turn)
    }
}

impl Turn {
    /// Waits until a newer writer wants the turn.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub(crate) async fn replaced(&self) {
        // The sender is in `place`, so that it exists during the call.
        let _ = self.place.newest.subscribe().wait_for(|newest| *newest != self.number).await;
    }

    fn is_replaced(&self) -> bool {
        *self.place.newest.borrow() != self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_writer_replaces_all_others() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await.unwrap();
        let other = turns.take("b").await.unwrap();
        let (second, third) = (turns.take("a"), turns.take("a"));
        tokio::pin!(second, third);
        tokio::select! {
            biased;
            _ = &mut second => panic!("the first writer has not ended"),
            _ = &mut third => panic!("the first writer has not ended"),
            () = first.replaced() => {}
        }
        drop(first);
        assert!(second.await.is_none());
        let third = third.await.unwrap();
        tokio::select! {
            biased;
            () = third.replaced() => panic!("replaced by an older writer"),
            () = other.replaced() => panic!("replaced by the writer of another file"),
            () = std::future::ready(()) => {}
        }
        drop((third, other));
        let _last = turns.take("c").await.unwrap();
        assert_eq!(turns.places.lock().unwrap().len(), 1, "unused places are removed");
    }
}
