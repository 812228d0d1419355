//! `Session`: what all commands that use the network share.

use crate::home::Home;
use crate::output::Output;
use net_traits::DynTransport;

/// The user's files, where to print, and the chosen transport. Clones share them.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) output: Output,
    pub(crate) transport: DynTransport,
}
