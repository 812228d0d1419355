//! Stands for the modules of `ffi` that call libmsquic: a stream that records the calls.

pub(crate) mod calls {
    use std::marker::PhantomData;

    pub(crate) struct Calls<'a>(pub(crate) PhantomData<&'a ()>);
}

pub(crate) mod connection {
    pub(crate) struct NativeConnection;
}

pub(crate) mod library {
    pub(crate) fn has_patch(_: &str) -> bool {
        true
    }
}

pub(crate) mod may_block {
    pub(crate) struct MayBlock;

    pub(crate) fn detach_close(job: impl FnOnce(&MayBlock)) {
        job(&MayBlock);
    }
}

pub(crate) mod receive {
    use crate::buffer::Run;
    use bytes::Bytes;

    /// Bytes that arrive.
    pub(crate) struct Received<'a> {
        pub(crate) bytes: &'a [u8],
        pub(crate) is_copied: bool,
        pub(crate) is_last: bool,
    }

    impl<'a> Received<'a> {
        pub(crate) fn slices(&self) -> impl Iterator<Item = &'a [u8]> {
            std::iter::once(self.bytes)
        }

        pub(crate) fn length(&self) -> usize {
            self.bytes.len()
        }

        pub(crate) fn is_copied(&self) -> bool {
            self.is_copied
        }

        pub(crate) fn hold(self) -> Vec<Held> {
            vec![Held(Bytes::copy_from_slice(self.bytes))]
        }
    }

    pub(crate) struct Held(Bytes);

    impl Run for Held {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn append(&mut self, next: Self) -> Result<(), Self> {
            Err(next)
        }

        fn split_to(&mut self, count: usize) -> Option<Self> {
            Some(Self(self.0.split_to(count)))
        }
    }

    impl From<Held> for Bytes {
        fn from(held: Held) -> Self {
            held.0
        }
    }
}

pub(crate) mod stream {
    use super::calls::Calls;
    use super::connection::NativeConnection;
    use super::receive::Received;
    use crate::ffi::status::Status;
    use bytes::Bytes;
    use loom::sync::{Condvar, Mutex};
    use std::sync::Arc;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Abort {
        Send,
        Receive,
        Everything,
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) enum StreamEvent {
        StartComplete { status: Status, id: u64 },
        SendComplete { canceled: bool },
        IdealSendBuffer { bytes: u64 },
        PeerSendShutdown,
        PeerSendAborted { code: u64 },
        PeerReceiveAborted { code: u64 },
        SendShutdownComplete { graceful: bool },
        ShutdownComplete { connection: bool },
    }

    pub(crate) trait StreamHandler {
        fn on_event(self: &Arc<Self>, event: StreamEvent, calls: Calls<'_>);
        fn on_receive(self: &Arc<Self>, received: Received<'_>) -> usize;
    }

    /// What was called.
    #[derive(Default)]
    pub(crate) struct Called {
        pub(crate) sent: Vec<u8>,
        pub(crate) sends: usize,
        pub(crate) is_finished: bool,
        is_sending: bool,
        pub(crate) is_enabled: bool,
        pub(crate) aborts: Vec<Abort>,
    }

    #[derive(Default)]
    pub(crate) struct NativeStream {
        called: Mutex<Called>,
        changed: Condvar,
    }

    pub(crate) struct StreamHold(Arc<NativeStream>);

    impl NativeStream {
        pub(crate) fn new(_: &Arc<NativeConnection>) -> Self {
            Self::default()
        }

        /// Waits until what was called is enough for `take`.
        pub(crate) fn wait<T>(&self, mut take: impl FnMut(&mut Called) -> Option<T>) -> T {
            let mut called = self.called.lock().unwrap();
            loop {
                if let Some(taken) = take(&mut called) {
                    return taken;
                }
                called = self.changed.wait(called).unwrap();
            }
        }

        pub(crate) fn record<T>(&self, record: impl FnOnce(&mut Called) -> T) -> T {
            let result = record(&mut self.called.lock().unwrap());
            self.changed.notify_all();
            result
        }

        pub(crate) fn start<H>(
            self: &Arc<Self>,
            _: bool,
            _: bool,
            _: &Arc<H>,
        ) -> Result<(), Status> {
            Ok(())
        }

        /// Its event may come before it returns.
        pub(crate) fn send(&self, data: Vec<Bytes>, fin: bool) -> Result<(), Status> {
            self.record(|called| {
                assert!(!called.is_sending, "two threads send, in an order that is not known");
                assert!(!called.is_finished, "it sends after the end");
                called.is_sending = true;
                called.sent.extend(data.concat());
                called.sends += 1;
                called.is_finished = fin;
            });
            self.record(|called| called.is_sending = false);
            Ok(())
        }

        pub(crate) fn abort(&self, what: Abort, _: u64) {
            self.record(|called| called.aborts.push(what));
        }

        pub(crate) fn enable_receive(&self) {
            self.record(|called| called.is_enabled = true);
        }

        pub(crate) fn hold(self: &Arc<Self>) -> Option<StreamHold> {
            Some(StreamHold(self.clone()))
        }
    }
}
