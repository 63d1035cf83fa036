//! A disk that fills up, by way of the limit for the size of files.

use std::process::Command;

use crate::common::*;

/// guards: L08
#[test]
fn a_full_disk_is_an_error_and_keeps_what_was_acknowledged() {
    for args in ["--ack", "--ack --each", "--ack --segment-size 256KiB", ""] {
        let (_parent, dir) = fresh();
        append(&dir, b"before\n");
        // In blocks of 512 bytes or 1 KiB, as the shell likes.
        let shell =
            format!("ulimit -f 3000; exec '{CAIRN}' append '{dir}' {args} --max-record-size 10MB");
        let mut bash = Command::new("sh");
        bash.args(["-c", &shell]);
        let mut input = Vec::new();
        for n in 0..2000 {
            input.extend(format!("{n} {}\n", "x".repeat(1000)).into_bytes());
        }
        // Larger than any file may become.
        input.extend(vec![b'y'; 5_000_000]);
        input.extend(b"\nnever\n");
        let output = feed(bash, &input);
        check_error(1, &output, &["space", "durable of this run"]);
        let acks: Vec<u64> =
            text(&output.stdout).lines().map(|line| line.parse().unwrap()).collect();
        let shown = records(&dir);
        let said = text(&output.stderr);
        assert!(
            said.contains(&format!("durable of this run: {} record", shown.len() - 1)),
            "{said}"
        );
        if args.contains("--ack") {
            assert_eq!(acks, shown[1..].iter().map(|record| record.lsn).collect::<Vec<_>>());
        }
        assert!(shown.len() > 100, "{}", shown.len());
        append(&dir, b"after\n");
        let again = records(&dir);
        assert_eq!(again[..shown.len()], shown);
        assert_eq!(again.last().unwrap().payload.as_deref(), Some("after"));
        assert_eq!(again.len(), shown.len() + 1);
        for (n, record) in shown[1..].iter().enumerate() {
            assert!(record.payload.as_ref().unwrap().starts_with(&format!("{n} x")));
        }
        check(0, run(&["verify", &dir]));
    }
}

#[test]
fn a_disk_too_full_for_a_log_leaves_none() {
    let (_parent, dir) = fresh();
    let shell = format!("ulimit -f 1; exec '{CAIRN}' append '{dir}'");
    let mut sh = Command::new("sh");
    sh.args(["-c", &shell]);
    check_error(1, &feed(sh, b"one\n"), &["space"]);
    append(&dir, b"two\n");
    assert_eq!(cat(&dir), b"two\n");
}
