//! `cairn stack`: each command, its output, its errors, and what it leaves alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use cairnlog::stack::Stack;
use tempfile::TempDir;

use crate::common::*;
use crate::system_calls::{Call, direct_files};

/// Runs `cairn stack COMMAND FILE ARGS`.
fn stack(file: &str, command: &str, args: &[&str], input: &[u8]) -> std::process::Output {
    feed(cairn(&[&["stack", command, file], args].concat()), input)
}

/// A stack that holds `bytes`, and was closed.
fn filled(bytes: &[u8]) -> (TempDir, String) {
    let (parent, file) = fresh();
    check(0, stack(&file, "push", &[], bytes));
    (parent, file)
}

/// The file's bytes and when it was changed.
pub(crate) fn state(file: &str) -> (Vec<u8>, std::time::SystemTime) {
    (std::fs::read(file).unwrap(), std::fs::metadata(file).unwrap().modified().unwrap())
}

#[track_caller]
fn holds(file: &str, bytes: &[u8]) {
    assert_eq!(check(0, stack(file, "peek", &[], b"")), bytes);
}

#[test]
fn what_is_pushed_is_read_and_popped() {
    let (_parent, file) = fresh();
    assert_eq!(check(0, stack(&file, "push", &[], b"hello, ")), b"0\n");
    assert_eq!(check(0, stack(&file, "push", &[], b"world")), b"7\n");
    let pushed = json(&check(0, stack(&file, "push", &["--form", "hex", "--json"], b"00 FF\n")));
    assert_eq!((&pushed["offset"], &pushed["len"]), (&12.into(), &2.into()));
    holds(&file, b"hello, world\x00\xff");
    assert_eq!(check(0, stack(&file, "peek", &["7"], b"")), b"world\x00\xff");
    assert_eq!(check(0, stack(&file, "peek", &["--last", "2", "--form", "hex"], b"")), b"00ff\n");
    assert_eq!(check(0, stack(&file, "peek", &["--last", "999"], b"")).len(), 14);
    assert_eq!(check(0, stack(&file, "get", &["0", "5"], b"")), b"hello");
    assert_eq!(check(0, stack(&file, "get", &["3", "3"], b"")), b"");
    let shown = json(&check(0, stack(&file, "get", &["1", "4", "--json"], b"")));
    assert_eq!(
        (&shown["offset"], &shown["len"], &shown["data"]),
        (&1.into(), &3.into(), &"ell".into())
    );
    let shown = json(&check(0, stack(&file, "peek", &["12", "--json"], b"")));
    assert_eq!((&shown["data_hex"], shown.get("data")), (&"00ff".into(), None));
    assert_eq!(
        check(0, stack(&file, "pop", &["2", "--json"], b"")),
        b"{\"offset\":12,\"len\":2,\"data_hex\":\"00ff\"}\n"
    );
    assert_eq!(check(0, stack(&file, "pop", &["8"], b"")), b"o, world", "of several pushes");
    assert_eq!(check(0, stack(&file, "pop", &["1", "--discard"], b"")), b"");
    holds(&file, b"hel");
    assert_eq!(check(0, stack(&file, "set", &["1"], b"EL")), b"");
    let set = check(0, stack(&file, "set", &["0", "--form", "hex", "--json"], b"48"));
    assert_eq!(set, b"{\"offset\":0,\"len\":1}\n");
    holds(&file, b"HEL");
    check(0, stack(&file, "verify", &[], b""));
}

#[test]
fn lines_and_pieces_are_pushes_of_their_own() {
    let (_parent, file) = fresh();
    assert_eq!(check(0, stack(&file, "push", &["--lines"], b"one\n\nthree")), b"0\n4\n5\n");
    holds(&file, b"one\n\nthree");
    let shown = check(0, stack(&file, "push", &["--chunk-size", "4B", "--json"], b"0123456789"));
    assert_eq!(text(&shown).lines().last(), Some("{\"offset\":18,\"len\":2}"));
    holds(&file, b"one\n\nthree0123456789");
    assert_eq!(check(0, stack(&file, "push", &[], b"")), b"20\n", "nothing is pushed");
    check_error(2, &stack(&file, "push", &["--chunk-size", "0B"], b"x"), &["chunk-size"]);
    holds(&file, b"one\n\nthree0123456789");
}

