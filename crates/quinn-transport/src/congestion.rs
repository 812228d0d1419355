//! `Window`: a congestion controller whose window opens when the connection is closed.
//!
//! quinn-proto 0.11.19 does not send CONNECTION_CLOSE while the congestion window is full and data waits
//! (`Connection::poll_transmit`), and after a close it processes no acknowledgement that would make room. The
//! peer would learn of the close from a stateless reset or its idle timeout, without code and reason.
//! CONNECTION_CLOSE does not count toward congestion control (RFC 9002, section 3).

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Creates a [`Window`] for each path.
pub(crate) struct Windows(pub(crate) Arc<dyn ControllerFactory + Send + Sync>);

/// A congestion controller.
pub(crate) struct Window {
    controller: Box<dyn Controller>,
    /// Shared with the copies that [`Connection::congestion_state`] returns.
    is_open: Arc<AtomicBool>,
}

/// Opens the window of a connection that is about to be closed.
pub(crate) fn open(connection: &Connection) {
    if let Ok(window) = connection.congestion_state().into_any().downcast::<Window>() {
        window.is_open.store(true, Ordering::Relaxed);
    }
}

/// Returns the controller of a connection.
#[cfg(test)]
pub(crate) fn controller(connection: &Connection) -> Box<dyn Controller> {
    let window = connection.congestion_state().into_any().downcast::<Window>();
    window.expect("each path has one").controller
}

impl ControllerFactory for Windows {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let controller = self.0.clone().build(now, current_mtu);
        Box::new(Window { controller, is_open: Arc::default() })
    }
}

impl Controller for Window {
    fn window(&self) -> u64 {
        match self.is_open.load(Ordering::Relaxed) {
            true => u64::MAX,
            false => self.controller.window(),
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let controller = self.controller.clone_box();
        Box::new(Self { controller, is_open: self.is_open.clone() })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.controller.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.controller.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.controller.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.controller.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.controller.on_mtu_update(new_mtu);
    }

    fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }
}
