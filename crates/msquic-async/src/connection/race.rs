//! Attempts to several addresses, of which the first that succeeds is used (RFC 8305).

use super::error::StartError;
use futures_timer::Delay;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

/// How many addresses of a host are tried.
pub(super) const MAX_ADDRESSES: usize = 16;

/// How long an attempt runs before the next one begins (RFC 8305, section 5).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Returns at most `limit` of the addresses, alternating between their families and beginning with that of the
/// first (RFC 8305, section 4).
pub(super) fn interleave(addresses: Vec<SocketAddr>, limit: usize) -> Vec<SocketAddr> {
    let first_family = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mine, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_family);
    let mut result: Vec<SocketAddr> = Vec::new();
    let (mut mine, mut others) = (mine.into_iter(), others.into_iter());
    loop {
        let pair = [mine.next(), others.next()];
        if pair == [None, None] || result.len() >= limit {
            result.truncate(limit);
            return result;
        }
        for address in pair.into_iter().flatten() {
            if !result.contains(&address) {
                result.push(address);
            }
        }
    }
}

/// Returns the result of the first attempt that succeeds, or the errors of all, in the order in which they failed.
/// The next attempt begins `delay` after the previous one, or when that fails. When one succeeds, the others
/// are dropped.
pub(super) async fn first<T, F>(
    addresses: Vec<SocketAddr>,
    delay: Duration,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<(SocketAddr, StartError)>>
where
    F: Future<Output = Result<T, StartError>>,
{
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut errors = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            let result = attempt(address);
            running.push(async move { (address, result.await) });
        }
        let is_last = waiting.len() == 0;
        let mut next = pin!(async move {
            if is_last {
                std::future::pending::<()>().await;
            }
            Delay::new(delay).await;
        });
        loop {
            let ended = match select(running.next(), next.as_mut()).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => break,
            };
            match ended {
                Some((_, Ok(result))) => return Ok(result),
                Some((address, Err(error))) => errors.push((address, error)),
                None => return Err(errors),
            }
            if !is_last {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;
    use parking_lot::Mutex;
    use std::time::Instant;

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number))
    }

    /// Longer than a test takes.
    const NEVER: Duration = Duration::from_secs(3600);

    fn failed() -> StartError {
        StartError::Other(Status::UNREACHABLE)
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|address| address.parse().unwrap()).collect()
        };
        let six = "[2001:db8::1]:1 [2001:db8::2]:1 [2001:db8::3]:1 192.0.2.1:1 192.0.2.2:1";
        let expected = "[2001:db8::1]:1 192.0.2.1:1 [2001:db8::2]:1 192.0.2.2:1 [2001:db8::3]:1";
        assert_eq!(interleave(parse(six), 16), parse(expected));
        assert_eq!(interleave(parse(six), 3), parse(expected)[..3]);
        let four = "192.0.2.1:1 192.0.2.1:1 [2001:db8::1]:1";
        assert_eq!(interleave(parse(four), 16), parse("192.0.2.1:1 [2001:db8::1]:1"));
        assert_eq!(interleave(Vec::new(), 16), []);
    }

    #[test]
    fn a_failure_starts_the_next_attempt_without_the_delay() {
        let all = vec![address(1), address(2), address(3), address(4)];
        let attempt = |address: SocketAddr| async move {
            if address.port() == 4 { Ok(address) } else { Err(failed()) }
        };
        assert_eq!(smol::block_on(first(all, NEVER, attempt)), Ok(address(4)));
    }

    #[test]
    fn an_attempt_that_hangs_delays_the_next_one_only() {
        let begin = Instant::now();
        let started = Mutex::new(Vec::new());
        let attempt = |address: SocketAddr| {
            started.lock().push((address.port(), begin.elapsed()));
            async move {
                if address.port() < 3 {
                    std::future::pending::<()>().await;
                }
                Ok(address)
            }
        };
        let all = vec![address(1), address(2), address(3), address(4)];
        assert_eq!(smol::block_on(first(all, ATTEMPT_DELAY, attempt)), Ok(address(3)));
        let started = started.into_inner();
        assert_eq!(started.iter().map(|start| start.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(started[2].1 >= 2 * ATTEMPT_DELAY, "{started:?}");
    }

    #[test]
    fn the_errors_of_all_are_returned() {
        let all = vec![address(1), address(2)];
        let result: Result<(), _> = smol::block_on(first(all, NEVER, |_| async { Err(failed()) }));
        assert_eq!(result, Err(vec![(address(1), failed()), (address(2), failed())]));
        let none: Result<(), _> =
            smol::block_on(first(Vec::new(), NEVER, |_| async { Err(failed()) }));
        assert_eq!(none, Err(Vec::new()));
    }
}
