//! Compiles libmsquic from the patched tree and links it with its TLS library into one object file
//! that exports only the two functions of its API.

use crate::Result;
use crate::environment::{self as env, failed};
use crate::patch::sha256;
use crate::tls::Tls;
use crate::vendored::Tree;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All functions of msquic's API. Other symbols are local to the object file, so that they do not
/// conflict with another OpenSSL in the same program.
const VISIBLE: [&str; 2] = ["MsQuicOpenVersion", "MsQuicClose"];

/// Test files of `src/core`.
const NOT_CORE: [&str; 1] = ["injection.c"];

/// Files of `src/platform` for all systems.
const PLATFORM: [&str; 10] = [
    "crypt.c",
    "hashtable.c",
    "pcp.c",
    "platform_worker.c",
    "toeplitz.c",
    "platform_posix.c",
    "storage_posix.c",
    "cgroup.c",
    "datapath_unix.c",
    "crypt_openssl.c",
];

const PLATFORM_LINUX: [&str; 6] = [
    "datapath_linux.c",
    "datapath_epoll.c",
    "datapath_xplat.c",
    "datapath_raw_dummy.c",
    "certificates_posix.c",
    "selfsign_openssl.c",
];

const PLATFORM_DARWIN: [&str; 3] =
    ["datapath_kqueue.c", "certificates_darwin.c", "selfsign_openssl.c"];

/// A libmsquic to build for the target.
pub(crate) struct Library {
    tree: Tree,
    tls: Tls,
    is_darwin: bool,
    has_asserts: bool,
}

impl Library {
    pub(crate) fn plan(tree: Tree, tls: Tls) -> Result<Self> {
        let (is_darwin, has_asserts) = (is_darwin()?, env::cargo("PROFILE")? == "debug");
        Ok(Self { tree, tls, is_darwin, has_asserts })
    }

    /// Returns a key that changes when the result would change.
    pub(crate) fn key(&self) -> String {
        let compiler = self.compiler(Path::new(""), Path::new("")).get_compiler();
        let version = compiler_version(compiler.path());
        let mut all = format!("{} {:?} {}", self.tls.key(), compiler.args(), version);
        for (path, bytes) in &self.tree {
            all.push_str(path);
            all.push_str(&sha256(bytes));
        }
        format!("msquic-{}", &sha256(all.as_bytes())[..16])
    }

    /// Builds `libmsquic.a` into `out`, and the library for tests of internal functions.
    pub(crate) fn build(&self, out: &Path) -> Result<()> {
        let scratch = env::out_dir()?;
        let tls = self.tls.build(&scratch)?;
        let tree = scratch.join("source");
        for (path, bytes) in &self.tree {
            env::write_if_changed(&tree.join(path), bytes)?;
        }
        let objects = scratch.join("objects");
        let _ = fs::remove_dir_all(&objects);
        fs::create_dir_all(&objects).map_err(|error| failed("create", &objects, &error))?;
        let mut build = self.compiler(&tree, &tls);
        build.includes(self.tls.internal_headers()); // of the same configuration
        build.out_dir(&objects).files(self.files(&tree)).cargo_metadata(false);
        let compiled = build.try_compile_intermediates().map_err(|error| error.to_string())?;

        let internal = out.join("internal");
        let _ = fs::remove_dir_all(out);
        fs::create_dir_all(&internal).map_err(|error| failed("create", out, &error))?;
        self.join(&build, &compiled, &tls, &out.join("libmsquic.a"))?;
        archive(&build, &compiled, &internal.join("libmsquic_internal.a"))?;
        for name in ["libssl.a", "libcrypto.a"] {
            let from = tls.join("lib").join(name);
            fs::copy(&from, internal.join(name)).map_err(|error| failed("copy", &from, &error))?;
        }
        let defines = self.defines().map(|(name, value)| match value {
            None => format!("-D{name}"),
            Some(value) => format!("-D{name}={value}"),
        });
        let flags = defines.collect::<Vec<_>>().join("\n");
        env::write_if_changed(&internal.join("flags"), flags.as_bytes())?;
        for (path, bytes) in &self.tree {
            env::write_if_changed(&internal.join(path), bytes)?;
        }
        crate::vendored::copy_files(&tls.join("include"), &internal.join("include"))
    }

    fn compiler(&self, tree: &Path, tls: &Path) -> cc::Build {
        let mut build = cc::Build::new();
        build.include(tree.join("src/inc")).include(tls.join("include"));
        for (name, value) in self.defines() {
            build.define(name, value);
        }
        build.warnings(false).pic(true).force_frame_pointer(true);
        build.flag("-fms-extensions").flag_if_supported("-Wno-microsoft-anon-tag");
        build.flag("-fvisibility=hidden");
        if self.has_asserts {
            build.opt_level_str("g").debug(true);
        } else {
            build.opt_level(3).debug(false).define("NDEBUG", None);
        }
        build
    }

