//! `FileResolver`: reads the endpoints from a file, periodically.

use super::{Endpoint, ResolveError, Resolver};
use async_trait::async_trait;
use net_kit::blocking::Threads;
use net_traits::Cause;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;

/// The threads that read files. A file whose server does not answer occupies one for ever.
static FILES: Threads = Threads::new("net-peers-files", 128);

/// How often the file is read.
const INTERVAL: Duration = Duration::from_secs(5);

/// The maximum size of the file.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads endpoints from a file, one per line.
///
/// A line is `IP:PORT` or `IDENTITY@IP:PORT`; empty lines and text after a `#` are ignored. The
/// file is read every 5 s and its contents are compared, independent of its modification time.
/// Files may have up to 1 MiB. To change the file, write a new one and rename it, so that no
/// partial list is read. While the file cannot be read, the pool keeps the last list.
#[derive(Debug)]
pub struct FileResolver {
    path: PathBuf,
    interval: Duration,
    /// The last contents of the file; `None` before it was read and after an error.
    last: Option<String>,
    was_read: bool,
}

impl FileResolver {
    /// Creates a resolver for the file at `path`, which is read by [`resolve`](Resolver::resolve).
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), interval: INTERVAL, last: None, was_read: false }
    }

    /// Sets how often the file is read. Default: 5 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

#[async_trait]
impl Resolver for FileResolver {
    async fn resolve(&mut self) -> Result<Vec<Endpoint>, ResolveError> {
        loop {
            if std::mem::replace(&mut self.was_read, true) {
                sleep(self.interval).await;
            }
            let last = self.last.take();
            let path = self.path.clone();
            let text = match FILES.run(move || read(&path)).await {
                Ok(text) => text?,
                Err(error) => return Err(ResolveError::Other(Cause::new(error))),
            };
            if last.as_ref() == Some(&text) {
                self.last = last;
                continue;
            }
            let endpoints = parse(&text, &self.path)?;
            self.last = Some(text);
            return Ok(endpoints);
        }
    }
}

fn read(path: &Path) -> Result<String, ResolveError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_BYTES => {
            Err(ResolveError::TooLong { path: path.to_owned(), limit: MAX_BYTES })
        }
        Ok(_) => Ok(text),
        Err(error) => Err(ResolveError::Read { path: path.to_owned(), cause: Cause::new(error) }),
    }
}

fn parse(text: &str, path: &Path) -> Result<Vec<Endpoint>, ResolveError> {
    let mut endpoints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        endpoints.push(entry.parse().map_err(|cause| ResolveError::Malformed {
            path: path.to_owned(),
            line: index + 1,
            cause,
        })?);
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::CertHash;

    fn parsed(text: &str) -> Result<Vec<Endpoint>, ResolveError> {
        parse(text, Path::new("peers"))
    }

    #[test]
    fn lines_are_endpoints_and_comments() {
        let identity = CertHash::from_bytes([0xab; 32]);
        let text = format!("# ours\n\n 10.0.0.1:1 # first\r\n{identity}@[::1]:2\n");
        let one = Endpoint::new("10.0.0.1:1".parse().unwrap());
        let other = Endpoint::new("[::1]:2".parse().unwrap()).with_identity(identity);
        assert_eq!(parsed(&text).unwrap(), [one, other]);
        assert_eq!(other.to_string().parse::<Endpoint>().unwrap(), other);
        assert_eq!(parsed("").unwrap(), []);
    }

    #[test]
    fn invalid_lines_are_reported_with_their_number() {
        for bad in ["10.0.0.1", "example.org:1", "abcd@10.0.0.1:1", "10.0.0.1:1 10.0.0.2:1"] {
            let error = parsed(&format!("10.0.0.1:1\n{bad}\n")).unwrap_err();
            assert!(matches!(error, ResolveError::Malformed { line: 2, .. }), "{error:?}");
            assert_eq!(error.to_string(), "line 2 of peers is not an endpoint");
        }
    }
}
