//! The in-memory transport keeps the contracts.

mod common;

use common::Memory;

net_traits_test::conformance!(Memory::default());
