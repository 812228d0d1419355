//! `Kept`: the charge of what is neither a message nor in the inbox.

use super::Share;
use std::sync::Arc;

/// A charge for anything else that a connection holds. It is released on drop.
#[derive(Debug)]
pub struct Kept {
    share: Arc<Share>,
    bytes: usize,
}

impl Kept {
    /// Creates a charge of zero bytes.
    pub fn new(share: &Arc<Share>) -> Self {
        Self { share: share.clone(), bytes: 0 }
    }

    /// Sets how many bytes are charged. May end a connection, so that no lock may be held.
    pub fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before != bytes {
            self.share.state.lock().charge(&self.share.account, before, bytes);
            self.share.account.check();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.share.state.lock().charge(&self.share.account, self.bytes, 0);
    }
}
