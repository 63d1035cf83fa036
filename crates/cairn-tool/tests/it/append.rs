//! What goes in comes out, in order, once; and an acknowledgement is a promise.

use std::process::{Command, Stdio};

use crate::common::*;

#[test]
fn a_hundred_thousand_lines_come_back_byte_for_byte() {
    let (_parent, dir) = fresh();
    let input = numbers(0..100_000);
    let said = text(&check(0, feed(cairn(&["append", &dir]), &input)));
    assert!(said.starts_with("100000 records, 488890 bytes in "), "{said}");
    assert!(said.contains("last durable LSN "), "{said}");
    assert_eq!(cat(&dir), input);
    let verified = text(&check(0, run(&["verify", &dir])));
    assert!(verified.starts_with("intact: 100000 records, "), "{verified}");
    let info = json(&check(0, run(&["info", &dir, "--json"])));
    assert_eq!(info["records"], 100_000);
    assert_eq!(info["state"], "closed");
}

#[test]
fn any_bytes_may_be_in_a_line() {
    let (_parent, dir) = fresh();
    let mut input = b"\n\n\r\n\0\n\xff\xfe\n".to_vec();
    input.extend((0..=255u8).filter(|b| *b != b'\n').chain([b'\n']));
    input.extend(vec![b'x'; 700_000]);
    input.extend(b"\nlast without newline");
    append(&dir, &input);
    input.push(b'\n');
    assert_eq!(cat(&dir), input);
    let shown = records(&dir);
    assert_eq!(shown[0].payload.as_deref(), Some(""));
    assert_eq!(shown[2].payload.as_deref(), Some("\r"));
    assert_eq!(shown[4].payload_hex.as_deref(), Some("fffe"));
    assert!(shown.iter().enumerate().all(|(i, record)| record.seq == i as u64));
}

#[test]
fn no_input_is_no_record() {
    let (_parent, dir) = fresh();
    assert!(text(&check(0, feed(cairn(&["append", &dir]), b""))).starts_with("0 records"));
    assert_eq!(cat(&dir), b"");
    check(0, run(&["verify", &dir]));
}

#[test]
fn a_second_append_goes_on() {
    let (_parent, dir) = fresh();
    append(&dir, &numbers(0..1000));
    append_small(&dir, &numbers(1000..5000));
    append(&dir, &numbers(5000..5001));
    assert_eq!(cat(&dir), numbers(0..5001));
    assert!(segments(&dir).len() > 3);
    check(0, run(&["verify", &dir]));
}

#[test]
fn frames_pass_from_log_to_log_unchanged() {
    let (_parent, a) = fresh();
    let (_parent, b) = fresh();
    let mut dice = Dice(5);
    let mut frames = Vec::new();
    for n in 0..500u64 {
        let len = if n % 50 == 0 { dice.roll(300_000) } else { dice.roll(40) };
        frames.extend(u32::try_from(len).unwrap().to_le_bytes());
        frames.extend((0..len).map(|i| (i * n) as u8));
    }
    check(0, feed(cairn(&["append", &a, "--framed"]), &frames));
    let out = check(0, run(&["cat", &a, "--format", "framed"]));
    assert!(out == frames);
    check(0, feed(cairn(&["append", &b, "--framed", "--segment-size", "64KiB"]), &out));
    assert!(check(0, run(&["cat", &b, "--format", "framed"])) == frames);
}

#[test]
fn a_truncated_frame_is_an_error_after_what_was_whole() {
    let (_parent, dir) = fresh();
    let output = feed(cairn(&["append", &dir, "--framed"]), b"\x03\0\0\0one\x03\0\0\0tw");
    check_error(1, &output, &["inside frame 2", "1 record"]);
    assert_eq!(cat(&dir), b"one\n");
}

