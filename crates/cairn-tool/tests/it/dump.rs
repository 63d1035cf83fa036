//! `cairn dump`: one segment's file by itself, whatever state it is in.

use std::path::Path;

use serde_json::Value;

use crate::common::*;

/// Every part that is shown of a file, the superblock first and the counts last.
#[track_caller]
fn parts(file: &Path, args: &[&str]) -> Vec<Value> {
    let output = run(&[&["dump", file.to_str().unwrap(), "--json"], args].concat());
    text(&check(0, output)).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Parts of one kind.
fn of<'a>(parts: &'a [Value], kind: &str) -> Vec<&'a Value> {
    parts.iter().filter(|part| part["part"] == kind).collect()
}

/// A log of several segments, alone in a directory of its own.
fn three_segments() -> (tempfile::TempDir, String) {
    let (parent, dir) = fresh();
    append_small(&dir, &numbers(0..600));
    (parent, dir)
}

/// Whether the parts cover the file from behind the superblock to its end, without a gap.
#[track_caller]
fn covers(parts: &[Value], file: &Path) {
    let mut at = 4096;
    for part in &parts[1..parts.len() - 1] {
        assert_eq!(part["offset"].as_u64().unwrap(), at, "{part}");
        at += part["len"].as_u64().unwrap();
    }
    assert_eq!(at, std::fs::metadata(file).unwrap().len().max(4096));
}

#[test]
fn every_byte_of_a_segment_is_explained() {
    let (_parent, dir) = three_segments();
    let files = segments(&dir);
    let shown = records(&dir);
    let mut found = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let parts = parts(file, &["--bytes", "100"]);
        covers(&parts, file);
        let head = &parts[0];
        assert_eq!((&head["part"], &head["state"]), (&"superblock".into(), &"valid".into()));
        assert!(head["epoch"].as_str().unwrap().starts_with("0x"), "{head}");
        let is_last = n + 1 == files.len();
        let seal = of(&parts, "group").into_iter().filter(|group| group["holds"] == "seal");
        assert_eq!(seal.count(), usize::from(!is_last));
        assert_eq!(of(&parts, "index").len(), usize::from(!is_last));
        assert_eq!(of(&parts, "trailer").len(), usize::from(!is_last));
        assert_eq!(of(&parts, "unverified").len(), 0);
        let watermarks: Vec<_> = of(&parts, "group")
            .iter()
            .map(|group| group["durable_lsn"].as_u64().unwrap())
            .collect();
        assert!(watermarks.is_sorted(), "{watermarks:?}");
        let counts = parts.last().unwrap();
        assert_eq!(counts["records"], of(&parts, "record").len());
        found.extend(of(&parts, "record").into_iter().cloned());
    }
    assert_eq!(found.len(), shown.len());
    for (found, shown) in found.iter().zip(&shown) {
        assert_eq!((&found["lsn"], &found["seq"]), (&shown.lsn.into(), &shown.seq.into()));
        let hex: String =
            shown.payload.as_ref().unwrap().bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found["first_hex"], hex);
    }
}

