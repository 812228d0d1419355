//! The addresses that listeners are bound to.

use super::peers::{ALPN, client_configuration, credential, settings};
use super::skip::{has_patch, lacks_patch, skip};
use crate::executors::{run, run_tokio};
use msquic_async::{
    Configuration, Connection, Dial, ListenError, Listener, Registration, StreamLimits,
};
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::{Command, Stdio};

/// The environment variable with the address that a child process listens on.
const LISTEN: &str = "ADDRESS_LISTEN";

/// What the child prints when it listens.
const LISTENS: &str = "the child listens";

fn listener(registration: &Registration) -> Listener {
    let configuration =
        Configuration::server(registration, &[ALPN], &settings(), &credential()).unwrap();
    Listener::new(registration, configuration, credential()).unwrap()
}

#[test]
fn a_listener_on_all_addresses_accepts_both_families_and_reports_its_port() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        for address in [None, Some("[::]:0".parse().unwrap())] {
            let listener = listener(&registration);
            listener.start(&[ALPN], address).unwrap();
            let local = listener.local_addr().unwrap();
            assert!(local.ip().is_unspecified() && local.port() != 0, "{local}");
            for host in ["127.0.0.1", "::1"] {
                let client = Connection::new(&registration, credential()).unwrap();
                let start = client.start(&configuration, host, local.port());
                let accept = async {
                    let server = listener.accept().await.unwrap();
                    server.accept().await.map(|()| server)
                };
                let (started, accepted) = futures::future::join(start, accept).await;
                started.unwrap_or_else(|error| panic!("{host}: {error:?}"));
                accepted.unwrap();
            }
        }
    });
}

#[test]
fn a_listener_binds_only_the_address_that_was_asked_for() {
    if lacks_patch("N8") {
        return; // an unpatched library is bound to all addresses
    }
    run_tokio(async || {
        let registration = Registration::new("test").unwrap();
        let first = listener(&registration);
        first.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let port = first.local_addr().unwrap().port();

        let elsewhere: SocketAddr = (Ipv4Addr::new(127, 0, 0, 2), port).into();
        drop(UdpSocket::bind(elsewhere).expect("another address with the same port is free"));
        let second = listener(&registration);
        second.start(&[ALPN], Some(elsewhere)).unwrap();
        assert_eq!(second.local_addr(), Ok(elsewhere));

        let everywhere: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        let refused = listener(&registration).start(&[ALPN], Some(everywhere));
        assert_eq!(refused, Err(ListenError::AddressInUse));
    });
}

#[test]
fn the_address_of_another_socket_is_never_shared() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
        let taken = socket.local_addr().unwrap();
        let refused = listener(&registration).start(&[ALPN], Some(taken));
        assert_eq!(refused, Err(ListenError::AddressInUse));

        // The same port on another address is no reason to skip the probe.
        let neighbour: SocketAddr = (Ipv4Addr::LOCALHOST, taken.port()).into();
        let first = listener(&registration);
        if has_patch("N8") && first.start(&[ALPN], Some(neighbour)).is_ok() {
            let refused = listener(&registration).start(&[ALPN], Some(taken));
            assert_eq!(refused, Err(ListenError::AddressInUse));
        }
    });
}

/// An address of this machine that is valid on one link only.
#[cfg(target_os = "linux")]
fn link_local() -> Option<SocketAddrV6> {
    const SCOPE_OF_A_LINK: &str = "20";
    let all = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    all.lines().find_map(|line| {
        // Address, interface, length of the prefix, scope and flags in hexadecimal digits, and a name.
        let fields: Vec<_> = line.split_whitespace().collect();
        let [address, interface, _, SCOPE_OF_A_LINK, ..] = fields[..] else { return None };
        let address = u128::from_str_radix(address, 16).ok()?.into();
        Some(SocketAddrV6::new(address, 0, 0, u32::from_str_radix(interface, 16).ok()?))
    })
}

#[test]
#[cfg(target_os = "linux")]
fn a_link_local_address_is_dialled_and_reported_with_its_zone() {
    let Some(address) = link_local() else { return skip("no link has an address of its own") };
    run(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listener(&registration);
        listener.start(&[ALPN], None).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut address = SocketAddr::from(address);
        address.set_port(port);
        let text = address.to_string().replace(['[', ']'], "");
        let host = text.rsplit_once(':').unwrap().0;
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        for dial in [Dial::from(address), Dial::new(host, port)] {
            let client = Connection::new(&registration, credential()).unwrap();
            let start = client.start_with(&configuration, dial);
            let (started, accepted) = futures::future::join(start, listener.accept()).await;
            started.unwrap();
            assert_eq!(client.get_remote_addr(), Ok(address));
            assert_eq!(accepted.unwrap().get_local_addr(), Ok(address));
        }
    });
}

/// Does nothing on its own: `the_address_of_an_ended_listener_is_not_shared_with_another_process` runs it in a
/// process of its own.
#[test]
fn child() {
    let Ok(address) = env::var(LISTEN) else { return };
    run_tokio(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listener(&registration);
        listener.start(&[ALPN], Some(address.parse().unwrap())).unwrap();
        writeln!(io::stdout(), "{LISTENS}").unwrap();
        let _ = io::stdin().read_to_end(&mut Vec::new()); // until the parent is done
    });
}

#[test]
fn the_address_of_an_ended_listener_is_not_shared_with_another_process() {
    run_tokio(async || {
        let registration = Registration::new("test").unwrap();
        let ended = listener(&registration);
        ended.start(&[ALPN], Some("127.0.0.3:0".parse().unwrap())).unwrap();
        let address = ended.local_addr().unwrap();
        ended.stop().await.unwrap();
        drop(ended);
        registration.wait_idle().await;
        while UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await; // msquic is closing the socket
        }
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "suite::address::child", "--nocapture"])
            .env(LISTEN, address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with(LISTENS)), "the child does not listen");
        let refused = listener(&registration).start(&[ALPN], Some(address));
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(refused, Err(ListenError::AddressInUse));
        // The process that has it is gone.
        listener(&registration).start(&[ALPN], Some(address)).unwrap();
    });
}
