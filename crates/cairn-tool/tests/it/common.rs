//! Running the binary, and looking at what it leaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use cairnlog::stack::Stack;
use tempfile::TempDir;

pub(crate) const CAIRN: &str = env!("CARGO_BIN_EXE_cairn");

pub(crate) fn cairn(args: &[&str]) -> Command {
    let mut command = Command::new(CAIRN);
    command.args(args);
    command
}

/// A directory for a log that does not exist yet, and what keeps its parent alive.
pub(crate) fn fresh() -> (TempDir, String) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("log").to_str().unwrap().to_owned();
    (parent, dir)
}

/// Runs to the end with `input` on standard input.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // The command may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

pub(crate) fn run(args: &[&str]) -> Output {
    feed(cairn(args), b"")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs, checks the exit code, and returns standard output.
#[track_caller]
pub(crate) fn check(expected: i32, output: Output) -> Vec<u8> {
    assert_eq!(
        code(&output),
        expected,
        "stdout {:.300}, stderr {}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output.stdout
}

/// Checks the exit code and that there is exactly one line on standard error, which says each of
/// `words`. With `--json` it is an object.
#[track_caller]
pub(crate) fn check_error(expected: i32, output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(code(output), expected, "{said}");
    let errors: Vec<_> = said.lines().collect();
    assert_eq!(errors.len(), 1, "one line: {said:?}");
    if let Ok(object) = serde_json::from_str::<serde_json::Value>(&said) {
        let error = &object["error"];
        assert_eq!(error["exit_code"], expected, "{said}");
        assert!(error["command"].as_str().is_some_and(|name| name.starts_with("cairn")), "{said}");
        assert!(error["kind"].is_string() && error["message"].is_string(), "{said}");
    } else {
        assert!(said.starts_with("error: "), "{said:?}");
    }
    assert!(!said.contains('\x1b'), "no colour in a pipe: {said:?}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {said:?}");
    }
}

#[track_caller]
pub(crate) fn append(dir: &str, input: &[u8]) {
    check(0, feed(cairn(&["append", dir]), input));
}

/// Appends with small segments.
#[track_caller]
pub(crate) fn append_small(dir: &str, input: &[u8]) {
    check(0, feed(cairn(&["append", dir, "--segment-size", "8KiB"]), input));
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> Vec<u8> {
    range.flat_map(|n| format!("{n}\n").into_bytes()).collect()
}

#[track_caller]
pub(crate) fn cat(dir: &str) -> Vec<u8> {
    check(0, run(&["cat", dir]))
}

/// A record as `cat --json` shows it.
#[derive(Debug, serde::Deserialize, PartialEq)]
pub(crate) struct Shown {
    pub(crate) lsn: u64,
    pub(crate) end_lsn: u64,
    pub(crate) seq: u64,
    pub(crate) payload: Option<String>,
    pub(crate) payload_hex: Option<String>,
}

#[track_caller]
pub(crate) fn records(dir: &str) -> Vec<Shown> {
    parse(&check(0, run(&["cat", dir, "--json"])))
}

pub(crate) fn parse(lines: &[u8]) -> Vec<Shown> {
    text(lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
pub(crate) fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Everything in a directory: names, bytes, times of change.
pub(crate) fn snapshot(dir: &str) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let changed = entry.metadata().unwrap().modified().unwrap();
        found.insert(entry.path(), (std::fs::read(entry.path()).unwrap(), changed));
    }
    found.insert(PathBuf::new(), (Vec::new(), std::fs::metadata(dir).unwrap().modified().unwrap()));
    found
}

/// Everything in the directory of a log that is open, once its helper has prepared what is to be
/// written next.
pub(crate) fn settled(dir: &str) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    loop {
        let before = snapshot(dir);
        std::thread::sleep(Duration::from_millis(200));
        if snapshot(dir) == before {
            return before;
        }
    }
}

/// The segments' files in order of position.
pub(crate) fn segments(dir: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "cairn"));
    paths.sort();
    paths
}

pub(crate) fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// An appender that stays until it is told to end.
pub(crate) struct Appender {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    acks: Lines<BufReader<ChildStdout>>,
}

impl Appender {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = cairn(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let acks = BufReader::new(child.stdout.take().unwrap()).lines();
        Appender { child, stdin, acks }
    }

    /// Appends lines without waiting.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(lines).unwrap();
    }

    /// Waits for the next acknowledgement.
    pub(crate) fn ack(&mut self) -> u64 {
        self.acks.next().expect("an acknowledgement").unwrap().parse().unwrap()
    }

    /// All acknowledgements up to the end of the process.
    pub(crate) fn remaining_acks(&mut self) -> Vec<u64> {
        self.acks.by_ref().map_while(Result::ok).filter_map(|line| line.parse().ok()).collect()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its input and waits.
    pub(crate) fn end(mut self) -> Output {
        drop(self.stdin.take());
        self.child.wait_with_output().unwrap()
    }
}

/// A log whose writer was killed after three acknowledged groups: `one`, `two`, `three`.
pub(crate) fn killed_log() -> (TempDir, String) {
    let (parent, dir) = fresh();
    let mut appender = Appender::start(&["append", &dir, "--ack"]);
    for line in [&b"one\n"[..], b"two\n", b"three\n"] {
        appender.write(line);
        appender.ack();
    }
    appender.kill();
    (parent, dir)
}

/// A log that ends in the middle of its last group.
pub(crate) fn torn_log() -> (TempDir, String) {
    let (parent, dir) = killed_log();
    let path = segments(&dir).pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap();
    std::fs::write(&path, &bytes[..end - 2]).unwrap();
    (parent, dir)
}

/// Opens a stack that nobody uses. A process that another test has just forked has its lock, too,
/// until it becomes another program.
#[track_caller]
pub(crate) fn open_stack(file: &str) -> Stack {
    for _ in 0..10_000 {
        match Stack::open(file) {
            Err(cairnlog::stack::Error::Locked { .. }) => {
                std::thread::sleep(Duration::from_millis(1))
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("{file} is in use");
}

/// A seeded generator, for moments and sizes (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}
