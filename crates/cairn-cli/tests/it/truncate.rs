//! Dropping records at either end.

use crate::common::*;

#[test]
fn both_ends_are_dropped_and_appending_goes_on() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let shown = records(&dir);
    let (first, last) = (shown[1000].lsn.to_string(), shown[2000].lsn.to_string());
    let range = json(&check(0, run(&["truncate", &dir, "--before", &first, "--after", &last, "--json"])));
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
        check_error(2, &run(&["truncate", &dir, end, &(lsn + 1).to_string()]), &["no record boundary", &near]);
        check_error(2, &run(&["truncate", &dir, end, "99999999"]), &["out of range"]);
    }
    // The end of the log is a boundary, and no record starts there.
    check_error(2, &run(&["truncate", &dir, "--after", &end.to_string()]), &[]);
    // Both are checked before either is done.
    check_error(2, &run(&["truncate", &dir, "--before", &near, "--after", &(lsn + 1).to_string()]), &[]);
    check_error(2, &run(&["truncate", &dir, "--before", &near, "--after", &shown[3].lsn.to_string()]), &["--before"]);
    assert_eq!(records(&dir), shown);
}
