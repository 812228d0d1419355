//! Commands that use no network: files, modes, and texts.

use crate::program::{User, exit};

#[test]
fn an_identity_is_created_once_and_private() {
    let user = User::new();
    let again = user.run(&["id"]);
    assert_eq!(again.find("identity")["identity"], user.identity.as_str());
    assert_eq!(again.find("identity")["new"], false);
    let pem = std::fs::read_to_string(user.home().join("identity.pem")).unwrap();
    let secret = pem.lines().nth_back(1).unwrap();
    let shown = format!("{again:?}");
    assert!(!shown.contains("PRIVATE") && !shown.contains(secret), "{shown}");

    let replaced = user.run(&["id", "--force"]);
    assert_ne!(replaced.find("identity")["identity"], user.identity.as_str());
    assert_eq!(replaced.find("identity")["new"], true);
}

#[cfg(unix)]
#[test]
fn files_that_others_can_read_or_change_are_not_used() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (user, peer) = User::pair();
    assert_eq!(user.run(&["trust", "endorser"]).code, exit::SUCCESS);
    for name in ["identity.pem", "trust", "endorser.key", "lock"] {
        let mode = std::fs::metadata(user.home().join(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(user.home()).unwrap().mode() & 0o777, 0o700);
    let open = |name, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(user.home().join(name), mode).unwrap();
    };
    open("identity.pem", 0o640);
    user.run(&["id"]).failed(exit::FAILED, "mode 0640), run chmod 600");
    open("trust", 0o602);
    user.run(&["trust", "list"]).failed(exit::FAILED, "can be changed by other users");
    open("endorser.key", 0o604);
    user.run(&["trust", "endorse", "x"]).failed(exit::FAILED, "can be used by other users");
    open("identity.pem", 0o600);
    open("", 0o770);
    user.run(&["id"]).failed(exit::FAILED, "mode 0770), run chmod go-w");
    drop(peer);
}

#[test]
fn trust_is_added_listed_and_revoked() {
    let (user, peer) = (User::new(), User::new());
    assert!(user.run(&["trust", "list"]).events.is_empty());
    let added = user.run(&["trust", "add", &peer.identity, "--name", "Ada"]);
    assert_eq!((added.code, &added.find("trust")["kind"]), (0, &"peer".into()));
    let key = "ab".repeat(32);
    assert_eq!(user.run(&["trust", "add", "--endorser", &key]).code, 0);
    let listed = user.run(&["trust", "list"]).events;
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["name"], &listed[1]["kind"]), (&"Ada".into(), &"endorser".into()));

    assert_eq!(user.run(&["trust", "revoke", "Ada"]).find("trust")["kind"], "revoked");
    assert_eq!(user.run(&["trust", "revoke", &key]).code, 0);
    let listed = user.run(&["trust", "list"]).events;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(
        (&listed[0]["kind"], &listed[0]["id"]),
        (&"revoked".into(), &peer.identity.as_str().into())
    );
    user.run(&["trust", "revoke", "Eve"]).failed(exit::USAGE, "\"Eve\" is neither");
    user.run(&["trust", "revoke", ""]).failed(exit::USAGE, "\"\" is neither");
    let revoked = format!("{}@127.0.0.1:1", peer.identity);
    user.run(&["ping", &revoked]).failed(exit::UNTRUSTED, "is revoked in the trust file");
    user.run(&["trust", "add", &key, "--name", "a\nb"]).failed(exit::USAGE, "contains '\\n'");
    assert_eq!(user.run(&["trust", "add", "12"]).code, exit::USAGE);
}

#[test]
fn an_endorsed_identity_is_imported_and_never_overwrites() {
    let (endorser, node) = (User::new(), User::new());
    let file = endorser.file("node.pem", b"precious");
    let refused = endorser.run(&["trust", "endorse", &file]);
    refused.failed(exit::FAILED, "node.pem exists already, replace it with --force");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let made = endorser.run(&["trust", "endorse", &file, "--force", "--days", "1"]);
    let identity = made.find("endorsed")["identity"].clone();

    node.run(&["id", "--import", &file]).failed(exit::FAILED, "identity.pem exists already");
    std::fs::remove_file(node.home().join("identity.pem")).unwrap();
    assert_eq!(node.run(&["id", "--import", &file]).find("identity")["identity"], identity);
}

