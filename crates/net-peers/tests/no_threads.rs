//! Resolvers in a process that has no memory for further threads.
#![cfg(target_os = "linux")]

use net_peers::{FileResolver, ResolveError, Resolver};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;
use std::time::Duration;

/// Returns whether this is the process of the test, whose limits it may lower. The first call starts that and
/// returns false after its end.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(test).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.env(test, "1").args(["--exact", test, "--nocapture"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    false
}

/// Runs `operations` without memory for another thread.
async fn without_threads(operations: impl AsyncFnOnce()) {
    let limit = getrlimit(Resource::As);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    // Each thread has a stack of 2 MiB or more.
    let current = Some(pages * rustix::param::page_size() as u64 + 1024 * 1024);
    setrlimit(Resource::As, Rlimit { current, ..limit }).unwrap();
    // The stack of a thread that has ended may be used again, by a smaller one.
    assert!(std::thread::Builder::new().stack_size(64 << 20).spawn(|| ()).is_err());
    operations().await;
    setrlimit(Resource::As, limit).unwrap();
}

async fn resolve(resolvers: &mut [Box<dyn Resolver>], is_ok: bool) {
    for resolver in resolvers {
        match resolver.resolve().await {
            Ok(endpoints) => assert!(is_ok && endpoints.is_empty(), "{endpoints:?}"),
            Err(error) => assert!(!is_ok && matches!(error, ResolveError::Other(_)), "{error:?}"),
        }
    }
}

#[test]
fn without_memory_for_a_thread_a_resolver_fails_until_there_is_memory() {
    if !is_alone("without_memory_for_a_thread_a_resolver_fails_until_there_is_memory") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let resolver = || FileResolver::new("/dev/null").interval(Duration::ZERO);
        let mut resolvers: Vec<Box<dyn Resolver>> = vec![Box::new(resolver())];
        #[cfg(feature = "dns")]
        {
            let dns = net_peers::DnsResolver::addresses("", 1).name_servers([]);
            resolvers.push(Box::new(dns.interval(Duration::ZERO, Duration::ZERO)));
        }
        without_threads(async || resolve(&mut resolvers, false).await).await;
        resolve(&mut resolvers[..1], true).await;
        // The thread stays.
        let mut another: [Box<dyn Resolver>; 1] = [Box::new(resolver())];
        without_threads(async || resolve(&mut another, true).await).await;
    });
}
