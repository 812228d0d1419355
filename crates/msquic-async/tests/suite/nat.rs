//! Two peers behind two NATs, each in a network namespace of its own, dial each other at once.
#![cfg(target_os = "linux")]

use super::peers::{ALPN, client_configuration, credential, settings};
use super::skip::{lacks_patch, skip};
use crate::executors::run_tokio;
use futures::AsyncReadExt;
use futures::future::join;
use msquic_async::{Configuration, Dial, Listener, Registration, StreamLimits, StreamType};
use std::env;
use std::net::SocketAddr;
use std::process::Command;

/// The address that a peer listens and dials on, and the public address of the other one.
const LOCAL: &str = "MSQUIC_ASYNC_NAT_LOCAL";
const REMOTE: &str = "MSQUIC_ASYNC_NAT_REMOTE";

/// What the script prints when the peers can be started.
const READY: &str = "the namespaces are ready";

/// ```text
/// a 192.168.1.2 ── 192.168.1.1 nat_a 203.0.113.1 ── 203.0.113.2 nat_b 192.168.2.1 ── 192.168.2.2 b
/// ```
///
/// The NATs drop packets from outside that answer none from inside.
const SCRIPT: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs none /run
for name in a nat_a nat_b b; do
    ip netns add $name
    ip -n $name link set lo up
done
ip -n nat_a link add outer type veth peer name outer netns nat_b
number=1
for name in a b; do
    nat=nat_$name
    ip -n $nat link add inner type veth peer name wire netns $name
    ip -n $name addr add 192.168.$number.2/24 dev wire
    ip -n $nat addr add 192.168.$number.1/24 dev inner
    ip -n $nat addr add 203.0.113.$number/24 dev outer
    ip -n $name link set wire up
    ip -n $nat link set inner up
    ip -n $nat link set outer up
    ip -n $name route add default via 192.168.$number.1
    ip netns exec $nat sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    ip netns exec $nat nft -f - <<'END'
table ip nat {
    chain out { type nat hook postrouting priority 100; oifname "outer" masquerade; }
}
table ip filter {
    chain input { type filter hook input priority 0; iifname "outer" drop; }
    chain forward { type filter hook forward priority 0; iifname "outer" ct state new drop; }
}
END
    number=$((number + 1))
done
echo "the namespaces are ready"
MSQUIC_ASYNC_NAT_LOCAL=192.168.1.2:4433 MSQUIC_ASYNC_NAT_REMOTE=203.0.113.2:4433 ip netns exec a timeout 20 "$@" & a=$!
MSQUIC_ASYNC_NAT_LOCAL=192.168.2.2:4433 MSQUIC_ASYNC_NAT_REMOTE=203.0.113.1:4433 ip netns exec b timeout 20 "$@" & b=$!
wait $a
wait $b
echo "both are connected"
"#;

#[test]
fn two_peers_behind_nats_connect_by_dialling_at_once() {
    if lacks_patch("N28") {
        return;
    }
    let _watchdog = super::watchdog::Watchdog::new();
    let peer = format!("{}::peer_behind_a_nat", module_path!().split_once("::").unwrap().1);
    let output = Command::new("unshare")
        .args(["-Urnm", "sh", "-c", SCRIPT, "sh"])
        .arg(env::current_exe().unwrap())
        .args([&peer, "--exact", "--ignored", "--nocapture"])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(format_args!("there is no program `unshare`: {error}")),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if !text.contains(READY) {
        return skip(format_args!("no namespaces with NATs can be made here: {errors}"));
    }
    assert!(output.status.success() && text.contains("both are connected"), "{text}\n{errors}");
}

#[test]
#[ignore = "started by two_peers_behind_nats_connect_by_dialling_at_once"]
fn peer_behind_a_nat() {
    let address = |name| env::var(name).unwrap().parse::<SocketAddr>().unwrap();
    run_tokio(async || {
        let registration = Registration::new("test").unwrap();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let listener = Listener::new(&registration, configuration, credential()).unwrap();
        listener.start(&[ALPN], Some(address(LOCAL))).unwrap();

        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let dial = Dial::from(address(REMOTE)).local_addr(listener.local_addr().unwrap());
        let there = async {
            let connection =
                dial.connect(&registration, &configuration, &credential()).await.unwrap();
            let mut stream =
                connection.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
            stream.write_chunk(&"through two NATs".into(), true).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "through two NATs");
            connection
        };
        let here = async {
            let connection = listener.accept().await.unwrap();
            connection.accept().await.unwrap();
            let mut stream = connection.accept_inbound_stream().await.unwrap();
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await.unwrap();
            stream.write_chunk(&question.into(), true).await.unwrap();
            connection
        };
        let (there, here) = join(there, here).await;
        assert_eq!(there.get_remote_addr().unwrap(), address(REMOTE));
        assert_eq!(here.get_remote_addr().unwrap(), address(REMOTE));
        there.shutdown(0, "");
        here.watch_shutdown().await;
    });
}
