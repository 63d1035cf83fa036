//! `cairn doctor`: it says what it found, warns of what endangers records, and leaves nothing
//! behind.

use std::path::Path;

use crate::common::*;

#[test]
fn everything_is_examined_and_nothing_is_left_behind() {
    let (_parent, dir) = fresh();
    append(&dir, b"precious\n");
    let before: Vec<_> =
        snapshot(&dir).into_iter().map(|(path, (bytes, _))| (path, bytes)).collect();
    let found = json(&check(0, run(&["doctor", &dir, "--json"])));
    for kind in ["overwrite", "append", "directory"] {
        let cost = &found["barriers"][kind];
        assert!(cost["count"].as_u64().unwrap() > 0, "{found}");
        let us = |name: &str| cost[name].as_f64().unwrap();
        assert!(us("p50_us") <= us("p99_us") && us("p99_us") <= us("max_us") * 1.01, "{cost}");
    }
    let direct = found["direct_io"]["works"].as_bool().unwrap();
    assert_eq!(
        (found["barriers"]["direct"].is_object(), found["direct_block_size"].is_u64()),
        (direct, direct)
    );
    assert_eq!(found["locks"]["works"], true);
    assert!(
        found["preallocation"]["works"].is_boolean() && found["io_uring"].is_object(),
        "{found}"
    );
    assert!(["direct", "buffered"].contains(&found["backend"].as_str().unwrap()), "{found}");
    assert!(
        found["file_system"]["type"].is_string() && found["file_system"]["free_bytes"].is_u64(),
        "{found}"
    );
    assert!(
        !found["advice"].as_array().unwrap().is_empty() && found["warnings"].is_array(),
        "{found}"
    );

    let output = run(&["doctor", &dir]);
    assert_eq!(text(&output.stderr), "", "no progress in a pipe");
    let said = text(&check(0, output));
    for words in [
        "file system",
        "device",
        "direct I/O",
        "locks         work",
        "log backend",
        "fdatasync after",
        "P99",
    ] {
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
    assert!(!said.contains('\x1b'), "no colour in a pipe: {said:?}");
    let after: Vec<_> =
        snapshot(&dir).into_iter().map(|(path, (bytes, _))| (path, bytes)).collect();
    assert_eq!(after, before);
}

#[test]
fn memory_is_warned_of() {
    let shm = Path::new("/dev/shm");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mounts.contains(" /dev/shm ") || !mounts.contains(" - tmpfs ") {
        println!("skipped: no tmpfs at {}", shm.display());
        return;
    }
    let dir = tempfile::tempdir_in(shm).unwrap();
    let path = dir.path().to_str().unwrap();
    let found = json(&check(0, run(&["doctor", path, "--json"])));
    assert_eq!(
        (&found["file_system"]["type"], &found["file_system"]["class"]),
        (&"tmpfs".into(), &"memory".into())
    );
    let kinds: Vec<_> =
        found["warnings"].as_array().unwrap().iter().map(|warning| &warning["kind"]).collect();
    assert!(kinds.contains(&&"memory".into()), "{found}");
    assert_eq!(found["device"], serde_json::Value::Null);
    let said = text(&check(0, run(&["doctor", path])));
    assert!(said.contains("warning: tmpfs is memory: nothing here survives a power cut"), "{said}");
    let strict = json(&check(5, run(&["doctor", path, "--strict", "--json"])));
    assert!(strict["missing"].as_array().unwrap().contains(&"memory".into()), "{strict}");
    assert!(text(&check(5, run(&["doctor", path, "--strict"]))).contains("\nmissing       memory"));
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
}

#[test]
fn a_strict_look_says_by_its_code_whether_something_is_missing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().to_str().unwrap();
    let output = run(&["doctor", dir, "--strict", "--json"]);
    let expected = match json(&output.stdout)["missing"].as_array().unwrap().len() {
        0 => 0,
        _ => 5,
    };
    check(expected, output);
}

#[test]
fn a_directory_that_is_not_one_is_refused() {
    let (_parent, dir) = fresh();
    check_error(1, &run(&["doctor", &dir]), &["no directory", &dir]);
    std::fs::write(&dir, "a file").unwrap();
    check_error(2, &run(&["doctor", &dir]), &["not a directory", &dir]);
}
