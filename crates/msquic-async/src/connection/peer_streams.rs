//! `PeerStreams`: the streams of the peer that wait to be accepted, and those with a sink. Pure.
//!
//! Both keep their connection alive, so each is removed: when it is accepted, when its sink has received the
//! end, or when the last handle of the connection is dropped.

use crate::stream::StreamType;
use std::collections::{HashMap, VecDeque};
use std::mem;

/// Streams `S` of the peer, and `M`, which creates the sinks of unidirectional ones.
#[derive(Debug)]
pub(super) struct PeerStreams<S, M> {
    bidirectional: VecDeque<(u64, S)>,
    unidirectional: VecDeque<(u64, S)>,
    make_sink: Option<M>,
    /// By ID, until the sink has received the end.
    with_sink: HashMap<u64, S>,
    phase: Phase,
}

/// ```text
/// Open ─the connection has ended─▶ Over ─the last handle is dropped─▶ Abandoned
///   └────────────────────the last handle is dropped─────────────────▲
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No stream starts any more. Waiting streams can still be accepted.
    Over,
    /// No stream is accepted any more.
    Abandoned,
}

/// What happens to a stream that starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start<M> {
    Waits,
    /// It gets the sink that this creates.
    HasSink(M),
    Abandoned,
}

/// What the thread that installs sinks does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Install<S, M> {
    /// Gives this stream, which waited, its sink.
    Next(S),
    /// Nothing: streams that start get their sinks. Drop the previous `M`.
    Done(Option<M>),
}

impl<S, M> Default for PeerStreams<S, M> {
    fn default() -> Self {
        Self {
            bidirectional: VecDeque::new(),
            unidirectional: VecDeque::new(),
            make_sink: None,
            with_sink: HashMap::new(),
            phase: Phase::Open,
        }
    }
}

impl<S: Clone, M: Clone> PeerStreams<S, M> {
    /// Adds a stream that the peer started.
    pub(super) fn start(&mut self, stream_type: StreamType, id: u64, stream: S) -> Start<M> {
        match (self.phase, stream_type, &self.make_sink) {
            (Phase::Abandoned, ..) => return Start::Abandoned,
            (_, StreamType::Unidirectional, Some(make)) => {
                self.with_sink.insert(id, stream);
                return Start::HasSink(make.clone());
            }
            (_, StreamType::Unidirectional, None) => self.unidirectional.push_back((id, stream)),
            (_, StreamType::Bidirectional, _) => self.bidirectional.push_back((id, stream)),
        }
        Start::Waits
    }

    /// Takes out the stream that is accepted next.
    pub(super) fn accept(&mut self, stream_type: StreamType) -> Option<S> {
        let waiting = match stream_type {
            StreamType::Unidirectional => &mut self.unidirectional,
            StreamType::Bidirectional => &mut self.bidirectional,
        };
        waiting.pop_front().map(|(_, stream)| stream)
    }

    /// Takes out the next waiting stream that gets a sink from `make`. Once none waits, `make` is kept for those
    /// that start, so streams get their sinks in the order of their starts.
    pub(super) fn install(&mut self, make: &M) -> Install<S, M> {
        match self.unidirectional.pop_front() {
            Some((id, stream)) => {
                self.with_sink.insert(id, stream.clone());
                Install::Next(stream)
            }
            None if self.phase == Phase::Open => {
                Install::Done(self.make_sink.replace(make.clone()))
            }
            None => Install::Done(None),
        }
    }

    /// Removes a stream whose sink has received the end. Drop the result after unlocking.
    #[must_use]
    pub(super) fn sink_ended(&mut self, id: u64) -> Option<S> {
        self.with_sink.remove(&id)
    }

    /// Records the end of the connection: returns the streams that wait or have a sink. Drop the result after
    /// unlocking.
    #[must_use]
    pub(super) fn over(&mut self) -> (Vec<S>, Option<M>) {
        if self.phase == Phase::Open {
            self.phase = Phase::Over;
        }
        let waiting = self.bidirectional.iter().chain(&self.unidirectional);
        let streams = waiting.map(|(_, stream)| stream).chain(self.with_sink.values());
        (streams.cloned().collect(), self.make_sink.take())
    }

