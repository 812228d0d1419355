//! The files that are sent: those that are named, and those in directories.

use crate::file::{FilePath, Source};
use crate::output::Output;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;

/// Finds and reads the files of `paths`; directories are searched, and links in them are not
/// followed. What cannot be sent, because of its name or kind, is an error, or left out with `skip`.
///
/// # Errors
///
/// If there is no file, a file cannot be read, or two files would have one name.
pub(crate) async fn sources(paths: &[PathBuf], skip: bool, output: &Output) -> Result<Vec<Source>> {
    let paths = paths.to_vec();
    let found = spawn_blocking(move || {
        let mut found = Found::default();
        paths.iter().try_for_each(|path| found.argument(path))?;
        anyhow::Ok(found)
    });
    let Found { files, left_out } = found.await??;
    for (path, why) in &left_out {
        let text = format!("{path:?} is left out: {why}");
        if !skip {
            bail!("{path:?} cannot be sent: {why}; change it, or leave such files out with --skip");
        }
        output.event("skipped", text, json!({ "path": path.to_string_lossy(), "reason": why }));
    }
    ensure!(!files.is_empty(), "there is no file to send");
    let mut sources = Vec::with_capacity(files.len());
    for (name, path) in files {
        sources.push(Source::read(path, name).await?);
    }
    Ok(sources)
}

#[derive(Debug, Default)]
struct Found {
    /// The path of each name.
    files: BTreeMap<FilePath, PathBuf>,
    /// The paths that cannot be sent, with the reason.
    left_out: Vec<(PathBuf, String)>,
}

impl Found {
    /// Adds what the user named. A link that the user names is followed.
    fn argument(&mut self, path: &Path) -> Result<()> {
        let resolved = path.canonicalize().with_context(|| format!("cannot find {path:?}"))?;
        // Of `.` and of `a/..`, the name is that of the directory.
        let name = path.file_name().or(resolved.file_name());
        let name = name.with_context(|| format!("{path:?} has no name, name what is in it"))?;
        let metadata = fs::metadata(&resolved).with_context(|| format!("cannot read {path:?}"))?;
        match metadata.is_dir() {
            true => self.directory(&resolved, Path::new(name)),
            false => self.file(&resolved, Path::new(name), metadata.is_file()),
        }
    }

    fn directory(&mut self, path: &Path, name: &Path) -> Result<()> {
        // Each name has fewer parts than a path may have, since the file system limits paths.
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {path:?}"))? {
            let entry = entry.with_context(|| format!("cannot read {path:?}"))?;
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            let kind = entry.file_type().with_context(|| format!("cannot read {path:?}"))?;
            match kind.is_dir() {
                true => self.directory(&path, &name)?,
                false => self.file(&path, &name, kind.is_file())?,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &Path, is_file: bool) -> Result<()> {
        if !is_file {
            self.left_out
                .push((path.to_owned(), "it is neither a file nor a directory".to_owned()));
            return Ok(());
        }
        let parts: Vec<_> = name.iter().map(|part| part.as_encoded_bytes()).collect();
        match FilePath::parse(&parts.join(&b'/')) {
            Ok(name) => {
                if let Some(other) = self.files.insert(name.clone(), path.to_owned())
                    && other != path
                {
                    return Err(anyhow!("{other:?} and {path:?} would both be stored as {name}"));
                }
            }
            Err(why) => self.left_out.push((path.to_owned(), why.to_string())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&Path]) -> Result<Found> {
        let mut found = Found::default();
        paths.iter().try_for_each(|path| found.argument(path))?;
        Ok(found)
    }

    #[test]
    fn directories_are_searched_and_what_cannot_be_sent_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["top", "a/one", "a/b/two", "a/.hidden"] {
            fs::write(root.join(name), b"x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("/", root.join("a/link")).unwrap();
        let found = found(&[&root, &root.join("top")]).unwrap();
        let names: Vec<_> = found.files.keys().map(FilePath::as_str).collect();
        assert_eq!(names, ["root/a/b/two", "root/a/one", "root/top", "top"]);
        assert_eq!(found.left_out.len(), if cfg!(unix) { 2 } else { 1 });
    }

    #[test]
    fn two_files_with_one_name_are_an_error() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("same"), b"x").unwrap();
        }
        let paths = ["one/same", "two/same"].map(|name| directory.path().join(name));
        let error = found(&[&paths[0], &paths[1]]).unwrap_err().to_string();
        assert!(error.ends_with("would both be stored as same"), "{error}");
        assert!(found(&[&paths[0], &paths[0]]).is_ok());
        assert!(found(&[Path::new("/")]).is_err());
        assert!(found(&[&directory.path().join("missing")]).is_err());
    }
}
