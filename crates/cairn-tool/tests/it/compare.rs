//! `cairn digest` and `cairn diff`: whether logs hold the same records.

use crate::common::*;

fn digest(dir: &str, args: &[&str]) -> String {
    let found = json(&check(0, run(&[&["digest", dir, "--json"], args].concat())));
    found["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_digest_depends_on_the_records_alone() {
    let (_one, a) = fresh();
    let (_two, b) = fresh();
    append_small(&a, &numbers(0..3000));
    // One record a group, larger segments, killed in between.
    check(0, feed(cairn(&["append", &b, "--each"]), &numbers(0..100)));
    let mut killed = Appender::start(&["append", &b, "--ack"]);
    killed.write(&numbers(100..200));
    (100..200).for_each(|_| _ = killed.ack());
    killed.kill();
    append(&b, &numbers(200..3000));
    assert_eq!(digest(&a, &[]), digest(&b, &[]));
    let range = ["--from-seq", "1000", "--to-seq", "2000"];
    assert_eq!(digest(&a, &range), digest(&b, &range));
    assert_ne!(digest(&a, &range), digest(&a, &[]));
    assert_ne!(digest(&a, &["--to-seq", "2999"]), digest(&a, &[]));

    // The same by other means, as the help says.
    let shell = format!("'{CAIRN}' cat '{a}' --format framed | sha256sum");
    let output = std::process::Command::new("bash").args(["-c", &shell]).output().unwrap();
    let sum = text(&check(0, output));
    assert_eq!(sum.split_whitespace().next().unwrap(), digest(&a, &[]));
    let said = text(&check(0, run(&["digest", &a])));
    assert_eq!(
        said,
        format!("sha256:{}\n3000 records, 10890 bytes, seq 0..3000\n", digest(&a, &[]))
    );
    // Records that only together have the same bytes are others.
    let (_three, c) = fresh();
    let (_four, d) = fresh();
    append(&c, b"ab\nc\n");
    append(&d, b"a\nbc\n");
    assert_ne!(digest(&c, &[]), digest(&d, &[]));
}

#[test]
fn the_first_difference_is_told_and_what_only_one_has() {
    let (_one, a) = fresh();
    let (_two, b) = fresh();
    append_small(&a, &numbers(0..2000));
    append(&b, &numbers(0..2000));
    assert_eq!(text(&check(0, run(&["diff", &a, &b]))), "the same: 2000 records\n");
    // What only one has, at both ends.
    append(&a, b"more\n");
    check(0, run(&["truncate", &b, "--before-seq", "1"]));
    let found = json(&check(5, run(&["diff", &a, &b, "--json"])));
    let parts = serde_json::json!([
        { "first_seq": 0, "end_seq": 1 },
        { "first_seq": 2000, "end_seq": 2001 }
    ]);
    assert_eq!((&found["only_a"], found["only_b"].as_array().unwrap().len()), (&parts, 0));
    assert_eq!((&found["same"], &found["records_compared"]), (&false.into(), &1999.into()));
    check(0, run(&["diff", &a, &b, "--common"]));
    let said = text(&check(5, run(&["diff", &b, &a])));
    assert!(said.contains("only in B: seq 0..1\nonly in B: seq 2000..2001\n"), "{said}");
    // The first byte that differs.
    append(&b, b"mode\n");
    let found = json(&check(5, run(&["diff", &a, &b, "--common", "--json"])));
    let first = &found["first_difference"];
    let (in_a, in_b) = (records(&a).pop().unwrap(), records(&b).pop().unwrap());
    assert_eq!((&first["seq"], &first["byte"]), (&2000.into(), &2.into()));
    assert_eq!((&first["a_lsn"], &first["b_lsn"]), (&in_a.lsn.into(), &in_b.lsn.into()));
    assert_eq!((&first["a_len"], &first["b_len"]), (&4.into(), &4.into()));
    // Nothing in common.
    let (_three, c) = fresh();
    append(&c, b"");
    let found = json(&check(5, run(&["diff", &c, &a, "--json"])));
    assert_eq!(found["only_b"], serde_json::json!([{ "first_seq": 0, "end_seq": 2001 }]));
}

/// guards: L10
#[test]
fn a_damaged_log_has_no_digest_and_is_the_same_as_none() {
    let (_one, a) = fresh();
    let (_two, b) = fresh();
    append_small(&a, &numbers(0..3000));
    append_small(&b, &numbers(0..3000));
    let segment = segments(&a)[4].clone();
    flip(&segment, 4500);
    for args in [&["digest", &a][..], &["diff", &a, &b], &["diff", &b, &a]] {
        let output = run(args);
        check_error(4, &output, &[segment.to_str().unwrap()]);
        assert!(output.stdout.is_empty());
    }
    // What precedes the damage has one.
    assert_eq!(digest(&a, &["--to-seq", "500"]), digest(&b, &["--to-seq", "500"]));
    std::fs::remove_file(segments(&a).pop().unwrap()).unwrap();
    check_error(4, &run(&["digest", &a, "--from-seq", "1200"]), &[]);
    let (_three, missing) = fresh();
    check_error(1, &run(&["digest", &missing]), &["no log"]);
    check_error(1, &run(&["diff", &b, &missing]), &["no log"]);
}
