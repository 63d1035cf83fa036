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
    let trace = std::fs::read_to_string(&trace).unwrap();
    let direct = direct_files(&trace);
    let calls: Vec<Call<'_>> = trace.lines().filter_map(Call::parse).collect();
    let acknowledges = |call: &Call<'_>| call.name == "write" && call.rest.starts_with("1<");
    let first = calls.iter().position(acknowledges).unwrap();
    let last = calls.iter().rposition(acknowledges).unwrap();
    // Between the first and the last acknowledgement lie all but the first record, and nothing of
    // opening and closing. What other threads prepare ahead of time delays nobody.
    let thread = calls[first].thread;
    let between: Vec<_> =
        calls[first + 1..last].iter().filter(|call| call.thread == thread).collect();
    let is_write = |call: &Call<'_>| call.name.contains("write") && call.rest.contains(&dir);
    // A write past the page cache is its own barrier.
    let is_barrier = |call: &Call<'_>| {
        let syncs = ["fsync", "fdatasync", "sync_file_range"].contains(&call.name)
            && call.rest.contains(&dir);
        syncs || (is_write(call) && direct.iter().any(|file| call.rest.starts_with(file)))
    };
    let count =
        |is: &dyn Fn(&Call<'_>) -> bool| between.iter().filter(|call| is(call)).count() as u64;
    assert_eq!((count(&is_write), count(&is_barrier)), (RECORDS - 1, RECORDS - 1));
    // Each acknowledgement comes right after a barrier of its own.
    let mut since = (0, 0);
    for call in &between {
        if acknowledges(call) {
            assert_eq!(since, (1, 1));
            since = (0, 0);
        }
        since.0 += u64::from(is_write(call));
        since.1 += u64::from(is_barrier(call));
    }
    let other = ["ftruncate", "openat", "read", "pread64", "fallocate", "flock"];
    let other = count(&|call| other.contains(&call.name) && call.rest.contains(&dir));
    assert_eq!(other, 0, "nothing else touches the log");
}

/// The descriptors of files that were opened to be written past the page cache, as arguments begin
/// with them: `5<`.
pub(crate) fn direct_files(trace: &str) -> Vec<String> {
    let mut opening = std::collections::BTreeSet::new();
    let mut files = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        if call.contains("openat(") && call.contains("O_DIRECT|") {
            opening.insert(thread);
        }
        // The result may come later, behind what other threads did meanwhile.
        if call.contains("openat")
            && let Some((_, result)) = call.rsplit_once(" = ")
            && opening.remove(thread)
            && let Some((number, _)) = result.split_once('<')
        {
            files.push(format!("{number}<"));
        }
    }
    files
}

/// A line of a trace.
pub(crate) struct Call<'a> {
    pub(crate) thread: &'a str,
    pub(crate) name: &'a str,
    /// From the first argument on.
    pub(crate) rest: &'a str,
}

impl<'a> Call<'a> {
    /// `None` for the second half of a call that was interrupted, and for signals.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let (thread, call) = line.split_once(' ')?;
        let (name, rest) = call.trim_start().split_once('(')?;
        (!name.contains([' ', '<', '+', '-'])).then_some(Call { thread, name, rest })
    }
}