#[test]
fn wrong_ranges_and_input_are_refused_and_change_nothing() {
    let (_parent, file) = filled(b"abc");
    let before = std::fs::read(&file).unwrap();
    let max = u64::MAX.to_string();
    for (command, args, word) in [
        ("pop", vec!["4"], "cannot pop 4 bytes: the stack holds 3"),
        ("pop", vec!["4", "--discard"], "4 bytes: the stack holds 3"),
        ("pop", vec![&*max], "the stack holds 3"),
        ("peek", vec!["4"], "4..4 is not within the stack, which holds 3 bytes"),
        ("peek", vec![&*max], "range"),
        ("get", vec!["2", "1"], "range"),
        ("get", vec!["0", "4"], "range"),
        ("get", vec![&*max, &*max], "range"),
        ("set", vec!["3"], "range"),
        ("set", vec![&*max], "range"),
        ("set", vec!["0", "--form", "hex"], "digit"),
        ("push", vec!["--form", "hex"], "digit"),
        ("pop", vec!["-1"], "--help"),
        ("get", vec!["0"], "--help"),
    ] {
        let output = stack(&file, command, &args, b"x");
        check_error(2, &output, &[word]);
        assert!(output.stdout.is_empty());
        holds(&file, b"abc");
    }
    // Where they were refused before opening, nothing was written either.
    check_error(2, &stack(&file, "set", &["0", "--form", "hex"], b"123"), &["odd"]);
    assert_eq!(std::fs::read(&file).unwrap().len(), before.len());
}

#[test]
fn a_missing_stack_is_created_by_push_alone() {
    let (parent, file) = fresh();
    for (command, args) in [
        ("pop", vec!["0"]),
        ("peek", vec![]),
        ("get", vec!["0", "0"]),
        ("set", vec!["0"]),
        ("info", vec![]),
        ("verify", vec![]),
        ("repair", vec![]),
        ("export", vec![]),
    ] {
        check_error(1, &stack(&file, command, &args, b""), &["stack push", &file]);
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing was created");
    check_error(1, &run(&["stack", "push", "/nowhere/at/all"]), &["/nowhere/at/all"]);
    check_error(1, &run(&["stack", "peek", parent.path().to_str().unwrap()]), &[]);
    let output = run(&["stack"]);
    assert_eq!(code(&output), 2);
    for command in
        ["push", "pop", "peek", "get", "set", "info", "verify", "repair", "export", "import"]
    {
        let help = text(&check(0, run(&["stack", command, "--help"])));
        assert!(help.contains("Examples:"), "{command}");
    }
}

#[test]
fn looking_changes_nothing_and_needs_no_lock() {
    let (parent, file) = filled(b"abc");
    let open = open_stack(&file);
    open.push("def").unwrap();
    let before = state(&file);
    let names = std::fs::read_dir(parent.path()).unwrap().count();
    holds(&file, b"abcdef");
    assert_eq!(check(0, stack(&file, "export", &[], b"")), b"abcdef");
    let info = json(&check(0, stack(&file, "info", &["--json"], b"")));
    assert_eq!((&info["state"], &info["len"]), (&"unclosed".into(), &6.into()));
    let said = text(&check(0, stack(&file, "verify", &[], b"")));
    assert!(said.starts_with("intact: 6 bytes, unclosed"), "{said}");
    for command in ["push", "set"] {
        let args: &[&str] = if command == "set" { &["0"] } else { &[] };
        check_error(1, &stack(&file, command, args, b"x"), &["in use", "wait"]);
    }
    check_error(1, &stack(&file, "pop", &["1"], b""), &["in use"]);
    assert_eq!(state(&file), before);
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), names);
    open.close().unwrap();
    let info = json(&check(0, stack(&file, "info", &["--json"], b"")));
    assert_eq!((&info["state"], &info["file_bytes"]), (&"closed".into(), &131_078.into()));
    let shown = text(&check(0, stack(&file, "info", &[], b"")));
    assert!(
        shown.contains("state     closed") && shown.contains(info["uuid"].as_str().unwrap()),
        "{shown}"
    );
    assert_eq!(
        check(0, stack(&file, "verify", &["--json"], b"")),
        b"{\"state\":\"closed\",\"found\":\"both commits are whole\",\"len\":6,\"unreadable\":[]}\n"
    );
}

