//! Runs the programs in `tests/c`. Each tests a fault of libmsquic, also by functions that the
//! library does not export, and fails without the patch of its name.
//!
//! Skipped if no library was built: with the feature `system`, or without `vendored`.

#![allow(clippy::print_stdout, reason = "cargo prints it when a program fails")]

use libmsquic_sys::{LINKAGE, Linkage, PATCHES};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[test]
fn each_patch_fixes_its_fault() {
    if LINKAGE != Linkage::Vendored {
        println!("skipped: libmsquic was not built here");
        return;
    }
    let internal = Path::new(env!("OUT_DIR")).join("lib/internal");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let only = env::var("LIBMSQUIC_SYS_TEST").ok();
    let mut failures = Vec::new();
    for source in programs() {
        let name = source.file_stem().unwrap().to_str().unwrap();
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let program = scratch.join(name);
        compile(&internal, &source, &program);
        let output = Command::new(&program).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        println!("{name}: {}", output.status);
        if !output.status.success() {
            failures.push(format!(
                "{name}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&printed)
            ));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn each_program_belongs_to_a_patch() {
    if LINKAGE != Linkage::Vendored {
        return;
    }
    for source in programs() {
        let name = source.file_stem().unwrap().to_str().unwrap();
        let fault = name.split('_').next().unwrap_or(name); // U3_rebindings belongs to U3
        assert!(
            PATCHES.iter().any(|patch| patch.fault == fault),
            "{fault} is not a patch of this build"
        );
    }
}

fn programs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut programs: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "c")).collect();
    programs.sort();
    programs
}

/// Compiles a program with the headers of the built library, and links it with all its symbols.
fn compile(internal: &Path, source: &Path, program: &Path) {
    let target = env!("TARGET_TRIPLE");
    let mut build = cc::Build::new();
    build.target(target).host(target).opt_level(0).cargo_metadata(false).out_dir(internal);
    let mut compile = build.get_compiler().to_command();
    let flags = fs::read_to_string(internal.join("flags")).unwrap();
    compile.args(flags.lines()).args(["-w", "-g", "-fms-extensions"]);
    for folder in ["src/core", "src/platform", "src/inc", "include"] {
        compile.arg("-I").arg(internal.join(folder));
    }
    compile.arg(source).arg("-o").arg(program);
    compile
        .args(["libmsquic_internal.a", "libssl.a", "libcrypto.a"].map(|name| internal.join(name)));
    let output = compile.args(["-lpthread", "-ldl", "-lm"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cannot compile {}:\n{printed}", source.display());
}
