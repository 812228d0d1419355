//! `patches`: generates the table of patches in docs/libmsquic.md from the patch files.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// The document with the table.
const DOCUMENT: &str = "docs/libmsquic.md";

/// The directory of the patches.
const PATCHES: &str = "crates/libmsquic-sys/patches";

/// The line before the index by subject, which is written by hand.
const INDEX: &str = "By subject:";

const BEGIN: &str = "<!-- patches: `cargo xtask patches` writes what follows -->";
const END: &str = "<!-- end of patches -->";

/// Writes the table.
pub(crate) fn write(root: &Path) -> Result<()> {
    let path = root.join(DOCUMENT);
    fs::write(&path, document(root)?).with_context(|| format!("cannot write {}", path.display()))
}

/// Fails if the table is not current, the index by subject does not list each patch once, or a patch
/// names a test that does not exist.
pub(crate) fn check(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join(DOCUMENT))?;
    ensure!(
        text == document(root)?,
        "{DOCUMENT} does not match the patches; run `cargo xtask patches`"
    );
    let index = text.split_once(INDEX).and_then(|(_, rest)| rest.split_once(BEGIN));
    let (index, _) = index.context("the document has no index of patches by subject")?;
    for patch in read(root)? {
        let fault = patch.key("fault");
        let entries = index.split([' ', ',', '|', '\n']).filter(|word| *word == fault).count();
        ensure!(entries == 1, "the index by subject in {DOCUMENT} has {fault} {entries} times");
        let test = patch.key("test");
        let exists = test.starts_with("argument: ") || root.join(test).exists();
        ensure!(exists, "patch {} names the test {test}, which does not exist", patch.key("fault"));
    }
    Ok(())
}

fn document(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join(DOCUMENT))?;
    let (before, rest) = text.split_once(BEGIN).context("the document has no table of patches")?;
    let (_, after) = rest.split_once(END).context("the table of patches has no end")?;
    let mut table = String::from(
        "\n\n| fault | what is wrong without the patch | effect | public issue | fixed in | test |\n",
    );
    table.push_str("|---|---|---|---|---|---|\n");
    for patch in read(root)? {
        let test = match patch.key("test").split_once("argument: ") {
            Some((_, argument)) => argument.to_owned(),
            None => {
                let test = patch.key("test");
                let name = test.rsplit('/').next().unwrap_or(test);
                format!("[{name}](../{test})")
            }
        };
        let [fault, title, without, issue, fixed] =
            ["fault", "title", "without", "issue", "fixed"].map(|name| patch.key(name));
        let link = format!("[{fault}](../{PATCHES}/{fault}.patch)");
        table.push_str(&format!("| {link} | {title} | {without} | {issue} | {fixed} | {test} |\n"));
    }
    Ok(format!("{before}{BEGIN}{table}\n{END}{after}"))
}

/// The header fields of a patch.
struct Header(String);

impl Header {
    fn key(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.0.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }
}

fn read(root: &Path) -> Result<Vec<Header>> {
    let mut paths: Vec<_> = fs::read_dir(root.join(PATCHES))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    // U2 before U10.
    paths.sort_by_key(|path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let number: String = name[1..].chars().take_while(char::is_ascii_digit).collect();
        (name.chars().next(), number.parse::<u32>().unwrap_or_default(), name)
    });
    paths.iter().map(|path| Ok(Header(fs::read_to_string(path)?))).collect()
}
