//! `cat`, `info` and `verify` never create, lock or change anything.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common::*;

/// Runs every command that only looks, and checks that the directory stays as it is.
#[track_caller]
fn check_unchanged(dir: &str) {
    let before = snapshot(dir);
    let looks: &[&[&str]] = &[
        &["cat", dir],
        &["cat", dir, "--json"],
        &["info", dir],
        &["info", dir, "--json"],
        &["verify", dir],
    ];
    for args in looks {
        run(args);
        assert_eq!(snapshot(dir), before, "{args:?}");
    }
}

#[test]
fn looking_changes_nothing() {
    let (_parent, closed) = fresh();
    append_small(&closed, &numbers(0..3000));
    check_unchanged(&closed);
    std::fs::remove_file(format!("{closed}/LOCK")).unwrap();
    check_unchanged(&closed);
    check_unchanged(&killed_log().1);
    check_unchanged(&torn_log().1);
    let (_parent, live) = fresh();
    let mut appender = Appender::start(&["append", &live, "--ack"]);
    appender.write(b"one\ntwo\n");
    appender.ack();
    appender.ack();
    settled(&live);
    check_unchanged(&live);
    assert_eq!(cat(&live), b"one\ntwo\n");
    check(0, appender.end());
}

#[test]
fn looking_at_nothing_creates_nothing() {
    let (parent, dir) = fresh();
    for args in [
        &["cat", &dir][..],
        &["info", &dir],
        &["verify", &dir],
        &["truncate", &dir, "--before", "0"],
    ] {
        check_error(1, &run(args), &["no log", &dir]);
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(format!("{dir}/notes.txt"), "not a log").unwrap();
    for args in [
        &["cat", &dir][..],
        &["info", &dir],
        &["verify", &dir],
        &["truncate", &dir, "--before", "0"],
    ] {
        check_error(1, &run(args), &["no log", &dir]);
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn cat_selects() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let shown = records(&dir);
    let lsn = shown[1234].lsn.to_string();
    let end = shown[2999].end_lsn.to_string();
    let some = |args: &[&str]| text(&check(0, run(&[&["cat", &dir], args].concat())));
    assert_eq!(some(&["--from", &lsn, "--limit", "2"]), "1234\n1235\n");
    assert_eq!(some(&["--from-seq", "2998"]), "2998\n2999\n");
    assert_eq!(some(&["--from-seq", "3000"]), "");
    assert_eq!(some(&["--from", &end]), "");
    assert_eq!(some(&["--limit", "0"]), "");
    assert_eq!(some(&["--from-seq", "10", "--limit", "1", "--format", "hex"]), "3130\n");
    assert_eq!(some(&["--from-seq", "10", "--limit", "1", "--format", "framed"]), "\x02\0\0\x0010");
    assert_eq!(
        some(&["--limit", "3", "--decoder", "od -An -c | tr -d ' \\n'"]),
        "001\\0\\0\\00001\\0\\0\\01001\\0\\0\\02"
    );
    assert_eq!(some(&["--decoder", "true"]), "");
    check_error(
        1,
        &run(&["cat", &dir, "--decoder", "cat >/dev/null; exit 7"]),
        &["decoder failed", "7"],
    );
}

#[test]
fn cat_ends_where_it_is_told_and_shows_positions() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let shown = records(&dir);
    let some = |args: &[&str]| text(&check(0, run(&[&["cat", &dir], args].concat())));
    let at = |n: usize| shown[n].lsn.to_string();
    assert_eq!(some(&["--from", &at(10), "--to", &at(12)]), "10\n11\n");
    // Any position may be an end: what starts before it is printed.
    let inside = (shown[12].lsn + 1).to_string();
    assert_eq!(some(&["--from", &at(10), "--to", &inside]), "10\n11\n12\n");
    assert_eq!(some(&["--from-seq", "2998", "--to", "99999999"]), "2998\n2999\n");
    assert_eq!(some(&["--from-seq", "7", "--to-seq", "9"]), "7\n8\n");
    assert_eq!(some(&["--to-seq", "0"]), "");
    assert_eq!(some(&["--last", "2"]), "2998\n2999\n");
    assert_eq!(some(&["--last", "5", "--limit", "1"]), "2995\n");
    assert_eq!(some(&["--last", "0"]), "");
    assert_eq!(some(&["--last", "99999"]).lines().count(), 3000);
    let lsn = &shown[2999].lsn;
    assert_eq!(some(&["--last", "1", "--with-lsn"]), format!("{lsn}\t2999\n"));
    let hex = some(&["--last", "1", "--with-lsn", "--format", "hex"]);
    assert_eq!(hex, format!("{lsn}\t32393939\n"));
    for wrong in [
        &["--last", "1", "--from-seq", "0"][..],
        &["--to", "1", "--to-seq", "1"],
        &["--with-lsn", "--format", "framed"],
        &["--with-lsn", "--json"],
    ] {
        check_error(2, &run(&[&["cat", &dir], wrong].concat()), &["cairn cat"]);
    }
    // Behind a truncation the last ones are those that are left.
    check(0, run(&["truncate", &dir, "--before", &at(2990)]));
    assert_eq!(some(&["--last", "5000"]).lines().count(), 10);
}

#[test]
fn info_is_brief_or_counts_everything() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let found = json(&check(0, run(&["info", &dir, "--stats", "--json"])));
    let stats = &found["stats"];
    assert_eq!(stats["records"], 3000);
    assert_eq!(stats["payload_bytes"].as_u64().unwrap() as usize, numbers(0..3000).len() - 3000);
    let sizes = &stats["record_bytes"];
    let [min, p50, p99, max] = ["min", "p50", "p99", "max"].map(|name| sizes[name].as_u64());
    assert_eq!([min, p50, p99, max], [Some(1), Some(4), Some(4), Some(4)]);
    // Each of the segments but the last is sealed, and the close is a mark.
    let segments = found["segments"].as_array().unwrap().len() as u64;
    assert_eq!((&stats["seals"], &stats["marks"]), (&(segments - 1).into(), &1.into()));
    assert!(stats["groups"].as_u64().unwrap() >= segments, "{stats}");
    let overhead = stats["overhead"].as_f64().unwrap();
    let log_bytes = found["end_lsn"].as_u64().unwrap() as f64;
    let payload = stats["payload_bytes"].as_u64().unwrap() as f64;
    assert!((overhead - (1.0 - payload / log_bytes)).abs() < 1e-9, "{stats}");
    assert!(stats["records_per_second"].as_f64().unwrap() > 0.0, "{stats}");
    let said = text(&check(0, run(&["info", &dir, "--stats"])));
    for words in ["record bytes", "groups", "in a group", "overhead", "rate"] {
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
    let brief = text(&check(0, run(&["info", &dir, "--brief"])));
    assert!(brief.starts_with(&format!("{dir}: closed, 3000 records, seq 0..3000, LSN 0..")));
    assert_eq!(brief.lines().count(), 1);
    // Of a log that was truncated inside of a segment, what is still in the files is counted.
    let (_parent, dir) = fresh();
    append(&dir, b"");
    let stats = json(&check(0, run(&["info", &dir, "--stats", "--json"])))["stats"].clone();
    assert_eq!((&stats["records"], stats["record_bytes"].is_null()), (&0.into(), true));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (_parent, dir) = fresh();
    append(&dir, &numbers(0..200_000));
    for args in ["", "--json", "--decoder cat"] {
        let shell = format!("'{CAIRN}' cat '{dir}' {args} | head -n 1; exit ${{PIPESTATUS[0]}}");
        let output = Command::new("bash").args(["-c", &shell]).output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args}");
        assert_eq!(text(&check(0, output)).lines().count(), 1);
    }
}

