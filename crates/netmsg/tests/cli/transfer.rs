//! `netmsg listen` and `netmsg send`.

use crate::program::{User, exit};
use std::fs;

const TRANSPORTS: [&str; 4] = ["quic", "quinn", "tcp", "fallback"];

#[test]
fn files_and_directories_arrive_over_each_transport() {
    for transport in TRANSPORTS {
        let (listener, sender) = User::pair();
        let listen = listener.listen(&["--transport", transport]);
        let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index >> 3) as u8).collect();
        let one = sender.file("one", &content);
        sender.file("dir/two", b"2");
        sender.file("dir/in/three", b"");
        let dir = sender.path("dir").into_os_string().into_string().unwrap();
        let to = format!("{}@{}", listener.identity, listen.address());
        let send = ["--transport", transport, "send", "--to", &to, &one, &dir];
        let sent = sender.run(&send);
        assert_eq!(sent.code, exit::SUCCESS, "{transport}: {sent:?}");
        assert_eq!(
            (&sent.find("done")["files"], &sent.find("done")["bytes"]),
            (&3.into(), &3_000_001.into())
        );
        let out = listener.path("out");
        assert_eq!(fs::read(out.join("one")).unwrap(), content);
        assert_eq!(fs::read(out.join("dir/two")).unwrap(), b"2");
        assert_eq!(fs::read(out.join("dir/in/three")).unwrap(), b"");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "no partial file is left");
        // The same command sends nothing again.
        let again = sender.run(&send);
        assert_eq!((again.code, &again.find("done")["bytes"]), (exit::SUCCESS, &0.into()));
    }
}

#[test]
fn several_peers_get_the_files_and_one_that_fails_is_reported() {
    let (sender, one) = User::pair();
    let other = User::new();
    other.run(&["trust", "add", &sender.identity]);
    let (at_one, at_other) = (one.listen(&[]), other.listen(&[]));
    let file = sender.file("a", b"content");
    let peers = [
        format!("{}@{}", one.identity, at_one.address()),
        format!("{}@{}", other.identity, at_other.address()),
    ];
    let sent = sender.run(&["send", "--to", &peers[0], "--to", &peers[1], &file]);
    assert_eq!(sent.code, exit::SUCCESS, "{sent:?}");
    for user in [&one, &other] {
        assert_eq!(fs::read(user.path("out/a")).unwrap(), b"content");
    }

    let file = sender.file("b", b"content");
    let wrong = format!("{}@{}", one.identity, at_other.address());
    let sent = sender.run(&["send", "--to", &peers[0], "--to", &wrong, &file]);
    sent.failed(exit::PARTIAL, "1 of 2 transfers failed");
    let failed = sent.events.iter().find(|it| it["event"] == "error").unwrap();
    assert_eq!((&failed["exit"], &failed["name"]), (&exit::UNTRUSTED.into(), &"b".into()));
    assert!(one.path("out/b").exists() && !other.path("out/b").exists());
}

#[test]
fn two_peers_send_at_once_and_neither_replaces_the_file_of_the_other() {
    let (listener, one) = User::pair();
    let other = User::new();
    listener.run(&["trust", "add", &other.identity]);
    let listen = listener.listen(&[]);
    let to = format!("{}@{}", listener.identity, listen.address());
    let content = [vec![1; 5_000_000], vec![2; 5_000_000]];
    let start = |user: &User, own: &str, content: &[u8]| {
        let files = [user.file("same", content), user.file(own, content)];
        user.start(&["send", "--to", &to, &files[0], &files[1]])
    };
    let mut sending = [start(&one, "one", &content[0]), start(&other, "other", &content[1])];
    let codes = sending.each_mut().map(|program| program.wait().code().unwrap());
    let expected = [[exit::SUCCESS, exit::PARTIAL], [exit::PARTIAL, exit::SUCCESS]];
    let first = expected.iter().position(|it| *it == codes);
    let first = first.unwrap_or_else(|| panic!("{:?}", sending.each_ref().map(|it| it.events())));
    let stored = |name: &str| fs::read(listener.path("out").join(name)).unwrap();
    assert!(stored("same") == content[first]);
    assert!(stored("one") == content[0] && stored("other") == content[1]);
}