#[test]
fn without_an_identity_or_trust_the_message_says_what_to_do() {
    let user = User::new();
    let file = user.file("a", b"x");
    let send = ["send", "--to", "127.0.0.1:1", &file];
    user.run(&send).failed(exit::FAILED, "netmsg trust add");
    user.run(&["listen"]).failed(exit::FAILED, "netmsg trust add");
    user.run(&["trust", "add", &"ab".repeat(32)]);
    std::fs::remove_file(user.home().join("identity.pem")).unwrap();
    user.run(&send).failed(exit::FAILED, "create one with `netmsg id`");
    std::fs::write(user.home().join("trust"), b"friend 12\n").unwrap();
    user.run(&send).failed(exit::FAILED, "line 1: a line begins with peer");
}

#[test]
fn the_manual_and_completions_cover_all_commands() {
    let user = User::new();
    let text = |arguments: &[&str]| {
        let output = user.command(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let page = text(&["man"]);
    assert!(page.contains(".TH netmsg") && page.contains("Exit codes"), "{page}");
    assert!(text(&["man", "send"]).contains("Send files and directories"));
    user.run(&["man", "other"]).failed(exit::USAGE, "no command \"other\"");
    let out = user.path("man").into_os_string().into_string().unwrap();
    text(&["man", "--out", &out]);
    for command in ["id", "trust", "listen", "send", "ping", "perf", "chat"] {
        assert!(user.path("man").join(format!("netmsg-{command}.1")).exists(), "{command}");
        for shell in ["bash", "zsh", "fish"] {
            assert!(text(&["completions", shell]).contains(command), "{shell} {command}");
        }
    }
}

#[test]
fn invalid_arguments_have_their_own_exit_code() {
    let user = User::new();
    for arguments in [
        &["send", "--to", "host", "file"][..],
        &["send", "file"],
        &["ping", "ab@host:1"],
        &["listen", "--window", "1"],
        &["chat"],
        &["chat", "--trust", &"ab".repeat(32)],
        &["chat", "--demo", "--anyone"],
        &["unknown"],
        &["--transport", "unknown", "id"],
    ] {
        assert_eq!(user.run(arguments).code, exit::USAGE, "{arguments:?}");
    }
}

#[test]
fn a_message_says_what_was_wrong_with_which_value_and_what_to_do() {
    let (user, peer) = User::pair();
    let file = user.file("a", b"x");
    for (arguments, expected) in [
        (&["listen", "--bind", "host:1"][..], "'host:1' for '--bind"),
        (&["listen", "--bind", "host:1"], "such as 0.0.0.0:4433 or [::]:4433"),
        (&["listen", "--max-size", "1G"], "not a number of bytes in digits"),
        (&["chat", "--host", "4433"], "such as 0.0.0.0:4433 or [::]:4433"),
    ] {
        let ran = user.run(arguments);
        assert!(ran.errors.iter().any(|line| line.contains(expected)), "{ran:?}");
    }
    let not_directory = format!("{file} is not a directory, choose another path");
    user.run(&["listen", "--bind", "127.0.0.1:0", "--out", &file])
        .failed(exit::FAILED, &not_directory);
    user.run(&["id", "--home", &file]).failed(exit::FAILED, &not_directory);
    // An address of no host (RFC 5737).
    for transport in ["quic", "quinn", "tcp"] {
        let ran = user.run(&["listen", "--transport", transport, "--bind", "192.0.2.1:4433"]);
        ran.failed(exit::FAILED, "choose an address of this host");
    }

    #[cfg(target_os = "linux")]
    peer.listen(&["--out", "/proc"]).until(|listen| {
        let errors = listen.errors.lock().unwrap();
        errors.iter().any(|line| line.contains("no file can be stored in /proc"))
    });

    let listen = peer.listen(&["--max-size", "1"]);
    let stranger = User::new();
    let elsewhere = format!("{}@{}", stranger.identity, listen.address());
    let ran = user.run(&["send", "--to", &elsewhere, &file]);
    ran.failed(exit::UNTRUSTED, &format!("cannot connect to {elsewhere}"));
    ran.failed(exit::UNTRUSTED, "if it is the right peer, accept it with `netmsg trust add`");
    let known = format!("{}@{}", peer.identity, listen.address());
    stranger
        .run(&["ping", &known])
        .failed(exit::UNTRUSTED, "that side accepts it after `netmsg trust add`");
    user.run(&["perf", &known]).failed(exit::REJECTED, "start the listener with --perf");
    let tcp = user.run(&["--transport", "tcp", "ping", &known]);
    tcp.failed(exit::UNREACHABLE, "a listener with the same --transport runs there");

    std::fs::write(user.home().join("identity.pem"), "-----BEGIN CERTIFICATE-----\nMAMC").unwrap();
    let damaged = user.run(&["ping", &known]);
    damaged.failed(exit::FAILED, "replace it with `netmsg id --force`");
    damaged.failed(exit::FAILED, "it has no line -----END CERTIFICATE-----, copy all of it");
}
