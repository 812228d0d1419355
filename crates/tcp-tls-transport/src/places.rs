//! `Places`: limits on accepted connections. A socket holds a place until it is closed.

use crate::config::TcpTlsConfig;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Places {
    config: Arc<TcpTlsConfig>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    handshakes: usize,
    per_ip: HashMap<IpAddr, usize>,
}

impl Places {
    pub(crate) fn new(config: Arc<TcpTlsConfig>) -> Arc<Self> {
        Arc::new(Self { config, taken: Mutex::default() })
    }

    /// Takes a place for a peer whose handshake begins, if one is free.
    pub(crate) fn take(self: &Arc<Self>, remote: IpAddr) -> Option<Place> {
        let ip = network(remote);
        let taken = &mut *self.taken.lock();
        let of_ip = taken.per_ip.get(&ip).copied().unwrap_or(0);
        let is_full = taken.connections >= self.config.max_connections
            || taken.handshakes >= self.config.max_handshakes
            || of_ip >= self.config.max_connections_per_ip;
        if is_full {
            return None;
        }
        taken.connections += 1;
        taken.handshakes += 1;
        taken.per_ip.insert(ip, of_ip + 1);
        Some(Place { places: self.clone(), ip, in_handshake: true })
    }
}

/// The place of an accepted socket, released on drop.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    ip: IpAddr,
    in_handshake: bool,
}

impl Place {
    /// Records that the handshake is complete.
    pub(crate) fn connected(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            self.places.taken.lock().handshakes -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = &mut *self.places.taken.lock();
        taken.connections -= 1;
        taken.handshakes -= usize::from(self.in_handshake);
        if let Some(count) = taken.per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                taken.per_ip.remove(&self.ip);
            }
        }
    }
}

/// Maps an address to its unit of counting: for IPv6 the /64 network, which one host can own.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_and_places_are_released() {
        let limits = TcpTlsConfig {
            max_connections: 3,
            max_connections_per_ip: 2,
            max_handshakes: 2,
            ..TcpTlsConfig::default()
        };
        let places = Places::new(Arc::new(limits));
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let (mut first, mut second) = (places.take(ip(1)).unwrap(), places.take(ip(2)).unwrap());
        assert!(places.take(ip(3)).is_none(), "two handshakes are in progress");
        first.connected();
        first.connected();
        let mut third = places.take(ip(1)).unwrap();
        second.connected();
        third.connected();
        assert!(places.take(ip(3)).is_none(), "there are three connections");
        drop(second);
        assert!(places.take(ip(1)).is_none(), "two have that address");
        let fourth = places.take(ip(3)).unwrap();
        drop((first, third, fourth));
        let taken = places.taken.lock();
        assert_eq!((taken.connections, taken.handshakes, taken.per_ip.len()), (0, 0, 0));
    }
}
