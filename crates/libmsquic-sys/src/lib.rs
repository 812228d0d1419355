//! Links [msquic](https://github.com/microsoft/msquic): built from source with this project's patches, or an
//! installed library.
//!
//! The crate has no functions of its own: `msquic-async` declares what it calls. Types and constants come
//! from the crate `msquic`, with its default features off.
//!
//! | feature | which library |
//! |---|---|
//! | `vendored` (default) | the source that the crate `msquic` ships, patched, static, without libnuma; its TLS library is not visible to the rest of the program |
//! | `system` | the prefix in `MSQUIC_DIR`, or what pkg-config finds; 2.5.0 or a later 2.x. Wins over `vendored` |
//! | neither | none: enough for `cargo check` |
//!
//! | environment variable | meaning |
//! |---|---|
//! | `MSQUIC_DIR` | the prefix for `system` |
//! | `LIBMSQUIC_SYS_SOURCE` | another source tree for `vendored`; one that a patch does not know is an error |
//! | `LIBMSQUIC_SYS_WITHOUT` | faults whose patches are left out, such as `U2,N1`, or `all` |
//! | `LIBMSQUIC_SYS_CACHE` | a folder that keeps results, for builds with different target directories |
//! | `LIBMSQUIC_SYS_NO_BUILD` | any value but `0`: build and link nothing, for checks and documentation |
//! | `CC`, `CFLAGS`, `AR`, `OBJCOPY` | as the crate `cc` reads them; `CFLAGS` also reach the TLS library |
#![no_std]
#![forbid(unsafe_code)]

include!(concat!(env!("OUT_DIR"), "/linkage.rs"));

/// Where libmsquic comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Linkage {
    /// Built from source, with [`PATCHES`].
    Vendored,
    /// Installed before.
    System,
    /// Not linked: a build for checks or documentation.
    None,
}

/// A fault of libmsquic that this build mends. `docs/libmsquic.md` says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Its name in the list.
    pub fault: &'static str,
    /// What is wrong without the patch.
    pub title: &'static str,
    /// The public issue, such as `microsoft/msquic#6181`, or `none`.
    pub issue: &'static str,
}
