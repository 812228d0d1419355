//! This transport keeps the contracts of the traits.

mod common;

use common::Tcp;

net_traits_test::conformance!(Tcp);
