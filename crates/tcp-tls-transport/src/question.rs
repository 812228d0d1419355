//! Reads, answers and rejects questions of the peer.

use crate::native::{TcpTls, outbox};
use crate::record;
use crate::requests::Question;
use net_kit::backend::{PeerQuestion, Session};
use net_traits::{Bytes, RequestError};

impl PeerQuestion<TcpTls> for Question {
    /// Returns the question, unless the peer cancelled it.
    async fn read(&mut self, _: &Session<TcpTls>) -> Result<Bytes, RequestError> {
        match self.asker.has_changed() {
            Ok(_) => Ok(self.question.clone()),
            Err(_) => Err(RequestError::Canceled),
        }
    }

    /// Queues the answer and waits until the transport of the peer has it; with an older peer, until it is
    /// written.
    async fn answer(
        &mut self,
        session: &Session<TcpTls>,
        answer: Bytes,
    ) -> Result<(), RequestError> {
        // Free the place before the answer arrives, since the peer may then ask again.
        if !session.native().requests()?.finish(self.id) {
            return Err(RequestError::Canceled);
        }
        self.is_answering = true;
        let outbox = outbox(session);
        let written = async {
            outbox.push(record::answer(self.id, answer)).await?;
            self.is_ended = true;
            self.place = None; // the peer may ask again
            outbox.flushed().await
        };
        let written = session.unless_stuck([outbox].into_iter(), written).await?;
        written.map_err(record::request_error)
    }

    fn end(&mut self, session: &Session<TcpTls>, code: u64) {
        let Ok(requests) = session.native().requests() else { return };
        let is_open = requests.finish(self.id);
        if !std::mem::replace(&mut self.is_ended, true) && (is_open || self.is_answering) {
            requests.refuse(outbox(session), self.id, code);
        }
    }

    async fn canceled(&self) {
        let mut asker = self.asker.clone();
        while asker.changed().await.is_ok() {}
    }
}
