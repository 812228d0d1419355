//! Runs the conformance suite of the traits on this transport.

mod common;

use common::Tcp;

net_traits_test::conformance!(Tcp, without: [datagrams]);

#[test]
fn random_schedules_keep_the_contract() {
    net_traits_test::random::run(Tcp, 0..100);
}

/// A listener on `[::]` takes IPv4 too where the system separates the families, and where it has no
/// IPv6.
#[test]
fn both_families_are_taken_whatever_the_system_prefers() {
    for setting in ["net.ipv6.bindv6only=1", "net.ipv6.conf.all.disable_ipv6=1"] {
        let test = "a_listener_on_all_addresses_is_dual_stack";
        net_traits_test::in_own_network(&[setting], test);
    }
}