/// guards: L10
#[test]
fn what_does_not_verify_is_shown_and_what_follows_it_too() {
    let (_parent, dir) = three_segments();
    let file = segments(&dir)[1].clone();
    let whole = std::fs::read(&file).unwrap();
    let intact = parts(&file, &[]);
    let records = of(&intact, "record");
    let hit = records[5]["offset"].as_u64().unwrap();
    // A record's bytes: that record alone does not verify.
    flip(&file, hit as usize + 13);
    let found = parts(&file, &["--bytes", "3"]);
    covers(&found, &file);
    let bad = of(&found, "unverified");
    assert_eq!((bad.len(), &bad[0]["offset"]), (1, &hit.into()), "{bad:?}");
    assert_eq!(bad[0]["first_hex"].as_str().unwrap().len(), 6);
    assert_eq!(of(&found, "record").len(), records.len() - 1);
    std::fs::write(&file, &whole).unwrap();
    // A group's header: its records verify, without their numbers.
    let group = of(&intact, "group")[0]["offset"].as_u64().unwrap();
    flip(&file, group as usize + 20);
    let found = parts(&file, &[]);
    covers(&found, &file);
    assert_eq!(of(&found, "record").len(), records.len());
    assert!(of(&found, "record")[0].get("seq").is_none());
    assert_eq!(of(&found, "unverified")[0]["len"], 56);
    std::fs::write(&file, &whole).unwrap();
    // The superblock: everything verifies with the log's identity.
    let uuid = json(&check(0, run(&["info", &dir, "--json"])))["uuid"].as_str().unwrap().to_owned();
    for damage in [0..4096, 16..32, 40..48, 0..8] {
        let mut bytes = whole.clone();
        bytes[damage.clone()].fill(0);
        std::fs::write(&file, &bytes).unwrap();
        let found = parts(&file, &["--uuid", &uuid]);
        covers(&found, &file);
        assert_ne!(found[0]["state"], "valid", "{damage:?}");
        assert_eq!(of(&found, "record").len(), records.len(), "{damage:?}");
    }
    check_error(2, &run(&["dump", file.to_str().unwrap(), "--uuid", "x"]), &["cairn dump"]);
}

/// Nothing that a file holds makes it fail, and no other file is needed.
#[test]
fn foreign_short_and_cut_files_are_dumped() {
    let (parent, dir) = three_segments();
    let whole = std::fs::read(&segments(&dir)[0]).unwrap();
    let file = parent.path().join("any.cairn");
    let mut dice = Dice(7);
    let noise: Vec<u8> = (0..20_000).map(|_| dice.roll(256) as u8).collect();
    let mut flipped = whole.clone();
    (0..200).for_each(|_| flipped[dice.roll(whole.len() as u64) as usize] ^= 1);
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("short", b"CAIRNLOG".to_vec()),
        ("noise", noise),
        ("zeros", vec![0; 100_000]),
        ("cut", whole[..5003].to_vec()),
        ("cut superblock", whole[..4000].to_vec()),
        ("padded", [&whole[..], &[0; 5000], b"x"].concat()),
        ("flipped", flipped),
    ] {
        std::fs::write(&file, &bytes).unwrap();
        let found = parts(&file, &[]);
        covers(&found, &file);
        check(0, run(&["dump", file.to_str().unwrap()]));
        let expected = if ["cut", "padded"].contains(&what) { "valid" } else { "" };
        assert!(expected.is_empty() || found[0]["state"] == expected, "{what}: {}", found[0]);
    }
    check_error(1, &run(&["dump", parent.path().join("none").to_str().unwrap()]), &["none"]);
    check_error(1, &run(&["dump", parent.path().to_str().unwrap()]), &["cairn dump"]);
}

#[test]
fn a_dump_is_for_people_too() {
    let (_parent, dir) = three_segments();
    let file = segments(&dir)[0].clone();
    let file = file.to_str().unwrap();
    let said = text(&check(0, run(&["dump", file, "--no-records"])));
    for words in ["superblock  valid", "group of records", "group of seal", "index of", "trailer"] {
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
    assert!(said.lines().all(|line| line.len() <= 80) && !said.contains("record seq"), "{said}");
    let said = text(&check(0, run(&["dump", file, "--limit", "2"])));
    assert!(said.contains("record seq 0, 1 byte\n            30\n"), "{said}");
    assert!(!said.contains("record seq 1,"), "{said}");
    // One that goes away is no error.
    let shell = format!("'{CAIRN}' dump '{file}' --json | head -n 1; exit ${{PIPESTATUS[0]}}");
    let output = std::process::Command::new("bash").args(["-c", &shell]).output().unwrap();
    assert_eq!(text(&output.stderr), "");
    check(0, output);
}
