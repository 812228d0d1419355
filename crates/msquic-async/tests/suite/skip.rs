//! Tests that cannot run on this system, and the message that says why.

use msquic_async::library_patches;
use std::fmt::Display;
use std::io::{self, Write};
use std::thread;

/// Whether the linked library has the patch for a fault.
pub(crate) fn has_patch(fault: &str) -> bool {
    library_patches().iter().any(|patch| patch.fault == fault)
}

/// Whether the test has to be skipped because the library lacks the patch for a fault.
pub(crate) fn lacks_patch(fault: &str) -> bool {
    let lacks = !has_patch(fault);
    if lacks {
        skip(format_args!("the library lacks the patch {fault}"));
    }
    lacks
}

/// Prints why the calling test is skipped. The output of a test that passes is captured, this is not.
pub(crate) fn skip(reason: impl Display) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stderr(), "{name} skipped: {reason}");
}
