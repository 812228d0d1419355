//! Prints the misspelt words of the files named in its arguments, one a line.
//!
//! A package of its own, which only `cargo xtask tidy` builds, because its dictionary takes ten seconds to
//! compile. It lists known misspellings, so that names and technical words are not reported.

#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use unicase::UniCase;

fn main() {
    let accepted = accepted(include_str!("../accepted.txt"));
    for path in std::env::args().skip(1) {
        // A file that was deleted, or is not text, has no words.
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (line, word, right) in misspelt(&path, &text, &accepted) {
            println!(
                "{path}:{line}: {word:?} is misspelt: write {right}, or add the word to {ACCEPTED}"
            );
        }
    }
}

/// Returns the misspelt words of a file with their lines and what to write.
fn misspelt<'a>(
    path: &str,
    text: &'a str,
    accepted: &BTreeSet<&str>,
) -> Vec<(usize, &'a str, String)> {
    let is_document = path.ends_with(".md");
    // The code that a patch adds has the spelling of msquic.
    let is_patch = path.ends_with(".patch");
    let mut is_header = is_patch; // until the first file that it changes
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let is_open = |word: &&str| !accepted.contains(&*word.to_lowercase());
        for word in words(line).filter(is_open) {
            if let Some(right) = typos_dict::WORD.find(&UniCase::new(word)) {
                found.push((number + 1, word, right.join(" or ")));
            }
        }
        is_header &= !line.starts_with("file: ");
        let is_prose = is_document || is_header;
        let comment = line.split_once("//").filter(|_| !is_patch).map_or("", |it| it.1);
        let prose = if is_prose { line } else { comment };
        // Code in backquotes has the names of other projects.
        for word in prose.split('`').step_by(2).flat_map(words).filter(is_open) {
            let lower = word.to_lowercase();
            let variant = VARIANTS.iter().find(|(other, _)| lower.starts_with(other));
            found.extend(variant.map(|(_, ours)| (number + 1, word, format!("{ours}..."))));
        }
    }
    found
}

/// Splits a line into words, and names such as `readyState` or `HTTPServer` into theirs.
///
/// Leaves out the letters of escapes (`\n`), of numbers and hashes, and words of one or two letters.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let pieces = line.split(|c: char| !c.is_alphanumeric() && c != '\\');
    let pieces = pieces.flat_map(|piece| {
        piece.split('\\').enumerate().map(|(index, rest)| match (index, rest.chars().next()) {
            (0, _) | (_, None) => rest,
            (_, Some(escape)) => &rest[escape.len_utf8()..],
        })
    });
    let pieces = pieces.filter(|piece| !piece.contains(|c: char| c.is_ascii_digit()));
    pieces.flat_map(parts).filter(|word| word.chars().count() > 2)
}

/// Splits a name before each capital letter that follows or precedes a small one.
fn parts(name: &str) -> Vec<&str> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let letters: Vec<_> = name.char_indices().collect();
    for (index, &(at, letter)) in letters.iter().enumerate().skip(1) {
        let follows = letters[index - 1].1.is_lowercase();
        let precedes = letters.get(index + 1).is_some_and(|next| next.1.is_lowercase());
        if letter.is_uppercase() && (follows || precedes) {
            parts.push(&name[begin..at]);
            begin = at;
        }
    }
    parts.push(&name[begin..]);
    parts
}

fn accepted(list: &str) -> BTreeSet<&str> {
    let words = list.lines().filter_map(|line| line.split('#').next());
    words.map(str::trim).filter(|word| !word.is_empty()).collect()
}

/// The file with the words that are right although they look misspelt.
const ACCEPTED: &str = "xtask/spelling/accepted.txt";

/// Beginnings of words of which this project uses another spelling: British, with -ize.
const VARIANTS: &[(&str, &str)] = &[
    ("acknowledgment", "acknowledgement"),
    ("analyz", "analys"),
    ("behavior", "behaviour"),
    ("canceled", "cancelled"),
    ("canceling", "cancelling"),
    ("center", "centre"),
    ("color", "colour"),
    ("dialed", "dialled"),
    ("dialing", "dialling"),
    ("favor", "favour"),
    ("honor", "honour"),
    ("initialis", "initializ"),
    ("labeled", "labelled"),
    ("neighbor", "neighbour"),
    ("normalise", "normalize"),
    ("recognis", "recogniz"),
    ("serialis", "serializ"),
    ("signaled", "signalled"),
    ("synchronis", "synchroniz"),
    ("uninitialis", "uninitializ"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let accepted = accepted("# of tests\ngost # a cipher\n");
        let found = misspelt(path, text, &accepted);
        found.into_iter().map(|(line, word, _)| (line, word.to_owned())).collect()
    }

    // The misspelt words are in two parts, so that this file does not have them.
    #[test]
    fn a_misspelt_word_is_found_with_its_line() {
        let wrong = concat!("rec", "ieve");
        for path in ["a.md", "a.rs", "a.toml", "a.patch"] {
            assert_eq!(found(path, &format!("one\n// {wrong} two\n")), [(2, wrong.to_owned())]);
        }
        assert_eq!(found("a.rs", &format!("let {wrong}_all = 1;")), [(1, wrong.to_owned())]);
        assert_eq!(found("a.rs", &format!("\"a\\n{wrong}\"")), [(1, wrong.to_owned())]);
        let name = concat!("Rec", "ieve");
        assert_eq!(found("a.rs", &format!("struct HTTP{name}Error;")), [(1, name.to_owned())]);
        assert!(found("a.md", "receive no-gost \\nversion 1afe2 of").is_empty());
    }

    #[test]
    fn prose_has_one_spelling_and_code_the_names_of_others() {
        let wrong = concat!("behav", "ior");
        assert_eq!(found("a.md", &format!("{wrong}s, `{wrong}`")).len(), 1);
        assert_eq!(found("a.rs", &format!("let {wrong} = 1; // {wrong}")).len(), 1);
        let capital = concat!("Behav", "ior");
        assert_eq!(found("a.md", &format!("{capital}s differ.")), [(1, format!("{capital}s"))]);
        let patch = format!("title: {wrong}\n\nfile: {wrong}.c 0\n// {wrong}\n{wrong}();\n");
        let lines: Vec<_> = found("a.patch", &patch).into_iter().map(|it| it.0).collect();
        assert_eq!(lines, [1]);
    }
}
