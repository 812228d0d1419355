//! Builds quictls, the TLS library of msquic's source, without the features that QUIC does not use.

use crate::environment::{self as env, failed};
use crate::library::{compiler_version, run};
use crate::patch::sha256;
use crate::source::Source;
use crate::vendored::{copy_files, publish};
use crate::{Result, patch::Version};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Omits protocols other than TLS 1.3, algorithms that it does not use, and code that reads files
/// or loads modules. `no-async` and `no-secure-memory` omit unused code that musl does not support.
const OPTIONS: &str = "no-shared no-tests no-makedepend no-autoload-config no-async no-secure-memory no-engine no-module \
    no-dso no-legacy no-deprecated no-uplink no-cmp no-cms no-ct no-ts no-fips no-padlockeng no-afalgeng \
    no-ui-console no-comp no-zlib no-egd no-psk no-srp no-srtp no-dgram no-dtls no-dtls1 no-dtls1_2 no-ssl no-ssl3 \
    no-ssl3-method no-tls1 no-tls1-method no-tls1_1 no-tls1_1-method no-tls1_2 no-tls1_2-method \
    no-weak-ssl-ciphers no-idea no-rc2 no-rc4 no-rc5 no-siphash no-siv no-whirlpool no-aria no-bf no-blake2 no-sm2 \
    no-sm3 no-sm4 no-camellia no-cast no-md4 no-mdc2 no-ocb no-rmd160 no-scrypt no-seed no-gost no-ec2m \
    enable-tls1_3 --libdir=lib --prefix=/usr --openssldir=/etc/ssl";

/// A quictls to build for the target.
pub(crate) struct Tls {
    source: PathBuf,
    version: Version,
    target: &'static str,
    compiler: PathBuf,
    archiver: OsString,
    flags: Vec<String>,
}

impl Tls {
    pub(crate) fn plan(source: &Source) -> Result<Self> {
        let root = source.root.join("submodules/quictls");
        if !root.join("Configure").exists() {
            return Err(format!("{} lacks its TLS library quictls", source.root.display()));
        }
        let mut build = cc::Build::new();
        build.warnings(false).debug(false).opt_level(3).pic(true).flag("-ffunction-sections");
        let compiler = build.get_compiler();
        let flags =
            compiler.args().iter().map(|flag| flag.to_string_lossy().into_owned()).collect();
        let (target, compiler) =
            (configure_target(&env::cargo("TARGET")?)?, compiler.path().into());
        let archiver = build.get_archiver().get_program().to_owned();
        Ok(Self { source: root, version: source.version, target, compiler, archiver, flags })
    }

    /// Returns the directories of headers that are not installed, to search after the installed
    /// ones.
    pub(crate) fn internal_headers(&self) -> [PathBuf; 3] {
        [self.source.join("ssl"), self.source.join("include"), self.source.clone()]
    }

    /// Changes when the result would.
    pub(crate) fn key(&self) -> String {
        let versions = fs::read_to_string(self.source.join("VERSION.dat")).unwrap_or_default();
        let (version, compiler) = (self.version, compiler_version(&self.compiler));
        let all =
            format!("{versions} {version:?} {} {compiler} {:?} {OPTIONS}", self.target, self.flags);
        format!("tls-{}", &sha256(all.as_bytes())[..16])
    }

    /// Builds into `scratch/usr`, unless it exists or is cached, and returns that folder.
    pub(crate) fn build(&self, scratch: &Path) -> Result<PathBuf> {
        let (key, installed) = (self.key(), scratch.join(self.key()));
        let prefix = installed.join("usr");
        if installed.join("key").exists() {
            return Ok(prefix);
        }
        let cached =
            std::env::var_os("LIBMSQUIC_SYS_CACHE").map(|root| PathBuf::from(root).join(&key));
        if let Some(cached) = cached.as_ref().filter(|cached| cached.join("key").exists()) {
            copy_files(cached, &installed)?;
            return Ok(prefix);
        }
        let objects = scratch.join("tls");
        let _ = fs::remove_dir_all(&objects);
        fs::create_dir_all(&objects).map_err(|error| failed("create", &objects, &error))?;
        let mut configure = Command::new("perl");
        configure.arg(self.source.join("Configure")).arg(self.target);
        configure.args(OPTIONS.split_whitespace()).args(&self.flags);
        configure.current_dir(&objects).env("CC", &self.compiler).env("AR", &self.archiver);
        // `self.flags` contains the user's flags; make's variables belong to an outer make.
        for name in ["CFLAGS", "CPPFLAGS", "CROSS_COMPILE", "MAKEFLAGS", "MAKELEVEL"] {
            configure.env_remove(name);
        }
        run(&mut configure)?;
        let mut make = Command::new("make");
        make.current_dir(&objects).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        make.arg("-s").arg(format!("-j{}", env::cargo("NUM_JOBS")?)).arg("install_dev");
        run(make.arg(format!("DESTDIR={}", installed.display())))?;
        env::write_if_changed(&installed.join("key"), key.as_bytes())?;
        let _ = fs::remove_dir_all(&objects); // 100 MB that are no longer needed
        if let Some(cached) = &cached {
            publish(&installed, cached, &key);
        }
        Ok(prefix)
    }
}

/// Maps a Rust target to a target of OpenSSL's Configure.
fn configure_target(target: &str) -> Result<&'static str> {
    let known = [
        ("x86_64-unknown-linux", "linux-x86_64"),
        ("aarch64-unknown-linux", "linux-aarch64"),
        ("i686-unknown-linux", "linux-x86"),
        ("armv7-unknown-linux", "linux-armv4"),
        ("powerpc64le-unknown-linux", "linux-ppc64le"),
        ("riscv64gc-unknown-linux", "linux64-riscv64"),
        ("s390x-unknown-linux", "linux64-s390x"),
        ("x86_64-apple-darwin", "darwin64-x86_64-cc"),
        ("aarch64-apple-darwin", "darwin64-arm64-cc"),
    ];
    let found = known.iter().find(|(prefix, _)| target.starts_with(prefix));
    found.map(|(_, name)| *name).ok_or_else(|| {
        format!(
            "libmsquic cannot be built from source for {target}: link an installed one with the feature `system`, \
             or use the crate tcp-tls-transport, which needs none"
        )
    })
}
