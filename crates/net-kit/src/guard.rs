//! `OnDrop`: a step that must also happen when its future is cancelled.

/// Calls a function when it is dropped.
///
/// For instance, a `close` that waits for queued messages holds a guard that closes immediately. A
/// dropped future then does not leave the connection open.
///
/// ```
/// use net_kit::guard::OnDrop;
/// use std::cell::Cell;
///
/// let closed = Cell::new(false);
/// drop(OnDrop(|| closed.set(true)));
/// assert!(closed.get());
/// ```
#[derive(Debug)]
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
