//! A gossip of thousands of nodes under faults from a seed, and a checker of each message.
//!
//! ```text
//! scenario ──steps──▶ simulation ──commands──▶ node ──▶ PeerPool ──▶ transport
//!                         │ checks              │ records
//!                         └────── journal ◀─────┘
//! ```
//!
//! On the memory network the time is virtual and the runtime has one thread: the same seed gives
//! the same run. The same nodes run over real transports in real time.
#![forbid(unsafe_code)]

mod directory;
mod journal;
mod message;
mod mutant;
mod network;
mod node;
mod plan;
mod scenario;
mod simulation;
mod thief;

pub use journal::Counts;
pub use mutant::Mutant;
pub use network::{Loopback, Network};
pub use plan::{Outcome, Plan};
pub use simulation::run;

use anyhow::Result;
use net_traits_test::memory::MemoryNetwork;

/// Runs a plan on the memory network, in virtual time. The same plan has the same outcome.
///
/// # Errors
///
/// The first violation.
pub fn run_virtual(plan: &Plan) -> Result<Outcome> {
    fastrand::seed(plan.seed); // of the backoffs of pools
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build()?;
    let network = MemoryNetwork::new(plan.seed);
    runtime.block_on(run(&network, plan))
}

/// Runs a plan over the loopback interface, in real time.
///
/// # Errors
///
/// The first violation, or what the transport needs is missing.
pub fn run_real<N: Network>(network: &N, plan: &Plan) -> Result<Outcome> {
    tokio::runtime::Runtime::new()?.block_on(run(network, plan))
}
