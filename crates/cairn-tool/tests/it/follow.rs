//! guards: L66
//!
//! `cairn cat --follow` beside truncations and crashes of the log that it follows: what it printed
//! is in the log, or it says so.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use cairnlog::{Log, Lsn};

use crate::common::*;
use crate::look::kill;

/// A follower whose process can be stopped while the log changes.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
}

impl Following {
    fn start(args: &[&str]) -> Self {
        let mut command = cairn(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = child.stderr.take().unwrap();
        Following { child, lines, errors }
    }

    #[track_caller]
    fn expect(&mut self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            assert_eq!(self.lines.next().unwrap().unwrap(), line);
        }
    }

    /// While it is stopped.
    fn stopped<T>(&self, change: impl FnOnce() -> T) -> T {
        kill(&self.child, "STOP");
        let changed = change();
        kill(&self.child, "CONT");
        changed
    }

    /// It fails with an error that says these words, and prints nothing more.
    #[track_caller]
    fn fails(mut self, words: &[&str]) {
        let rest: Vec<_> = self.lines.map(Result::unwrap).collect();
        let mut error = String::new();
        self.errors.read_to_string(&mut error).unwrap();
        assert_eq!((self.child.wait().unwrap().code(), rest), (Some(1), vec![]), "{error}");
        for word in words {
            assert!(error.contains(word), "{error} does not say {word}");
        }
    }

    #[track_caller]
    fn ends(mut self) {
        kill(&self.child, "INT");
        let rest: Vec<_> = self.lines.map(Result::unwrap).collect();
        assert_eq!((self.child.wait().unwrap().code(), rest), (Some(0), vec![]));
    }
}

fn names(prefix: &str, numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(move |n| format!("{prefix}{n}"))
}

fn commit(log: &Log, lines: impl Iterator<Item = String>) -> Vec<Lsn> {
    lines.map(|line| log.commit(line.as_bytes()).unwrap()).collect()
}

/// The positions of the new records depend on their width: the end of what was printed may be a
/// record boundary again.
#[test]
fn a_follower_says_that_what_it_printed_was_taken_back() {
    for width in [1, 33, 40, 48] {
        let (_parent, dir) = fresh();
        let log = Log::open(&dir).unwrap();
        let first = commit(&log, names("a", 0..10));
        let mut follower = Following::start(&["cat", &dir, "--follow", "--flushed"]);
        follower.expect(names("a", 0..10));
        let cut = follower.stopped(|| {
            log.truncate_after(first[2]).unwrap();
            let second = commit(&log, (0..20).map(|n| format!("b{n:0width$}")));
            log.truncate_after(second[15]).unwrap();
            log.reader(first[2]).unwrap().next().unwrap().unwrap().end_lsn()
        });
        follower.fails(&["took back", &format!("LSN {cut} "), "--from"]);
        let rest = check(0, run(&["cat", &dir, "--from", &cut.to_string()]));
        assert_eq!(text(&rest).lines().count(), 16);
    }
}

/// Far from the beginning of its segment a cut begins another one; the first record that was
/// printed is not in it.
#[test]
fn a_follower_says_so_in_a_long_segment() {
    let (_parent, dir) = fresh();
    let log = Log::open(&dir).unwrap();
    let first = commit(&log, (0..700).map(|n| format!("{n:01000}")));
    let mut follower = Following::start(&["cat", &dir, "--follow", "--flushed"]);
    follower.expect((0..700).map(|n| format!("{n:01000}")));
    let cut = follower.stopped(|| {
        log.truncate_after(first[600]).unwrap();
        commit(&log, (601..800).map(|n| format!("{:01000}", n + 1)));
        log.reader(first[600]).unwrap().next().unwrap().unwrap().end_lsn()
    });
    follower.fails(&["took back", &format!("LSN {cut} ")]);
}

#[test]
fn a_follower_goes_on_when_only_what_it_has_not_printed_is_cut() {
    let (_parent, dir) = fresh();
    let log = Log::open(&dir).unwrap();
    commit(&log, names("a", 0..5));
    let mut follower = Following::start(&["cat", &dir, "--follow", "--flushed"]);
    follower.expect(names("a", 0..5));
    follower.stopped(|| {
        let rest = commit(&log, names("a", 5..10));
        log.truncate_after(rest[1]).unwrap();
        commit(&log, names("b", 0..5));
        let rest = commit(&log, names("c", 0..5));
        log.truncate_after(rest[0]).unwrap();
    });
    follower.expect(names("a", 5..7).chain(names("b", 0..5)).chain(names("c", 0..1)));
    follower.ends();
}

#[test]
fn a_follower_says_that_records_were_dropped_before_it_printed_them() {
    let (_parent, dir) = fresh();
    let log = Log::open(&dir).unwrap();
    let first = commit(&log, names("a", 0..5));
    let mut follower = Following::start(&["cat", &dir, "--follow", "--flushed"]);
    follower.expect(names("a", 0..5));
    let end = log.reader(first[4]).unwrap().next().unwrap().unwrap().end_lsn();
    follower.stopped(|| {
        let rest = commit(&log, names("a", 5..10));
        log.truncate_before(rest[2]).unwrap();
    });
    follower.fails(&["removed records that were not read yet", &format!("LSN {end} ")]);
}

/// A recovery begins a generation as a cut does, and keeps all that was printed.
#[test]
fn a_follower_goes_on_after_a_crash() {
    for records in [10, 3000] {
        let (_parent, dir) = fresh();
        let line = |n: usize| format!("{n:0400}");
        let mut appender = Appender::start(&["append", &dir, "--ack"]);
        let lines: String = (0..records).map(|n| line(n) + "\n").collect();
        appender.write(lines.as_bytes());
        (0..records).for_each(|_| {
            appender.ack();
        });
        let mut follower = Following::start(&["cat", &dir, "--follow", "--flushed"]);
        follower.expect((0..records).map(line));
        follower.stopped(|| {
            appender.kill();
            append(&dir, line(records).as_bytes());
        });
        append(&dir, line(records + 1).as_bytes());
        follower.expect((records..records + 2).map(line));
        follower.ends();
    }
}
