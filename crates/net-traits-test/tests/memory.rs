//! Runs the conformance suite on the in-memory transport.

mod common;

use common::Memory;

net_traits_test::conformance!(Memory::default());
