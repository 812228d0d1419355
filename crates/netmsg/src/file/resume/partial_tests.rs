//! Tests of `Partial`: what remains on disk, and what is resumed.

use super::super::map::tests::transfer;
use super::*;

fn open(directory: &Path, transfer: &Transfer) -> Partial {
    match begin(directory, transfer.clone()).unwrap() {
        Begun::Partial(partial) => partial,
        Begun::Stored => panic!("it is stored"),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

const CONTENT: &[u8] = b"0123456789";

/// Leaves a partial file with bytes 0..4 after a checkpoint, and 4..6 without one.
fn interrupted(directory: &Path) -> Transfer {
    let transfer = transfer("a.bin", CONTENT);
    let mut partial = open(directory, &transfer);
    partial.write(0, b"0123").unwrap();
    partial.checkpoint().unwrap();
    partial.write(4, b"45").unwrap();
    transfer
}

#[test]
fn what_was_synced_is_resumed_and_the_file_gets_its_name_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let mut partial = open(directory.path(), &transfer);
    assert_eq!(partial.ranges().missing(), [4..10]);
    partial.write(7, b"789").unwrap();
    partial.write(4, b"456").unwrap();
    assert!(names(directory.path()).iter().all(|name| name.starts_with(".partial-")));
    assert_eq!(fs::read(partial.finish().unwrap()).unwrap(), CONTENT);
    assert_eq!(names(directory.path()), ["a.bin"]);
    // The peer may not know it yet.
    assert!(matches!(begin(directory.path(), transfer.clone()), Ok(Begun::Stored)));
    let other = Transfer { hash: [0; 32], ..transfer };
    assert!(matches!(begin(directory.path(), other), Err(PartialError::Exists)));
}

#[test]
fn a_changed_source_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    interrupted(directory.path());
    for content in ["0123456780", "01234567890"] {
        let changed = transfer("a.bin", content.as_bytes());
        let mut partial = open(directory.path(), &changed);
        assert_eq!(partial.ranges().bytes(), 0);
        partial.write(0, &content.as_bytes()[..4]).unwrap();
        partial.checkpoint().unwrap();
    }
    assert_eq!(names(directory.path()).len(), 2, "the older files are replaced");
}

#[test]
fn a_damaged_map_and_a_truncated_file_begin_anew() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let data = directory.path().join(key(&transfer));
    let map = data.with_extension("map");
    let whole = fs::read(&map).unwrap();
    let long = vec![0; map::MAX_BYTES * 2];
    for damaged in [&whole[..whole.len() - 1], b"", &[0; 200], &long] {
        fs::write(&map, damaged).unwrap();
        assert_eq!(open(directory.path(), &transfer).ranges().bytes(), 0);
    }
    fs::write(&map, &whole).unwrap();
    fs::write(&data, b"012").unwrap();
    assert_eq!(open(directory.path(), &transfer).ranges().bytes(), 0);
    let again = open(directory.path(), &transfer);
    assert_eq!(again.file.metadata().unwrap().len(), 0);
}

#[test]
fn content_with_another_hash_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let mut partial = open(directory.path(), &transfer);
    partial.write(4, b"456780").unwrap();
    assert!(matches!(partial.finish(), Err(PartialError::HashDiffers)));
    assert!(names(directory.path()).is_empty());
}

#[test]
fn a_file_that_appears_meanwhile_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let mut partial = open(directory.path(), &transfer);
    partial.write(4, b"456789").unwrap();
    fs::write(directory.path().join("a.bin"), b"mine").unwrap();
    assert!(matches!(partial.finish(), Err(PartialError::Exists)));
    assert_eq!(fs::read(directory.path().join("a.bin")).unwrap(), b"mine");
    assert_eq!(names(directory.path()), ["a.bin"]);
}

#[test]
fn a_file_that_was_changed_is_not_reported_as_stored() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let mut partial = open(directory.path(), &transfer);
    partial.write(4, b"456789").unwrap();
    fs::write(partial.finish().unwrap(), b"9876543210").unwrap();
    assert!(matches!(begin(directory.path(), transfer), Err(PartialError::Exists)));
}

#[test]
fn directories_are_created_when_the_file_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = transfer("a/b/c.bin", CONTENT);
    let mut partial = open(directory.path(), &transfer);
    partial.write(0, &CONTENT[..4]).unwrap();
    assert!(!directory.path().join("a").exists());
    partial.write(4, &CONTENT[4..]).unwrap();
    assert_eq!(partial.finish().unwrap(), directory.path().join("a/b/c.bin"));
    assert_eq!(names(directory.path()), ["a"]);
    assert!(matches!(begin(directory.path(), transfer), Ok(Begun::Stored)));
}

