//! The metrics and log events of each transport: these tests check what `docs/observability.md`
//! states.

mod connections;
mod failures;
mod incidents;
mod limits;
mod observer;
mod peers;
mod tables;
