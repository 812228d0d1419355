//! The metrics and log events of each transport: these tests check what `docs/observability.md`
//! states.

mod connections;
mod failures;
mod observer;
mod peers;
mod tables;
