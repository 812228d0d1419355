//! The program as a process: exit codes, events, and processes that are killed.
#![allow(clippy::print_stdout, reason = "the seed of a round that fails")]

mod chat;
mod commands;
#[cfg(unix)]
mod death;
#[cfg(unix)]
mod disk;
mod hostile;
mod measure;
mod names;
mod program;
mod transfer;