    /// Takes out all streams, since the last handle is dropped. Drop the result after unlocking.
    #[must_use]
    pub(super) fn abandon(&mut self) -> (Vec<S>, Option<M>) {
        let before = mem::replace(self, Self { phase: Phase::Abandoned, ..Self::default() });
        let waiting = before.bidirectional.into_iter().chain(before.unidirectional);
        let streams = waiting.map(|(_, stream)| stream).chain(before.with_sink.into_values());
        (streams.collect(), before.make_sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StreamType::{Bidirectional, Unidirectional};

    type Streams = PeerStreams<&'static str, &'static str>;

    /// Two streams of each type wait.
    fn waiting() -> Streams {
        let mut streams = Streams::default();
        for (id, stream_type, stream) in [
            (2, Unidirectional, "uni 2"),
            (0, Bidirectional, "bidi 0"),
            (6, Unidirectional, "uni 6"),
            (4, Bidirectional, "bidi 4"),
        ] {
            assert_eq!(streams.start(stream_type, id, stream), Start::Waits);
        }
        streams
    }

    #[test]
    fn streams_are_accepted_in_the_order_of_their_starts() {
        let mut streams = waiting();
        assert_eq!(streams.accept(Unidirectional), Some("uni 2"));
        assert_eq!(streams.accept(Bidirectional), Some("bidi 0"));
        assert_eq!(streams.accept(Bidirectional), Some("bidi 4"));
        assert_eq!(streams.accept(Bidirectional), None);
        assert_eq!(streams.accept(Unidirectional), Some("uni 6"));
    }

    #[test]
    fn streams_that_wait_get_their_sinks_before_those_that_start() {
        let mut streams = waiting();
        assert_eq!(streams.install(&"sinks"), Install::Next("uni 2"));
        // A stream starts meanwhile.
        assert_eq!(streams.start(Unidirectional, 10, "uni 10"), Start::Waits);
        assert_eq!(streams.install(&"sinks"), Install::Next("uni 6"));
        assert_eq!(streams.install(&"sinks"), Install::Next("uni 10"));
        assert_eq!(streams.install(&"sinks"), Install::Done(None));
        assert_eq!(streams.start(Unidirectional, 14, "uni 14"), Start::HasSink("sinks"));
        assert_eq!(streams.start(Bidirectional, 8, "bidi 8"), Start::Waits);
        assert_eq!(streams.accept(Unidirectional), None);
        assert_eq!(streams.install(&"others"), Install::Done(Some("sinks")));
        assert_eq!(streams.start(Unidirectional, 18, "uni 18"), Start::HasSink("others"));
    }

    #[test]
    fn after_the_end_sinks_are_made_for_streams_that_wait_only() {
        let mut streams = waiting();
        assert_eq!(streams.over(), (vec!["bidi 0", "bidi 4", "uni 2", "uni 6"], None));
        assert_eq!(streams.install(&"sinks"), Install::Next("uni 2"));
        assert_eq!(streams.install(&"sinks"), Install::Next("uni 6"));
        assert_eq!(streams.install(&"sinks"), Install::Done(None));
        assert_eq!(streams.make_sink, None);

        let mut streams = Streams::default();
        assert_eq!(streams.install(&"sinks"), Install::Done(None));
        assert_eq!(streams.over(), (vec![], Some("sinks")));
    }

    #[test]
    fn nothing_is_kept_without_a_handle() {
        for is_over in [false, true] {
            let mut streams = waiting();
            assert_eq!(streams.install(&"sinks"), Install::Next("uni 2"));
            assert_eq!(streams.sink_ended(2), Some("uni 2"));
            assert_eq!(streams.install(&"sinks"), Install::Next("uni 6"));
            assert_eq!(streams.install(&"sinks"), Install::Done(None));
            assert_eq!(streams.sink_ended(2), None);
            let kept = (!is_over).then_some("sinks");
            if is_over {
                assert_eq!(streams.over(), (vec!["bidi 0", "bidi 4", "uni 6"], Some("sinks")));
            }
            assert_eq!(streams.abandon(), (vec!["bidi 0", "bidi 4", "uni 6"], kept));
            assert_eq!(streams.over(), (vec![], None));
            for stream_type in [Unidirectional, Bidirectional] {
                assert_eq!(streams.start(stream_type, 20, "late"), Start::Abandoned);
                assert_eq!(streams.accept(stream_type), None);
            }
            assert_eq!(streams.install(&"sinks"), Install::Done(None));
            assert_eq!(streams.abandon(), (vec![], None));
        }
    }
}
