//! Checks of open directories, each in a directory of its own.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use super::fs::{create, expect_contents, expect_file, expect_list};
use super::tools::{FsCheck, checks, expect_kind};
use crate::dir::{Kind, expect_same_file};
use crate::fs::{Access, Fs, write_all_at};

pub(super) const CHECKS: &[FsCheck] = checks![
    names_are_those_of_the_directory,
    a_path_in_place_of_a_name_is_refused,
    a_rename_takes_no_name_that_is_taken,
    replace_replaces,
    what_is_no_regular_file_is_not_opened,
    identity_is_the_files_and_not_the_names,
    a_directory_is_locked_as_a_file_is,
    data_is_never_skipped,
];

fn names_are_those_of_the_directory(fs: &dyn Fs, path: &Path) {
    let dir = fs.open_dir(path).expect("open_dir");
    let file = dir.create_new("a".as_ref()).expect("create_new");
    write_all_at(&*file, 0, &[IoSlice::new(b"abc")]).expect("write_at");
    expect_file(fs, &path.join("a"), b"abc");
    create(fs, &path.join("b"), b"");
    dir.sync().expect("sync");
    assert_eq!(dir.list().expect("list").len(), 2);
    expect_kind(dir.create_new("b".as_ref()), ErrorKind::AlreadyExists, "a second create_new");
    dir.remove("a".as_ref()).expect("remove");
    expect_kind(dir.open("a".as_ref(), Access::Read), ErrorKind::NotFound, "open after remove");
    expect_kind(dir.stat("a".as_ref()), ErrorKind::NotFound, "stat after remove");
    expect_kind(dir.remove("a".as_ref()), ErrorKind::NotFound, "a second remove");
    assert!(dir.is_in_place().expect("is_in_place"));
    expect_kind(fs.open_dir(&path.join("missing")), ErrorKind::NotFound, "open_dir");
    assert!(fs.open_dir(&path.join("b")).is_err(), "a file was opened as a directory");
}

fn a_path_in_place_of_a_name_is_refused(fs: &dyn Fs, path: &Path) {
    create(fs, &path.join("a"), b"");
    let dir = fs.open_dir(path).expect("open_dir");
    for name in ["", ".", "..", "./a", "../a", "/a", "a/", "a/b"] {
        let name = name.as_ref();
        let invalid = ErrorKind::InvalidInput;
        expect_kind(dir.open(name, Access::Read), invalid, "open of a path");
        expect_kind(dir.create_new(name), invalid, "create_new of a path");
        expect_kind(dir.rename("a".as_ref(), name), invalid, "rename to a path");
        expect_kind(dir.rename(name, "b".as_ref()), invalid, "rename of a path");
        expect_kind(dir.replace("a".as_ref(), name), invalid, "replace of a path");
        expect_kind(dir.remove(name), invalid, "remove of a path");
        expect_kind(dir.stat(name), invalid, "stat of a path");
    }
    expect_list(fs, path, &["a"]);
}

fn a_rename_takes_no_name_that_is_taken(fs: &dyn Fs, path: &Path) {
    let dir = fs.open_dir(path).expect("open_dir");
    let [a, b, c] = ["a", "b", "c"].map(AsRef::as_ref);
    let moved = create(fs, &path.join("a"), b"new");
    create(fs, &path.join("b"), b"old");
    fs.create_dir(&path.join("c")).expect("create_dir");
    expect_kind(dir.rename(a, b), ErrorKind::AlreadyExists, "rename to a file's name");
    expect_kind(dir.rename(a, c), ErrorKind::AlreadyExists, "rename to a directory's name");
    expect_kind(dir.rename("d".as_ref(), b), ErrorKind::NotFound, "rename of nothing");
    expect_file(fs, &path.join("a"), b"new");
    expect_file(fs, &path.join("b"), b"old");
    dir.rename(a, "d".as_ref()).expect("rename to a free name");
    write_all_at(&*moved, 3, &[IoSlice::new(b"er")]).expect("write through the moved handle");
    expect_file(fs, &path.join("d"), b"newer");
    expect_list(fs, path, &["b", "c", "d"]);
    assert_eq!(moved.stat().expect("stat").links, 1, "names after a rename");
}

