//! Runs the conformance suite of the traits on this transport.

mod common;

use common::Quinn;

net_traits_test::conformance!(Quinn);
