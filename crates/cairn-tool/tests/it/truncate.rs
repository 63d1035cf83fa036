//! Dropping records at either end.

use crate::common::*;

#[test]
fn both_ends_are_dropped_and_appending_goes_on() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let shown = records(&dir);
    let (first, last) = (shown[1000].lsn.to_string(), shown[2000].lsn.to_string());
    let range =
        json(&check(0, run(&["truncate", &dir, "--before", &first, "--after", &last, "--json"])));
    assert_eq!(range["head_lsn"], shown[1000].lsn);
    assert_eq!((&range["head_seq"], &range["next_seq"]), (&1000.into(), &2001.into()));
    assert_eq!(cat(&dir), numbers(1000..2001));
    append(&dir, b"new\n");
    let after = records(&dir);
    assert_eq!(after.len(), 1002);
    assert_eq!(after[..1001], shown[1000..2001], "what stays keeps its position and number");
    assert_eq!(after[1001].seq, 2001);
    check(0, run(&["verify", &dir]));
}

/// guards: L24
#[test]
fn an_lsn_that_is_no_record_is_refused_and_drops_nothing() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let shown = records(&dir);
    let (lsn, end) = (shown[1500].lsn, shown[2999].end_lsn);
    let near = lsn.to_string();
    for end in ["--before", "--after"] {
        check_error(
            2,
            &run(&["truncate", &dir, end, &(lsn + 1).to_string()]),
            &["no record boundary", &near],
        );
        check_error(2, &run(&["truncate", &dir, end, "99999999"]), &["out of range"]);
    }
    // The end of the log is a boundary, and no record starts there.
    check_error(2, &run(&["truncate", &dir, "--after", &end.to_string()]), &[]);
    // Both are checked before either is done.
    check_error(
        2,
        &run(&["truncate", &dir, "--before", &near, "--after", &(lsn + 1).to_string()]),
        &[],
    );
    check_error(
        2,
        &run(&["truncate", &dir, "--before", &near, "--after", &shown[3].lsn.to_string()]),
        &["--before"],
    );
    assert_eq!(records(&dir), shown);
}

#[test]
fn what_was_freed_is_said_or_why_nothing_was() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let shown = records(&dir);
    let (early, late) = (shown[3].lsn.to_string(), shown[2900].lsn.to_string());
    let told = text(&check(0, run(&["truncate", &dir, "--before", &early])));
    assert!(told.contains("no space freed: what was dropped shares a segment"), "{told}");
    let told = json(&check(0, run(&["truncate", &dir, "--before", &late, "--json"])));
    let freed = told["freed_bytes"].as_u64().unwrap();
    assert!(freed > 8192, "{told}");
    // A log that was not closed says that in the same line.
    let (_parent, dir) = killed_log();
    let lsn = records(&dir)[1].lsn.to_string();
    let told = text(&check(0, run(&["truncate", &dir, "--before", &lsn])));
    assert_eq!((told.lines().count(), told.contains("had not been closed")), (1, true), "{told}");
}

#[test]
fn the_beginning_is_dropped_by_number_and_by_size() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let shown = records(&dir);
    check(0, run(&["truncate", &dir, "--before-seq", "1000"]));
    assert_eq!(records(&dir), shown[1000..]);
    check_error(2, &run(&["truncate", &dir, "--before-seq", "999"]), &["out of range"]);
    check_error(2, &run(&["truncate", &dir, "--before-seq", "3001"]), &["out of range"]);
    let last = shown[2500].lsn.to_string();
    check(0, run(&["truncate", &dir, "--before-seq", "1500", "--after", &last]));
    assert_eq!(records(&dir), shown[1500..=2500]);
    // Whole segments go until the others are small enough, and the last one stays.
    let told = json(&check(0, run(&["truncate", &dir, "--keep-bytes", "30KiB", "--json"])));
    let left = records(&dir);
    assert_eq!(left, shown[2501 - left.len()..=2500]);
    assert_eq!(told["dropped_records"], 1001 - left.len());
    let size: u64 = segments(&dir).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(size <= 30 << 10 && left.len() > 300, "{size} bytes, {} records", left.len());
    check(0, run(&["truncate", &dir, "--keep-bytes", "0"]));
    assert!(!records(&dir).is_empty() && segments(&dir).len() == 1);
    // All of them by number.
    check(0, run(&["truncate", &dir, "--before-seq", "2501"]));
    assert!(records(&dir).is_empty());
    append(&dir, b"next\n");
    assert_eq!(records(&dir)[0].seq, 2501);
}

