//! Tests of `listen` and `dial` in one process.
#![allow(clippy::single_range_in_vec_init, reason = "lists of missing ranges")]

#[path = "../listen.rs"]
#[allow(dead_code, reason = "its `main` is not called")]
mod listen;