#[test]
fn a_record_over_the_limit_is_an_error_that_keeps_what_precedes_it() {
    let (_parent, dir) = fresh();
    let limited = cairn(&["append", &dir, "--max-record-size", "10"]);
    check_error(
        1,
        &feed(limited, b"short\n0123456789\nmuch too long\nnever\n"),
        &["line 3 is longer than 10 bytes", "--skip-long", "2 records"],
    );
    assert_eq!(cat(&dir), b"short\n0123456789\n");
    // A length no memory could hold is refused before any is asked for.
    let output = feed(cairn(&["append", &dir, "--framed"]), b"\xff\xff\xff\xffx");
    check_error(1, &output, &["4294967295 bytes", "--max-record-size"]);
    // An endless line does not fill the memory either.
    let limited = cairn(&["append", &dir, "--max-record-size", "100kB"]);
    check_error(1, &feed(limited, &vec![b'x'; 1 << 20]), &["longer than 100000 bytes"]);
}

#[test]
fn acknowledgements_are_the_lsns_in_order() {
    for each in [&[][..], &["--each"]] {
        let (_parent, dir) = fresh();
        let args = [&["append", &dir, "--ack"], each].concat();
        let output = feed(cairn(&args), &numbers(0..2000));
        assert!(
            text(&output.stderr).contains("2000 records"),
            "the summary is not among the acknowledgements"
        );
        let acks: Vec<u64> =
            text(&check(0, output)).lines().map(|line| line.parse().unwrap()).collect();
        let shown: Vec<u64> = records(&dir).iter().map(|record| record.lsn).collect();
        assert_eq!(acks, shown);
        assert!(acks.is_sorted_by(|a, b| a < b));
    }
}

/// guards: L39 (nothing waits for a group to fill)
#[test]
fn an_acknowledgement_comes_while_the_input_is_still_open() {
    for each in [&[][..], &["--each"]] {
        let (_parent, dir) = fresh();
        let mut appender = Appender::start(&[&["append", &dir, "--ack"], each].concat());
        for n in 0..20 {
            appender.write(format!("{n}\n").as_bytes());
            let lsn = appender.ack();
            assert_eq!(records(&dir).last().unwrap().lsn, lsn);
        }
        // The beginning of a line is no record yet.
        appender.write(b"half");
        assert_eq!(records(&dir).len(), 20);
        check(0, appender.end());
        assert_eq!(records(&dir).last().unwrap().payload.as_deref(), Some("half"));
    }
}

#[test]
fn without_acknowledgements_a_pause_makes_it_durable() {
    let (_parent, dir) = fresh();
    let mut appender = Appender::start(&["append", &dir]);
    appender.write(b"one\n");
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(cat(&dir), b"one\n");
    check(0, appender.end());
}

#[test]
fn a_summary_can_be_json() {
    let (_parent, dir) = fresh();
    let summary =
        json(&check(0, feed(cairn(&["append", &dir, "--json", "--each"]), &numbers(0..50))));
    assert_eq!(summary["records"], 50);
    assert_eq!(summary["durable_records"], 50);
    assert_eq!(summary["barriers"], 50);
    assert_eq!(summary["bytes"], 90);
    assert_eq!(summary["last_durable_lsn"], records(&dir)[49].lsn);
    assert_eq!(summary["ended_by"], "end of input");
}

/// guards: L26
#[test]
fn a_second_appender_is_told_that_the_log_is_in_use() {
    let (_parent, dir) = fresh();
    let mut first = Appender::start(&["append", &dir, "--ack"]);
    first.write(b"mine\n");
    first.ack();
    let before = settled(&dir);
    check_error(1, &feed(cairn(&["append", &dir]), b"other\n"), &["in use", &dir]);
    check_error(1, &run(&["truncate", &dir, "--before", "0"]), &["in use", &dir]);
    assert_eq!(snapshot(&dir), before);
    check(0, first.end());
    append(&dir, b"other\n");
    assert_eq!(cat(&dir), b"mine\nother\n");
}

#[test]
fn a_closed_standard_output_is_an_error_and_loses_nothing() {
    let (_parent, dir) = fresh();
    let shell = format!("'{CAIRN}' append '{dir}' --ack | head -n 1; exit ${{PIPESTATUS[0]}}");
    let mut bash = Command::new("bash");
    let output = feed(
        {
            bash.args(["-c", &shell]);
            bash
        },
        &numbers(0..200_000),
    );
    check_error(1, &output, &["standard output", "durable of this run"]);
    let shown = records(&dir);
    assert!(shown.len() >= 4096);
    assert!(shown.iter().enumerate().all(|(n, record)| record.payload == Some(n.to_string())));
}