#[cfg(unix)]
#[test]
fn a_link_or_a_file_is_not_used_as_a_directory() {
    let (directory, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(outside.path(), directory.path().join("link")).unwrap();
    fs::write(directory.path().join("file"), b"").unwrap();
    for name in ["link/a", "file/a", "file/b/a"] {
        let begun = begin(directory.path(), transfer(name, CONTENT));
        assert!(matches!(begun, Err(PartialError::NotADirectory(_))), "{begun:?}");
    }
    // It may also appear later.
    let mut partial = open(directory.path(), &transfer("late/a", CONTENT));
    partial.write(0, CONTENT).unwrap();
    std::os::unix::fs::symlink(outside.path(), directory.path().join("late")).unwrap();
    assert!(matches!(partial.finish(), Err(PartialError::NotADirectory(_))));
    assert!(names(outside.path()).is_empty());
}

#[test]
fn a_partial_file_has_one_writer() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let first = open(directory.path(), &transfer);
    assert!(matches!(begin(directory.path(), transfer.clone()), Err(PartialError::InUse)));
    drop(first);
    open(directory.path(), &transfer);
}

#[test]
fn files_of_two_peers_do_not_mix() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let other = Transfer { peer: CertHash::from_bytes([8; 32]), ..transfer.clone() };
    assert_eq!(open(directory.path(), &other).ranges().bytes(), 0);
    assert_eq!(open(directory.path(), &transfer).ranges().bytes(), 4);
}

#[test]
fn a_peer_leaves_a_limited_number_of_partial_files() {
    let directory = tempfile::tempdir().unwrap();
    let in_use = open(directory.path(), &transfer("in use", b"x"));
    let other = Transfer { peer: CertHash::from_bytes([8; 32]), ..transfer("other", b"x") };
    drop(open(directory.path(), &other));
    for index in 0..2 * MAX_PER_PEER {
        drop(open(directory.path(), &transfer(&index.to_string(), b"x")));
    }
    let prefix = prefix(&CertHash::from_bytes([7; 32]));
    let names = names(directory.path());
    let own = names.iter().filter(|name| name.starts_with(&prefix)).count();
    assert_eq!(own, 2 * MAX_PER_PEER, "each has a map: {names:?}");
    assert_eq!(names.len(), own + 2, "that of the other peer remains");
    drop(in_use);
}

#[test]
fn files_without_a_map_are_counted_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    for index in 0..2 * MAX_PER_PEER {
        let data = directory.path().join(key(&transfer(&index.to_string(), b"x")));
        let left = ["", "new", "map"][index % 3];
        fs::write(data.with_extension(left), b"left").unwrap();
    }
    drop(open(directory.path(), &transfer("a", b"x")));
    let names = names(directory.path());
    assert_eq!(names.len(), MAX_PER_PEER + 1, "one of them has a map: {names:?}");
}

#[test]
fn a_transfer_that_cannot_begin_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = transfer("a", b"x");
    let data = directory.path().join(key(&transfer));
    fs::create_dir(data.with_extension("new")).unwrap();
    assert!(matches!(begin(directory.path(), transfer), Err(PartialError::Io(_))));
    assert!(!data.exists(), "{:?}", names(directory.path()));
}

#[test]
fn of_two_peers_that_send_the_same_file_both_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let transfer = transfer("a.bin", CONTENT);
    let other = Transfer { peer: CertHash::from_bytes([8; 32]), ..transfer.clone() };
    for mut partial in [transfer, other].map(|transfer| open(directory.path(), &transfer)) {
        partial.write(0, CONTENT).unwrap();
        assert_eq!(partial.finish().unwrap(), directory.path().join("a.bin"));
    }
    assert_eq!(names(directory.path()), ["a.bin"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_was_renamed_or_removed_is_not_the_one_at_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let file = open_locked(&path).unwrap();
    assert!(is_at(&file, &path));
    assert!(!remove_unused(&path).unwrap(), "it is in use");
    fs::rename(&path, directory.path().join("b")).unwrap();
    assert!(!is_at(&file, &path));
    assert!(is_at(&open_locked(&path).unwrap(), &path), "it is another file");
    assert!(!is_at(&file, &path));
    assert!(remove_unused(&path).unwrap() && !path.exists());
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_stored() {
    // A file size limit would end the process with a signal, so a full device stands for the disk.
    if !Path::new("/dev/full").exists() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let transfer = interrupted(directory.path());
    let mut partial = open(directory.path(), &transfer);
    let real = std::mem::replace(
        &mut partial.file,
        OpenOptions::new().write(true).open("/dev/full").unwrap(),
    );
    assert!(matches!(partial.write(4, b"456"), Err(PartialError::Io(_))));
    assert_eq!(partial.ranges().missing(), [4..10]);
    partial.file = real;
    drop(partial);
    assert_eq!(open(directory.path(), &transfer).ranges().missing(), [4..10]);
    assert!(!directory.path().join("a.bin").exists());
}
