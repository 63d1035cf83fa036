//! Exit codes and messages for logs that are not what they were.

use crate::common::*;

/// Runs the commands that look, and the one that opens, on a log that must be refused: nothing
/// changes.
#[track_caller]
fn check_corrupt(dir: &str, words: &[&str]) {
    let before = snapshot(dir);
    check_error(4, &run(&["cat", dir]), words);
    check_error(4, &run(&["info", dir]), words);
    check_error(4, &run(&["verify", dir]), words);
    check_error(4, &feed(cairn(&["append", dir]), b"more\n"), words);
    check_error(4, &run(&["truncate", dir, "--before", "0"]), words);
    assert!(snapshot(dir) == before, "a refused log stays as it is");
}

/// guards: L11
#[test]
fn a_torn_tail_is_code_3_and_the_next_append_cuts_it() {
    let (_parent, dir) = torn_log();
    assert!(text(&check(3, run(&["verify", &dir]))).starts_with("torn tail: 2 records"));
    let info = json(&check(0, run(&["info", &dir, "--json"])));
    assert_eq!((&info["state"], &info["records"]), (&"torn".into(), &2.into()));
    let output = run(&["cat", &dir]);
    assert!(text(&output.stderr).starts_with("note: "), "{}", text(&output.stderr));
    assert_eq!(check(0, output), b"one\ntwo\n");
    let output = feed(cairn(&["append", &dir]), b"four\n");
    assert!(text(&output.stderr).contains("torn tail"), "{}", text(&output.stderr));
    check(0, output);
    assert_eq!(cat(&dir), b"one\ntwo\nfour\n");
    check(0, run(&["verify", &dir]));
}

#[test]
fn an_unclosed_log_is_intact_and_the_next_append_says_so() {
    let (_parent, dir) = killed_log();
    assert!(text(&check(0, run(&["verify", &dir]))).contains("unclosed"));
    assert_eq!(cat(&dir), b"one\ntwo\nthree\n");
    let output = feed(cairn(&["append", &dir]), b"four\n");
    assert!(text(&output.stderr).contains("had not been closed"), "{}", text(&output.stderr));
    check(0, output);
    assert_eq!(cat(&dir), b"one\ntwo\nthree\nfour\n");
}

/// guards: L10
#[test]
fn a_flipped_bit_in_the_active_segment_is_corruption() {
    for closed in [true, false] {
        let (_parent, dir) = killed_log();
        if closed {
            append(&dir, b"four\n");
        }
        let path = segments(&dir).pop().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(3).position(|w| w == b"two").unwrap();
        flip(&path, at);
        // A group is one write: with a record of it the whole group is lost.
        let output = run(&["cat", &dir]);
        assert!(
            [&b"one\n"[..], b""].contains(&output.stdout.as_slice()),
            "{}",
            text(&output.stdout)
        );
        check_error(4, &output, &["LSN"]);
        // The file's superblock names another generation since recovery, and appending is refused
        // all the same.
        check_error(4, &feed(cairn(&["append", &dir]), b"more\n"), &["LSN", "cairn verify"]);
        check_error(4, &run(&["info", &dir]), &["LSN"]);
        let found = json(&check(4, run(&["verify", &dir, "--json"])));
        assert_eq!(found["state"], "corrupt");
        assert_eq!(found["problems"].as_array().unwrap().len(), 1, "{found}");
    }
}

/// guards: L10, L14
#[test]
fn cat_prints_what_precedes_damage_in_a_sealed_segment() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..5000));
    let shown = records(&dir);
    let paths = segments(&dir);
    let (damaged, next) = (&paths[2], &paths[3]);
    flip(damaged, 4096 + 2000);
    let output = run(&["cat", &dir]);
    check_error(4, &output, &["LSN", damaged.to_str().unwrap()]);
    let printed = text(&output.stdout).lines().count();
    assert_eq!(output.stdout, numbers(0..printed as u64));
    assert!(printed > 0);
    let found = json(&check(4, run(&["verify", &dir, "--json"])));
    let problem = &found["problems"][0];
    assert_eq!(problem["file"], damaged.to_str().unwrap());
    let (from, to) = (problem["lsn"].as_u64().unwrap(), problem["resumes_lsn"].as_u64());
    // Nothing that was printed is damaged, and the range is not said to end within itself.
    assert!(shown[printed - 1].end_lsn <= from && to.is_none_or(|to| to > from), "{problem}");
    // What lies behind the damage can still be read.
    let base: u64 = next.file_stem().unwrap().to_str().unwrap()[..20].parse().unwrap();
    let behind = shown.iter().position(|record| record.lsn > base).unwrap();
    let output = run(&["cat", &dir, "--from", &shown[behind].lsn.to_string()]);
    assert_eq!(output.stdout, numbers(behind as u64..5000));
}

