//! The state machine of a listener. Pure.

/// ```text
/// Open ─start─▶ StartComplete ─stop─▶ Shutdown ─stopped─▶ ShutdownComplete
///   └─────────────────── abandon ──────────────────────────────▲
/// ```
/// In the other states `Abandon` changes nothing: `Stopped` follows. A stop by the registration may
/// arrive before `Start` was applied, so `Stopped` is valid in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerState {
    Open,
    StartComplete,
    Shutdown,
    ShutdownComplete,
}

/// What happens to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerInput {
    Start,
    Stop,
    Stopped,
    Abandon,
}

impl ListenerState {
    /// Applies `input` and returns whether the state changed.
    pub(super) fn apply(&mut self, input: ListenerInput) -> bool {
        let next = match (*self, input) {
            (Self::Open, ListenerInput::Start) => Self::StartComplete,
            (Self::StartComplete, ListenerInput::Stop) => Self::Shutdown,
            (_, ListenerInput::Stopped) | (Self::Open, ListenerInput::Abandon) => {
                Self::ShutdownComplete
            }
            _ => return false,
        };
        let changed = *self != next;
        *self = next;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition() {
        use ListenerInput as I;
        use ListenerState as S;
        let table = [
            (
                S::Open,
                [
                    Some(S::StartComplete),
                    None,
                    Some(S::ShutdownComplete),
                    Some(S::ShutdownComplete),
                ],
            ),
            (S::StartComplete, [None, Some(S::Shutdown), Some(S::ShutdownComplete), None]),
            (S::Shutdown, [None, None, Some(S::ShutdownComplete), None]),
            (S::ShutdownComplete, [None, None, None, None]),
        ];
        for (state, row) in table {
            for (input, expected) in
                [I::Start, I::Stop, I::Stopped, I::Abandon].into_iter().zip(row)
            {
                let mut next = state;
                assert_eq!(next.apply(input), expected.is_some(), "{state:?} {input:?}");
                assert_eq!(next, expected.unwrap_or(state), "{state:?} {input:?}");
            }
        }
    }
}
