//! Runs the conformance suite of the traits on this transport.

mod common;

use common::Quinn;

net_traits_test::conformance!(Quinn);

#[test]
fn random_schedules_keep_the_contract() {
    net_traits_test::random::run(Quinn, 0..100);
}

/// A listener on `[::]` accepts IPv4 even if the default of the system is not dual-stack, or it has
/// no IPv6.
#[test]
fn listeners_are_dual_stack_whatever_the_default_of_the_system() {
    for setting in ["net.ipv6.bindv6only=1", "net.ipv6.conf.all.disable_ipv6=1"] {
        let test = "a_listener_on_all_addresses_is_dual_stack";
        net_traits_test::in_own_network(&[setting], test);
    }
}