#[test]
fn a_torn_commit_is_told_and_dropped() {
    let (_parent, file) = filled(b"abc");
    drop(open_stack(&file)); // two slots that lead to the same state
    let stack_open = open_stack(&file);
    stack_open.push("def").unwrap();
    drop(stack_open);
    // The newest header, which says "def", is the one with the larger number.
    let bytes = std::fs::read(&file).unwrap();
    let sequence =
        |slot: usize| u64::from_le_bytes(bytes[slot * 65536 + 32..][..8].try_into().unwrap());
    let newest = usize::from(sequence(1) > sequence(0));
    flip(file.as_ref(), newest * 65536 + 200);
    let before = state(&file);
    let found = json(&check(3, stack(&file, "verify", &["--json"], b"")));
    assert_eq!((&found["state"], &found["len"]), (&"torn".into(), &3.into()));
    let what = "the newest commit is whole, the other header is torn";
    assert_eq!(found["found"], what);
    let said = text(&check(3, stack(&file, "verify", &[], b"")));
    assert!(said.starts_with("torn tail: 3 bytes") && said.contains(what), "{said}");
    let info = json(&check(0, stack(&file, "info", &["--json"], b"")));
    assert_eq!((&info["state"], &info["found"]), (&"torn".into(), &what.into()));
    assert!(text(&check(0, stack(&file, "info", &[], b""))).contains(what));
    assert_eq!(state(&file), before);
    let output = stack(&file, "push", &[], b"!");
    assert!(text(&output.stderr).contains("dropped"), "{}", text(&output.stderr));
    assert_eq!(check(0, output), b"3\n");
    holds(&file, b"abc!");
    check(0, stack(&file, "verify", &[], b""));
}

#[test]
fn damaged_foreign_and_newer_files_are_refused_with_code_4() {
    let (_parent, file) = filled(b"abc");
    let good = std::fs::read(&file).unwrap();
    let mut both = good.clone();
    both[300] ^= 1;
    both[65536 + 300] ^= 1;
    let short = good[..good.len() - 1].to_vec();
    let mut newer = good.clone();
    for slot in [0, 65536] {
        newer[slot + 8] = 3;
        let mut block = newer[slot..slot + 4096].to_vec();
        block[12..16].fill(0);
        newer[slot + 12..slot + 16].copy_from_slice(&crc32c(&block).to_le_bytes());
    }
    for (bytes, word) in [
        (both, "damaged"),
        (short, "cut short"),
        (newer, "version 3"),
        (b"something else".to_vec(), "not a Cairn stack"),
        (Vec::new(), "not a Cairn stack"),
    ] {
        std::fs::write(&file, &bytes).unwrap();
        for (command, args) in [
            ("verify", vec![]),
            ("info", vec![]),
            ("peek", vec![]),
            ("push", vec![]),
            ("pop", vec!["1"]),
            ("set", vec!["0"]),
        ] {
            check_error(4, &stack(&file, command, &args, b"x"), &[word]);
        }
        let found = stack(&file, "verify", &["--json"], b"");
        assert_eq!(json(&found.stdout)["state"], "corrupt");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
    }
}

/// CRC-32C, bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    })
}