#[test]
fn an_interrupted_command_has_its_own_exit_code() {
    let (listener, peer) = User::pair();
    let mut listen = listener.listen(&["--exit-with-parent"]);
    let mut pinging = peer.start(&["ping", "--count", "10000", &listen.address()]);
    pinging.until(|pinging| pinging.find("pong").is_some());
    listen.input.take();
    assert_eq!(listen.wait().code(), Some(exit::INTERRUPTED));
    assert_eq!(pinging.wait().code(), Some(exit::DISCONNECTED), "{:?}", pinging.events());
}

#[test]
fn an_existing_file_is_kept_and_the_other_files_are_sent() {
    let (listener, sender) = User::pair();
    // Files are received into the directory with the key and the trust file.
    let home = listener.home().into_os_string().into_string().unwrap();
    let mut listen = listener.listen(&["--out", &home]);
    let key = fs::read(listener.home().join("identity.pem")).unwrap();
    let files = ["identity.pem", "new", "trust"].map(|name| sender.file(name, b"changed"));
    let to = listen.address();
    let sent = sender.run(&["send", "--to", &to, &files[0], &files[1], &files[2]]);
    sent.failed(exit::PARTIAL, "2 of 3 transfers failed");
    assert_eq!(fs::read(listener.home().join("identity.pem")).unwrap(), key);
    assert_ne!(fs::read(listener.home().join("trust")).unwrap(), b"changed");
    assert_eq!(fs::read(listener.home().join("new")).unwrap(), b"changed");
    sender.run(&["send", "--to", &to, &files[0]]).failed(exit::REJECTED, "exists already");
    assert!(listen.status().is_none());
}

#[test]
fn an_untrusted_peer_is_rejected_on_both_sides() {
    for transport in TRANSPORTS {
        let ((listener, friend), stranger) = (User::pair(), User::new());
        let mut listen = listener.listen(&["--transport", transport, "--once"]);
        let file = stranger.file("a", b"content");
        let to = format!("{}@{}", listener.identity, listen.address());
        let sent = stranger.run(&["--transport", transport, "send", "--to", &to, &file]);
        sent.failed(exit::UNTRUSTED, "");
        listen.until(|listen| listen.find("error").is_some());
        // A stranger does not end a listener that serves one peer.
        let ping = ["--transport", transport, "ping", "--count", "1", &to];
        assert_eq!(friend.run(&ping).code, exit::SUCCESS, "{transport}");
        assert_eq!(listen.wait().code(), Some(exit::SUCCESS), "{transport}");
        assert_eq!(fs::read_dir(listener.path("out")).unwrap().count(), 0);
    }
}

#[test]
fn a_listener_follows_its_trust_file() {
    let (listener, peer) = (User::new(), User::new());
    listener.run(&["trust", "add", &"ab".repeat(32)]);
    let mut listen = listener.listen(&[]);
    let to = format!("{}@{}", listener.identity, listen.address());
    let ping = ["ping", "--count", "1", &to];
    assert_eq!(peer.run(&ping).code, exit::UNTRUSTED);
    listener.run(&["trust", "add", &peer.identity, "--name", "peer"]);
    listen.until(|listen| listen.find("trust changed").is_some());
    assert_eq!(peer.run(&ping).code, exit::SUCCESS);

    let mut pinging = peer.start(&["ping", "--count", "10000", "--interval", "10", &to]);
    pinging.until(|pinging| pinging.find("pong").is_some());
    listener.run(&["trust", "revoke", "peer"]);
    assert_eq!(pinging.wait().code(), Some(exit::UNTRUSTED));
    listen.until(|listen| listen.find("trust changed").unwrap()["closed"] == 1);
    assert_eq!(peer.run(&ping).code, exit::UNTRUSTED);
}

