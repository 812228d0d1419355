//! The datagrams of a connection (RFC 9221).

use crate::connection::MsQuicNetConnection;
use async_trait::async_trait;
use bytes::Bytes;
use msquic_async::DgramSendError;
use net_kit::datagram;
use net_traits::{Cause, DatagramError, DatagramStatistics, NetConnection, NetDatagrams};

#[async_trait]
impl NetDatagrams for MsQuicNetConnection {
    fn max_datagram_size(&self) -> Option<usize> {
        let size = self.shared.inner.max_datagram_size()?;
        Some(size.saturating_sub(datagram::HEADER))
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        let size = datagram.len();
        let sent = self.shared.inner.send_datagram(&datagram::encode(&datagram));
        sent.map_err(|error| match error {
            DgramSendError::Denied => DatagramError::Unsupported,
            DgramSendError::TooBig { max, .. } => {
                DatagramError::TooLarge { size, limit: max.saturating_sub(datagram::HEADER) }
            }
            DgramSendError::Full => DatagramError::WouldBlock,
            DgramSendError::ConnectionLost(_) => DatagramError::Closed(self.shared.closing()),
            error => DatagramError::Transport(Cause::new(error)),
        })?;
        self.shared.datagrams.sent();
        Ok(())
    }

    async fn recv_datagram(&self) -> Result<Bytes, DatagramError> {
        let received = self.shared.inbound.datagrams().recv_until(self.watch_close()).await;
        let received = received.map_err(DatagramError::Closed);
        let datagram = self.shared.entry.hand_out_datagram(received)?;
        self.shared.datagrams.received();
        Ok(datagram)
    }

    fn datagram_statistics(&self) -> DatagramStatistics {
        self.shared.datagrams.statistics(self.shared.inbound.datagrams().arrived())
    }
}
