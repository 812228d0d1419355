//! What a transport has counted.

use super::{Member, Registry};
use crate::statistics::sum;
use net_traits::{Limit, MessageStatistics, TransportStatistics};
use std::sync::atomic::Ordering;

impl<M: Member> Registry<M> {
    /// Returns what the transport has counted so far.
    pub fn statistics(&self) -> TransportStatistics {
        let refused = |limit| self.admission.refused(limit);
        let mut statistics = TransportStatistics::default();
        statistics.connections = self.live().len();
        statistics.handshakes = self.admission.handshakes();
        statistics.messages = self.messages();
        statistics.refused_connections = refused(Limit::Connections);
        statistics.refused_per_ip = refused(Limit::PerIp);
        statistics.refused_per_identity = refused(Limit::PerIdentity);
        statistics.refused_handshakes = refused(Limit::Handshakes);
        statistics.refused_handshake_timeout = refused(Limit::HandshakeTimeout);
        statistics.refused_memory = refused(Limit::Memory);
        statistics.refused_message_timeout = refused(Limit::MessageTimeout);
        statistics.refused_backlog = refused(Limit::Backlog);
        statistics.held_bytes = self.budget.used();
        statistics.refused_messages = self.refused_messages.load(Ordering::Relaxed);
        statistics.undelivered_messages = self.undelivered_messages.load(Ordering::Relaxed);
        statistics.undelivered_bytes = self.undelivered_bytes.load(Ordering::Relaxed);
        statistics
    }

    /// Returns the messages of all connections so far. Each connection has counters of its own, since threads
    /// that count in one place at once slow each other down.
    fn messages(&self) -> MessageStatistics {
        let state = self.state.lock();
        let of_live = state.live.values().map(|live| live.telemetry.messages());
        of_live.fold(state.past, sum)
    }
}