#[test]
fn unreadable_input_is_an_error_that_keeps_what_precedes_it() {
    let (_parent, dir) = fresh();
    let mut command = cairn(&["append", &dir]);
    command.stdin(std::fs::File::open("/").unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    check_error(1, &command.output().unwrap(), &["standard input", "no record"]);
    append(&dir, b"fine\n");
}

#[test]
fn wrong_usage_is_code_2_on_one_line() {
    let (_parent, dir) = fresh();
    append(&dir, b"one\n");
    let cases: &[&[&str]] = &[
        &["append"],
        &["append", &dir, "--bogus"],
        &["append", &dir, "--segment-size", "pig"],
        &["append", &dir, "--segment-size", "1kB"],
        &["cat", &dir, "--from", "x"],
        &["cat", &dir, "--from", "1"],
        &["cat", &dir, "--from", "123456"],
        &["cat", &dir, "--from-seq", "2"],
        &["cat", &dir, "--from", "0", "--from-seq", "0"],
        &["cat", &dir, "--flushed"],
        &["truncate", &dir],
        &["truncate", &dir, "--after", "3"],
        &["frobnicate", &dir],
    ];
    for case in cases {
        check_error(2, &run(case), &[]);
    }
    check(2, run(&[]));
    for command in ["append", "cat", "info", "verify", "truncate"] {
        assert!(text(&check(0, run(&[command, "--help"]))).contains("Examples:"), "{command}");
    }
}

#[test]
fn a_log_is_not_made_without_its_parent() {
    let (parent, dir) = fresh();
    check_error(
        1,
        &feed(cairn(&["append", &format!("{dir}/deeper")]), b"x\n"),
        &["create the directory"],
    );
    let file = parent.path().join("file");
    std::fs::write(&file, "text").unwrap();
    check_error(1, &feed(cairn(&["append", file.to_str().unwrap()]), b"x\n"), &["not a file"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
}

#[test]
fn a_read_only_directory_can_be_read_and_not_appended_to() {
    use std::os::unix::fs::PermissionsExt;
    let (parent, dir) = fresh();
    append(&dir, b"one\n");
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap()
    };
    set(parent.path(), 0o755);
    for path in segments(&dir).iter().chain([&std::path::Path::new(&dir).join("LOCK")]) {
        set(path, 0o444);
    }
    set(dir.as_ref(), 0o555);
    // Permissions do not hold for root, who has to become somebody else.
    let root = std::fs::write(format!("{dir}/probe"), "").is_ok();
    let _ = std::fs::remove_file(format!("{dir}/probe"));
    let unprivileged = |args: &[&str]| {
        let mut command = Command::new(if root { "setpriv" } else { CAIRN });
        if root {
            command.args(["--reuid", "65534", "--clear-groups", CAIRN]);
        }
        command.args(args);
        command
    };
    let usable = unprivileged(&["--version"]).output().is_ok_and(|output| output.status.success());
    let before = snapshot(&dir);
    if usable {
        assert_eq!(check(0, feed(unprivileged(&["cat", &dir]), b"")), b"one\n");
        check(0, feed(unprivileged(&["verify", &dir]), b""));
        check(0, feed(unprivileged(&["info", &dir]), b""));
        check_error(
            1,
            &feed(unprivileged(&["append", &dir]), b"two\n"),
            &["Permission denied", "permissions"],
        );
    } else {
        eprintln!("skipped: root, and no setpriv with which to run as somebody else");
    }
    assert_eq!(snapshot(&dir), before);
    set(dir.as_ref(), 0o755);
}

#[test]
fn records_end_in_any_byte_that_is_named() {
    let input = b"one\ntwo\0\tthree\0";
    for (args, expected) in [
        (&["-0"][..], &["one\ntwo", "\tthree"][..]),
        (&["--null"], &["one\ntwo", "\tthree"]),
        (&["--delimiter", "\\t"], &["one\ntwo\0", "three\0"]),
        (&["--delimiter", "\\x74"], &["one\n", "wo\0\t", "hree\0"]),
        (&["--delimiter", "w"], &["one\nt", "o\0\tthree\0"]),
    ] {
        let (_parent, dir) = fresh();
        check(0, feed(cairn(&[&["append", &dir], args].concat()), input));
        let found: Vec<_> =
            records(&dir).into_iter().map(|record| record.payload.unwrap()).collect();
        assert_eq!(found, expected, "{args:?}");
    }
    let (_parent, dir) = fresh();
    for wrong in [&["--delimiter", "ab"][..], &["--delimiter", "\\x4"], &["-0", "--framed"]] {
        check_error(2, &run(&[&["append", &dir], wrong].concat()), &["cairn append"]);
    }
    assert!(!std::path::Path::new(&dir).exists());
}

#[test]
fn long_lines_are_left_out_on_request_and_named() {
    let (_parent, dir) = fresh();
    let args = ["append", &dir, "--skip-long", "--max-record-size", "4"];
    let output = feed(cairn(&args), b"one\nmuch too long\ntwo\nalso long");
    let said = text(&output.stderr);
    assert!(said.contains("2 lines longer than 4 bytes left out: 2, 4"), "{said}");
    assert!(text(&check(0, output)).starts_with("2 records"));
    assert_eq!(cat(&dir), b"one\ntwo\n");
    let summary = json(&check(0, feed(cairn(&[&args[..], &["--json"]].concat()), b"longer\nx")));
    assert_eq!((&summary["skipped_lines"], &summary["records"]), (&1.into(), &1.into()));
}

#[test]
fn a_frame_that_is_refused_is_named() {
    let (_parent, dir) = fresh();
    let args = ["append", &dir, "--framed", "--max-record-size", "8"];
    let mut input = b"\x01\0\0\0a".to_vec();
    input.extend([&[9, 0, 0, 0][..], b"123456789"].concat());
    check_error(1, &feed(cairn(&args), &input), &["frame 2 announces 9 bytes", "1 record"]);
    assert_eq!(cat(&dir), b"a\n");
}

/// guards: L26
#[test]
fn an_appender_waits_for_the_lock_on_request() {
    let (_parent, dir) = fresh();
    let mut first = Appender::start(&["append", &dir, "--ack"]);
    first.write(b"mine\n");
    first.ack();
    let mut second = Appender::start(&["append", &dir, "--wait", "--ack"]);
    second.write(b"other\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    first.write(b"mine too\n");
    first.ack();
    check(0, first.end());
    second.ack();
    let output = second.end();
    assert!(text(&output.stderr).contains("in use: waiting"), "{}", text(&output.stderr));
    check(0, output);
    assert_eq!(cat(&dir), b"mine\nmine too\nother\n");
}

#[test]
fn a_quiet_append_says_nothing_but_errors() {
    let (_parent, dir) = killed_log();
    for args in [&["append", &dir, "--quiet"][..], &["append", &dir, "-q", "--skip-long"]] {
        let output = feed(cairn(args), b"x\n");
        assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()));
        check(0, output);
    }
    let output = feed(cairn(&["append", &dir, "-q", "--max-record-size", "1"]), b"xx\n");
    check_error(1, &output, &["line 1"]);
}

/// guards: L25
#[test]
fn no_log_is_created_among_other_files_without_force() {
    let (_parent, dir) = fresh();
    std::fs::create_dir(&dir).unwrap();
    std::fs::create_dir(format!("{dir}/lost+found")).unwrap();
    std::fs::write(format!("{dir}/precious.txt"), "mine").unwrap();
    let before = snapshot_of_files(&dir);
    check_error(2, &feed(cairn(&["append", &dir]), b"x\n"), &["precious.txt", "--force"]);
    assert_eq!(snapshot_of_files(&dir), before);
    check(0, feed(cairn(&["append", &dir, "--force"]), b"x\n"));
    // Now there is a log.
    append(&dir, b"y\n");
    assert_eq!(cat(&dir), b"x\ny\n");
    // What every new file system has is in nobody's way.
    let (_parent, dir) = fresh();
    std::fs::create_dir(&dir).unwrap();
    std::fs::create_dir(format!("{dir}/lost+found")).unwrap();
    append(&dir, b"x\n");
}

fn snapshot_of_files(dir: &str) -> Vec<std::path::PathBuf> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    names
}
