//! Names with addresses of both families, on a host on which IPv6 is switched off.
#![cfg(target_os = "linux")]

use crate::program::{User, exit};
use std::process::Command;

/// In namespaces, in which `/etc/hosts` has a name with two addresses and one that has only that of IPv6.
#[test]
#[allow(clippy::print_stderr, reason = "a test that does nothing says so")]
fn a_name_is_dialled_over_ipv4_where_ipv6_is_switched_off() {
    const SCRIPT: &str = "mount -t tmpfs none /mnt && \
        printf '2001:db8::7 both.test\\n127.0.0.1 both.test\\n2001:db8::7 six.test\\n' > /mnt/hosts && \
        mount --bind /mnt/hosts /etc/hosts && \
        echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && \
        ip link set lo up && echo ready && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-Urmn", "sh", "-c", SCRIPT, "sh"]).arg(std::env::current_exe().unwrap());
    let output =
        command.args(["names::dial_names", "--exact", "--ignored", "--nocapture"]).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: there is no program `unshare`: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if !text.contains("ready") {
        return eprintln!("skipped: no namespace can be made here: {errors}");
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

#[test]
#[ignore = "started by a_name_is_dialled_over_ipv4_where_ipv6_is_switched_off"]
fn dial_names() {
    for transport in ["quic", "quinn", "tcp", "fallback"] {
        let (listener, peer) = User::pair();
        let listen = listener.listen(&["--transport", transport]);
        let address = listen.address();
        let port = address.rsplit(':').next().unwrap();
        let ping = |name| {
            let to = format!("{name}:{port}");
            peer.run(&["--transport", transport, "ping", "--count", "1", &to])
        };
        let pinged = ping("both.test");
        assert_eq!(pinged.code, exit::SUCCESS, "{transport}: {pinged:?}");
        assert_eq!(pinged.find("connected")["address"], address);
        ping("six.test").failed(exit::UNREACHABLE, "six.test");
    }
}
