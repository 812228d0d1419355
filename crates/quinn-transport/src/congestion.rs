//! `Window`: a congestion controller whose window opens when the connection is closed.
//!
//! quinn-proto 0.11.19 does not send CONNECTION_CLOSE while the congestion window is full and data waits, so
//! the peer waits for its idle timeout and learns neither code nor reason. CONNECTION_CLOSE does not count
//! toward congestion control (RFC 9002, section 3). quinn-rs/quinn#2787 mends it: this module goes with the
//! first release that contains it.

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Creates a [`Window`] for each path.
pub(crate) struct Windows(pub(crate) Arc<dyn ControllerFactory + Send + Sync>);

/// A congestion controller.
pub(crate) struct Window {
    pub(crate) controller: Box<dyn Controller>,
    /// Shared with the copies that [`Connection::congestion_state`] returns.
    is_open: Arc<AtomicBool>,
}

/// Opens the window of a connection that is about to be closed.
pub(crate) fn open(connection: &Connection) {
    if let Ok(window) = connection.congestion_state().into_any().downcast::<Window>() {
        window.is_open.store(true, Ordering::Relaxed);
    }
}

impl ControllerFactory for Windows {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let controller = self.0.clone().build(now, current_mtu);
        Box::new(Window { controller, is_open: Arc::default() })
    }
}

/// Forwards methods to the controller inside.
macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),+);)+) => {
        $(fn $method(&mut self, $($argument: $type),+) { self.controller.$method($($argument),+) })+
    };
}

impl Controller for Window {
    forward! {
        on_sent(now: Instant, bytes: u64, last_packet_number: u64);
        on_ack(now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator);
        on_end_acks(now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>);
        on_congestion_event(now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64);
        on_mtu_update(new_mtu: u16);
    }

    fn window(&self) -> u64 {
        if self.is_open.load(Ordering::Relaxed) { u64::MAX } else { self.controller.window() }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (controller, is_open) = (self.controller.clone_box(), self.is_open.clone());
        Box::new(Self { controller, is_open })
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
