//! `Dial`: the destination and the local address of an outgoing connection.

use super::error::StartError;
use crate::ffi::library::has_patch;
use net_traits::address::destination;
use std::ffi::CString;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// The destination of an outgoing connection, and its local address, interface and sockets.
///
/// A host and a port are enough. The rest has these defaults: the server name (SNI) is the host; the system
/// chooses the local address and interface, and the connection shares its sockets with others.
///
/// # Shared sockets
///
/// Connections that share sockets have a few descriptors for each processor, however many peers they have. They
/// share a port, too: connection IDs distinguish the peers' answers. A shared socket is open as long as a
/// connection uses it. Three things differ from a connection with a socket of its own:
///
/// - A peer that lost its state cannot report that (stateless reset), so the connection ends with a timeout.
/// - A listener of this library that [validates addresses](crate::require_address_validation) sends one Retry for each
///   address and port in 100 ms, which slows many simultaneous attempts to *one* such listener.
/// - A peer whose msquic lacks the patch N33 follows a connection that [moves](crate::Connection::rebind) about three times
///   within a few round trips. One that moves more often may lose it, and end by timeout.
///
/// Sharing needs the patch N28 of the vendored library; [`library_patches`](crate::library_patches) lists it. With
/// another library, and through a chosen interface, each connection has a socket of its own.
///
/// # Peers behind NATs
///
/// With the [local address](Self::local_addr) of a [`Listener`](crate::Listener), the connection uses the same
/// local port at which the peer would dial this side. Two peers whose NATs keep one mapping for each local port
/// (RFC 4787, endpoint-independent mapping) connect by dialling each other's public address at the same time: each
/// side's first packets open its NAT for those of the other. An attempt does not end when a NAT on the path
/// rejects its first packets.
///
/// ```no_run
/// # async fn example(
/// #     registration: msquic_async::Registration,
/// #     configuration: msquic_async::Configuration,
/// #     credential: msquic_async::NetCredential,
/// #     listener: msquic_async::Listener,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::Dial;
///
/// let dial = Dial::new("203.0.113.7", 4433)
///     .server_name("node.example")
///     .local_addr(listener.local_addr()?);
/// let connection = dial.connect(&registration, &configuration, &credential).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    pub(super) host: String,
    port: u16,
    pub(super) server_name: Option<String>,
    pub(super) source: Source,
}

/// The local address, interface and sockets of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) local_addr: Option<SocketAddr>,
    pub(super) interface: Option<u32>,
    pub(super) share_binding: Option<bool>,
}

