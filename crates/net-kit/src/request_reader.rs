//! `RequestReader`: a question or an answer of the peer that is read piece by piece, within its limits.

use crate::memory_budget::{Charge, Share};
use bytes::Bytes;
use net_traits::{RequestError, request_code};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How many bytes of a question have to arrive within the timeout, unless it ends earlier.
const ADVANCE: usize = 16 * 1024;

/// Collects the pieces of a question or an answer, and charges them to the connection until it is finished
/// or dropped.
///
/// ```
/// use net_kit::memory_budget::Share;
/// use net_kit::request_reader::RequestReader;
/// use net_traits::RequestError;
/// use std::sync::Arc;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # runtime.block_on(async {
/// let mut question = RequestReader::new(&Arc::new(Share::unlimited()), 5);
/// let piece = question.wait(async { b"why?" }).await?;
/// question.push(piece)?;
/// let too_large = RequestError::TooLarge { size: 6, limit: 5 };
/// assert_eq!(question.push(b"not"), Err(too_large));
/// assert_eq!(question.finish(), "why?");
/// # Ok::<(), RequestError>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct RequestReader {
    bytes: Vec<u8>,
    limit: usize,
    charge: Charge,
    timeout: Duration,
    /// How much had arrived at the last advance, and when that was.
    mark: usize,
    since: Instant,
}

impl RequestReader {
    /// Creates the reader of a question or an answer of at most `limit` bytes. For [`wait`](Self::wait) the
    /// connection's time limit for unfinished messages applies from now on.
    pub fn new(share: &Arc<Share>, limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            charge: Charge::new(share),
            timeout: share.timeout(),
            mark: 0,
            since: Instant::now(),
        }
    }

    /// Waits for the next piece of a question as long as at least 16 KiB arrive within the time limit. An
    /// answer has a deadline of its own.
    ///
    /// # Errors
    ///
    /// [`RequestError::TimedOut`]; `piece` is dropped.
    ///
    /// # Cancel safety
    ///
    /// That of `piece`.
    pub async fn wait<T>(&self, piece: impl Future<Output = T>) -> Result<T, RequestError> {
        let rest = self.timeout.saturating_sub(self.since.elapsed());
        let late = |_| RequestError::TimedOut { after: self.timeout };
        timeout(rest, piece).await.map_err(late)
    }

    /// Adds a piece.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLarge`]; the piece is not added.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RequestError> {
        if piece.len() > self.limit - self.bytes.len() {
            let limit = self.limit;
            return Err(RequestError::TooLarge { size: limit.saturating_add(1), limit });
        }
        self.bytes.extend_from_slice(piece);
        self.charge.set(self.bytes.capacity());
        if self.bytes.len() - self.mark >= ADVANCE {
            (self.mark, self.since) = (self.bytes.len(), Instant::now());
        }
        Ok(())
    }

    /// Returns the complete question or answer.
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

/// Returns the code that refuses a question which cannot be read because of `error`; `None` if it is not to
/// be refused.
pub fn refusal(error: &RequestError) -> Option<u64> {
    match error {
        RequestError::TooLarge { .. } => Some(request_code::TOO_LARGE),
        RequestError::TimedOut { .. } => Some(request_code::TOO_SLOW),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_budget::{MemoryBudget, MemoryLimits};
    use std::future::{pending, ready};
    use tokio::time::advance;

    const LIMIT: Duration = Duration::from_secs(4);

    #[tokio::test(start_paused = true)]
    async fn a_question_times_out_unless_it_advances() {
        let limits = MemoryLimits { timeout: LIMIT, ..MemoryLimits::NONE };
        let budget = Arc::new(MemoryBudget::new(limits));
        let mut question = RequestReader::new(&Arc::new(Share::new(&budget)), usize::MAX);
        for _ in 0..10 {
            advance(LIMIT / 2).await;
            question.push(&[7; ADVANCE / 2]).unwrap();
            assert_eq!(question.wait(ready(7)).await, Ok(7));
        }
        assert!(budget.used() >= 5 * ADVANCE);
        let (begin, late) = (Instant::now(), RequestError::TimedOut { after: LIMIT });
        assert_eq!(question.wait(pending::<()>()).await, Err(late.clone()));
        assert_eq!(begin.elapsed(), LIMIT);
        question.push(b"a little").unwrap();
        assert_eq!(question.wait(pending::<()>()).await, Err(late));
        assert_eq!(begin.elapsed(), LIMIT, "a few bytes are not an advance");
        drop(question);
        assert_eq!(budget.used(), 0);
    }
}
