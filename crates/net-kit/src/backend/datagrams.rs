//! The datagrams of a connection, over those of its backend.

use super::{Backend, Connection};
use crate::datagram;
use async_trait::async_trait;
use bytes::Bytes;
use net_traits::{DatagramError, DatagramStatistics, NetDatagrams};

#[async_trait]
impl<B: Backend> NetDatagrams for Connection<B> {
    fn max_datagram_size(&self) -> Option<usize> {
        Some(B::max_datagram_size(self.session().native())?.saturating_sub(datagram::HEADER))
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        if let Some(reason) = self.session().closing() {
            return Err(DatagramError::Closed(reason));
        }
        let (size, limit) = (datagram.len(), self.max_datagram_size());
        let limit = limit.ok_or(DatagramError::Unsupported)?;
        if size > limit {
            return Err(DatagramError::TooLarge { size, limit });
        }
        if !B::send_datagram(self.session().native(), datagram::encode(&datagram)) {
            return Err(DatagramError::WouldBlock);
        }
        self.shared.datagrams.sent();
        Ok(())
    }

    async fn recv_datagram(&self) -> Result<Bytes, DatagramError> {
        let received = self.session().datagrams().recv_until(self.session().ended()).await;
        let received = received.map_err(DatagramError::Closed);
        let datagram = self.shared.entry.hand_out_datagram(received)?;
        self.shared.datagrams.received();
        Ok(datagram)
    }

    fn datagram_statistics(&self) -> DatagramStatistics {
        self.shared.datagrams.statistics(self.session().datagrams().arrived())
    }
}
