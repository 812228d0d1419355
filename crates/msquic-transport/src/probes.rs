//! `Probes`: the probes of a peer that flushes, until they are answered.
//!
//! This transport sends no probes itself: its `flush` waits for acknowledgements. Probes arrive on
//! msquic's threads, where nothing may wait, so a task on the [thread](crate::linger_thread) of this
//! crate answers them.

use net_kit::outbox::MAX_CONFIRMATIONS;
use net_kit::receipts::Control;
use parking_lot::Mutex;

/// The probes of one connection without an answer.
#[derive(Default)]
pub(crate) struct Probes(Mutex<State>);

#[derive(Default)]
struct State {
    numbers: Vec<u32>,
    /// Whether a task answers them.
    is_answering: bool,
}

impl Probes {
    /// Adds a probe, or drops it if there are too many. Returns whether a task has to be started
    /// that [takes](Self::take) the answers.
    pub(crate) fn add(&self, number: u32) -> bool {
        let state = &mut *self.0.lock();
        if state.numbers.len() < MAX_CONFIRMATIONS {
            state.numbers.push(number);
        }
        !std::mem::replace(&mut state.is_answering, true)
    }

    /// Returns the records that answer all probes, for the task. If there are none, the task ends.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let state = &mut *self.0.lock();
        state.is_answering = !state.numbers.is_empty();
        let numbers = std::mem::take(&mut state.numbers).into_iter();
        let records = numbers.flat_map(|number| Control::Confirmation(number).encode());
        state.is_answering.then(|| records.collect())
    }

    /// Records that the task has ended. The next probe starts another one.
    pub(crate) fn task_ended(&self) {
        self.0.lock().is_answering = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_answers_and_the_probes_are_bounded() {
        let probes = Probes::default();
        assert!(probes.add(7));
        assert!(!probes.add(8), "a task runs");
        let answers = [Control::Confirmation(7), Control::Confirmation(8)];
        let answers: Vec<u8> = answers.iter().flat_map(|it| it.encode()).collect();
        assert_eq!(probes.take(), Some(answers));
        assert!(!probes.add(9), "it takes again");
        assert!(probes.take().is_some());
        assert_eq!(probes.take(), None);
        assert!(probes.add(10), "it has ended");
        (0..1_000_000).for_each(|number| _ = probes.add(number));
        assert_eq!(probes.take().map(|answers| answers.len()), Some(9 * MAX_CONFIRMATIONS));
        probes.task_ended();
        assert!(probes.add(11));
    }
}
