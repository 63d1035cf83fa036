//! `cairn heap`: each command, its output, its errors, and that it leaves the file alone.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairnlog::heap::{
    Block, FreeRuns, Heap, Linear, Place, Policy, PolicyId, Result, SizeClass, Slab,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::*;
use crate::stack::{crc32c, state};

/// Where a stack's bytes begin in its file, and the arena in those of a heap's.
const PAYLOAD: usize = 131_072;
const ARENA: usize = 2304;
const RUN_HEADER: u64 = 32;

/// Runs `cairn heap COMMAND FILE ARGS`.
fn heap(command: &str, file: &str, args: &[&str]) -> std::process::Output {
    run(&[&["heap", command, file], args].concat())
}

/// Each line as JSON.
#[track_caller]
fn lines(output: std::process::Output) -> Vec<Value> {
    text(&check(0, output)).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A heap that was closed: blocks of 10, 100 and 5 bytes, 64 bytes of free space before the second
/// one, which root 0 names; root 31 names the last one.
fn filled(policy: impl Policy + 'static) -> (TempDir, String, [Block; 3]) {
    let (parent, file) = fresh();
    let heap = Heap::open(open_stack(&file), policy).unwrap();
    let first = heap.alloc_with([b'k'; 10]).unwrap();
    let gone = heap.alloc_with([b'm'; 64]).unwrap();
    let second = heap.alloc_with([b'w'; 100]).unwrap();
    let third = heap.alloc_with("fffff").unwrap();
    heap.dealloc(gone).unwrap();
    heap.set_root(0, second).unwrap();
    heap.set_root(31, third).unwrap();
    heap.set_user_area(1, [0xAB]).unwrap();
    heap.close().unwrap();
    (parent, file, [first, second, third])
}

/// A policy that the tool does not know.
#[derive(Debug)]
struct Own;

impl Policy for Own {
    fn id(&self) -> PolicyId {
        PolicyId::Custom { number: 0x8000_0abc, parameter: 77 }
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
        SizeClass.place(run_len, free)
    }
}

fn policies() -> [(Box<dyn Policy>, &'static str); 4] {
    [
        (Box::new(Slab { block_size: 64 }), "slab"),
        (Box::new(Linear), "linear"),
        (Box::new(SizeClass), "size-class"),
        (Box::new(Own), "custom"),
    ]
}

#[test]
fn what_is_in_a_heap_is_shown_as_the_library_has_it() {
    for (policy, name) in policies() {
        let (_parent, file, blocks) = filled(policy);
        let before = state(&file);
        let info = json(&check(0, heap("info", &file, &["--json"])));
        let dumped = lines(heap("dump", &file, &["--json"]));
        let roots = lines(heap("roots", &file, &["--json"]));
        let found = json(&check(0, heap("check", &file, &["--json"])));
        let shown = text(&check(0, heap("info", &file, &[])));
        let said = text(&check(0, heap("check", &file, &[])));
        let listed = text(&check(0, heap("dump", &file, &[])));
        let named = text(&check(0, heap("roots", &file, &[])));
        assert_eq!(state(&file), before);

        let heap_open = Heap::attach(open_stack(&file)).unwrap();
        let (stats, report) = (heap_open.stats().unwrap(), heap_open.check().unwrap());
        assert_eq!(info["policy"], name);
        let block_size = if name == "slab" { json!(64) } else { Value::Null };
        assert_eq!((&info["block_size"], &info["state"]), (&block_size, &json!("closed")));
        assert_eq!(
            (&info["len"], &info["live_blocks"], &info["live_bytes"]),
            (&json!(stats.len), &json!(3), &json!(115))
        );
        assert_eq!(
            (&info["free_runs"], &info["free_bytes"]),
            (&json!(1), &json!(stats.free_bytes))
        );
        assert_eq!(
            (&info["largest_free"], &info["fragmentation"]),
            (&info["free_bytes"], &json!(0.0))
        );
        assert_eq!(info["overhead_bytes"], json!(stats.overhead_bytes));
        assert_eq!(info["roots_in_use"], json!([0, 31]));
        assert_eq!(info["user_area_hex"], format!("00ab{}", "00".repeat(62)));
        for line in [
            format!("policy         {name}"),
            "roots          2 of 32 in use: 0, 31".into(),
            "3 blocks".into(),
        ] {
            assert!(shown.contains(&line), "{shown}");
        }
        assert_eq!(shown.contains("blocks of 64 bytes"), name == "slab");
        let custom = (info["policy_number"].as_u64(), info["policy_parameter"].as_str());
        let own = name == "custom";
        assert_eq!(
            custom,
            if own { (Some(0x8000_0abc), Some("0x000000000000004d")) } else { (None, None) }
        );
        assert_eq!(shown.contains("custom, number 0x80000abc, parameter 77"), own);

        let tag = |block: &Block| (block.to_raw() >> 64) as u64;
        let firsts = ["6b".repeat(10), "77".repeat(16), "66".repeat(5)];
        for ((block, dumped), first) in blocks.iter().zip(&dumped).zip(&firsts) {
            let expected = json!({
                "start": block.start(),
                "len": block.len(),
                "tag": format!("{:#018x}", tag(block)),
                "first_hex": first,
            });
            assert_eq!(*dumped, expected);
        }
        let line = |(block, first): (&Block, &String)| {
            let more = if block.len() > 16 { "..." } else { "" };
            format!("{} {} {} {first}{more}\n", block.start(), block.len(), tag(block))
        };
        assert_eq!(listed, blocks.iter().zip(&firsts).map(line).collect::<String>());
        assert_eq!(text(&check(0, heap("dump", &file, &["--limit", "1"]))).lines().count(), 1);
        assert_eq!(text(&check(0, heap("dump", &file, &["--limit", "0"]))), "");

        for ((root, block), shown) in [(0, blocks[1]), (31, blocks[2])].into_iter().zip(&roots) {
            let handle = format!("{:#034x}", block.to_raw());
            assert!(
                named.contains(&format!("root {root:<2}  {handle}  start {}", block.start())),
                "{named}"
            );
            assert_eq!(
                *shown,
                json!({"root": root, "handle": handle, "start": block.start(), "len": block.len()})
            );
        }
        assert_eq!((roots.len(), named.lines().count()), (2, 2));

        assert!(
            report.is_sound()
                && said.starts_with("intact: 3 blocks, ")
                && said.ends_with("; closed\n"),
            "{said}"
        );
        assert_eq!((&found["state"], &found["violations"]), (&json!("closed"), &json!([])));
        for (name, value) in [
            ("len", report.len),
            ("header_bytes", report.header_bytes),
            ("allocated_bytes", report.allocated_bytes),
            ("free_bytes", report.free_bytes),
            ("lost_bytes", 0),
            ("live_blocks", 3),
            ("live_bytes", 115),
            ("free_runs", 1),
            ("largest_free", report.largest_free),
        ] {
            assert_eq!(found[name], json!(value), "{name}");
        }
    }
}

#[test]
fn an_empty_heap_has_nothing_to_show() {
    let (_parent, file) = fresh();
    Heap::open(open_stack(&file), SizeClass).unwrap().close().unwrap();
    assert_eq!(check(0, heap("dump", &file, &[])), b"");
    assert_eq!(check(0, heap("roots", &file, &[])), b"");
    assert!(text(&check(0, heap("info", &file, &[]))).contains("0 of 32 in use\n"));
    assert!(text(&check(0, heap("check", &file, &[]))).starts_with("intact: 0 blocks, 2304 bytes"));
}

/// Of an open heap, what its newest transaction left is shown, though the file does not have it
/// where it belongs yet.
#[test]
fn looking_needs_no_lock_and_changes_nothing() {
    let (parent, file, blocks) = filled(SizeClass);
    let open = Heap::open(open_stack(&file), SizeClass).unwrap();
    open.write(blocks[0], "changed").unwrap();
    let new = open
        .transaction(|tx| {
            tx.dealloc(blocks[1])?;
            let new = tx.alloc_with("new")?;
            tx.set_root(0, new)?;
            Ok::<_, cairnlog::heap::Error>(new)
        })
        .unwrap();
    let before = snapshot(parent.path().to_str().unwrap());
    for command in ["info", "check", "roots", "dump"] {
        check(0, heap(command, &file, &[]));
        check(0, heap(command, &file, &["--json"]));
    }
    assert_eq!(json(&check(0, heap("info", &file, &["--json"])))["state"], "unclosed");
    assert_eq!(lines(heap("roots", &file, &["--json"]))[0]["start"], new.start());
    let dumped = lines(heap("dump", &file, &["--json"]));
    assert_eq!(dumped.len(), 3);
    assert_eq!(dumped[0]["first_hex"], "6368616e6765646b6b6b");
    assert!(dumped.iter().any(|block| block["first_hex"] == "6e6577"));
    assert_eq!(snapshot(parent.path().to_str().unwrap()), before);
    // And the heap goes on.
    open.dealloc(blocks[0]).unwrap();
    open.close().unwrap();
    check(0, heap("check", &file, &[]));
}

/// Ends the writer, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whatever a writer does meanwhile, no look finds a heap that never was.
#[test]
fn a_heap_in_use_is_never_taken_for_a_damaged_one() {
    let (_parent, file) = fresh();
    let open = Heap::open(open_stack(&file), SizeClass).unwrap();
    // Long enough a walk for changes to take place before, at, and behind where it is.
    let len = |n: u64| n * n % 3001 + 1;
    let allocated =
        open.transaction(|tx| (0..3000).map(|n| tx.alloc(len(n))).collect::<Result<_>>());
    let mut blocks: Vec<Block> = allocated.unwrap();
    let done = AtomicBool::new(false);
    let mut looks = [0, 0];
    std::thread::scope(|scope| {
        let end = End(&done);
        let writer = scope.spawn(|| {
            let mut dice = Dice(0x5eed_0006);
            while !done.load(Ordering::Relaxed) {
                for _ in 0..dice.roll(200) {
                    let block = dice.roll(blocks.len() as u64) as usize;
                    blocks[block] = open.realloc(blocks[block], len(dice.roll(3000))).unwrap();
                }
                std::thread::sleep(Duration::from_millis(dice.roll(60)));
            }
        });
        for round in 0..40 {
            let command = ["check", "dump", "info", "roots"][round % 4];
            let output = heap(command, &file, &[]);
            match code(&output) {
                0 => looks[0] += 1,
                1 => looks[1] += 1,
                other => {
                    panic!("{command}: {other}: {}{}", text(&output.stdout), text(&output.stderr))
                }
            }
            if code(&output) == 1 {
                check_error(1, &output, &["changes all the while"]);
            }
        }
        drop(end);
        writer.join().unwrap();
    });
    println!("{} looks, {} more that found no quiet moment", looks[0], looks[1]);
    assert!(looks[0] > 0);
    open.close().unwrap();
    check(0, heap("check", &file, &[]));
}

#[test]
fn a_torn_commit_is_told_and_what_precedes_it_shown() {
    let (_parent, file, blocks) = filled(SizeClass);
    let open = Heap::open(open_stack(&file), SizeClass).unwrap();
    open.set_root(5, blocks[0]).unwrap();
    open.set_root(6, blocks[0]).unwrap();
    drop(open);
    // The newest header, which has root 6, is the one with the larger number.
    let bytes = std::fs::read(&file).unwrap();
    let sequence =
        |slot: usize| u64::from_le_bytes(bytes[slot * 65536 + 32..][..8].try_into().unwrap());
    let newest = usize::from(sequence(1) > sequence(0));
    flip(file.as_ref(), newest * 65536 + 200);
    let before = state(&file);
    assert!(text(&check(3, heap("check", &file, &[]))).starts_with("torn tail: 3 blocks"));
    assert_eq!(json(&check(3, heap("check", &file, &["--json"])))["state"], "torn");
    let info = json(&check(0, heap("info", &file, &["--json"])));
    assert_eq!((&info["state"], &info["roots_in_use"]), (&json!("torn"), &json!([0, 5, 31])));
    assert_eq!(lines(heap("roots", &file, &["--json"])).len(), 3);
    assert_eq!(state(&file), before);
}

/// Changes bytes of the heap in its file, which was closed.
fn spoil(file: &str, at: u64, change: impl Fn(&mut [u8])) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes[PAYLOAD + at as usize..]);
    std::fs::write(file, bytes).unwrap();
}