#[test]
fn a_peer_that_its_endorser_makes_is_accepted_until_its_key_is_revoked() {
    let (endorser, listener, node) = (User::new(), User::new(), User::new());
    let key = endorser.run(&["trust", "endorser"]).find("endorser")["key"].clone();
    listener.run(&["trust", "add", "--endorser", key.as_str().unwrap()]);
    let file = endorser.path("node.pem").into_os_string().into_string().unwrap();
    let made = endorser.run(&["trust", "endorse", &file]);
    fs::remove_file(node.home().join("identity.pem")).unwrap();
    node.run(&["id", "--import", &file]);
    let mut listen = listener.listen(&[]);
    let to = format!("{}@{}", listener.identity, listen.address());
    assert_eq!(node.run(&["ping", "--count", "1", &to]).code, exit::SUCCESS);
    let public_key = made.find("endorsed")["public_key"].as_str().unwrap();
    assert_eq!(listener.run(&["trust", "revoke", public_key]).code, exit::SUCCESS);
    listen.until(|listen| listen.find("trust changed").is_some());
    assert_eq!(node.run(&["ping", "--count", "1", &to]).code, exit::UNTRUSTED);

    // Nor is it dialled by its identity.
    let (listen, identity) =
        (node.listen(&["--trust", &listener.identity]), &made.find("endorsed"));
    let to = format!("{}@{}", identity["identity"].as_str().unwrap(), listen.address());
    let ping = listener.run(&["ping", "--count", "1", &to]);
    ping.failed(exit::UNTRUSTED, "its public key is revoked");
}

#[test]
fn names_are_resolved_and_peers_that_are_not_there_are_unreachable() {
    let (listener, sender) = User::pair();
    let listen = listener.listen(&[]);
    let port = listen.address().rsplit(':').next().unwrap().to_owned();
    let file = sender.file("a", b"content");
    let sent = sender.run(&["send", "--to", &format!("localhost:{port}"), &file]);
    assert_eq!(sent.code, exit::SUCCESS, "{sent:?}");

    let unknown = sender.run(&["send", "--to", "name.invalid:1", &file]);
    unknown.failed(exit::UNREACHABLE, "cannot resolve name.invalid:1");
    drop(listen);
    let gone =
        sender.run(&["--transport", "tcp", "send", "--to", &format!("127.0.0.1:{port}"), &file]);
    gone.failed(exit::UNREACHABLE, "cannot connect to 127.0.0.1:");
}

#[test]
fn what_cannot_be_sent_is_an_error_or_left_out() {
    let (listener, sender) = User::pair();
    let listen = listener.listen(&[]);
    sender.file("dir/.hidden", b"1");
    sender.file("dir/plain", b"2");
    let dir = sender.path("dir").into_os_string().into_string().unwrap();
    let to = listen.address();
    let sent = sender.run(&["send", "--to", &to, &dir]);
    sent.failed(exit::FAILED, "begins with a dot; change it, or leave such files out with --skip");
    assert!(!listener.path("out/dir").exists());
    let sent = sender.run(&["send", "--skip", "--to", &to, &dir]);
    assert_eq!((sent.code, &sent.find("done")["files"]), (exit::SUCCESS, &1.into()));
    assert!(sent.find("skipped")["path"].as_str().unwrap().ends_with(".hidden"));
    let missing = sender.run(&["send", "--to", &to, "missing"]);
    missing.failed(exit::FAILED, "cannot find \"missing\"");
}

#[test]
fn a_file_that_is_too_large_is_rejected() {
    let (listener, sender) = User::pair();
    let listen = listener.listen(&["--max-size", "9"]);
    let (large, small) = (sender.file("large", &[0; 10]), sender.file("small", &[0; 9]));
    let sent = sender.run(&["send", "--to", &listen.address(), &large]);
    sent.failed(exit::REJECTED, "10 bytes, more than the limit of 9 (--max-size)");
    let sent = sender.run(&["send", "--to", &listen.address(), &large, &small]);
    sent.failed(exit::PARTIAL, "1 of 2 transfers failed");
    assert!(listener.path("out/small").exists());
}
