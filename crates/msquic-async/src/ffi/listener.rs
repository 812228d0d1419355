//! `NativeListener`: a listener handle, its events, and when it is closed.

use super::bound::Bound;
use super::claim::Claim;
use super::configuration::alpn_buffers;
use super::connection::PeerConnection;
use super::functions::call;
use super::guard::guard;
use super::may_block::{self, MayBlock};
use super::registration::{Child, Member, NativeRegistration};
use super::slot::Slotted;
use super::status::Status;
use super::{Handle, address, bytes};
use bytes::Bytes;
use msquic::ffi;
use parking_lot::Mutex;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddr};
use std::ptr;
use std::sync::Arc;

/// Handles the events of one listener, which may overlap (C1).
pub(crate) trait ListenerHandler: Send + Sync + 'static {
    /// Takes a connection; if it is not adopted, it is refused.
    fn on_new_connection(self: &Arc<Self>, connection: PeerConnection<'_>);
    /// The last event.
    fn on_stop_complete(self: &Arc<Self>);
}

/// A listener handle: started once, stopped once, and closed in its last event.
pub(crate) struct NativeListener {
    state: Mutex<State>,
    registration: Arc<NativeRegistration>,
    /// From its start on.
    child: Mutex<Option<Arc<Child>>>,
    claim: Mutex<Option<Claim>>,
}

/// ```text
/// Idle ─start─▶ Starting ─▶ Started ─stop─▶ Stopped
///   ▲              │ └──stop──▶ StopWanted ──▲
///   └───failed─────┘
/// ```
#[derive(Clone, Copy)]
enum State {
    Idle,
    Starting,
    StopWanted,
    Started(Handle),
    Stopped,
}

impl NativeListener {
    /// A listener without a handle; its registration knows it from its start on.
    pub(crate) fn new(registration: &Arc<NativeRegistration>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::Idle),
            registration: registration.clone(),
            child: Mutex::default(),
            claim: Mutex::default(),
        })
    }

    pub(crate) fn registration(&self) -> &Arc<NativeRegistration> {
        &self.registration
    }

    /// Opens the handle and listens; returns the address. On success `handler` lives until the last
    /// event, which follows [`stop`](Self::stop).
    pub(crate) fn start<H: ListenerHandler>(
        self: &Arc<Self>,
        alpn: &[&[u8]],
        local_addr: Option<SocketAddr>,
        handler: &Arc<H>,
    ) -> Result<SocketAddr, Status> {
        {
            let mut state = self.state.lock();
            let State::Idle = *state else { return Err(Status::INVALID_STATE) };
            *state = State::Starting;
        }
        let started =
            self.registration.add_listener(Arc::<Self>::downgrade(self)).and_then(|child| {
                *self.child.lock() = Some(child);
                self.open_and_start(alpn, local_addr, handler).inspect_err(|_| self.on_closed())
            });
        let stop_now = {
            let mut state = self.state.lock();
            let was_stopped = matches!(*state, State::StopWanted);
            *state = match &started {
                Err(_) => State::Idle,
                Ok(_) if was_stopped => State::Stopped,
                Ok((handle, _)) => State::Started(*handle),
            };
            was_stopped
        };
        let (handle, addr) = started?;
        if stop_now {
            stop(handle);
        }
        Ok(addr)
    }

    fn open_and_start<H: ListenerHandler>(
        self: &Arc<Self>,
        alpn: &[&[u8]],
        local_addr: Option<SocketAddr>,
        handler: &Arc<H>,
    ) -> Result<(Handle, SocketAddr), Status> {
        let local_addr = local_addr.unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into());
        let mut tries = if local_addr.port() == 0 { PORTS } else { 1 };
        loop {
            tries -= 1;
            let claim = Claim::new(local_addr)?;
            let addr = claim.addr();
            *self.claim.lock() = Some(claim); // before the handle can be closed
            match self.open_and_start_at(alpn, addr, handler) {
                // Another socket has bound that port meanwhile, or has it on another address.
                Err(Status::ADDRESS_IN_USE) if tries > 0 => {}
                result => return result,
            }
        }
    }

    fn open_and_start_at<H: ListenerHandler>(
        self: &Arc<Self>,
        alpn: &[&[u8]],
        local_addr: SocketAddr,
        handler: &Arc<H>,
    ) -> Result<(Handle, SocketAddr), Status> {
        let alpn = alpn_buffers(alpn)?;
        let context = Bound::context(self, handler);
        let mut handle = ptr::null_mut();
        // SAFETY: C13: the context comes back at the last event, or
        // below when the start fails: then there is no event. C21: names and address are copied,
        // and a listener that did not start is closed at once.
        let started = self.registration.with(|registration| unsafe {
            let function = trampoline::<H>;
            let opened =
                call!(ListenerOpen(registration, Some(function), context, &raw mut handle));
            Status::ok(opened).and_then(|()| {
                let native_addr = address::to_native_listen(local_addr);
                let native_addr = ptr::from_ref(&native_addr).cast();
                let count = alpn.len() as u32;
                let started = call!(ListenerStart(handle, alpn.as_ptr(), count, native_addr));
                Status::ok(started).inspect_err(|_| call!(ListenerClose(handle)))
            })
        });
        if let Err(status) = started {
            // SAFETY: C21: a listener that did not start has no events.
            drop(unsafe { Bound::<Self, H>::take(context) });
            return Err(status);
        }
        // SAFETY: C5: listener parameters are read inline, at most `length` bytes over zeroed ones.
        let bound = unsafe {
            let mut addr = MaybeUninit::<msquic::Addr>::zeroed();
            let mut length = size_of_val(&addr) as u32;
            let param = ffi::QUIC_PARAM_LISTENER_LOCAL_ADDRESS;
            Status::ok(call!(GetParam(handle, param, &raw mut length, addr.as_mut_ptr().cast())))
                .ok()
                .map(|()| address::from_native_listen(&addr.assume_init()))
        };
        Ok((Handle(handle), bound.unwrap_or(local_addr)))
    }

    /// Stops listening, the first time it is called. Never blocks.
    pub(crate) fn stop(&self) {
        let handle = {
            let mut state = self.state.lock();
            match *state {
                State::Started(handle) => {
                    *state = State::Stopped;
                    handle
                }
                State::Starting => {
                    *state = State::StopWanted;
                    return;
                }
                State::Idle | State::StopWanted | State::Stopped => return,
            }
        };
        stop(handle);
    }

    fn on_closed(&self) {
        let (claim, child) = (self.claim.lock().take(), self.child.lock().take());
        drop((claim, child));
    }
}

