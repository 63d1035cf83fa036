//! What a terminal gets: lines that fit, and no control characters that are somebody else's.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::common::*;

/// Runs with standard output on a terminal; returns what that shows.
#[track_caller]
fn on_terminal(expected: i32, args: &[&str]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = cairn(args);
    let mut child = command
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(slave)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Otherwise the terminal stays open, and reading never ends.
    drop(command);
    let mut shown = Vec::new();
    // When the last one closes it, reading fails.
    let _ = File::from(master).read_to_end(&mut shown);
    assert_eq!(child.wait().unwrap().code(), Some(expected), "{}", text(&shown));
    text(&shown).replace("\r\n", "\n")
}

#[test]
fn control_characters_in_records_are_escaped_on_a_terminal_only() {
    let (_parent, dir) = fresh();
    let record = b"red \x1b[31m bell \x07 tab\there \xc2\x9b \xff \xc3\xa9\\";
    append(&dir, &[&record[..], b"\n"].concat());
    assert_eq!(cat(&dir), [&record[..], b"\n"].concat(), "in a pipe the bytes are as they were");
    let shown = on_terminal(0, &["cat", &dir]);
    assert_eq!(shown, "red \\x1b[31m bell \\x07 tab\\there \\u{9b} \\xff \u{e9}\\\n");
    // As JSON all of them are escaped, too, and it means the same.
    let (_parent, utf8) = fresh();
    append(&utf8, b"a \xc2\x9b\x1b b\n");
    let shown = on_terminal(0, &["cat", &utf8, "--json"]);
    assert!(shown.contains("\"a \\u009b\\u001b b\""), "{shown}");
    assert_eq!(json(shown.as_bytes()), json(&check(0, run(&["cat", &utf8, "--json"]))));
    let shown = on_terminal(0, &["cat", &dir, "--with-lsn"]);
    assert!(
        shown.starts_with("56      red \\x1b") || shown.starts_with("56\tred \\x1b"),
        "{shown}"
    );
}

#[test]
fn control_characters_in_names_are_escaped() {
    let (_parent, dir) = fresh();
    append(&dir, b"x\n");
    std::fs::write(format!("{dir}/\x1b[2Jstray\n"), "").unwrap();
    let said = text(&check(0, run(&["info", &dir])));
    assert!(said.contains("not ours     \\u{1b}[2Jstray\\n\n"), "{said}");
    let parent = tempfile::tempdir().unwrap();
    let evil = parent.path().join("a\x1b[31m").to_str().unwrap().to_owned();
    check(0, feed(cairn(&["append", &evil]), b"x\n"));
    for args in [&["info", &evil][..], &["info", &evil, "--brief"]] {
        assert!(!text(&check(0, run(args))).contains('\x1b'), "{args:?}");
    }
    check_error(1, &run(&["cat", &format!("{evil}/none")]), &["no log"]);
}

#[test]
fn everything_for_people_fits_80_columns() {
    // A short name: a path that is longer than a line cannot be broken.
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    let dir = parent.path().join("log").to_str().unwrap().to_owned();
    check(0, feed(cairn(&["append", &dir, "--segment-size", "8KiB"]), &numbers(0..3000)));
    let (other, _) = (parent.path().join("other"), ());
    let other = other.to_str().unwrap();
    append(other, &numbers(5..2000));
    let segment = segments(&dir)[0].to_str().unwrap().to_owned();
    let long = ["truncate", &dir, "--before-seq", "3", "--after", "30000", "--dry-run"];
    let lsn = records(&dir)[2000].lsn.to_string();
    let long = [&long[..5], &[&lsn], &long[6..]].concat();
    let bench = ["bench", &dir, "--seconds", "0.01", "--threads", "1", "--size", "100"];
    let cases: &[(i32, &[&str])] = &[
        (0, &["info", &dir]),
        (0, &["info", &dir, "--stats"]),
        (0, &["info", &dir, "--brief"]),
        (0, &["verify", &dir]),
        (0, &["digest", &dir]),
        (5, &["diff", &dir, other]),
        (0, &["dump", &segment]),
        (0, &["append", &dir]),
        (0, &["doctor", &dir]),
        (0, &long),
        (0, &bench),
    ];
    for (code, args) in cases {
        for line in on_terminal(*code, args).lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
    }
}
