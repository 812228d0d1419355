//! `FileResolver`: the endpoints that a file lists, and its errors.

use net_peers::{Endpoint, FileResolver, ResolveError, Resolver};
use std::time::Duration;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_until_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    let mut file = FileResolver::new(&path);
    let error = file.resolve().await.unwrap_err();
    assert!(matches!(error, ResolveError::Read { .. }), "{error:?}");

    let write = |text: &str| {
        let fresh = folder.path().join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, &path).unwrap();
    };
    let addresses = |list: Vec<Endpoint>| list.iter().map(Endpoint::to_string).collect::<Vec<_>>();
    write("10.0.0.1:1\n");
    let asked = Instant::now();
    assert_eq!(addresses(file.resolve().await.unwrap()), ["10.0.0.1:1"]);
    assert_eq!(asked.elapsed(), 5 * SECOND);
    let unchanged = timeout(60 * SECOND, file.resolve()).await;
    assert!(unchanged.is_err(), "{unchanged:?}");
    // The same length, and perhaps the same time.
    write("10.0.0.2:1\n");
    assert_eq!(addresses(file.resolve().await.unwrap()), ["10.0.0.2:1"]);
    write("10.0.0.2\n");
    let error = file.resolve().await.unwrap_err();
    assert!(matches!(error, ResolveError::Malformed { line: 1, .. }), "{error:?}");
    write(&"#".repeat(2 * 1024 * 1024));
    let error = file.resolve().await.unwrap_err();
    assert!(matches!(error, ResolveError::TooLong { .. }), "{error:?}");
    write("");
    assert_eq!(file.resolve().await.unwrap(), []);
}