#[test]
fn what_is_old_is_dropped_above_a_floor() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let all = records(&dir);
    check(0, run(&["truncate", &dir, "--keep-age", "1h"]));
    assert_eq!(records(&dir), all, "nothing is an hour old");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    check(0, run(&["truncate", &dir, "--keep-age", "1s", "--keep-records", "500"]));
    let left = records(&dir);
    assert!(left.len() >= 500 && left.len() < 1500, "{}", left.len());
    assert_eq!(left, all[3000 - left.len()..]);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let told = json(&check(0, run(&["truncate", &dir, "--keep-age", "1s", "--json"])));
    assert_eq!((&told["head_seq"], &told["next_seq"]), (&3000.into(), &3000.into()));
    for wrong in [&["--keep-age", "soon"][..], &["--keep-records", "3"], &["--keep-age", "2y"]] {
        check_error(2, &run(&[&["truncate", &dir], wrong].concat()), &["cairn truncate"]);
    }
}

/// A dry run says what the real one then does, and changes nothing, also while a writer is there.
#[test]
fn a_dry_run_tells_what_would_be_dropped() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let shown = records(&dir);
    let lsn = |n: usize| shown[n].lsn.to_string();
    let cases: &[&[&str]] = &[
        &["--before", &lsn(800)],
        &["--keep-bytes", "60KiB"],
        &["--before-seq", "1400", "--after", &lsn(2900)],
        &["--after", &lsn(2500)],
        &["--keep-age", "1h"],
        &["--keep-bytes", "20KiB"],
        &["--keep-age", "1s", "--keep-records", "300"],
        &["--before-seq", "2501"],
    ];
    for case in cases {
        let before = snapshot(&dir);
        let args = [&["truncate", &dir, "--json"], *case].concat();
        let would = json(&check(0, run(&[&args[..], &["--dry-run"]].concat())));
        assert!(snapshot(&dir) == before, "{case:?} changed something");
        let did = json(&check(0, run(&args)));
        for key in ["head_seq", "next_seq", "dropped_records"] {
            assert_eq!(would[key], did[key], "{case:?}: {key}: {would} {did}");
        }
        assert_eq!((&would["dry_run"], &did["dry_run"]), (&true.into(), &false.into()));
        if case[0] == "--keep-bytes" {
            let gone = before.iter().filter(|(path, _)| !path.exists() && path.is_absolute());
            let gone: u64 = gone.map(|(_, (bytes, _))| bytes.len() as u64).sum();
            let freed = would["freed_bytes"].as_u64().unwrap();
            assert!((gone..gone + gone / 8).contains(&freed), "{case:?}: {would}, gone {gone}");
        }
    }
    let mut appender = Appender::start(&["append", &dir, "--ack"]);
    appender.write(b"x\n");
    appender.ack();
    let args = ["truncate", &dir, "--keep-bytes", "0", "--dry-run"];
    let said = text(&check(0, run(&args)));
    assert!(said.starts_with("would drop ") && said.contains("nothing was changed"), "{said}");
    check(0, appender.end());
    check_error(2, &run(&["truncate", &dir, "--dry-run"]), &["cairn truncate"]);
    check_error(2, &run(&["truncate", &dir, "--dry-run", "--after", "3"]), &["LSN 3"]);
}