#[test]
fn what_cannot_be_printed_stays_on_the_stack() {
    let (_parent, file) = filled(&vec![7; 3_000_000]);
    let mut child = cairn(&["stack", "pop", &file, "3000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 10]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    check_error(1, &output, &["standard output"]);
    assert_eq!(check(0, stack(&file, "export", &[], b"")).len(), 3_000_000);
    // Looking at the beginning only is no error.
    let mut child = cairn(&["stack", "peek", &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(code(&child.wait_with_output().unwrap()), 0);
}

#[test]
fn an_export_is_imported_again() {
    let mut bytes = Vec::new();
    (0..700_000u32).for_each(|n| bytes.extend(n.to_le_bytes()));
    let (parent, file) = filled(&bytes);
    let exported = check(0, stack(&file, "export", &[], b""));
    assert_eq!(exported, bytes);
    let copy = parent.path().join("copy").to_str().unwrap().to_owned();
    let output = stack(&copy, "import", &[], &exported);
    assert_eq!(
        text(&check(0, output)),
        format!("{} bytes imported from standard input\n", bytes.len())
    );
    holds(&copy, &bytes);
    assert_eq!(json(&check(0, stack(&copy, "info", &["--json"], b"")))["state"], "closed");
    // There must be none yet.
    check_error(2, &stack(&copy, "import", &[], b"x"), &["exists"]);
    holds(&copy, &bytes);
    // A stack of ours is not taken for bytes by mistake.
    let other = parent.path().join("other").to_str().unwrap().to_owned();
    check_error(2, &stack(&other, "import", &[&file], b""), &["export"]);
    let imported =
        json(&check(0, stack(&other, "import", &[&file, "--format", "raw", "--json"], b"")));
    assert_eq!(
        (&imported["len"], &imported["format"]),
        (&(131_072 + bytes.len()).into(), &"raw".into())
    );
    let empty = parent.path().join("empty").to_str().unwrap().to_owned();
    check(0, stack(&empty, "import", &[], b""));
    holds(&empty, b"");
}

#[test]
fn stacks_of_another_program_are_imported_and_not_changed() {
    let (parent, _) = fresh();
    let path = |name: &str| parent.path().join(name).to_str().unwrap().to_owned();
    let source = path("source");
    let bstk = |committed: u64, payload: &[u8]| {
        [&b"BSTK\x00\x01\x09\x00"[..], &committed.to_le_bytes(), payload].concat()
    };
    let bytes: Vec<u8> = (0..2_500_000u32).map(|n| (n % 251) as u8).collect();
    for (n, (file, expected, said)) in [
        (bstk(5, b"hello"), &b"hello"[..], None),
        (bstk(5, b"hello, and what a crash left"), b"hello", Some("left out")),
        (bstk(50, b"hello"), b"hello", Some("45 bytes shorter")),
        (bstk(u64::MAX, b"hello"), b"hello", Some("shorter")),
        (bstk(0, b""), b"", None),
        (bstk(0, b"popped"), b"", Some("6 bytes")),
        (bstk(2_500_000, &bytes), &bytes[..], None),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(&source, &file).unwrap();
        let before = state(&source);
        let target = path(&format!("target{n}"));
        let output = stack(&target, "import", &[&source, "--json"], b"");
        let note = text(&output.stderr);
        assert_eq!(said.is_some(), !note.is_empty(), "{note}");
        assert!(note.contains(said.unwrap_or_default()), "{note}");
        let imported = json(&check(0, output));
        assert_eq!(
            (&imported["len"], &imported["format"]),
            (&expected.len().into(), &"bstk".into())
        );
        holds(&target, expected);
        assert_eq!(state(&source), before);
        assert_eq!(
            check(0, stack(&target, "push", &[], b"on")),
            format!("{}\n", expected.len()).into_bytes()
        );
    }
    for (file, word) in [
        (bstk(5, b"hello")[..15].to_vec(), "ends within its header"),
        (b"BSTK\x00\x02\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00hello".to_vec(), "version 0.2"),
        (b"BSTK\x01\x01\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00hello".to_vec(), "version 1.1"),
    ] {
        std::fs::write(&source, &file).unwrap();
        let target = path("refused");
        check_error(4, &stack(&target, "import", &[&source], b""), &[word]);
        assert!(!parent.path().join("refused").exists());
    }
    std::fs::write(&source, b"plain").unwrap();
    check_error(
        4,
        &stack(&path("refused"), "import", &[&source, "--format", "bstk"], b""),
        &["BSTK"],
    );
    check_error(
        2,
        &stack(&path("refused"), "import", &[], &bstk(5, b"hello")),
        &["standard input"],
    );
    check_error(1, &stack(&path("refused"), "import", &[&path("nothing")], b""), &["nothing"]);
    // In use by its own program.
    std::fs::write(&source, bstk(5, b"hello")).unwrap();
    let held = std::fs::File::open(&source).unwrap();
    held.try_lock().unwrap();
    check_error(1, &stack(&path("refused"), "import", &[&source], b""), &["in use"]);
    drop(held);
    // In use under the target's name.
    let lock = std::fs::File::create(path("refused.lock")).unwrap();
    lock.try_lock().unwrap();
    check_error(1, &stack(&path("refused"), "import", &[&source], b""), &["in use"]);
    drop(lock);
    let left: Vec<_> = std::fs::read_dir(parent.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("import") || name == "refused")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// guards: L34
#[test]
fn what_does_not_fit_on_the_disk_is_refused_and_the_rest_goes_on() {
    let (parent, file) = filled(b"before");
    // In blocks of 512 bytes or 1 KiB, as the shell likes.
    let limited = |command: &str, input: &[u8]| {
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("ulimit -f 3000; exec '{CAIRN}' stack {command}")]);
        feed(sh, input)
    };
    let large = vec![1; 5_000_000];
    check_error(1, &limited(&format!("push '{file}'"), &large), &["space", "nothing was changed"]);
    holds(&file, b"before");
    assert_eq!(check(0, limited(&format!("push '{file}'"), b", after")), b"6\n");
    assert_eq!(check(0, limited(&format!("pop '{file}' 2"), b"")), b"er");
    holds(&file, b"before, aft");
    check(0, stack(&file, "verify", &[], b""));
    // Pieces that fit are there, each acknowledged.
    let output = limited(&format!("push '{file}' --chunk-size 100KB"), &large);
    check_error(1, &output, &["space"]);
    let acknowledged = text(&output.stdout).lines().count() as u64;
    let len = json(&check(0, stack(&file, "info", &["--json"], b"")))["len"].as_u64().unwrap();
    assert!(acknowledged > 5 && len == 11 + acknowledged * 100_000, "{acknowledged} {len}");
    let target = parent.path().join("target").to_str().unwrap().to_owned();
    check_error(1, &limited(&format!("import '{target}'"), &large), &["space"]);
    let left = |name: &str| parent.path().join(name).exists();
    assert!(!left("target") && !left("target.import") && !left("target.import.lock"));
}

/// guards: L23
#[test]
fn an_import_that_is_killed_leaves_no_stack() {
    let (parent, file) = fresh();
    let mut child = cairn(&["stack", "import", &file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![1; 20_000_000]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!std::path::Path::new(&file).exists());
    assert!(std::fs::read_dir(parent.path()).unwrap().count() > 0, "it had begun");
    assert_eq!(
        text(&check(0, stack(&file, "import", &[], b"again"))),
        "5 bytes imported from standard input\n"
    );
    holds(&file, b"again");
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2, "the stack and its lock");
}

/// guards: L27 L29
#[test]
fn acknowledged_pushes_survive_kills() {
    const KILLS: u64 = 100;
    let (_parent, file) = fresh();
    let mut dice = Dice(0x5eed_0005);
    let mut known: Vec<u8> = Vec::new();
    let (mut acknowledged, mut unacknowledged, mut torn) = (0, 0, 0);
    for kill in 0..KILLS {
        let mut child = cairn(&["stack", "push", &file, "--lines"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut feeding = Dice(dice.roll(u64::MAX));
        let line =
            move |n: u64| format!("{kill}:{n}:{}\n", "z".repeat((n * n % 6007) as usize % 3000));
        let feeder = std::thread::spawn(move || {
            for n in 0.. {
                if stdin.write_all(line(n).as_bytes()).is_err() {
                    return n + 1;
                }
                if feeding.roll(4) == 0 {
                    std::thread::sleep(Duration::from_micros(feeding.roll(300)));
                }
            }
            0
        });
        let mut acks = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told: Vec<u64> = Vec::new();
        if dice.roll(5) > 0 {
            told.push(acks.next().unwrap().unwrap().parse().unwrap());
        }
        std::thread::sleep(Duration::from_micros(dice.roll(20_000)));
        child.kill().unwrap();
        told.extend(acks.map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok()));
        child.wait().unwrap();
        let fed = feeder.join().unwrap();

        let verified = stack(&file, "verify", &[], b"");
        match code(&verified) {
            0 => {}
            3 => torn += 1,
            // Killed before there was a stack.
            1 if told.is_empty() && known.is_empty() => continue,
            other => panic!("kill {kill}: verify says {other}: {}", text(&verified.stderr)),
        }
        let found = check(0, stack(&file, "export", &[], b""));
        assert_eq!(found[..known.len()], known, "kill {kill}: what was there before");
        // Whole lines, in order, at least those acknowledged, at the offsets that were told.
        let (mut at, mut n) = (known.len(), 0);
        while at < found.len() {
            let expected = line(n);
            assert!(found[at..].starts_with(expected.as_bytes()), "kill {kill}: line {n}");
            if let Some(offset) = told.get(n as usize) {
                assert_eq!(*offset, at as u64, "kill {kill}");
            }
            at += expected.len();
            n += 1;
        }
        assert!(
            told.len() as u64 <= n && n <= fed,
            "kill {kill}: {} acknowledged, {n} there, {fed} fed",
            told.len()
        );
        acknowledged += told.len();
        unacknowledged += n - told.len() as u64;
        known = found;
        // What was there without an acknowledgement may be popped like any other, and stays popped.
        if dice.roll(3) == 0 {
            let bytes = dice.roll(known.len() as u64 + 1);
            check(0, stack(&file, "pop", &[&bytes.to_string(), "--discard"], b""));
            known.truncate(known.len() - bytes as usize);
        }
    }
    println!(
        "{KILLS} kills, {acknowledged} pushes acknowledged, {unacknowledged} more, {torn} torn"
    );
    assert!(acknowledged > KILLS as usize);
}

/// Set for the process that strace looks at: the stack to work on.
const TRACED: &str = "CAIRN_TEST_TRACED_STACK";

/// Says in the trace what comes next.
fn mark(what: &str) {
    std::io::stderr().write_all(format!("mark {what}.").as_bytes()).unwrap();
}

/// What is counted by the test after this one, in a process of its own; does nothing otherwise.
#[test]
fn one_of_each() {
    let Some(file) = std::env::var_os(TRACED) else { return };
    let stack = Stack::open(file).unwrap();
    stack.push(vec![1; 100_000]).unwrap();
    stack.push([2; 100]).unwrap();
    for round in 0..3 {
        mark("push 100 B");
        stack.push([2; 100]).unwrap();
        mark("push 4 KiB");
        stack.push([3; 4096]).unwrap();
        mark("pop");
        stack.pop(100).unwrap();
        mark("discard");
        stack.discard(100).unwrap();
        mark("set 64 B");
        stack.set(1000 * round, [4; 64]).unwrap();
        mark("set 4 KiB");
        stack.set(5000, [5; 4096]).unwrap();
        mark("zero");
        stack.zero(20_000..21_000).unwrap();
        mark("eight sets and a push");
        stack
            .transaction(|tx| {
                for n in 0..8u8 {
                    tx.set(u64::from(n) * 11_000, [n; 4096])?;
                }
                tx.push([9; 4096])
            })
            .unwrap();
        mark("get");
        stack.get(0..1000).unwrap();
        mark("peek");
        stack.peek(90_000).unwrap();
    }
    mark("end");
}

/// guards: L39 L40 L49
#[test]
fn each_change_costs_one_barrier_of_the_kernel() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let (parent, file) = fresh();
    let trace = parent.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-y",
        "-qq",
        "-e",
        "trace=desc,sync,syncfs,msync",
        "-o",
        trace.to_str().unwrap(),
    ]);
    strace.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "stack::one_of_each",
        "--nocapture",
    ]);
    let output = feed(
        {
            strace.env(TRACED, &file);
            strace
        },
        b"",
    );
    if !output.status.success() && text(&output.stderr).contains("strace:") {
        println!("skipped: strace cannot trace here: {}", text(&output.stderr));
        return;
    }
    check(0, output);
    let trace = std::fs::read_to_string(&trace).unwrap();
    let direct = direct_files(&trace);
    let calls: Vec<Call<'_>> = trace.lines().filter_map(Call::parse).collect();
    let is_mark = |call: &Call<'_>| call.rest.contains("\"mark ");
    // What other threads do ahead of time delays nobody.
    let thread = calls.iter().find(|call| is_mark(call)).unwrap().thread;
    let (mut what, mut marks) = (None, 0);
    let (mut barriers, mut writes) = (0, 0);
    for call in calls.iter().filter(|call| call.thread == thread) {
        if let Some((_, rest)) = call.rest.split_once("\"mark ") {
            if let Some(what) = what.take() {
                let reading = matches!(what, "get" | "peek");
                assert_eq!(
                    barriers,
                    usize::from(!reading),
                    "{what}: {barriers} barriers, {writes} writes"
                );
                assert_eq!(writes == 0, reading, "{what}");
                println!("{what}: {barriers} barrier, {writes} writes");
            }
            let next = rest.split('.').next().unwrap_or_default();
            (what, barriers, writes, marks) = (Some(next), 0, 0, marks + 1);
        }
        let is_write = call.name.starts_with("pwrite") && call.rest.contains(&file);
        let syncs = ["fsync", "fdatasync", "sync", "syncfs", "msync", "sync_file_range"]
            .contains(&call.name);
        // A write past the page cache is its own barrier.
        barriers +=
            usize::from(syncs || is_write && direct.iter().any(|file| call.rest.starts_with(file)));
        writes += usize::from(is_write);
        let dsync = call.rest.contains("O_DSYNC") && !call.rest.contains("O_DIRECT|");
        assert!(
            !dsync && !call.rest.contains("O_SYNC") && !call.rest.contains("RWF_"),
            "{}",
            call.rest
        );
    }
    assert_eq!(marks, 31);
}

