//! `Registration`: the parent of all connections and listeners.

use crate::Status;
use crate::ffi::raw::{FromRaw, Raw, kind};
use crate::ffi::registration::{ExecutionProfile, NativeRegistration};
use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

/// The parent of connections and listeners, with msquic's threads.
///
/// Cloning is cheap. Connections and listeners keep it alive; it is closed in the background when
/// the last of them is closed, so dropping it never waits.
///
/// ```
/// # smol::block_on(async {
/// let registration = msquic_async::Registration::new("my-node")?;
/// // Use connections and listeners here.
/// registration.shutdown(0);
/// registration.wait_idle().await;
/// # Ok::<(), msquic_async::Status>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Registration {
    native: Arc<NativeRegistration>,
}

impl Registration {
    /// Opens a registration with the default profile; `name` appears in msquic's traces.
    ///
    /// ```
    /// let registration = msquic_async::Registration::new("my-node")?;
    /// # Ok::<(), msquic_async::Status>(())
    /// ```
    ///
    /// # Errors
    ///
    /// msquic cannot be started. [`Status::INVALID_PARAMETER`] when `name` contains a zero byte.
    pub fn new(name: &str) -> Result<Self, Status> {
        Self::with_profile(name, ExecutionProfile::default())
    }

    /// Opens a registration with a profile, which determines its threads.
    ///
    /// ```
    /// use msquic_async::{ExecutionProfile, Registration};
    ///
    /// let registration = Registration::with_profile("my-node", ExecutionProfile::LowLatency)?;
    /// # Ok::<(), msquic_async::Status>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn with_profile(name: &str, profile: ExecutionProfile) -> Result<Self, Status> {
        let name = CString::new(name).map_err(|_| Status::INVALID_PARAMETER)?;
        Ok(Self::from_native(NativeRegistration::open(&name, profile)?))
    }

    fn from_native(native: Arc<NativeRegistration>) -> Self {
        Self { native }
    }

    /// Closes all connections with `error_code` (below 2^62) and stops all listeners. No new ones
    /// can be created from now on. A connection that is being closed keeps its code. To wait for
    /// the end, see [`wait_idle`](Self::wait_idle).
    ///
    /// ```
    /// # use msquic_async::{Connection, NetCredential, Registration, TrustPolicy};
    /// # let registration = Registration::new("example")?;
    /// # let credential = NetCredential::self_signed(TrustPolicy::reject_all())?;
    /// registration.shutdown(0);
    /// assert!(Connection::new(&registration, credential).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self, error_code: u64) {
        self.native.shutdown(error_code);
    }

    /// Waits until all connections and listeners are closed, and all buffers that borrow msquic's
    /// memory ([`Settings::zero_copy_receive`](crate::Settings::zero_copy_receive)) are dropped. It
    /// does not wait for handles of ended connections to be dropped, nor for received bytes to be
    /// read.
    ///
    /// ```no_run
    /// # async fn example(registration: msquic_async::Registration) {
    /// registration.shutdown(0);
    /// registration.wait_idle().await;
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn wait_idle(&self) {
        self.native.wait_idle().await;
    }

    pub(crate) fn native(&self) -> &Arc<NativeRegistration> {
        &self.native
    }
}

impl FromRaw for Registration {
    type Context<'a> = ();
    type Error = Status;
    type Kind = kind::Registration;

    fn adopt(raw: Raw<kind::Registration>, (): ()) -> Result<Self, Status> {
        Ok(Self::from_native(raw.adopt()?))
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").finish_non_exhaustive()
    }
}
