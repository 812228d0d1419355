//! `NativeConfiguration`: settings, protocols and the TLS credential of connections.

use super::functions::call;
use super::holding::Holding;
use super::registration::{Child, Member, NativeRegistration};
use super::settings::NativeSettings;
use super::slot::{Closer, Slot, Slotted};
use super::status::Status;
use msquic::ffi;
use std::mem;
use std::ptr;
use std::sync::Arc;

/// Which side of a connection a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// A cipher suite of TLS 1.3 (RFC 8446, appendix B.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CipherSuite {
    /// `TLS_AES_128_GCM_SHA256`.
    Aes128Gcm,
    /// `TLS_AES_256_GCM_SHA384`.
    Aes256Gcm,
    /// `TLS_CHACHA20_POLY1305_SHA256`.
    ChaCha20Poly1305,
}

impl CipherSuite {
    fn native(self) -> ffi::QUIC_ALLOWED_CIPHER_SUITE_FLAGS {
        match self {
            Self::Aes128Gcm => {
                ffi::QUIC_ALLOWED_CIPHER_SUITE_FLAGS_QUIC_ALLOWED_CIPHER_SUITE_AES_128_GCM_SHA256
            }
            Self::Aes256Gcm => {
                ffi::QUIC_ALLOWED_CIPHER_SUITE_FLAGS_QUIC_ALLOWED_CIPHER_SUITE_AES_256_GCM_SHA384
            }
            Self::ChaCha20Poly1305 => {
                ffi::QUIC_ALLOWED_CIPHER_SUITE_FLAGS_QUIC_ALLOWED_CIPHER_SUITE_CHACHA20_POLY1305_SHA256
            }
        }
    }
}

/// What TLS needs of a configuration.
pub(crate) struct Tls<'a> {
    pub(crate) role: Role,
    /// The certificates and the key.
    pub(crate) pkcs12: &'a [u8],
    /// Those that are permitted; `None` for all.
    pub(crate) cipher_suites: Option<&'a [CipherSuite]>,
}

/// An open configuration. Connections that use it hold a count of it in libmsquic (C11).
pub(crate) struct NativeConfiguration {
    slot: Slot<ConfigurationCloser>,
    child: Arc<Child>,
    /// How the streams of its connections hold what they receive.
    holding: Holding,
}

impl NativeConfiguration {
    pub(super) fn holding(&self) -> Holding {
        self.holding
    }

    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    pub(crate) fn is_of(&self, registration: &Arc<NativeRegistration>) -> bool {
        self.child.is_of(registration)
    }

    /// Opens a configuration and loads its certificates and key.
    pub(crate) fn open(
        registration: &Arc<NativeRegistration>,
        alpn: &[&[u8]],
        mut settings: NativeSettings,
        holding: Holding,
        tls: &Tls<'_>,
    ) -> Result<Arc<Self>, Status> {
        let alpn = alpn_buffers(alpn)?;
        if holding == Holding::Several {
            settings.receive_several();
        }
        let settings = settings.get();
        let child = registration.add_configuration()?;
        let mut handle = ptr::null_mut();
        registration.with(|registration| {
            // SAFETY: C7, C11: the buffers and the settings are copied before the call returns; the
            // registration is open.
            Status::ok(unsafe {
                call!(ConfigurationOpen(
                    registration,
                    alpn.as_ptr(),
                    alpn.len() as u32,
                    ptr::from_ref(settings),
                    size_of_val(settings) as u32,
                    ptr::null_mut(),
                    &raw mut handle,
                ))
            })
        })?;
        let this = Self::with_handle(child, handle, holding);
        this.load_credential(tls)?;
        Ok(this)
    }

    /// Takes ownership of an open configuration.
    ///
    /// # Safety
    ///
    /// The configuration belongs to `registration`, and only this value closes it.
    pub(super) unsafe fn from_raw(
        registration: &Arc<NativeRegistration>,
        handle: ffi::HQUIC,
    ) -> Result<Arc<Self>, Status> {
        Ok(Self::with_handle(registration.add_configuration()?, handle, Holding::No))
    }

    fn with_handle(child: Arc<Child>, handle: ffi::HQUIC, holding: Holding) -> Arc<Self> {
        let slot = Slot::open(handle, ConfigurationCloser(child.clone()));
        let this = Arc::new(Self { slot, child, holding });
        this.child.set_configuration(Arc::<Self>::downgrade(&this));
        this
    }

