//! Operations of two connected peers, in any order: messages, requests, cancelled calls, and each kind of end, over
//! the in-memory transport. Nothing is lost that was promised, and nothing hangs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net_traits_test::memory::{MemoryNetwork, MemoryTransport};
use net_traits_test::{Harness, Limits, random};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

struct Memory(MemoryNetwork);

impl Harness for Memory {
    type Transport = MemoryTransport;

    fn transport(&self, limits: &Limits) -> MemoryTransport {
        self.0.transport_with(limits.clone())
    }

    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let memory = Arc::new(Memory(MemoryNetwork::new(0)));
    runtime.expect("a runtime can be started").block_on(random::play_bytes(&memory, bytes));
});
