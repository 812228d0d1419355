//! Hot reload: a listener whose certificate and trusted peers are in files uses what is in them when they
//! change, without a restart.
//!
//! ```sh
//! cargo run --example reload
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use anyhow::{Context, Result, ensure};
use net_traits::{
    CertHash, NetConnection, NetCredential, NetListener, NetTransport, SelfSigned, TrustPolicy,
    WithCauses,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tcp_tls_transport::{TcpTlsListener, TcpTlsTransport};

const ALPN: &str = "reload/1";

/// How often the files are looked at. A program can wait for SIGHUP instead.
const INTERVAL: Duration = Duration::from_millis(50);

/// The files of a node.
struct Files {
    /// The certificate and its key, in PEM.
    identity: PathBuf,
    /// The trusted identities, one in a line.
    trusted: PathBuf,
}

impl Files {
    fn load(&self) -> Result<NetCredential> {
        let lines = fs::read_to_string(&self.trusted)?;
        let lines = lines.lines().filter(|line| !line.is_empty());
        let trusted = lines.map(|line| line.parse().with_context(|| format!("line {line:?}")));
        let trusted = TrustPolicy::hashes(trusted.collect::<Result<Vec<CertHash>>>()?);
        Ok(NetCredential::from_pem_file(&self.identity, trusted)?)
    }

    fn changed(&self) -> Option<[SystemTime; 2]> {
        let time = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
        Some([time(&self.identity)?, time(&self.trusted)?])
    }

    /// Gives the listener what is in the files whenever they change, and closes the connections of peers that
    /// are no longer trusted. A file that cannot be used changes nothing.
    async fn follow(
        self,
        mut loaded: Option<[SystemTime; 2]>,
        transport: TcpTlsTransport,
        listener: Arc<TcpTlsListener>,
    ) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let changed = self.changed();
            if changed == loaded {
                continue;
            }
            loaded = changed;
            let result = self.load().and_then(|credential| {
                listener.set_credential(credential.clone())?;
                Ok(credential)
            });
            match result {
                Ok(credential) => {
                    let closed = transport.revoke(credential.trust()).await;
                    println!("loaded {}, {closed} connections closed", credential.identity());
                }
                Err(error) => eprintln!("the files are not used: {}", WithCauses(&*error)),
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files =
        Files { identity: folder.path().join("node.pem"), trusted: folder.path().join("trusted") };
    let (identity, trusted) = (files.identity.clone(), files.trusted.clone());
    // `rename` replaces a file in one step, so that no half of it is read.
    let write = |path: &Path, text: String| -> Result<()> {
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, path)?)
    };
    let first = NetCredential::self_signed(TrustPolicy::Any)?;
    let second = NetCredential::self_signed(TrustPolicy::Any)?;
    write(&identity, SelfSigned::generate(&["node"])?.to_pem())?;
    write(&trusted, format!("{}\n", first.identity()))?;

    let transport = TcpTlsTransport::new();
    let loaded = files.changed();
    let address = "127.0.0.1:0".parse()?;
    let listener = Arc::new(transport.create_listener(address, &[ALPN], files.load()?).await?);
    let address = listener.local_addr();
    tokio::spawn(files.follow(loaded, transport.clone(), listener.clone()));
    tokio::spawn(async move {
        net_peers::serve(&*listener, async |connection| {
            connection.watch_close().await;
        })
        .await
    });

    let connection = TcpTlsTransport::new().connect(address, &[ALPN], first).await?;
    println!("connected with {}", connection.remote_identity());
    write(&trusted, "not an identity\n".to_owned())?;
    tokio::time::sleep(INTERVAL * 3).await; // to show that nothing changes
    write(&identity, SelfSigned::generate(&["node"])?.to_pem())?;
    write(&trusted, format!("{}\n", second.identity()))?;
    println!("the first peer: {}", connection.watch_close().await);

    let other = TcpTlsTransport::new().connect(address, &[ALPN], second).await?;
    println!("connected with {}", other.remote_identity());
    ensure!(other.remote_identity() != connection.remote_identity(), "the old key is in use");
    Ok(())
}