/// The header of a heap, with its checksum made right.
fn reseal(header: &mut [u8]) {
    let header = &mut header[..ARENA];
    header[112..116].fill(0);
    let covered = [&header[32..40], &header[64..]].concat();
    let crc = crc32c(&covered);
    header[112..116].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn all_damage_of_an_arena_is_listed_with_its_place() {
    let (_parent, file, blocks) = filled(SizeClass);
    // An opening does the last two commits again, damage or not; these are now of opening and
    // closing, and say nothing.
    open_stack(&file).close().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let run_of = |block: &Block| block.start() - RUN_HEADER;

    // The headers of two blocks, one of which a root names.
    spoil(&file, run_of(&blocks[0]) + 8, |bytes| bytes[0] ^= 1);
    spoil(&file, run_of(&blocks[1]) + 8, |bytes| bytes[0] ^= 1);
    let before = state(&file);
    let output = heap("check", &file, &["--json"]);
    check_error(4, &output, &["heap check", &file, "the first at offset", "copy the file"]);
    let found = json(&output.stdout);
    assert_eq!(found["state"], "corrupt");
    let violations = found["violations"].as_array().unwrap();
    let offsets: Vec<_> =
        violations.iter().map(|violation| violation["offset"].as_u64().unwrap()).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
    // The two runs, the root that names one of them, and the counters; nothing of the third block
    // and its root.
    assert_eq!(offsets, [80, 88, 256, run_of(&blocks[0]), run_of(&blocks[1])], "{violations:?}");
    let (kinds, len) =
        (["header_bytes", "allocated_bytes", "free_bytes", "lost_bytes"], &found["len"]);
    assert_eq!(
        kinds.iter().map(|kind| found[*kind].as_u64().unwrap()).sum::<u64>(),
        len.as_u64().unwrap()
    );
    assert!(found["lost_bytes"].as_u64().unwrap() > 0);
    let output = heap("check", &file, &[]);
    let said = text(&output.stdout);
    assert!(said.starts_with("corrupt: 1 block, ") && said.contains(" lost; "), "{said}");
    assert_eq!(said.lines().count(), 1 + violations.len());
    assert!(said.contains(&format!("\n  offset {}: ", run_of(&blocks[1]))), "{said}");
    check_error(4, &output, &[]);
    check_error(
        4,
        &heap("dump", &file, &[]),
        &["damaged at offset", &run_of(&blocks[0]).to_string()],
    );
    check_error(4, &heap("roots", &file, &[]), &["root 0", &blocks[1].start().to_string()]);
    check_error(4, &heap("info", &file, &[]), &["root 0"]);
    assert_eq!(state(&file), before);

    // A root that names nothing that lives, in a header that is whole otherwise.
    std::fs::write(&file, &whole).unwrap();
    spoil(&file, 0, |header| {
        header[400] = 0x30; // root 9
        reseal(header);
    });
    check_error(4, &heap("check", &file, &[]), &["1 violation", "offset 400: "]);
    check_error(4, &heap("roots", &file, &["--json"]), &["root 9"]);

    // A counter.
    std::fs::write(&file, &whole).unwrap();
    spoil(&file, 0, |header| {
        header[80] += 1;
        reseal(header);
    });
    check_error(4, &heap("check", &file, &[]), &["1 violation", "offset 80: "]);

    // The header's checksums.
    for (at, place, word) in [(80, "offset 64", "checksum"), (33, "offset 0", "checksum")] {
        std::fs::write(&file, &whole).unwrap();
        spoil(&file, at, |header| header[0] ^= 1);
        for command in ["info", "check", "roots", "dump"] {
            check_error(4, &heap(command, &file, &[]), &[place, word, &file]);
        }
        let found = json(&heap("check", &file, &["--json"]).stdout);
        assert_eq!(found["state"], "corrupt");
        assert!(found["violations"][0]["what"].as_str().unwrap().contains(word));
        // Without the fixed part nothing else can be checked; otherwise the rest is listed, too.
        assert_eq!(found["problem"].is_object(), at == 33);
        assert_eq!(found["violations"].as_array().unwrap().len(), if at == 33 { 1 } else { 2 });
    }

    // What is in blocks has no checksum: nobody can tell.
    std::fs::write(&file, &whole).unwrap();
    spoil(&file, blocks[0].start(), |bytes| bytes[0] ^= 1);
    check(0, heap("check", &file, &[]));
}

/// guards: L21
///
/// Another program writes to the stack below a heap. All commands say where, and the one that they
/// name puts it right.
#[test]
fn stray_bytes_in_the_stack_are_named_and_can_be_removed() {
    for len in [1, 16, 5000] {
        let (_parent, file, blocks) = filled(SizeClass);
        let stack = open_stack(&file);
        let end = stack.len();
        stack.push(vec![0x5a; len]).unwrap();
        stack.close().unwrap();
        let before = state(&file);
        let pop = format!("cairn stack pop {file} {len}");
        for command in ["info", "roots", "dump"] {
            let (offset, more) = (format!("offset {end}"), format!("{len} stray bytes"));
            check_error(4, &heap(command, &file, &[]), &[&offset, &more, &pop]);
        }
        check_error(4, &heap("check", &file, &[]), &[&format!("offset {end}: the heap ends here")]);
        let output = heap("check", &file, &["--json"]);
        let found = json(&output.stdout);
        assert_eq!((&found["state"], &found["lost_bytes"]), (&json!("corrupt"), &json!(len)));
        assert_eq!(found["violations"][0]["offset"], json!(end));
        assert_eq!(state(&file), before);
        assert_eq!(check(0, run(&["stack", "pop", &file, &len.to_string()])), vec![0x5a; len]);
        check(0, heap("check", &file, &[]));
        let open = Heap::attach(open_stack(&file)).unwrap();
        assert_eq!(open.root(0).unwrap(), blocks[1]);
    }
    // A stack that was cut.
    let (_parent, file, blocks) = filled(SizeClass);
    let stack = open_stack(&file);
    stack.discard(1).unwrap();
    stack.close().unwrap();
    let offset = format!("offset {}", blocks[2].start() - RUN_HEADER);
    for command in ["info", "roots", "dump"] {
        let words = [&*offset, "the stack ends within this run"];
        check_error(4, &heap(command, &file, &[]), &words);
    }
    let output = heap("check", &file, &["--json"]);
    let found = json(&output.stdout);
    let violations = found["violations"].as_array().unwrap();
    let cut = violations.iter().find(|wrong| wrong["what"] == "the stack ends within this run");
    assert_eq!(cut.unwrap()["offset"], json!(blocks[2].start() - RUN_HEADER));
    check_error(4, &output, &[&file]);
}

#[test]
fn foreign_newer_and_truncated_files_are_refused_with_code_4() {
    let (_parent, file, _) = filled(SizeClass);
    open_stack(&file).close().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let mut newer = whole.clone();
    let header = &mut newer[PAYLOAD..PAYLOAD + ARENA];
    header[8] = 2;
    header[12..16].fill(0);
    let crc = crc32c(&header[..64]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    let (parent, stack) = fresh();
    open_stack(&stack).close().unwrap();
    let empty_stack = std::fs::read(&stack).unwrap();
    let pushed = open_stack(&stack);
    pushed.push(vec![7; 5000]).unwrap();
    pushed.close().unwrap();
    let other_stack = std::fs::read(&stack).unwrap();
    drop(parent);
    for (bytes, word) in [
        (b"something else".to_vec(), "not a Cairn stack"),
        (Vec::new(), "not a Cairn stack"),
        (empty_stack, "no Cairn heap"),
        (other_stack, "no Cairn heap"),
        (newer, "version 2"),
        (whole[..whole.len() - 1].to_vec(), "cut short"),
        (whole[..PAYLOAD + 100].to_vec(), "cut short"),
        (whole[..70_000].to_vec(), "damaged"),
    ] {
        std::fs::write(&file, &bytes).unwrap();
        for command in ["info", "check", "roots", "dump"] {
            for args in [&[][..], &["--json"]] {
                let output = heap(command, &file, args);
                check_error(4, &output, &[&format!("cairn heap {command}"), word, &file]);
                if (command, args.len()) == ("check", 1) {
                    assert_eq!(json(&output.stdout)["state"], "corrupt");
                } else {
                    assert!(output.stdout.is_empty() || command == "check");
                }
            }
        }
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
    }
}

#[test]
fn nothing_is_created_where_no_heap_is() {
    let (parent, file) = fresh();
    for command in ["info", "check", "roots", "dump", "repair"] {
        let output = heap(command, &file, &[]);
        check_error(1, &output, &[&file, "check the path"]);
        assert!(output.stdout.is_empty());
        check_error(1, &heap(command, parent.path().to_str().unwrap(), &[]), &["name a file"]);
        check_error(2, &run(&["heap", command]), &["--help"]);
        let help = text(&check(0, run(&["heap", command, "--help"])));
        assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{command}");
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    assert_eq!(code(&run(&["heap"])), 2);
    check_error(2, &run(&["heap", "dump", &file, "--limit", "-1"]), &["--help"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (_parent, file) = fresh();
    let large = Heap::open(open_stack(&file), SizeClass).unwrap();
    large
        .transaction(|tx| {
            for n in 0..5000u32 {
                tx.alloc_with(n.to_le_bytes().repeat(5))?;
            }
            Ok::<_, cairnlog::heap::Error>(())
        })
        .unwrap();
    large.close().unwrap();
    assert_eq!(text(&check(0, heap("dump", &file, &[]))).lines().count(), 5000);
    for args in [
        &["dump", &file][..],
        &["dump", &file, "--json"],
        &["info", &file],
        &["check", &file],
        &["roots", &file],
    ] {
        let mut child = cairn(&[&["heap"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), text(&output.stderr)), (0, String::new()), "{args:?}");
    }
}

/// guards: L20 L32
///
/// The headers of a block that a root names and of one that none does: both are lost, all others
/// stay, and the heap is sound.
#[test]
fn a_damaged_heap_is_repaired_from_the_blocks_that_verify() {
    let (_parent, file, blocks) = filled(SizeClass);
    // Otherwise the newest commits would write these bytes again.
    open_stack(&file).close().unwrap();
    let run = |block: &Block| block.start() - RUN_HEADER;
    for block in &blocks[..2] {
        spoil(&file, run(block) + 8, |bytes| bytes[0] ^= 1);
    }
    let before = state(&file);
    check_error(4, &heap("check", &file, &[]), &["violation", "cairn heap repair"]);
    let output = heap("repair", &file, &[]);
    check_error(4, &output, &[&file, "damaged", "--apply"]);
    let shown = text(&output.stdout);
    assert!(
        shown.contains("keep      1 live blocks") && shown.contains("clear     root 0"),
        "{shown}"
    );
    let plan = json(&heap("repair", &file, &["--json"]).stdout);
    assert_eq!((&plan["needed"], &plan["applied"]), (&json!(true), &json!(false)));
    assert_eq!(plan["lost"][0]["start"], json!(run(&blocks[0])));
    let handle = format!("{:#034x}", blocks[1].to_raw());
    assert_eq!(plan["cleared_roots"], json!([{ "root": 0, "handle": handle }]));
    assert_eq!(state(&file), before, "a plan changes nothing");

    let done = text(&check(0, heap("repair", &file, &["--apply"])));
    let copy = format!("{file}.before-repair");
    assert!(done.contains(&format!("repaired; what was changed is in {copy}")), "{done}");
    let kept = std::fs::read(&copy).unwrap();
    for range in plan["changed"].as_array().unwrap() {
        let range =
            range["start"].as_u64().unwrap() as usize..range["end"].as_u64().unwrap() as usize;
        let was = &before.0[PAYLOAD + range.start..PAYLOAD + range.end];
        assert!(kept[range.clone()] == *was, "{range:?}");
    }
    check(0, heap("check", &file, &[]));
    let again = text(&check(0, heap("repair", &file, &["--apply"])));
    assert!(again.contains("nothing to repair: 1 live block"), "{again}");
    let open = Heap::attach(open_stack(&file)).unwrap();
    assert_eq!(open.root(31).unwrap(), blocks[2]);
    assert_eq!(open.read(blocks[2]).unwrap(), b"fffff");
    assert!(open.root(0).unwrap().is_empty());
}

#[test]
fn what_a_repair_of_a_heap_cannot_do_it_says() {
    let (_parent, file, _) = filled(SizeClass);
    open_stack(&file).close().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let refused = |at: usize, words: &[&str]| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let before = state(&file);
        check_error(4, &heap("repair", &file, &["--apply"]), words);
        assert_eq!(state(&file), before);
    };
    refused(PAYLOAD + 33, &["fixed part", "checksum"]);
    refused(PAYLOAD, &["no Cairn heap"]);
    let mut bytes = whole.clone();
    for slot in [0, PAYLOAD / 2] {
        bytes[slot + 100] ^= 1;
    }
    std::fs::write(&file, &bytes).unwrap();
    check_error(4, &heap("repair", &file, &["--apply"]), &["neither header", "cairn stack repair"]);
    // A heap in use is not repaired.
    let mut bytes = whole;
    bytes[PAYLOAD + 130] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let open = open_stack(&file);
    check_error(1, &heap("repair", &file, &["--apply"]), &["in use"]);
    drop(open);
    check(0, heap("repair", &file, &["--apply"]));
}