#[test]
fn cat_shows_a_prefix_while_another_process_appends() {
    let (_parent, dir) = fresh();
    let mut appender = Appender::start(&["append", &dir, "--ack", "--segment-size", "16KiB"]);
    let mut stdin = appender.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        use std::io::Write as _;
        for n in 0..400 {
            stdin.write_all(&numbers(n * 50..(n + 1) * 50)).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    appender.ack();
    let mut seen = 0;
    while !feeder.is_finished() {
        let shown = parse(&check(0, run(&["cat", &dir, "--json"])));
        assert!(shown.len() >= seen, "{} after {seen}", shown.len());
        assert!(shown.iter().enumerate().all(|(n, record)| record.payload == Some(n.to_string())));
        seen = shown.len();
        let verified = run(&["verify", &dir]);
        assert!([0, 3].contains(&code(&verified)), "{}", text(&verified.stderr));
        check(0, run(&["info", &dir]));
    }
    feeder.join().unwrap();
    let acks = appender.remaining_acks();
    check(0, appender.end());
    assert_eq!(acks.len() + 1, 20_000);
    assert_eq!(cat(&dir), numbers(0..20_000));
}

/// guards: L11 (a look that meets a write half done)
#[test]
fn a_log_that_is_being_written_to_is_never_called_damaged() {
    for mode in [&["--each"][..], &["--ack", "--segment-size", "256KiB"]] {
        let (_parent, dir) = fresh();
        append(&dir, b"0\n");
        let mut command = cairn(&[&["append", &dir], mode].concat());
        let mut appender = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = appender.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            use std::io::Write as _;
            while stdin.write_all(&numbers(0..100)).is_ok() {}
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            for command in ["verify", "info", "cat"] {
                let output = run(&[command, &dir]);
                assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""), "{command}");
            }
        }
        kill(&appender, "TERM");
        assert_eq!(appender.wait().unwrap().code(), Some(0));
        feeder.join().unwrap();
        check(0, run(&["verify", &dir]));
    }
}

