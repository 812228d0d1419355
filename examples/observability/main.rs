//! What operators see of each transport: `docs/observability.md` says it, these tests cause it.

mod failures;
mod observer;
mod tables;