    fn defines(&self) -> impl Iterator<Item = (&'static str, Option<&'static str>)> + use<> {
        let platform = if self.is_darwin {
            &["CX_PLATFORM_DARWIN", "QUIC_DISABLE_SHARED_PORT_TESTS"][..]
        } else {
            &["CX_PLATFORM_LINUX", "HAS_SENDMMSG", "HAS_SYSCONF", "HAS__SC_PHYS_PAGES"]
        };
        let common = ["_GNU_SOURCE", "QUIC_BUILD_STATIC", "QUIC_EVENTS_STUB", "QUIC_LOGS_STUB"];
        let workaround = (!self.is_darwin).then_some("QUIC_SHARED_EPHEMERAL_WORKAROUND");
        let plain = platform.iter().copied().chain(common).chain(workaround);
        let valued = [("VER_BUILD_ID", Some("0")), ("VER_SUFFIX", Some("-vendored"))];
        plain.map(|name| (name, None)).chain(valued)
    }

    fn files(&self, tree: &Path) -> Vec<PathBuf> {
        let core = self.tree.keys().filter(|path| {
            let name = path.strip_prefix("src/core/").unwrap_or_default();
            name.ends_with(".c") && !NOT_CORE.contains(&name)
        });
        let system = if self.is_darwin { &PLATFORM_DARWIN[..] } else { &PLATFORM_LINUX[..] };
        let tls = if self.tree.contains_key("src/platform/tls_quictls.c") {
            "tls_quictls.c"
        } else {
            "tls_openssl.c"
        };
        let platform = PLATFORM.iter().chain(system).copied().chain([tls]);
        let platform = platform.map(|name| format!("src/platform/{name}"));
        core.cloned().chain(platform).map(|path| tree.join(path)).collect()
    }

    /// Creates an archive of one object with all code, in which other symbols are local.
    fn join(&self, build: &cc::Build, compiled: &[PathBuf], tls: &Path, to: &Path) -> Result<()> {
        let object = to.with_extension("o");
        let tool = build.get_compiler();
        let mut link = tool.to_command();
        link.args(["-r", "-nostdlib", "-o"]).arg(&object).args(compiled);
        if !self.is_darwin {
            link.arg("-Wl,-d"); // allocates common symbols, so that they can be local
        }
        if self.is_darwin {
            for name in VISIBLE {
                link.arg(format!("-Wl,-exported_symbol,_{name}"));
            }
        }
        run(link.args(["ssl", "crypto"].map(|name| tls.join(format!("lib/lib{name}.a")))))?;
        if !self.is_darwin {
            let mut localize = Command::new(objcopy(tool.path()));
            localize.args(VISIBLE.map(|name| format!("--keep-global-symbol={name}")));
            run(localize.arg(&object))?;
        }
        archive(build, std::slice::from_ref(&object), to)?;
        fs::remove_file(&object).map_err(|error| failed("remove", &object, &error))
    }
}

/// Returns the system libraries that the result needs.
pub(crate) fn frameworks() -> Result<&'static [&'static str]> {
    Ok(if is_darwin()? { &["CoreFoundation", "Security"] } else { &[] })
}

fn is_darwin() -> Result<bool> {
    match env::cargo("CARGO_CFG_TARGET_OS")?.as_str() {
        "linux" => Ok(false),
        "macos" => Ok(true),
        other => Err(format!(
            "libmsquic cannot be built from source for {other}: link an installed one with the feature `system`, \
             or use the crate tcp-tls-transport, which needs none"
        )),
    }
}

fn archive(build: &cc::Build, objects: &[PathBuf], to: &Path) -> Result<()> {
    let _ = fs::remove_file(to); // `ar` would add to it
    run(build.get_archiver().arg("crs").arg(to).args(objects))
}

/// Returns a program of the same tool chain.
fn objcopy(compiler: &Path) -> OsString {
    if let Some(program) = env::user("OBJCOPY") {
        return program;
    }
    let name = compiler.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // `aarch64-linux-gnu-gcc-12` is the compiler of `aarch64-linux-gnu-objcopy`.
    let tool = name.trim_end_matches(|end: char| end.is_ascii_digit() || end == '.' || end == '-');
    let prefix = ["gcc", "clang", "cc"].iter().find_map(|end| tool.strip_suffix(end));
    let beside = compiler.with_file_name(format!("{}objcopy", prefix.unwrap_or_default()));
    let runs = |program: &Path| Command::new(program).arg("--version").output().is_ok();
    if runs(&beside) {
        beside.into()
    } else if tool.ends_with("clang") && runs(Path::new("llvm-objcopy")) {
        "llvm-objcopy".into()
    } else {
        "objcopy".into()
    }
}

/// Returns the version text of a compiler.
pub(crate) fn compiler_version(compiler: &Path) -> String {
    let output = Command::new(compiler).arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Runs a tool, and includes its output in the error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| {
        format!(
            "cannot run {program}: {error}\nbuilding libmsquic needs a C compiler, make, perl and binutils; \
             in this project's workspace `cargo xtask setup` installs them"
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let lines: Vec<&str> = printed.lines().collect();
    let last = lines[lines.len().saturating_sub(30)..].join("\n");
    Err(format!("{program} failed ({}):\n{last}", output.status))
}
