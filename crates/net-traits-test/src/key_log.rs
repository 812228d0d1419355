//! Key logs: both sides of a connection write the same secrets.

use crate::stage::PAUSE;
use net_traits::{
    KeyLog, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    TrustPolicy,
};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::Path;
use tokio::time::sleep;

const ALPN: &str = "test/1";

/// The secrets of a handshake and of what follows, in the names of NSS.
const LABELS: [&str; 4] = [
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
];

/// Connects a transport with another one, each with a key log in `directory`, which are private files
/// with the same secrets of two connections then, behind what was in them before. `make` makes a
/// transport with a key log.
pub async fn both_sides_write_the_same_secrets<T: NetTransport + Debug>(
    make: impl Fn(KeyLog) -> T,
    directory: &Path,
) {
    let (ours, theirs) = (directory.join("dialler"), directory.join("listener"));
    drop(KeyLog::file(&ours).unwrap());
    std::fs::write(&ours, "# before\n").unwrap();
    let [dialler, transport] = [&ours, &theirs].map(|path| make(KeyLog::file(path).unwrap()));
    let credential = || NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = transport.create_listener(address, &[ALPN], credential()).await.unwrap();
    for count in 1..=2 {
        let dial = dialler.connect(listener.local_addr(), &[ALPN], credential());
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        dialled.send(b"hello").await.unwrap();
        accepted.recv().await.unwrap();
        // They are written in the background.
        let dialled_secrets = written(&ours, count).await;
        assert_eq!(dialled_secrets, written(&theirs, count).await);
        for label in LABELS {
            let of_label = dialled_secrets.iter().filter(|line| line.starts_with(label));
            assert_eq!(of_label.count(), count, "{label}");
        }
    }
    assert!(std::fs::read_to_string(&ours).unwrap().starts_with("# before\n"), "it was truncated");
    #[cfg(unix)]
    for path in [&ours, &theirs] {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    }
    let secrets = written(&ours, 2).await;
    let shown = format!("{dialler:?} {transport:?}");
    for line in &secrets {
        let (_, secret) = line.rsplit_once(' ').unwrap();
        assert!(!shown.contains(secret), "a secret is shown");
    }
}

/// Waits for the secrets of so many connections, and checks the form of their lines.
async fn written(path: &Path, connections: usize) -> BTreeSet<String> {
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        let is_expected = |line: &&str| LABELS.iter().any(|label| line.starts_with(label));
        let lines: BTreeSet<_> = text.lines().filter(is_expected).map(str::to_owned).collect();
        if lines.len() == connections * LABELS.len() && text.ends_with('\n') {
            for line in &lines {
                let words: Vec<_> = line.split(' ').collect();
                assert_eq!((words.len(), words[1].len()), (3, 64), "{line}");
                assert!([64, 96].contains(&words[2].len()), "{line}");
                assert!(
                    words[1..].iter().all(|word| word.bytes().all(|it| it.is_ascii_hexdigit()))
                );
            }
            return lines;
        }
        sleep(PAUSE).await;
    }
}