/// guards: L09 (a follower sees nothing that is not durable)
#[test]
fn a_follower_sees_new_records_once_they_are_proven_durable() {
    let (_parent, dir) = fresh();
    let mut appender = Appender::start(&["append", &dir, "--ack", "--segment-size", "8KiB"]);
    appender.write(b"0\n");
    appender.ack();
    let mut follower = cairn(&["cat", &dir, "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let (sender, shown) = mpsc::channel();
    let reading =
        std::thread::spawn(move || lines.for_each(|line| sender.send(line.unwrap()).unwrap()));
    for n in 1..=500 {
        appender.write(format!("{n}\n").as_bytes());
        appender.ack();
    }
    for n in 0..500 {
        assert_eq!(shown.recv_timeout(Duration::from_secs(5)).unwrap(), n.to_string());
    }
    // The proof for the last group is not written yet.
    assert!(shown.recv_timeout(Duration::from_millis(500)).is_err());
    check(0, appender.end());
    assert_eq!(shown.recv_timeout(Duration::from_secs(5)).unwrap(), "500");
    // It goes on in the next run, also after a pause that was long enough to stop looking closely.
    std::thread::sleep(Duration::from_millis(2500));
    append(&dir, b"501\n");
    assert_eq!(shown.recv_timeout(Duration::from_secs(5)).unwrap(), "501");
    kill(&follower, "INT");
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    reading.join().unwrap();
    assert!(shown.recv().is_err());
}

/// guards: L09
#[test]
fn a_follower_says_once_that_records_are_withheld() {
    // Its writer was killed: nothing proves the last record, and nothing will.
    let (_parent, dir) = killed_log();
    let mut follower = cairn(&["cat", &dir, "--follow"]);
    let follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(4500));
    kill(&follower, "INT");
    let output = follower.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!((said.matches("withheld").count(), said.lines().count()), (1, 1), "{said}");
    assert!(said.starts_with("note: ") && said.contains("--flushed"), "{said}");
    assert_eq!(check(0, output), b"one\ntwo\n");
    // One that does not wait for the proof withholds nothing.
    let args = ["cat", &dir, "--follow", "--flushed", "--limit", "3"];
    let output = run(&args);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(check(0, output), b"one\ntwo\nthree\n");
}

#[test]
fn a_follower_of_flushed_records_does_not_wait_for_the_proof() {
    let (_parent, dir) = fresh();
    let mut appender = Appender::start(&["append", &dir, "--ack"]);
    appender.write(b"first\n");
    appender.ack();
    let mut follower = cairn(&["cat", &dir, "--follow", "--flushed", "--limit", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    appender.write(b"second\n");
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    check(0, appender.end());
}

#[test]
fn a_follower_ends_when_nobody_reads_it() {
    let (_parent, dir) = fresh();
    append(&dir, b"one\n");
    let mut follower = cairn(&["cat", &dir, "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = follower.stdout.take().unwrap();
    let mut line = [0; 4];
    stdout.read_exact(&mut line).unwrap();
    drop(stdout);
    let dropped = Instant::now();
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    assert!(dropped.elapsed() < Duration::from_secs(5));
}

pub(crate) fn kill(child: &std::process::Child, signal: &str) {
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}
