//! Replacing a file: whole, durable, and honest about what failed.
//!
//! guards: L05, L20, L22, L23, L25

use std::path::Path;

use cairn_io::{NativeFs, ReplaceState, replace_file};
use cairn_trial::WatchedFs;

#[test]
fn a_replaced_file_is_durable() {
    let (fs, dir) = (WatchedFs::default(), tempfile::tempdir().unwrap());
    let path = dir.path().join("settings");
    for contents in [b"one".as_slice(), b"", &[7; 100_000]] {
        replace_file(&fs, &path, contents).unwrap();
        fs.expect_synced();
        assert_eq!(std::fs::read(&path).unwrap(), contents);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn every_failure_says_what_the_file_holds() {
    let expected = [
        ("create_new", ReplaceState::Old),
        ("write", ReplaceState::Old),
        ("sync_data", ReplaceState::Old),
        ("rename", ReplaceState::OldOrNew),
        ("sync_dir", ReplaceState::NewUntilCrash),
    ];
    for (n, (kind, state)) in expected.into_iter().enumerate() {
        let (fs, dir) = (WatchedFs::default(), tempfile::tempdir().unwrap());
        let path = dir.path().join("settings");
        replace_file(&fs, &path, b"old").unwrap();
        fs.fail_at(n as u64);
        let e = replace_file(&fs, &path, b"new").unwrap_err();
        assert_eq!((fs.failed(), e.state), (Some(kind), state));
        let found = std::fs::read(&path).unwrap();
        match state {
            ReplaceState::Old => assert_eq!(found, b"old"),
            ReplaceState::NewUntilCrash => assert_eq!(found, b"new"),
            _ => assert!(found == b"old" || found == b"new"),
        }
        replace_file(&fs, &path, b"again").unwrap();
        fs.expect_synced();
    }
}

#[test]
fn a_leftover_temporary_file_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings");
    std::fs::write(dir.path().join("settings.tmp"), [9; 5000]).unwrap();
    replace_file(&NativeFs, &path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn a_path_without_a_name_is_refused() {
    for path in ["", "/", "..", "a/.."] {
        let e = replace_file(&NativeFs, Path::new(path), b"x").unwrap_err();
        assert_eq!(e.state, ReplaceState::Old, "{path}");
    }
}
