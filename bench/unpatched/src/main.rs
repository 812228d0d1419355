//! The contenders of `transport-bench` that link msquic as its crate builds it, without patches:
//! msquic's bare callbacks, and the `msquic-async` of the public registry.
//!
//! `transport-bench --unpatched PROGRAM` runs it as the process of these contenders. The modules are
//! those of `transport-bench`.
#![allow(dead_code, reason = "the modules have more than these contenders need")]

#[path = "../../src/child.rs"]
mod child;
mod contenders;
#[path = "../../src/machine.rs"]
mod machine;
#[path = "../../src/measure.rs"]
mod measure;
#[path = "../../src/network.rs"]
mod network;
#[path = "../../src/transport.rs"]
mod transport;
#[path = "../../src/workload.rs"]
mod workload;

use anyhow::{Result, bail};
use child::answer;
use clap::Parser;
use contenders::{published::Published, raw::Raw};

/// Carry out the workloads that arrive at the standard input
#[derive(Debug, Parser)]
struct Options {
    /// The name of the contender
    #[arg(long)]
    contender: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let name = Options::parse().contender;
    // A task, because the future of `main` does not run on the runtime's own threads.
    let task = tokio::spawn(async move {
        match &*name {
            "raw msquic, unpatched" => answer(Raw::new(false)?).await,
            "raw msquic, unpatched, client certificates" => answer(Raw::new(true)?).await,
            "msquic-async 0.4.1" => answer(Published::new()?).await,
            _ => bail!("this program has no contender {name:?}"),
        }
    });
    task.await?
}
