//! Tests of `listen` and `dial`: in one process, and as processes that are killed.
#![allow(clippy::print_stdout, reason = "the seed of a round that fails")]
#![allow(clippy::single_range_in_vec_init, reason = "lists of missing ranges")]

#[path = "../listen.rs"]
#[allow(dead_code, reason = "its `main` is not called")]
mod listen;

#[cfg(unix)]
mod death;