#[test]
fn a_missing_middle_segment_is_corruption() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..5000));
    let shown = records(&dir);
    let paths = segments(&dir);
    std::fs::remove_file(&paths[2]).unwrap();
    check_corrupt(&dir, &["missing", "LSN"]);
    let base: u64 = paths[2].file_stem().unwrap().to_str().unwrap()[..20].parse().unwrap();
    let before = shown.iter().filter(|record| record.end_lsn <= base).count() as u64;
    assert_eq!(run(&["cat", &dir]).stdout, numbers(0..before));
}

#[test]
fn a_missing_first_or_last_segment_is_corruption() {
    for last in [false, true] {
        let (_parent, dir) = fresh();
        append_small(&dir, &numbers(0..5000));
        let paths = segments(&dir);
        std::fs::remove_file(&paths[if last { paths.len() - 1 } else { 0 }]).unwrap();
        check_corrupt(&dir, &["missing"]);
        if !last {
            assert_eq!(run(&["cat", &dir]).stdout, b"", "nothing precedes the damage");
        }
    }
}

/// guards: L20
#[test]
fn a_foreign_file_with_a_segments_name_is_refused() {
    let name = "00000000000000999999-0000000001.cairn";
    for content in [&b"just text, kept for ever\n"[..], b""] {
        let (_parent, dir) = fresh();
        append(&dir, b"one\n");
        std::fs::write(format!("{dir}/{name}"), content).unwrap();
        // A file with such a name and no superblock may be a damaged segment of this log.
        check_corrupt(&dir, &[name, "the superblock is damaged"]);
        assert_eq!(run(&["cat", &dir]).stdout, b"one\n");
        // Alone in a directory, too.
        let (_parent, dir) = fresh();
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(format!("{dir}/{name}"), content).unwrap();
        check_corrupt(&dir, &[name]);
    }
}

#[test]
fn segments_of_two_logs_are_refused() {
    let (_parent, a) = fresh();
    let (_parent, b) = fresh();
    append_small(&a, &numbers(0..3000));
    append_small(&b, &numbers(0..3000));
    let stranger = segments(&b)[2].clone();
    std::fs::copy(&stranger, format!("{a}/{}", stranger.file_name().unwrap().to_str().unwrap()))
        .unwrap();
    check_corrupt(&a, &["belongs to log"]);
}

/// A log that says that it is of this version.
fn of_version(version: u32) -> (tempfile::TempDir, String) {
    let (parent, dir) = fresh();
    append(&dir, b"one\n");
    let path = segments(&dir).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // The version is told from damage by the block's checksum.
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..16].fill(0);
    let crc = crc32c(&bytes[..4096]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    (parent, dir)
}

#[test]
fn a_newer_version_is_refused() {
    let (_parent, dir) = of_version(7);
    check_corrupt(&dir, &["version 7", "newer cairn"]);
}

#[test]
fn an_older_version_is_refused_with_the_way_to_write_it_anew() {
    let (_parent, dir) = of_version(1);
    check_corrupt(&dir, &["version 1", "write it anew", "cairn append"]);
}

/// guards: L65
///
/// Nobody can tell then whether the end is there; what is there is read all the same.
#[test]
fn a_log_without_its_state_is_read_and_refused_with_the_way_out() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..1000));
    std::fs::remove_file(format!("{dir}/STATE")).unwrap();
    let output = run(&["cat", &dir]);
    assert_eq!(output.stdout, numbers(0..1000));
    check_corrupt(&dir, &["STATE", "`cairn repair --apply`"]);
    std::fs::write(format!("{dir}/STATE"), b"").unwrap();
    append_small(&dir, &numbers(1000..1100));
    assert_eq!(cat(&dir), numbers(0..1100));
    check(0, run(&["verify", &dir]));
}

/// Bit by bit, as the specification defines it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

/// guards: L25
#[test]
fn stray_files_are_ignored_and_kept() {
    let (_parent, dir) = fresh();
    append_small(&dir, &numbers(0..1000));
    let strays = ["notes.txt", "segment.bak", "0-1.cairn", ".hidden", "empty"];
    for name in strays {
        std::fs::write(format!("{dir}/{name}"), name).unwrap();
    }
    std::fs::create_dir(format!("{dir}/folder")).unwrap();
    append_small(&dir, &numbers(1000..3000));
    check(0, run(&["truncate", &dir, "--before", &records(&dir)[500].lsn.to_string()]));
    assert_eq!(cat(&dir), numbers(500..3000));
    check(0, run(&["verify", &dir]));
    let info = json(&check(0, run(&["info", &dir, "--json"])));
    assert_eq!(info["strays"].as_array().unwrap().len(), strays.len() + 1);
    for name in strays {
        assert_eq!(std::fs::read(format!("{dir}/{name}")).unwrap(), name.as_bytes());
    }
}
