//! Runs the conformance suite of the traits on this transport.

mod common;

use common::Tcp;

net_traits_test::conformance!(Tcp);
