//! `NativeListener`: a listener handle, its events, and when it is closed.

use super::configuration::alpn_buffers;
use super::connection::PeerConnection;
use super::guard::guard;
use super::library::call;
use super::registration::NativeRegistration;
use super::status::Status;
use super::{Handle, address};
use bytes::Bytes;
use msquic::ffi;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::{SocketAddr, UdpSocket};
use std::ptr;
use std::slice;
use std::sync::{Arc, LazyLock, Weak};

/// Handles the events of one listener, which may overlap (C1).
pub(crate) trait ListenerHandler: Send + Sync + 'static {
    fn native(&self) -> &NativeListener;
    /// Takes a connection; one that is not adopted is refused.
    fn on_new_connection(self: &Arc<Self>, connection: PeerConnection<'_>);
    /// The last event.
    fn on_stop_complete(self: &Arc<Self>);
}

/// A listener handle: started once, stopped once, and closed by its last event.
pub(crate) struct NativeListener {
    state: Mutex<State>,
    registration: Arc<NativeRegistration>,
    id: u64,
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
    Started(Handle, u16),
    Stopped(u16),
}

impl NativeListener {
    /// A listener without a handle, known to its registration.
    pub(crate) fn new(registration: &Arc<NativeRegistration>) -> Result<Arc<Self>, Status> {
        let mut id = Ok(0);
        let this = Arc::new_cyclic(|this: &Weak<Self>| {
            id = registration.add_listener(this);
            Self {
                state: Mutex::new(State::Idle),
                registration: registration.clone(),
                id: *id.as_ref().unwrap_or(&0),
            }
        });
        id.map(|_| this)
    }

    pub(crate) fn registration(&self) -> &Arc<NativeRegistration> {
        &self.registration
    }

