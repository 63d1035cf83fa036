//! Checks of symbolic links, each in a directory of its own.

use std::io::ErrorKind;
use std::path::Path;

use super::fs::{create, expect_contents, expect_file, expect_list};
use super::tools::{checks, expect_kind};
use crate::dir::{Kind, expect_same_file};
use crate::fs::{Access, Fs};

/// Makes a link: where it leads, and its name in the directory of the check.
type Symlink<'s> = &'s dyn Fn(&str, &str);

/// A check in an empty directory, with its name.
type LinkCheck = (&'static str, fn(&dyn Fs, &Path, Symlink<'_>));

pub(super) const CHECKS: &[LinkCheck] = checks![
    a_link_is_read_through_and_not_written_through,
    a_link_keeps_its_name_taken,
    a_link_is_renamed_and_removed_itself,
    a_link_to_nothing_leads_nowhere,
    links_that_lead_to_each_other_end,
    paths_go_through_links,
    a_path_resolves_to_what_its_link_leads_to,
];

fn a_link_is_read_through_and_not_written_through(fs: &dyn Fs, path: &Path, symlink: Symlink<'_>) {
    let file = create(fs, &path.join("file"), b"abc");
    symlink("file", "link");
    symlink("link", "second");
    let dir = fs.open_dir(path).expect("open_dir");
    for name in ["link", "second"].map(AsRef::as_ref) {
        let read = dir.open(name, Access::Read).expect("open to read");
        expect_contents(&*read, b"abc");
        expect_same_file(&*read, &*file).expect("the file that the link leads to");
        let refused = ErrorKind::InvalidInput;
        expect_kind(dir.open(name, Access::ReadWrite), refused, "open of a link to write");
        if let Err(e) = dir.open_direct(name, &*file) {
            let refused = [ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&e.kind());
            assert!(refused, "open_direct of a link: {e}");
        } else {
            panic!("open_direct followed a link");
        }
        let (link, file) = (dir.stat(name).expect("stat"), file.stat().expect("stat"));
        assert_eq!((link.kind, link.links), (Kind::Link, 1));
        assert_ne!(link.id, file.id, "a link is not the file");
        assert_eq!(file.links, 1, "a symbolic link is no name of the file");
    }
}

fn a_link_keeps_its_name_taken(fs: &dyn Fs, path: &Path, symlink: Symlink<'_>) {
    create(fs, &path.join("file"), b"abc");
    symlink("missing", "link");
    let dir = fs.open_dir(path).expect("open_dir");
    let (file, link) = ("file".as_ref(), "link".as_ref());
    let taken = ErrorKind::AlreadyExists;
    expect_kind(dir.create_new(link), taken, "create_new through a link");
    expect_kind(dir.rename(file, link), taken, "rename to a link's name");
    expect_kind(fs.create_dir(&path.join("link")), taken, "create_dir through a link");
    expect_list(fs, path, &["file", "link"]);
    dir.replace(file, link).expect("replace a link");
    expect_file(fs, &path.join("link"), b"abc");
    assert_eq!(dir.stat(link).expect("stat").kind, Kind::File);
    expect_list(fs, path, &["link"]);
}

fn a_link_is_renamed_and_removed_itself(fs: &dyn Fs, path: &Path, symlink: Symlink<'_>) {
    create(fs, &path.join("file"), b"abc");
    symlink("file", "link");
    let dir = fs.open_dir(path).expect("open_dir");
    dir.rename("link".as_ref(), "moved".as_ref()).expect("rename a link");
    expect_list(fs, path, &["file", "moved"]);
    assert_eq!(dir.stat("moved".as_ref()).expect("stat").kind, Kind::Link);
    expect_file(fs, &path.join("moved"), b"abc");
    dir.remove("moved".as_ref()).expect("remove a link");
    expect_list(fs, path, &["file"]);
    expect_file(fs, &path.join("file"), b"abc");
}

fn a_link_to_nothing_leads_nowhere(fs: &dyn Fs, path: &Path, symlink: Symlink<'_>) {
    symlink("missing", "link");
    let dir = fs.open_dir(path).expect("open_dir");
    expect_kind(dir.open("link".as_ref(), Access::Read), ErrorKind::NotFound, "open");
    expect_kind(fs.open_dir(&path.join("link")), ErrorKind::NotFound, "open_dir");
    assert_eq!(dir.stat("link".as_ref()).expect("stat").kind, Kind::Link);
}

fn links_that_lead_to_each_other_end(fs: &dyn Fs, path: &Path, symlink: Symlink<'_>) {
    symlink("two", "one");
    symlink("one", "two");
    let dir = fs.open_dir(path).expect("open_dir");
    assert!(dir.open("one".as_ref(), Access::Read).is_err(), "a circle of links was opened");
    assert!(fs.open_dir(&path.join("one")).is_err(), "a circle of links was a directory");
}

fn paths_go_through_links(fs: &dyn Fs, path: &Path, symlink: Symlink<'_>) {
    fs.create_dir(&path.join("a")).expect("create_dir");
    fs.create_dir(&path.join("a/b")).expect("create_dir");
    symlink("a/b", "link");
    create(fs, &path.join("link/file"), b"abc");
    expect_file(fs, &path.join("a/b/file"), b"abc");
    // Upwards from where the link leads to, not from where it is.
    expect_list(fs, &path.join("link/.."), &["b"]);
    let dir = fs.open_dir(&path.join("link")).expect("open_dir");
    assert!(dir.is_in_place().expect("is_in_place"));
    fs.remove(&path.join("link")).expect("remove a link to a directory");
    expect_list(fs, path, &["a"]);
    assert!(dir.is_in_place().expect("is_in_place"), "a link is not the directory's place");
    expect_file(fs, &path.join("a/b/file"), b"abc");
}

fn a_path_resolves_to_what_its_link_leads_to(fs: &dyn Fs, path: &Path, symlink: Symlink<'_>) {
    fs.create_dir(&path.join("d")).expect("create_dir");
    let file = create(fs, &path.join("d/file"), b"abc");
    symlink("d/file", "link");
    symlink("d/missing", "dangling");
    let resolved = fs.resolve(&path.join("link")).expect("resolve a link");
    let opened = fs.open(&resolved, Access::ReadWrite).expect("open what a link leads to");
    expect_same_file(&*opened, &*file).expect("the file that the link leads to");
    for name in ["d/file", "d", "missing"].map(|name| path.join(name)) {
        assert_eq!(fs.resolve(&name).expect("resolve"), name, "no link is resolved");
    }
    let missing = fs.resolve(&path.join("dangling"));
    expect_kind(missing, ErrorKind::NotFound, "resolve a link to nothing");
}
