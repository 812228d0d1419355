//! The datagrams of a broken connection.

use super::{BrokenConnection, Fault};
use async_trait::async_trait;
use bytes::Bytes;
use net_traits::{DatagramError, DatagramStatistics, NetConnection, NetDatagrams};
use tokio::task::coop::unconstrained;

#[async_trait]
impl NetDatagrams for BrokenConnection {
    fn max_datagram_size(&self) -> Option<usize> {
        self.0.inner.datagrams().unwrap().max_datagram_size()
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        let sent = self.0.inner.datagrams()?.send_datagram(datagram);
        match sent {
            Err(DatagramError::Closed(_)) if self.0.fault == Fault::DatagramsForgetTheEnd => Ok(()),
            sent => sent,
        }
    }

    async fn recv_datagram(&self) -> Result<Bytes, DatagramError> {
        let inner = self.0.inner.datagrams()?;
        if self.0.fault == Fault::RevokedDatagramsAreHandedOut
            && let Some(datagram) = self.0.arrived.lock().pop_front()
        {
            return Ok(datagram);
        }
        let received = inner.recv_datagram();
        let received = match self.0.fault {
            Fault::DatagramsNeverPause => unconstrained(received).await?,
            _ => received.await?,
        };
        match self.0.fault {
            Fault::DatagramsAreCut if received.len() > 1000 => Ok(received.slice(..1000)),
            Fault::DroppedRecvLosesADatagram => {
                tokio::task::yield_now().await; // a future that is dropped here loses the datagram
                Ok(received)
            }
            _ => Ok(received),
        }
    }

    fn datagram_statistics(&self) -> DatagramStatistics {
        self.0.inner.datagrams().unwrap().datagram_statistics()
    }
}
