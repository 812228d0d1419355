//! Peers that are trusted and send invalid messages, and a disk that is full.

use crate::program::{User, exit};
use net_traits::{CloseReason, NetConnection, NetCredential, NetTransport, TrustPolicy};
use quinn_transport::QuinnTransport;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_rejected_and_printed_without_control_characters() {
    let (listener, peer) = User::pair();
    let mut listen = listener.listen(&["--transport", "quinn"]);
    let trust = TrustPolicy::hashes([listener.identity.parse().unwrap()]);
    let credential =
        NetCredential::from_pem_file(&peer.home().join("identity.pem"), trust).unwrap();
    let long = "n".repeat(64 * 1024);
    let deep = "d/".repeat(500) + "n";
    for name in [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a\\..\\x",
        "C:x",
        "",
        ".",
        ".partial-x",
        "a//b",
        "line\nbreak",
        "\u{1b}[2Jclear",
        "\u{9b}31m",
        "gpj.\u{202e}exe",
        "NUL",
        &long,
        &deep,
    ] {
        let transport = QuinnTransport::new();
        let address = listen.address().parse().unwrap();
        let connection =
            transport.connect(address, &["netmsg-file/3"], credential.clone()).await.unwrap();
        let announcement = [&[0; 8][..], &[0; 32], name.as_bytes()].concat();
        connection.send(&announcement).await.unwrap();
        match connection.watch_close().await {
            CloseReason::Peer { code: 2, reason } => {
                assert!(reason.contains("is rejected"), "{reason}");
                assert!(!reason.contains(char::is_control), "{reason:?}");
            }
            reason => panic!("{name:?}: {reason}"),
        }
    }
    assert!(listen.status().is_none());
    assert_eq!(fs::read_dir(listener.path("out")).unwrap().count(), 0);
    let errors = listen.errors.lock().unwrap().clone();
    assert!(!errors.iter().any(|line| line.contains(char::is_control)), "{errors:?}");
}

#[cfg(target_os = "linux")]
#[test]
#[allow(clippy::print_stderr, reason = "a test that does nothing says so")]
fn a_full_disk_fails_that_transfer_and_the_listener_goes_on() {
    use std::process::Command;
    let (listener, sender) = User::pair();
    let out = listener.path("out");
    fs::create_dir(&out).unwrap();
    // A file system of 1 MiB in a mount namespace of the listener.
    let command = listener.command(&["listen", "--bind", "127.0.0.1:0", "--out"]);
    let program = [command.get_program()].into_iter().chain(command.get_args());
    let mut namespace = Command::new("unshare");
    namespace.args(["--mount", "--map-root-user", "sh", "-c"]);
    namespace.arg("mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"");
    namespace.arg(&out).args(program).arg(&out);
    let may = Command::new("unshare").args(["--mount", "--map-root-user", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user cannot create a mount namespace");
        return;
    }
    let mut listen = crate::program::Program::start(&mut namespace);
    listen.until(|listen| listen.find("listening").is_some() || listen.status().is_some());
    let (large, small) = (sender.file("large", &[7; 3 << 20]), sender.file("small", b"x"));
    let sent = sender.run(&["send", "--to", &listen.address(), &large]);
    sent.failed(exit::DISCONNECTED, "cannot write large");
    listen.until(|listen| listen.find("error").is_some());
    assert!(listen.find("error").unwrap()["message"].as_str().unwrap().contains("No space left"));
    // The partial file has the space until it is removed or resumed.
    let sent = sender.run(&["send", "--to", &listen.address(), &small]);
    sent.failed(exit::DISCONNECTED, "cannot write small");
    assert!(listen.status().is_none());
}
