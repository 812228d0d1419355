//! A process that has no file descriptors left.
#![cfg(target_os = "linux")]

mod common;

use common::{listen, run};
use net_traits::{NetIncomingRequest, NetListener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Write};
use std::net::TcpStream;
use std::pin::pin;
use std::process::Command;
use tcp_tls_transport::TcpTlsConfig;
use tokio::sync::mpsc;

/// Passes the lines of a log on.
struct Lines(mpsc::UnboundedSender<String>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned()); // the test may have ended
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// In a process of its own, since it lowers the limit of the process.
#[test]
fn a_listener_without_descriptors_says_so_and_goes_on() {
    const NAME: &str = "a_listener_without_descriptors_says_so_and_goes_on";
    if std::env::var_os(NAME).is_none() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.env(NAME, "1").args(["--exact", NAME]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let (log, mut lines) = mpsc::unbounded_channel();
    #[cfg(feature = "metrics")]
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    #[cfg(feature = "metrics")]
    let snapshotter = recorder.snapshotter();
    #[cfg(feature = "metrics")]
    recorder.install().unwrap();
    tracing_subscriber::fmt().with_writer(move || Lines(log.clone())).init();
    run(async {
        let (_transport, listener) = listen(TcpTlsConfig::new()).await;
        let peer = TcpStream::connect(listener.local_addr()).unwrap();
        let limit = getrlimit(Resource::Nofile);
        let none_left = Rlimit { current: Some(0), ..limit };
        setrlimit(Resource::Nofile, none_left).unwrap();
        let mut accept = pin!(listener.accept());
        let line = tokio::select! {
            _ = &mut accept => panic!("a socket needs a descriptor"),
            line = lines.recv() => line.unwrap(),
        };
        let expected = ["WARN", "net::limit", "a listener cannot accept", "Too many open files"];
        assert!(expected.iter().all(|part| line.contains(part)), "{line}");
        setrlimit(Resource::Nofile, limit).unwrap();
        #[cfg(feature = "metrics")]
        {
            let metrics = snapshotter.snapshot().into_vec().into_iter();
            let mut errors = metrics.filter(|it| it.0.key().name() == "net_accept_errors_total");
            let (_, _, _, count) = errors.next().unwrap();
            assert!(!matches!(count, metrics_util::debugging::DebugValue::Counter(0)), "{count:?}");
        }
        let accepted = accept.await.unwrap();
        assert_eq!(accepted.remote_addr(), peer.local_addr().unwrap());
    });
}