impl Member for NativeListener {
    fn end(self: Arc<Self>, _: u64) {
        self.stop();
    }
}

/// Stops on a thread that may wait: the call waits for packets that are being received (C1).
fn stop(handle: Handle) {
    may_block::detach_close(move |may_block| stop_and_wait(handle, may_block));
}

fn stop_and_wait(Handle(handle): Handle, _: &MayBlock) {
    // SAFETY: C8, C21: called once, and the handle is closed by the last event only, which this call
    // brings about.
    unsafe { call!(ListenerStop(handle)) };
}

/// All events of all listeners arrive here.
///
/// # Safety
///
/// Called by libmsquic with the context that was registered with the handle.
unsafe extern "C" fn trampoline<H: ListenerHandler>(
    listener: ffi::HQUIC,
    context: *mut c_void,
    event: *mut ffi::QUIC_LISTENER_EVENT,
) -> ffi::QUIC_STATUS {
    // SAFETY: C13: the context lives until the end of the last event; C6: `event` is
    // valid during the call and its type says which member of the union is there.
    unsafe {
        let event = &mut *event;
        match event.Type {
            ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_NEW_CONNECTION => {
                let mut adopted = false;
                guard((), || {
                    let Bound::<NativeListener, H> { native, handler } = Bound::of(context);
                    let new = event.__bindgen_anon_1.NEW_CONNECTION;
                    if let Some(connection) = peer_connection(native, &new, &mut adopted) {
                        handler.on_new_connection(connection);
                    }
                });
                // C18: what was not adopted stays libmsquic's, which refuses it.
                if adopted { Status::SUCCESS } else { Status::CONNECTION_REFUSED }.to_raw()
            }
            ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_STOP_COMPLETE => {
                guard((), || {
                    let bound = Bound::<NativeListener, H>::take(context);
                    call!(ListenerClose(listener)); // C21: does not wait inside this event.
                    bound.native.on_closed();
                    bound.handler.on_stop_complete();
                });
                Status::SUCCESS.to_raw()
            }
            _ => Status::SUCCESS.to_raw(), // C19
        }
    }
}

/// The connection that NEW_CONNECTION offers.
///
/// # Safety
///
/// Inside the callback that `new` was given to.
unsafe fn peer_connection<'a>(
    listener: &'a NativeListener,
    new: &ffi::QUIC_LISTENER_EVENT__bindgen_ty_1__bindgen_ty_1,
    adopted: &'a mut bool,
) -> Option<PeerConnection<'a>> {
    // SAFETY: C6: the information and what it points to are valid during the callback.
    unsafe {
        let info = new.Info.as_ref()?;
        let name = bytes(info.ServerName.cast(), info.ServerNameLength.into());
        Some(PeerConnection {
            registration: &listener.registration,
            handle: new.Connection,
            adopted,
            remote_addr: address::from_event(info.RemoteAddress),
            local_addr: address::from_event(info.LocalAddress),
            server_name: (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned()),
            alpn: Bytes::copy_from_slice(bytes(
                info.NegotiatedAlpn,
                info.NegotiatedAlpnLength.into(),
            )),
        })
    }
}

/// How many ports are tried for port 0.
const PORTS: u32 = 16;
