//! `TrustFile`: the trust of a listener, which follows changes of the file.

use crate::home::Home;
use crate::output::{Output, one_line};
use crate::trust::{self, Store};
use anyhow::Result;
use net_traits::{CertHash, DynListener, DynTransport, NetListener, NetTransport, TrustPolicy};
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// The trust file as it was read last, and the identities of the command line.
pub(super) struct TrustFile {
    home: Home,
    more: Vec<CertHash>,
    store: Store,
}

impl TrustFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If it is invalid, or no peer at all is trusted.
    pub(super) fn open(home: &Home, more: &[CertHash]) -> Result<Self> {
        let store = Store::load(home)?;
        trust::check(&store, more)?;
        Ok(Self { home: home.clone(), more: more.to_vec(), store })
    }

    pub(super) fn policy(&self) -> TrustPolicy {
        self.store.policy(&self.more)
    }

    /// Reads the file each second. After a change, new handshakes are verified with it, and
    /// connections of peers that are not trusted any more are closed.
    pub(super) async fn follow(
        mut self,
        listener: &DynListener,
        transport: &DynTransport,
        output: &Output,
    ) -> Infallible {
        let mut reported = String::new();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let home = self.home.clone();
            let read = spawn_blocking(move || Store::load(&home)).await;
            let store = match read.map_err(anyhow::Error::from).flatten() {
                Ok(store) => store,
                // What was read last is used, and the error is printed once.
                Err(error) => {
                    let error = one_line(&error);
                    if error != reported {
                        output.error(&error, json!({}));
                        reported = error;
                    }
                    continue;
                }
            };
            reported.clear();
            if store != self.store {
                self.store = store;
                let policy = self.policy();
                listener.set_trust(policy.clone());
                let closed = transport.revoke(&policy).await;
                let text = format!("the trust file has changed, {closed} connections were closed");
                output.event("trust changed", text, json!({ "closed": closed }));
            }
        }
    }
}

/// How often the file is read.
const INTERVAL: Duration = Duration::from_secs(1);
