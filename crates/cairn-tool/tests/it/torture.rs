//! `cairn torture`: it passes on a sound log, refuses what is not its own, and says what it did.
//! That it can fail is shown by the tests of its ledger.

use std::process::Stdio;
use std::time::Duration;

use crate::common::*;
use crate::look::kill;

/// guards: L01, L03, L06, L10, L16, L26
#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    let (_parent, dir) = fresh();
    let summary = json(&check(0, run(&["torture", &dir, "--runs", "30", "--seed", "7", "--json"])));
    assert_eq!(
        (&summary["result"], &summary["ended_by"]),
        (&"nothing lost".into(), &"runs".into())
    );
    assert_eq!(
        (&summary["kills"], &summary["seed"], &summary["dir"]),
        (&30.into(), &"7".into(), &dir.as_str().into())
    );
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(count("kills_opening") + count("kills_working") + count("kills_closing"), 30);
    assert!(count("acknowledged_records") > 100, "{summary}");
    assert!(count("acknowledged_bytes") > count("acknowledged_records"), "{summary}");
    assert!(count("recoveries") > 5, "{summary}");
    check(0, run(&["verify", &dir]));

    // The log is kept, and may be used again, with other options.
    let again = run(&[
        "torture",
        &dir,
        "--runs",
        "10",
        "--seed",
        "8",
        "--writers",
        "1",
        "--segment-size",
        "8KiB",
    ]);
    assert_eq!(text(&again.stderr), "", "no progress in a pipe");
    let said = text(&check(0, again));
    assert!(said.starts_with("nothing acknowledged was lost: 10 kills, "), "{said}");
    for word in ["kept in", "seed         8", "nothing about power cuts"] {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
}

#[test]
fn a_log_that_was_damaged_between_two_runs_is_refused() {
    let (_parent, dir) = fresh();
    check(0, run(&["torture", &dir, "--runs", "12", "--seed", "3"]));
    let path = segments(&dir).pop().unwrap();
    flip(&path, 4096 + 50);
    check_error(4, &run(&["torture", &dir, "--runs", "3"]), &["LSN"]);
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let refused = |dir: &str, words: &[&str]| {
        let before = snapshot(dir);
        check_error(2, &run(&["torture", dir, "--runs", "3"]), words);
        assert_eq!(snapshot(dir), before);
    };
    let (_parent, log) = fresh();
    append(&log, b"precious\n");
    refused(&log, &[&log, "not left by an earlier torture"]);

    let (_parent, dir) = fresh();
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(format!("{dir}/notes.txt"), "mine").unwrap();
    refused(&dir, &["not left by an earlier torture"]);
    std::fs::write(format!("{dir}/TORTURE"), "an essay").unwrap();
    refused(&dir, &["of its own"]);

    // What an earlier run left and somebody appended to.
    let (_parent, dir) = fresh();
    check(0, run(&["torture", &dir, "--runs", "1"]));
    // A child that is killed soon has not made its log yet.
    while segments(&dir).is_empty() {
        check(0, run(&["torture", &dir, "--runs", "1"]));
    }
    append(&dir, b"precious\n");
    check_error(2, &run(&["torture", &dir, "--runs", "3"]), &["torture did not write"]);
    // Evidence is not written over.
    let marker = format!("{dir}/TORTURE");
    std::fs::write(&marker, std::fs::read_to_string(&marker).unwrap() + "\nLOST\n").unwrap();
    refused(&dir, &["evidence"]);

    let (_parent, file) = fresh();
    std::fs::write(&file, "a file").unwrap();
    check_error(1, &run(&["torture", &file]), &[&file]);
    for args in [&["--runs", "0"][..], &["--writers", "0"], &["--segment-size", "4KiB"]] {
        check_error(2, &run(&[&["torture", &file], args].concat()), &[]);
    }
}

#[test]
fn a_signal_ends_it_with_the_summary_so_far() {
    let (_parent, dir) = fresh();
    let mut torture = cairn(&["torture", &dir, "--seconds", "600", "--json"]);
    let torture = torture.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !std::path::Path::new(&dir).join("LOCK").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Nobody else gets the directory meanwhile.
    check_error(1, &run(&["torture", &dir]), &["is being tortured already"]);
    std::thread::sleep(Duration::from_millis(500));
    kill(&torture, "INT");
    let summary = json(&check(0, torture.wait_with_output().unwrap()));
    assert_eq!(
        (&summary["result"], &summary["ended_by"]),
        (&"nothing lost".into(), &"a signal".into())
    );
    check(0, run(&["verify", &dir]));
}