    fn load_credential(&self, tls: &Tls<'_>) -> Result<(), Status> {
        let &Tls { role, pkcs12, cipher_suites } = tls;
        let mut bundle = ffi::QUIC_CERTIFICATE_PKCS12 {
            Asn1Blob: pkcs12.as_ptr(),
            Asn1BlobLength: u32::try_from(pkcs12.len()).map_err(|_| Status::INVALID_PARAMETER)?,
            PrivateKeyPassword: ptr::null(), // it is not encrypted
        };
        // SAFETY: the structure consists of integers and pointers, for which zero is valid (C10).
        let mut config: ffi::QUIC_CREDENTIAL_CONFIG = unsafe { mem::zeroed() };
        config.Type = ffi::QUIC_CREDENTIAL_TYPE_QUIC_CREDENTIAL_TYPE_CERTIFICATE_PKCS12;
        // This side verifies certificates in the callback (C22): TLS itself validates nothing.
        config.Flags = ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION
            | ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_INDICATE_CERTIFICATE_RECEIVED
            | ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_USE_PORTABLE_CERTIFICATES
            | match role {
                Role::Client => ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_CLIENT,
                Role::Server => {
                    ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_REQUIRE_CLIENT_AUTHENTICATION
                }
            };
        if let Some(suites) = cipher_suites {
            config.Flags |=
                ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_SET_ALLOWED_CIPHER_SUITES;
            config.AllowedCipherSuites = suites.iter().fold(0, |all, suite| all | suite.native());
        }
        config.__bindgen_anon_1.CertificatePkcs12 = &raw mut bundle;
        self.with(|handle| {
            // SAFETY: C12: without LOAD_ASYNCHRONOUS the bundle is read before the call returns.
            Status::ok(unsafe { call!(ConfigurationLoadCredential(handle, &raw const config)) })
        })
    }
}

impl Slotted for NativeConfiguration {
    type Closer = ConfigurationCloser;

    fn slot(&self) -> &Slot<ConfigurationCloser> {
        &self.slot
    }
}

/// Closes a configuration, and then removes it from its registration.
pub(crate) struct ConfigurationCloser(Arc<Child>);

impl Closer for ConfigurationCloser {
    const WAITS: bool = false;

    unsafe fn close(self, handle: ffi::HQUIC) {
        // SAFETY: C11: the caller's promise. This releases one count without waiting; the registration is still
        // open.
        unsafe { call!(ConfigurationClose(handle)) };
        self.0.remove();
    }
}

impl Member for NativeConfiguration {
    fn end(self: Arc<Self>, _: u64) {
        self.slot.close();
    }
}

impl Drop for NativeConfiguration {
    fn drop(&mut self) {
        self.slot.close();
    }
}

/// Native views of protocol names; valid as long as the names.
pub(super) fn alpn_buffers(alpn: &[&[u8]]) -> Result<Vec<ffi::QUIC_BUFFER>, Status> {
    let buffer = |name: &&[u8]| {
        // RFC 7301: a name has 1 to 255 bytes.
        let length = u8::try_from(name.len()).ok().filter(|length| *length > 0)?;
        // libmsquic only reads the bytes, although the pointer is not const.
        Some(ffi::QUIC_BUFFER { Length: length.into(), Buffer: name.as_ptr().cast_mut() })
    };
    alpn.iter().map(buffer).collect::<Option<_>>().ok_or(Status::INVALID_PARAMETER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnectionStartError;
    use crate::ffi::testing::{ALPN, credential, listener};
    use crate::{Configuration, Connection, ConnectionError, FromRaw, Registration, Settings};
    use futures::executor::block_on;
    use net_traits::TrustError;

    #[test]
    fn a_peer_that_was_not_verified_is_not_trusted() {
        let registration = Registration::new("test").unwrap();
        let settings = Settings::new();
        let (listener, port) = listener(&registration, &settings);
        let mut handle = ptr::null_mut();
        // SAFETY: C7, C10, C12: all arguments are copied.
        let configuration = unsafe {
            let table = crate::api_table().unwrap();
            let mut name = ALPN.to_owned().into_bytes();
            let alpn = ffi::QUIC_BUFFER { Length: name.len() as u32, Buffer: name.as_mut_ptr() };
            let (registration_handle, none) =
                (registration.native().slot().handle().unwrap(), ptr::null_mut());
            let open = table.ConfigurationOpen.unwrap();
            let opened = open(
                registration_handle,
                &raw const alpn,
                1,
                ptr::null(),
                0,
                none,
                &raw mut handle,
            );
            assert_eq!(opened, 0);
            let mut credential: ffi::QUIC_CREDENTIAL_CONFIG = mem::zeroed();
            credential.Type = ffi::QUIC_CREDENTIAL_TYPE_QUIC_CREDENTIAL_TYPE_NONE;
            credential.Flags = ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_CLIENT
                | ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
            let load = table.ConfigurationLoadCredential.unwrap();
            assert_eq!(load(handle, &raw const credential), 0);
            Configuration::from_raw(handle, &registration).unwrap()
        };
        block_on(async {
            let client = Connection::new(&registration, credential()).unwrap();
            let start = client.start(&configuration, "127.0.0.1", port);
            let error = futures::join!(start, listener.accept()).0.unwrap_err();
            let untrusted = ConnectionError::Untrusted(TrustError::NoCertificate);
            assert_eq!(error, ConnectionStartError::ConnectionLost(untrusted));
        });
    }
}
