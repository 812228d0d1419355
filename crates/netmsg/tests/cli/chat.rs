//! `netmsg chat`.

use crate::program::{User, exit};

#[test]
fn members_of_a_room_hear_each_other() {
    for transport in ["quic", "quinn", "tcp", "fallback"] {
        let (host, one, other) = (User::new(), User::new(), User::new());
        let chat = ["--transport", transport, "chat"];
        let with = |arguments: &[&str]| [&chat[..], arguments].concat().join(" ");
        let start =
            |user: &User, arguments: &str| user.start(&arguments.split(' ').collect::<Vec<_>>());
        let mut hosting = start(&host, &with(&["--anyone", "--host", "127.0.0.1:0"]));
        hosting.until(|hosting| hosting.find("listening").is_some());
        let to = format!("{}@{}", host.identity, hosting.address());
        let mut one = start(&one, &with(&["--join", &to]));
        one.type_line("/join rust");
        one.until(|one| one.find("line").is_some());
        let mut other = start(&other, &with(&["--join", &to]));
        other.type_line("/join rust");
        other.until(|other| other.find("line").is_some());
        other.type_line("does it \u{1b}[2J borrow?");
        let heard = |line: &str| line.contains("does it  [2J borrow?");
        one.until(|one| heard(&one.find("line").unwrap().to_string()));
        other.input.take(); // the end of the input
        assert_eq!(other.wait().code(), Some(exit::SUCCESS));
        one.until(|one| one.find("line").unwrap().to_string().contains("left"));
        hosting.kill();
    }
}

#[test]
fn a_host_accepts_trusted_peers_only() {
    let (host, stranger) = (User::new(), User::new());
    host.run(&["trust", "add", &"ab".repeat(32)]);
    let mut hosting = host.start(&["chat", "--host", "127.0.0.1:0"]);
    hosting.until(|hosting| hosting.find("listening").is_some());
    let to = format!("{}@{}", host.identity, hosting.address());
    let mut joined = stranger.start(&["chat", "--join", &to]);
    assert_eq!(joined.wait().code(), Some(exit::UNTRUSTED));
}

#[test]
fn the_demo_checks_itself() {
    let user = User::new();
    for transport in ["quic", "quinn", "tcp", "fallback"] {
        let demo = user.run(&["--transport", transport, "chat", "--demo"]);
        assert_eq!(demo.code, exit::SUCCESS, "{transport}: {demo:?}");
        demo.find("done");
    }
}
