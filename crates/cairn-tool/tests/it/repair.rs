//! `cairn repair`: the plan, and what comes of it.

use crate::common::*;

/// A log of several segments, and one of its records of which a byte is wrong.
pub(crate) fn damaged_log() -> (tempfile::TempDir, String, Shown) {
    let (parent, dir) = fresh();
    append_small(&dir, &numbers(0..3000));
    let path = segments(&dir)[2].clone();
    let base: u64 = path.file_stem().unwrap().to_str().unwrap()[..20].parse().unwrap();
    let hit = records(&dir).into_iter().find(|record| record.lsn > base + 500).unwrap();
    flip(&path, (4096 + hit.lsn - base + 13) as usize);
    (parent, dir, hit)
}

#[test]
fn a_plan_changes_nothing_and_applying_it_makes_a_log_that_opens() {
    let (_parent, dir, hit) = damaged_log();
    let before = snapshot(&dir);
    let output = run(&["repair", &dir]);
    check_error(4, &output, &["can be repaired"]);
    let said = text(&output.stdout);
    assert!(said.contains("kept     2999 records"), "{said}");
    assert!(said.contains(&format!("LSN {}..{}", hit.lsn, hit.end_lsn)), "{said}");
    assert!(snapshot(&dir) == before, "a plan changes nothing");
    let plan = json(&run(&["repair", &dir, "--json"]).stdout);
    assert_eq!((&plan["needed"], &plan["applied"]), (&true.into(), &false.into()));
    assert_eq!(plan["lost"][0]["from_lsn"], hit.lsn);
    assert_eq!(plan["lost"][0]["first_seq"], hit.seq);

    let said = text(&check(0, run(&["repair", &dir, "--apply"])));
    assert!(said.contains("repaired"), "{said}");
    let said = text(&check(0, run(&["repair", &dir])));
    assert!(said.contains("nothing to repair") && said.contains("by an earlier repair"), "{said}");
    let output = run(&["cat", &dir]);
    assert!(text(&output.stderr).contains("records are lost"), "{}", text(&output.stderr));
    let expected = [numbers(0..hit.seq), numbers(hit.seq + 1..3000)].concat();
    assert_eq!(check(0, output), expected);
    append_small(&dir, &numbers(3000..3100));
    assert_eq!(cat(&dir).len(), expected.len() + numbers(3000..3100).len());
    let verified = json(&check(0, run(&["verify", &dir, "--json"])));
    assert_eq!(verified["gaps"].as_array().unwrap().len(), 1);
    assert_eq!(verified["records_verified"], 3099);
    let info = text(&check(0, run(&["info", &dir])));
    assert!(info.contains("record number"), "{info}");
}

#[test]
fn a_log_that_is_cut_ends_before_the_first_loss_and_what_follows_is_kept() {
    let (_parent, dir, hit) = damaged_log();
    let before = snapshot(&dir);
    let output = run(&["repair", &dir, "--cut"]);
    check_error(4, &output, &["can be repaired"]);
    let said = text(&output.stdout);
    assert!(said.contains(&format!("record number {} and all behind it", hit.seq)), "{said}");
    assert!(snapshot(&dir) == before, "a plan changes nothing");
    let plan = json(&check(0, run(&["repair", &dir, "--cut", "--apply", "--json"])));
    assert_eq!((&plan["applied"], &plan["cut"]["seq"]), (&true.into(), &hit.seq.into()));
    let kept = plan["cut"]["kept"].as_array().unwrap();
    assert!(!kept.is_empty());
    for copy in kept.iter().map(|copy| std::path::PathBuf::from(copy.as_str().unwrap())) {
        let name = copy.file_name().unwrap().to_str().unwrap();
        let original = name.strip_suffix(".kept-1").unwrap();
        let was = before.iter().find(|(path, _)| path.ends_with(original)).unwrap();
        assert!(std::fs::read(&copy).unwrap() == was.1.0, "{name}");
    }
    assert_eq!(cat(&dir), numbers(0..hit.seq));
    let verified = json(&check(0, run(&["verify", &dir, "--json"])));
    assert_eq!(verified["gaps"].as_array().unwrap().len(), 0);
    let again = text(&check(0, run(&["repair", &dir, "--cut"])));
    assert!(again.contains("nothing to repair"), "{again}");
    append_small(&dir, &numbers(hit.seq..3000));
    assert_eq!(cat(&dir), numbers(0..3000));
}

