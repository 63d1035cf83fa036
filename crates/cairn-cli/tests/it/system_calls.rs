//! What the kernel is asked to do, counted by strace.

use std::process::Command;

use crate::common::*;

/// guards: L06, L40, L47
#[test]
fn each_record_costs_one_write_and_one_barrier() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    const RECORDS: u64 = 200;
    let (parent, dir) = fresh();
    append(&dir, b"the segment is there\n");
    let trace = parent.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-e", "trace=desc", "-o", trace.to_str().unwrap()]);
    strace.args([CAIRN, "append", &dir, "--each", "--ack"]);
    let output = feed(strace, &numbers(0..RECORDS));
    if !output.status.success() && text(&output.stderr).contains("strace:") {
        eprintln!("skipped: strace cannot trace here: {}", text(&output.stderr));
        return;
    }
    let acks = text(&check(0, output)).lines().count() as u64;
    assert_eq!(acks, RECORDS);
    // Between the first and the last acknowledgement lie all but the first record, and nothing of opening and closing.
    let trace = std::fs::read_to_string(&trace).unwrap();
    let calls: Vec<(&str, &str)> = trace.lines().filter_map(call).collect();
    let acknowledged = |(name, rest): &(&str, &str)| *name == "write" && rest.starts_with("1<");
    let first = calls.iter().position(acknowledged).unwrap();
    let last = calls.iter().rposition(acknowledged).unwrap();
    let between = &calls[first + 1..last];
    let on_log = |names: &[&str]| {
        between.iter().filter(|(name, rest)| names.contains(name) && rest.contains(&dir)).count() as u64
    };
    let writes = on_log(&["write", "writev", "pwrite64", "pwritev", "pwritev2"]);
    let barriers = on_log(&["fsync", "fdatasync", "sync_file_range"]);
    assert_eq!(writes, RECORDS - 1);
    assert_eq!(barriers, RECORDS - 1);
    // Each acknowledgement comes right after a barrier of its own.
    let mut since = (0, 0);
    for (name, rest) in between {
        match *name {
            "pwritev" | "pwrite64" if rest.contains(&dir) => since.0 += 1,
            "fdatasync" => since.1 += 1,
            "write" if rest.starts_with("1<") => {
                assert_eq!(since, (1, 1));
                since = (0, 0);
            }
            _ => {}
        }
    }
    let other = on_log(&["ftruncate", "openat", "read", "pread64", "fallocate", "flock"]);
    assert_eq!(other, 0, "nothing else touches the log");
}

/// Name and arguments of a call in a trace; `None` for the second half of one that was interrupted, and for signals.
fn call(line: &str) -> Option<(&str, &str)> {
    let line = line.split_once(' ')?.1.trim_start();
    let (name, rest) = line.split_once('(')?;
    (!name.contains([' ', '<', '+', '-'])).then_some((name, rest))
}
