//! `Disk`: a file system whose power can be cut, so that it loses what was not synced.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An ext4 file system in a file.
pub(crate) struct Disk {
    image: PathBuf,
    directory: PathBuf,
}

/// The argument is the mount point. `FS_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH` ends all writes of ext4 at
/// once (Linux, `fs/ext4/ext4.h`).
const CUT: &str = r#"
    my $flags = pack("I", 2);
    open(my $root, "<", $ARGV[0]) or die "$!\n";
    ioctl($root, 0x8004587d, $flags) or die "$!\n";
"#;

impl Disk {
    /// Mounts a new file system of 64 MiB at a directory; `Err` says what is missing.
    pub(crate) fn mount(image: PathBuf, directory: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&directory).unwrap();
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).unwrap();
        run("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), image.as_os_str()])?;
        run("mount", mount(&image, &directory))?;
        fs::remove_dir(directory.join("lost+found")).unwrap();
        Ok(Self { image, directory })
    }

    /// Loses what was not synced. Until [`restore`](Self::restore) each access fails.
    pub(crate) fn cut(&self) {
        run("perl", ["-e".as_ref(), CUT.as_ref(), self.directory.as_os_str()]).unwrap();
    }

    /// Mounts the file system again. No process may use it.
    pub(crate) fn restore(&self) {
        run("umount", [&self.directory]).unwrap();
        // A copy, since the file system stays shut down while another mount namespace has it, for instance that of
        // another test.
        let copy = self.image.with_extension("copy");
        fs::copy(&self.image, &copy).and_then(|_| fs::rename(&copy, &self.image)).unwrap();
        run("mount", mount(&self.image, &self.directory)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", [&self.directory]); // the loop device goes with it
    }
}

fn mount<'a>(image: &'a Path, directory: &'a Path) -> [&'a OsStr; 4] {
    ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), directory.as_os_str()]
}

fn run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
