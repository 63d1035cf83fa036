//! `cairn backup` and `cairn restore`, beside a writer and alone.

use crate::common::*;

#[test]
fn a_backup_beside_a_writer_restores_with_the_same_positions() {
    let (parent, dir) = fresh();
    let place = |name: &str| parent.path().join(name).to_str().unwrap().to_owned();
    let (copy, again) = (place("copy"), place("again"));
    append(&dir, b"one\ntwo\n");
    check(0, run(&["backup", &dir, &copy]));
    append(&dir, b"three\n");
    let said = text(&check(0, run(&["backup", &dir, &copy, "--json"])));
    assert!(said.contains("\"next_seq\":3") && said.contains("\"restarts\":0"), "{said}");
    check(0, run(&["verify", &copy]));
    check(0, run(&["restore", &copy, &again]));
    assert_eq!(records(&again), records(&dir));
    append(&again, b"four\n");
    assert_eq!(cat(&again), b"one\ntwo\nthree\nfour\n");
    // Nothing is put over a log.
    check_error(1, &run(&["restore", &copy, &dir]), &["choose an empty directory"]);
    check_error(1, &run(&["backup", &copy, &dir]), &["choose an empty directory"]);
    // Whoever writes to a copy makes a log of its own of it.
    append(&copy, b"mine\n");
    check_error(1, &run(&["backup", &dir, &copy]), &["written to since"]);
    assert_eq!(cat(&copy), b"one\ntwo\nthree\nmine\n");
}

#[test]
fn there_is_no_backup_of_no_log() {
    let (parent, dir) = fresh();
    let copy = parent.path().join("copy");
    let output = run(&["backup", &dir, copy.to_str().unwrap()]);
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    assert!(!copy.exists());
}