fn replace_replaces(fs: &dyn Fs, path: &Path) {
    let dir = fs.open_dir(path).expect("open_dir");
    let moved = create(fs, &path.join("a"), b"new");
    let replaced = create(fs, &path.join("b"), b"old");
    dir.replace("a".as_ref(), "b".as_ref()).expect("replace an existing name");
    expect_file(fs, &path.join("b"), b"new");
    expect_contents(&*replaced, b"old");
    assert_eq!(replaced.stat().expect("stat").links, 0, "names of the replaced file");
    write_all_at(&*moved, 3, &[IoSlice::new(b"er")]).expect("write through the moved handle");
    dir.replace("b".as_ref(), "a".as_ref()).expect("replace a free name");
    expect_file(fs, &path.join("a"), b"newer");
    expect_kind(dir.replace("b".as_ref(), "a".as_ref()), ErrorKind::NotFound, "replace by nothing");
    expect_list(fs, path, &["a"]);
}

fn what_is_no_regular_file_is_not_opened(fs: &dyn Fs, path: &Path) {
    fs.create_dir(&path.join("d")).expect("create_dir");
    let dir = fs.open_dir(path).expect("open_dir");
    for access in [Access::Read, Access::ReadWrite] {
        assert!(dir.open("d".as_ref(), access).is_err(), "a directory was opened as a file");
    }
    assert_eq!(dir.stat("d".as_ref()).expect("stat").kind, Kind::Dir);
}

fn identity_is_the_files_and_not_the_names(fs: &dyn Fs, path: &Path) {
    let dir = fs.open_dir(path).expect("open_dir");
    let (a, b) = ("a".as_ref(), "b".as_ref());
    let file = create(fs, &path.join("a"), b"");
    let again = dir.open(a, Access::Read).expect("open");
    let stat = file.stat().expect("stat");
    assert_eq!((stat.kind, stat.links), (Kind::File, 1));
    expect_same_file(&*again, &*file).expect("two handles of one file");
    dir.rename(a, b).expect("rename");
    assert_eq!(dir.stat(b).expect("stat").id, stat.id, "the file under its new name");
    let other = create(fs, &path.join("a"), b"");
    expect_kind(expect_same_file(&*other, &*file), ErrorKind::NotFound, "another file");
    assert_ne!(dir.stat(a).expect("stat").id, stat.id, "another file under the old name");
    if let Err(e) = dir.open_direct(a, &*file) {
        let refused = [ErrorKind::NotFound, ErrorKind::Unsupported].contains(&e.kind());
        assert!(refused, "open_direct of another file: {e}");
    } else {
        panic!("open_direct opened another file than the one that was meant");
    }
    dir.remove(b).expect("remove");
    assert_eq!(file.stat().expect("stat").links, 0, "names of a removed file");
}

fn a_directory_is_locked_as_a_file_is(fs: &dyn Fs, path: &Path) {
    let [first, second] = [(); 2].map(|()| fs.open_dir(path).expect("open_dir"));
    match first.try_lock() {
        Err(e) if e.kind() == ErrorKind::Unsupported => return,
        taken => assert!(taken.expect("try_lock"), "a free lock was refused"),
    }
    assert!(!second.try_lock().expect("try_lock"), "two handles hold the lock");
    first.unlock().expect("unlock");
    assert!(second.try_lock().expect("try_lock"), "a lock that was given back was refused");
    drop(second);
    assert!(first.try_lock().expect("try_lock"), "the lock outlived its handle");
}

fn data_is_never_skipped(fs: &dyn Fs, path: &Path) {
    let file = create(fs, &path.join("a"), b"abc");
    write_all_at(&*file, 1 << 20, &[IoSlice::new(b"x")]).expect("write_at");
    let len = (1 << 20) + 1;
    for (offset, data) in [(0, 0), (2, 2), (3, 1 << 20), (1 << 19, 1 << 20), (len - 1, len - 1)] {
        let found = file.data_from(offset).expect("data_from");
        assert!((offset..=data).contains(&found), "data from {offset}: {found}");
    }
    assert!((len..=len + 5).contains(&file.data_from(len + 5).expect("data_from")));
    file.set_len(2 << 20).expect("set_len");
    let found = file.data_from(len).expect("data_from");
    assert!((len..=2 << 20).contains(&found), "data from {len}: {found}");
}
