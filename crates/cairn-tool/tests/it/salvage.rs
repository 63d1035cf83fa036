//! `cairn salvage` and `cairn cat --torn`: everything that verifies, whatever the damage.

use crate::common::*;
use crate::repair::damaged_log;

#[test]
fn salvage_prints_every_record_but_those_that_were_hit() {
    let (_parent, dir, hit) = damaged_log();
    let paths = segments(&dir);
    // Besides: no superblock, no state, a foreign file.
    let mut bytes = std::fs::read(&paths[1]).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&paths[1], bytes).unwrap();
    std::fs::remove_file(format!("{dir}/STATE")).unwrap();
    std::fs::write(format!("{dir}/00000000000009999992-0000000001.cairn"), "a text").unwrap();
    let before = snapshot(&dir);
    let output = run(&["salvage", &dir]);
    let expected = [numbers(0..hit.seq), numbers(hit.seq + 1..3000)].concat();
    assert_eq!(code(&output), 4, "{}", text(&output.stderr));
    assert!(output.stdout == expected, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&format!("LSN {}", hit.lsn)));
    assert!(text(&output.stderr).contains("2999 records printed; 1 record in 1 range"));
    assert!(snapshot(&dir) == before, "salvage changes nothing");
    let output = run(&["salvage", &dir, "--json"]);
    let lines = text(&output.stdout);
    let lost: Vec<_> = lines.lines().filter(|line| line.contains("\"lost\"")).collect();
    assert_eq!((lines.lines().count(), lost.len()), (3000, 1));
    assert_eq!(json(lost[0].as_bytes())["lost"]["first_seq"], hit.seq);
}

#[test]
fn a_missing_segment_is_one_range_and_a_whole_log_loses_nothing() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    assert_eq!(check(0, run(&["salvage", &dir])), numbers(0..3000));
    let paths = segments(&dir);
    let base = |at: usize| -> u64 {
        paths[at].file_stem().unwrap().to_str().unwrap()[..20].parse().unwrap()
    };
    let shown = records(&dir);
    let within = |lsn: u64| (base(1)..base(2)).contains(&lsn);
    let left: Vec<_> = (0..3000).filter(|n| !within(shown[*n].lsn)).collect();
    std::fs::remove_file(&paths[1]).unwrap();
    let output = run(&["salvage", &dir]);
    assert_eq!(code(&output), 4);
    let expected: String = left.iter().map(|n| format!("{n}\n")).collect();
    assert_eq!(text(&output.stdout), expected);
    let lost = format!("{} records printed", left.len());
    let said = text(&output.stderr);
    assert!(said.contains(&lost) && said.contains("in 1 range of"), "{said}");
    check_error(1, &run(&["salvage", "/nowhere"]), &["there is no log"]);
}

#[test]
fn a_torn_tail_is_no_loss_and_what_of_it_verifies_can_be_seen() {
    let (_parent, dir) = torn_log();
    let output = run(&["salvage", &dir]);
    assert_eq!(check(0, output), b"one\ntwo\n");
    assert_eq!(check(0, run(&["cat", &dir, "--torn"])), b"");
    // A group of which the first record is damaged: the others verify.
    let (_parent, dir) = fresh();
    let log = cairnlog::Log::open(&dir).unwrap();
    for record in ["alpha", "beta", "gamma"] {
        log.append(record.as_bytes()).unwrap();
    }
    log.flush().unwrap();
    // As a process that is killed leaves it.
    std::mem::forget(log);
    let path = segments(&dir).pop().unwrap();
    let at = std::fs::read(&path).unwrap().windows(5).position(|w| w == b"alpha").unwrap();
    flip(&path, at);
    assert_eq!(check(0, run(&["cat", &dir])), b"");
    assert_eq!(check(0, run(&["cat", &dir, "--torn"])), b"beta\ngamma\n");
}
