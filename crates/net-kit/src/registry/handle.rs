//! `Handle`: what the application holds of a connection.

use super::{Lingering, Member, Registry};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A handle of a connection. After the last one was dropped, the connection [lingers](Lingering).
pub struct Handle<M: Member>(Arc<M>);

impl<M: Member> Handle<M> {
    /// Wraps a member whose entry counts one handle.
    pub(super) fn first(member: Arc<M>) -> Self {
        Self(member)
    }

    /// Returns another handle, or `None` if the last one was dropped.
    pub fn further(member: Arc<M>) -> Option<Self> {
        let further = |count| (count > 0).then(|| count + 1);
        let handles = &member.entry().handles;
        handles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, further).ok()?;
        Some(Self(member))
    }

    /// Returns the connection, for tasks that do not keep it open.
    pub fn member(this: &Self) -> &Arc<M> {
        &this.0
    }
}

impl<M: Member> Clone for Handle<M> {
    fn clone(&self) -> Self {
        self.0.entry().handles.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<M: Member> Deref for Handle<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: Member> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry().facts().debug("Handle", f)
    }
}

impl<M: Member> Drop for Handle<M> {
    fn drop(&mut self) {
        let was_last = self.entry().handles.fetch_sub(1, Ordering::AcqRel) == 1;
        if was_last && self.has_ended() {
            self.entry().undelivered(self.lost());
            self.discard(); // nothing can receive it any more
        } else if was_last {
            self.0.linger(Lingering(self.0.clone()));
        }
    }
}

impl<M: Member> Registry<M> {
    /// Returns handles of the connections that have not ended and have handles.
    pub fn handles(&self) -> Vec<Handle<M>> {
        self.live().into_iter().filter_map(Handle::further).collect()
    }
}