const SLOT: usize = 65_536;
const PAYLOAD: usize = 2 * SLOT;

/// An interrupted copy: its end is missing.
#[test]
fn a_stack_that_is_cut_short_is_repaired_as_a_person_chooses() {
    for cut in [false, true] {
        let bytes: Vec<u8> = (0..9000u32).map(|n| (n % 250) as u8 + 1).collect();
        let (_parent, file) = filled(&bytes);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..PAYLOAD + 8000]).unwrap();
        check_error(4, &stack(&file, "verify", &[], b""), &["cut short", "cairn stack repair"]);
        let before = state(&file);
        let choice: &[&str] = if cut { &["--cut"] } else { &[] };
        let output = stack(&file, "repair", choice, b"");
        check_error(4, &output, &[&file, "damaged", "--apply"]);
        let shown = text(&output.stdout);
        let end = if cut { "missing   8000..9000, cut off" } else { "8000..9000, zeros instead" };
        assert!(shown.contains(end) && shown.contains("keep      commit "), "{shown}");
        let plan = json(&stack(&file, "repair", &["--json"], b"").stdout);
        assert_eq!((&plan["needed"], &plan["applied"]), (&true.into(), &false.into()));
        assert_eq!(
            (&plan["missing"]["start"], &plan["missing"]["end"]),
            (&8000.into(), &9000.into())
        );
        assert_eq!(plan["kept"]["epoch"].as_str().unwrap().len(), 18);
        assert_eq!(state(&file), before, "a plan changes nothing");

        let done = text(&check(0, stack(&file, "repair", &[choice, &["--apply"]].concat(), b"")));
        let copy = format!("{file}.before-repair");
        assert!(done.contains(&format!("repaired; what was overwritten is in {copy}")), "{done}");
        assert!(std::fs::read(&copy).unwrap() == whole[..PAYLOAD]);
        let zeros = if cut { 0 } else { 1000 };
        holds(&file, &[&bytes[..8000], &vec![0; zeros]].concat());
        check(0, stack(&file, "verify", &[], b""));
        let again = text(&check(0, stack(&file, "repair", &["--apply"], b"")));
        assert!(again.contains("nothing to repair"), "{again}");
        assert!(!std::path::Path::new(&format!("{copy}.2")).exists());
        // As the help says, the copy undoes it.
        let mut undone = std::fs::read(&file).unwrap();
        undone[..PAYLOAD].copy_from_slice(&whole[..PAYLOAD]);
        undone.truncate(PAYLOAD + 8000);
        assert!(undone == before.0);
    }
}