    /// Opens the handle and listens; tells the address. On success `handler` lives until the last
    /// event, which follows [`stop`](Self::stop).
    pub(crate) fn start<H: ListenerHandler>(
        &self,
        alpn: &[&[u8]],
        local_addr: Option<SocketAddr>,
        handler: &Arc<H>,
    ) -> Result<SocketAddr, Status> {
        {
            let mut state = self.state.lock();
            let State::Idle = *state else { return Err(Status::INVALID_STATE) };
            *state = State::Starting;
        }
        let started = self.open_and_start(alpn, local_addr, handler);
        let stop_now = {
            let mut state = self.state.lock();
            let was_stopped = matches!(*state, State::StopWanted);
            *state = match &started {
                Err(_) => State::Idle,
                Ok((_, addr)) if was_stopped => State::Stopped(addr.port()),
                Ok((handle, addr)) => State::Started(*handle, addr.port()),
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
        &self,
        alpn: &[&[u8]],
        local_addr: Option<SocketAddr>,
        handler: &Arc<H>,
    ) -> Result<(Handle, SocketAddr), Status> {
        let alpn = alpn_buffers(alpn)?;
        let port = PortClaim::new(local_addr)?;
        let context = Arc::into_raw(handler.clone());
        let mut handle = ptr::null_mut();
        // SAFETY: C13: the context is a count of the handler that comes back at the last event, or
        // below when the start fails: then there is no event. C21: names and address are copied,
        // and a listener that did not start is closed at once.
        let started = unsafe {
            let function = trampoline::<H>;
            let registration = self.registration.handle();
            let context = context.cast_mut().cast();
            let opened =
                call!(ListenerOpen(registration, Some(function), context, &raw mut handle));
            Status::ok(opened).and_then(|()| {
                let native_addr = local_addr.map(address::to_native);
                let native_addr = native_addr.as_ref().map_or(ptr::null(), ptr::from_ref).cast();
                let count = alpn.len() as u32;
                let started = call!(ListenerStart(handle, alpn.as_ptr(), count, native_addr));
                Status::ok(started).inspect_err(|_| call!(ListenerClose(handle)))
            })
        };
        if let Err(status) = started {
            // SAFETY: C21: a listener that did not start has no events.
            drop(unsafe { Arc::from_raw(context) });
            return Err(status);
        }
        // SAFETY: C5: listener parameters are read inline, at most `length` bytes over zeroed ones.
        let bound = unsafe {
            let mut addr = MaybeUninit::<msquic::Addr>::zeroed();
            let mut length = size_of_val(&addr) as u32;
            let param = ffi::QUIC_PARAM_LISTENER_LOCAL_ADDRESS;
            Status::ok(call!(GetParam(handle, param, &raw mut length, addr.as_mut_ptr().cast())))
                .ok()
                .and_then(|()| address::from_native(&addr.assume_init()))
        };
        let bound = bound.or(local_addr).unwrap_or_else(|| SocketAddr::from(([0; 16], 0)));
        port.keep(bound.port());
        Ok((Handle(handle), bound))
    }

    /// Stops listening, the first time it is called. The last event may come before it returns.
    pub(crate) fn stop(&self) {
        let handle = {
            let mut state = self.state.lock();
            match *state {
                State::Started(handle, port) => {
                    *state = State::Stopped(port);
                    handle
                }
                State::Starting => {
                    *state = State::StopWanted;
                    return;
                }
                State::Idle | State::StopWanted | State::Stopped(_) => return,
            }
        };
        stop(handle);
    }

    fn on_closed(&self) {
        if let State::Stopped(port) = *self.state.lock() {
            release_port(port);
        }
        self.registration.remove(self.id);
    }
}

impl Drop for NativeListener {
    fn drop(&mut self) {
        self.registration.remove(self.id); // for one that never started; else it is gone already
    }
}

fn stop(Handle(handle): Handle) {
    // SAFETY: C8, C21: called once, and the handle is closed by the last event only, which this
    // call brings about.
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
    // SAFETY: C13: the count in the context lives until the end of the last event; C6: `event` is
    // valid during the call and its type says which member of the union is there.
    unsafe {
        let event = &mut *event;
        match event.Type {
            ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_NEW_CONNECTION => {
                let mut adopted = false;
                guard((), || {
                    let handler = ManuallyDrop::new(Arc::from_raw(context.cast::<H>()));
                    let new = event.__bindgen_anon_1.NEW_CONNECTION;
                    if let Some(connection) = peer_connection(&new, &mut adopted) {
                        handler.on_new_connection(connection);
                    }
                });
                // C18: what was not adopted stays libmsquic's, which refuses it.
                if adopted { Status::SUCCESS } else { Status::CONNECTION_REFUSED }.to_raw()
            }
            ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_STOP_COMPLETE => {
                guard((), || {
                    let handler = Arc::from_raw(context.cast::<H>());
                    call!(ListenerClose(listener)); // C21: does not wait inside this event.
                    handler.native().on_closed();
                    handler.on_stop_complete();
                });
                Status::SUCCESS.to_raw()
            }
            _ => Status::SUCCESS.to_raw(), // C19
        }
    }
}

/// What NEW_CONNECTION offers.
///
/// # Safety
///
/// Inside the callback that `new` was given to.
unsafe fn peer_connection<'a>(
    new: &ffi::QUIC_LISTENER_EVENT__bindgen_ty_1__bindgen_ty_1,
    adopted: &'a mut bool,
) -> Option<PeerConnection<'a>> {
    // SAFETY: C6: the information and what it points to are valid during the callback.
    unsafe {
        let info = new.Info.as_ref()?;
        let name = bytes(info.ServerName.cast(), info.ServerNameLength.into());
        Some(PeerConnection {
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

/// Bytes that an event points to.
///
/// # Safety
///
/// `data` is null or points to `length` bytes that are valid for `'a`.
unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(data, length) }
}

/// The ports that listeners of this process have, and how many each: listeners with different
/// protocols share one.
static OWN_PORTS: LazyLock<Mutex<HashMap<u16, usize>>> = LazyLock::new(Mutex::default);

/// Claims the port of a listener while it starts.
///
/// libmsquic listens with SO_REUSEPORT, so the port of another process would be shared with it
/// silently and each would get a part of the packets (C21). A probe finds that out.
struct PortClaim(Option<u16>);

impl PortClaim {
    fn new(local_addr: Option<SocketAddr>) -> Result<Self, Status> {
        let Some(addr) = local_addr.filter(|addr| addr.port() != 0) else { return Ok(Self(None)) };
        let is_own = {
            let mut ports = OWN_PORTS.lock();
            let count = ports.entry(addr.port()).or_default();
            *count += 1;
            *count > 1
        };
        let claim = Self(Some(addr.port()));
        if !is_own {
            UdpSocket::bind(addr).map_err(|error| match error.kind() {
                std::io::ErrorKind::AddrInUse => Status::ADDRESS_IN_USE,
                _ => Status::INVALID_ADDRESS,
            })?;
        }
        Ok(claim)
    }

    /// Keeps the claim, for the port that the listener really got.
    fn keep(self, port: u16) {
        if self.0.is_none() {
            *OWN_PORTS.lock().entry(port).or_default() += 1;
        }
        std::mem::forget(self);
    }
}

impl Drop for PortClaim {
    fn drop(&mut self) {
        if let Some(port) = self.0 {
            release_port(port);
        }
    }
}

fn release_port(port: u16) {
    let mut ports = OWN_PORTS.lock();
    if let Some(count) = ports.get_mut(&port) {
        *count -= 1;
        if *count == 0 {
            ports.remove(&port);
        }
    }
}
