//! Resolvers in a process that has no memory for further threads.
#![cfg(target_os = "linux")]

use net_peers::{FileResolver, ResolveError, Resolver};
use net_traits_test::{is_in_own_process, without_threads};
use std::time::Duration;

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
    if !is_in_own_process("without_memory_for_a_thread_a_resolver_fails_until_there_is_memory") {
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