impl Dial {
    /// Dials `port` of `host`, a name or an address. The zone of a link-local address is a number:
    /// `fe80::1%4`.
    ///
    /// ```
    /// let dial = msquic_async::Dial::new("node.example", 4433);
    /// ```
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, server_name: None, source: Source::default() }
    }

    /// Sets the server name (SNI) that is sent to the peer. Default: the host, unless it is an
    /// address.
    ///
    /// ```
    /// let dial = msquic_async::Dial::new("192.0.2.1", 4433).server_name("node.example");
    /// ```
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets the local address. Port 0 means any port, an unspecified address (`0.0.0.0`, `[::]`) any address of
    /// the machine. Default: the system chooses both.
    ///
    /// ```
    /// let dial = msquic_async::Dial::new("192.0.2.1", 4433).local_addr("0.0.0.0:5000".parse()?);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.source.local_addr = Some(addr);
        self
    }

    /// Sets the index of the interface through which packets are sent and received, see if_nametoindex(3). On Linux
    /// this needs the patch N29 of the vendored library; other libraries ignore it there. Such a connection has
    /// sockets of its own. Default: the system's routes decide.
    ///
    /// ```
    /// let dial = msquic_async::Dial::new("192.0.2.1", 4433).interface(2);
    /// ```
    #[must_use]
    pub fn interface(mut self, index: u32) -> Self {
        self.source.interface = Some(index);
        self
    }

    /// Sets whether the connection may share its sockets with others, see [above](Self#shared-sockets). Default:
    /// true.
    ///
    /// ```
    /// let dial = msquic_async::Dial::new("192.0.2.1", 4433).share_binding(false);
    /// ```
    #[must_use]
    pub fn share_binding(mut self, share: bool) -> Self {
        self.source.share_binding = Some(share);
        self
    }

    /// Returns the address if the host is an address and not a name. An unspecified one means this
    /// host, see [`destination`](net_traits::address::destination).
    ///
    /// ```
    /// use msquic_async::Dial;
    ///
    /// assert_eq!(Dial::new("::1", 7).address(), Some("[::1]:7".parse()?));
    /// assert_eq!(Dial::new("node.example", 7).address(), None);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn address(&self) -> Option<SocketAddr> {
        self.written_address().map(|addr| destination(addr).unwrap_or(addr))
    }

    pub(super) fn written_address(&self) -> Option<SocketAddr> {
        let (host, port) = (&self.host, self.port);
        let without_zone = host.parse().map(|ip: IpAddr| SocketAddr::new(ip, port));
        // The zone of a link-local address is a number (RFC 4007, section 11).
        without_zone.or_else(|_| format!("[{host}]:{port}").parse()).ok()
    }

    pub(super) fn check(&self) -> Result<(), StartError> {
        let invalid = |what: &str| Err(StartError::InvalidInput(what.to_owned()));
        match self.written_address() {
            Some(addr) => {
                destination(addr).map_err(StartError::InvalidInput)?;
            }
            None if self.port == 0 => return invalid("cannot connect to port 0"),
            None => {}
        }
        let has_zero = |name: &str| name.contains('\0');
        if has_zero(&self.host) || self.server_name.as_deref().is_some_and(has_zero) {
            return invalid("the host contains a zero byte");
        }
        Ok(())
    }

    /// The server name, which [`check`](Self::check) has accepted.
    pub(super) fn name(&self) -> CString {
        let name = self.server_name.as_ref().unwrap_or(&self.host);
        CString::new(name.as_str()).unwrap_or_default()
    }

    /// Resolves the host to its addresses, at least one, in the order of the system (RFC 6724).
    /// Blocks.
    pub(super) fn resolve(&self) -> Result<Vec<SocketAddr>, StartError> {
        let failed = |message: String| StartError::Resolve { host: self.host.clone(), message };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let addresses: Vec<_> = addresses.map_err(|error| failed(error.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(failed("it has no address".to_owned()));
        }
        Ok(addresses)
    }
}

impl From<SocketAddr> for Dial {
    fn from(addr: SocketAddr) -> Self {
        let host = match addr {
            SocketAddr::V6(addr) if addr.scope_id() != 0 => {
                format!("{}%{}", addr.ip(), addr.scope_id())
            }
            addr => addr.ip().to_string(),
        };
        Self::new(host, addr.port())
    }
}

impl Source {
    /// Fills what is not set here from `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            local_addr: self.local_addr.or(other.local_addr),
            interface: self.interface.or(other.interface),
            share_binding: self.share_binding.or(other.share_binding),
        }
    }

    /// Sharing reduces the number of sockets only if they are not connected, which the patch N28 brings.
    pub(super) fn shares_binding(&self) -> bool {
        has_patch("N28") && self.interface.is_none() && self.share_binding.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_names() {
        let text = |host| Dial::new(host, 7).address().map(|address| address.to_string());
        assert_eq!(text("10.0.0.1").as_deref(), Some("10.0.0.1:7"));
        assert_eq!(text("::1").as_deref(), Some("[::1]:7"));
        assert_eq!(text("fe80::1%4").as_deref(), Some("[fe80::1%4]:7"));
        for name in ["localhost", "fe80::1%eth0", "[::1]", "::1]:5", ""] {
            assert_eq!(text(name), None, "{name}");
        }
    }

    #[test]
    fn an_address_is_dialled_with_its_zone() {
        for text in ["10.0.0.1:7", "[::1]:7", "[fe80::1%4]:7"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Dial::from(address).address(), Some(address));
        }
    }

    #[test]
    fn invalid_arguments_are_rejected_at_once() {
        assert!(Dial::new("a", 1).check().is_ok());
        for dial in [Dial::new("a", 0), Dial::new("a\0", 1), Dial::new("a", 1).server_name("\0")] {
            assert!(matches!(dial.check(), Err(StartError::InvalidInput(_))), "{dial:?}");
        }
    }

    #[test]
    fn the_options_of_a_dial_override_those_of_the_connection() {
        let dial = Dial::new("a", 1).share_binding(false).source;
        let local_addr = Some("127.0.0.1:5".parse().unwrap());
        let connection = Source { local_addr, share_binding: Some(true), interface: None };
        let merged = dial.or(connection);
        assert_eq!((merged.local_addr, merged.share_binding), (local_addr, Some(false)));
        assert!(!merged.shares_binding());
        assert_eq!(connection.shares_binding(), has_patch("N28"));
    }
}