/// An earlier repair went on behind the loss; and where nothing precedes it, nothing is cut.
#[test]
fn a_recorded_loss_can_be_cut_and_a_loss_in_front_of_everything_cannot() {
    let (_parent, dir, hit) = damaged_log();
    check(0, run(&["repair", &dir, "--apply"]));
    check_error(4, &run(&["repair", &dir, "--cut"]), &["can be cut before them"]);
    let mut appender = Appender::start(&["append", &dir, "--ack"]);
    appender.write(b"more\n");
    appender.ack();
    check_error(1, &run(&["repair", &dir, "--cut", "--apply"]), &["in use"]);
    check(0, appender.end());
    let kept = |(path, _): (std::path::PathBuf, _)| path.to_str().unwrap().contains(".kept-");
    assert!(!snapshot(&dir).into_iter().any(kept), "refused, and nothing is left");
    check(0, run(&["repair", &dir, "--cut", "--apply"]));
    assert_eq!(cat(&dir), numbers(0..hit.seq));
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..10));
    flip(&segments(&dir)[0], 4096 + 56 + 13);
    let before = snapshot(&dir);
    check_error(4, &run(&["repair", &dir, "--cut", "--apply"]), &["would leave nothing"]);
    assert!(snapshot(&dir) == before, "refused, and nothing is changed");
}

/// What counts records counts those that are there, and what compares goes on behind a gap.
#[test]
fn what_counts_and_compares_knows_what_a_repair_recorded_as_lost() {
    let (parent, dir, hit) = damaged_log();
    let copy = format!("{}/copy", parent.path().display());
    check(0, run(&["repair", &dir, "--apply"]));
    let info = json(&check(0, run(&["info", &dir, "--json"])));
    assert_eq!(info["records"], 2999);
    let copied = text(&check(0, run(&["backup", &dir, &copy])));
    assert!(copied.starts_with("2999 records"), "{copied}");
    let same = text(&check(0, run(&["diff", &dir, &copy])));
    assert_eq!(same, "the same: 2999 records\n");
    let digest = check(0, run(&["digest", &dir]));
    assert_eq!(digest, check(0, run(&["digest", &copy])));

    let (_parent, whole) = fresh();
    append_small(&whole, &numbers(0..3000));
    let differ = text(&check(5, run(&["diff", &dir, &whole])));
    let only = format!("only in B: seq {}..{}\n", hit.seq, hit.seq + 1);
    assert_eq!(differ, format!("the logs differ: 2999 records the same\n{only}"));
    let common = text(&check(0, run(&["diff", &dir, &whole, "--common"])));
    assert_eq!(common, same);
}

#[test]
fn what_is_no_part_of_the_log_is_kept_under_another_name() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..1000));
    let stranger = format!("{dir}/00000000000009999992-0000000001.cairn");
    std::fs::write(&stranger, "a text").unwrap();
    std::fs::remove_file(format!("{dir}/STATE")).unwrap();
    check(0, run(&["repair", &dir, "--apply"]));
    assert_eq!(std::fs::read(stranger + ".kept-1").unwrap(), b"a text");
    assert_eq!(cat(&dir), numbers(0..1000));
    append_small(&dir, &numbers(1000..1100));
    assert_eq!(cat(&dir), numbers(0..1100));
}

#[test]
fn a_log_that_is_in_use_is_not_repaired_and_one_that_is_whole_needs_nothing() {
    let (_parent, dir) = fresh();
    check_error(1, &run(&["repair", &dir]), &["there is no log"]);
    append(&dir, b"one\n");
    check(0, run(&["repair", &dir, "--apply"]));
    let (_parent, dir, _) = damaged_log();
    let mut appender = Appender::start(&["append", &dir, "--ack"]);
    appender.write(b"more\n");
    appender.ack();
    check_error(1, &run(&["repair", &dir, "--apply"]), &["in use"]);
    check(0, appender.end());
}
