//! `Charge`: the charge of what is neither a message nor in the inbox.

use super::Share;
use std::sync::Arc;

/// A charge for anything else that a connection holds. It is released on drop.
#[derive(Debug)]
pub struct Charge {
    share: Arc<Share>,
    bytes: usize,
}

impl Charge {
    /// Creates a charge of zero bytes.
    pub fn new(share: &Arc<Share>) -> Self {
        Self { share: share.clone(), bytes: 0 }
    }

    /// Sets how many bytes are charged. May end a connection, so that no lock may be held.
    pub fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before != bytes {
            self.share.state.lock().charge(&self.share.budget, before, bytes);
            self.share.budget.check();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.share.state.lock().charge(&self.share.budget, self.bytes, 0);
    }
}