#[test]
fn without_a_header_repair_says_where_the_bytes_are() {
    let (_parent, file) = filled(b"these are my bytes");
    let mut bytes = std::fs::read(&file).unwrap();
    for slot in [0, SLOT] {
        bytes[slot + 100] ^= 1;
    }
    std::fs::write(&file, &bytes).unwrap();
    let before = state(&file);
    for args in [&[][..], &["--apply"]] {
        let way = format!("tail -c +131073 {file}");
        check_error(4, &stack(&file, "repair", args, b""), &["neither header", &way]);
    }
    let found = json(&stack(&file, "repair", &["--json"], b"").stdout);
    assert_eq!(found["needed"], true);
    assert_eq!(state(&file), before);
    assert_eq!(before.0[PAYLOAD..], *b"these are my bytes");
    // One header, whose commit is whole, is enough to open.
    bytes[100] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(text(&check(0, stack(&file, "repair", &[], b""))).contains("nothing to repair"));
}

/// A part of a copy that was written to comes into the original.
#[test]
fn headers_of_two_copies_are_told_and_a_person_chooses() {
    let (_parent, file) = filled(b"common");
    let copy = format!("{file}-copy");
    std::fs::copy(&file, &copy).unwrap();
    check(0, stack(&file, "push", &[], b" ours"));
    check(0, stack(&copy, "push", &[], b" theirs"));
    let mut mixed = std::fs::read(&file).unwrap();
    let theirs = std::fs::read(&copy).unwrap();
    mixed[..4096].copy_from_slice(&theirs[..4096]);
    std::fs::write(&file, &mixed).unwrap();
    let before = state(&file);
    for (command, args) in [("verify", &[][..]), ("peek", &[]), ("info", &[]), ("push", &[])] {
        let output = stack(&file, command, args, b"x");
        check_error(4, &output, &["two histories of one stack", "cairn stack repair"]);
    }
    let found = json(&stack(&file, "verify", &["--json"], b"").stdout);
    assert_eq!(found["found"], "the headers are of two histories of one stack");
    for args in [&[][..], &["--apply"]] {
        let output = stack(&file, "repair", args, b"");
        check_error(4, &output, &["two copies", "--keep newer"]);
        assert!(text(&output.stdout).contains("undecided"), "{}", text(&output.stdout));
    }
    let plan = json(&stack(&file, "repair", &["--json"], b"").stdout);
    let headers = plan["undecided"].as_array().unwrap();
    assert!(headers.len() == 2 && headers[0]["epoch"] != headers[1]["epoch"], "{plan}");
    assert_eq!(state(&file), before, "nothing was changed");
    // The header in the other slot is ours, whichever is the newer one.
    let ours = headers.iter().position(|header| header["offset"] == SLOT).unwrap();
    let keep = ["newer", "older"][ours];
    check(0, stack(&file, "repair", &["--keep", keep, "--apply"], b""));
    holds(&file, b"common ours");
    check_error(2, &stack(&file, "repair", &["--keep", "both"], b""), &["--help"]);
}
