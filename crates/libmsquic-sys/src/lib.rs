//! Links [msquic](https://github.com/microsoft/msquic): built from source with this project's
//! patches, or an installed library.
//!
//! The crate has no functions of its own: `msquic-async` declares what it calls. Types and
//! constants come from the crate `msquic`, with its default features off.
//!
//! | feature | which library |
//! |---|---|
//! | `vendored` (default) | the source that the crate `msquic` ships, patched, static, without libnuma; the symbols of its TLS library are hidden from the program |
//! | `system` | the prefix in `MSQUIC_DIR`, or that of pkg-config; 2.5.0 or a later 2.x. Overrides `vendored` |
//! | neither | none: enough for `cargo check` |
//!
//! | environment variable | meaning |
//! |---|---|
//! | `MSQUIC_DIR` | the prefix for `system` |
//! | `LIBMSQUIC_SYS_SOURCE` | another source tree for `vendored`; an error if a patch does not fit |
//! | `LIBMSQUIC_SYS_WITHOUT` | faults whose patches are omitted, such as `U2,N1`, or `all` |
//! | `LIBMSQUIC_SYS_CACHE` | a cache folder for builds with different target directories |
//! | `LIBMSQUIC_SYS_NO_BUILD` | any value except `0`: build and link no library, for checks and documentation |
//! | `CC`, `CFLAGS`, `AR`, `OBJCOPY` | as the crate `cc` reads them; `CFLAGS` also reach the TLS library |
#![no_std]
#![forbid(unsafe_code)]

include!(concat!(env!("OUT_DIR"), "/linkage.rs"));

/// The origin of libmsquic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Linkage {
    /// Built from source, with [`PATCHES`].
    Vendored,
    /// An installed library.
    System,
    /// Not linked: a build for checks or documentation.
    None,
}

/// A patch for a fault of libmsquic. For details see `docs/libmsquic.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patch {
    /// The name of the fault.
    pub fault: &'static str,
    /// The fault without the patch.
    pub title: &'static str,
    /// The public issue, such as `microsoft/msquic#6181`, or `none`.
    pub issue: &'static str,
}
