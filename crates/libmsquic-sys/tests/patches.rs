//! Patches: their format, their application, and the required keys of each.

#[path = "../build/patch.rs"]
mod patch;

use patch::{KEYS, Patch, Verdict, apply, sha256};
use std::path::Path;

const SOURCE: &str = "one\ntwo\nthree\nfour\n";

fn parse(edits: &str) -> Result<Patch, String> {
    let keys: String = KEYS.iter().map(|key| format!("{key}: some {key}\n")).collect();
    let fixed = keys.replace("some fixed", "2.5.7, 2.6.0");
    Patch::parse(&format!("{fixed}\nfile: a.c {}\n{edits}", sha256(SOURCE.as_bytes())))
}

fn applied(edits: &str) -> Result<String, String> {
    apply(SOURCE, &parse(edits)?.files[0].edits)
}

#[test]
fn lines_are_inserted_replaced_and_deleted() {
    assert_eq!(applied("@ after 2 \"two\"\nnew\n").unwrap(), "one\ntwo\nnew\nthree\nfour\n");
    assert_eq!(applied("@ replace 2-3 \"two\"\nnew\n").unwrap(), "one\nnew\nfour\n");
    assert_eq!(applied("@ delete 4-4 \"four\"\n").unwrap(), "one\ntwo\nthree\n");
    let both = applied("@ delete 3-3 \"three\"\n@ after 3 \"three\"\nx\n@ replace 1-1 \"one\"\n\n");
    assert_eq!(both.unwrap(), "\ntwo\nx\nfour\n");
}

#[test]
fn the_empty_line_between_two_files_is_not_content() {
    let edits =
        format!("@ after 1 \"one\"\nx\n\n\nfile: b.c {}\n@ delete 1-1 \"one\"\n", "0".repeat(64));
    let patch = parse(&edits).unwrap();
    assert_eq!(apply(SOURCE, &patch.files[0].edits).unwrap(), "one\nx\n\ntwo\nthree\nfour\n");
    assert_eq!(apply(SOURCE, &patch.files[1].edits).unwrap(), "two\nthree\nfour\n");
}

#[test]
fn an_edit_of_unexpected_lines_is_an_error() {
    assert_eq!(applied("@ after 2 \"three\"\n").unwrap_err(), "line 2 has no \"three\"");
    assert!(applied("@ delete 4-9 \"four\"\n").is_err());
    let twice = applied("@ replace 2-3 \"two\"\nx\n@ delete 3-3 \"three\"\n").unwrap_err();
    assert_eq!(twice, "two edits change line 3");
}

#[test]
fn an_incomplete_or_malformed_patch_is_an_error() {
    assert!(Patch::parse("fault: U1\n").unwrap_err().contains("`title` is missing"));
    for wrong in
        ["@ after 0 \"x\"", "@ after 1-2 \"x\"", "@ move 1 \"x\"", "@ after 1 x", "@ after", "x"]
    {
        assert!(parse(wrong).unwrap_err().starts_with("line 10: "), "{wrong}");
    }
    assert!(parse("").unwrap_err().contains("changes nothing"));
}

#[test]
fn a_source_that_differs_is_an_error_unless_it_has_the_fix() {
    let patch = parse("@ delete 1-1 \"one\"\n").unwrap();
    let judge = |version, text: Option<&str>| patch.judge(version, |_| text.map(str::to_owned));
    assert_eq!(judge((2, 5, 1), Some(SOURCE)), Ok(Verdict::Applies));
    assert_eq!(judge((2, 6, 0), Some(SOURCE)), Ok(Verdict::Applies));
    for fixed in [(2, 5, 7), (2, 5, 12), (2, 6, 0), (2, 7, 0)] {
        assert_eq!(judge(fixed, Some("other")), Ok(Verdict::Fixed), "{fixed:?}");
        assert_eq!(judge(fixed, None), Ok(Verdict::Fixed), "{fixed:?}");
    }
    for broken in [(2, 5, 1), (2, 5, 6), (2, 4, 9)] {
        let error = judge(broken, Some("other")).unwrap_err();
        assert!(error.contains("does not apply to this a.c"), "{error}");
    }
}

#[test]
fn every_patch_is_valid_and_named_after_its_fault() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("patches");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let patch = Patch::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(name, patch.key("fault"), "{}", path.display());
    }
}
