//! `cairn bench`: what it prints can be read by programs, its page needs nothing else, and it
//! leaves nothing behind.

use std::process::Stdio;
use std::time::Duration;

use crate::common::*;
use crate::look::kill;

/// Everything that makes a run short.
const SHORT: [&str; 6] = ["--seconds", "0.02", "--threads", "1,2", "--size", "100,4KiB"];

#[track_caller]
fn check_empty(dir: &str) {
    let names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.is_empty(), "left behind: {names:?}");
}

fn fresh_dir() -> (tempfile::TempDir, String) {
    let (parent, dir) = fresh();
    std::fs::create_dir(&dir).unwrap();
    (parent, dir)
}

#[test]
fn everything_is_measured_and_nothing_is_left_behind() {
    let (_parent, dir) = fresh_dir();
    let output = run(&[&["bench", &dir, "--json"], &SHORT[..]].concat());
    assert_eq!(text(&output.stderr), "", "no progress in a pipe");
    let report = json(&check(0, output));
    check_empty(&dir);
    let cells = report["cells"].as_array().unwrap();
    let mut found: Vec<_> = cells
        .iter()
        .map(|cell| {
            (
                cell["mode"].as_str().unwrap(),
                cell["threads"].as_u64().unwrap(),
                cell["size"].as_u64().unwrap(),
            )
        })
        .collect();
    found.retain(|(mode, ..)| *mode != "raw-direct");
    let expected = [
        ("raw-buffered", 1, 4096),
        ("durable", 1, 100),
        ("durable", 1, 4096),
        ("durable", 2, 100),
        ("durable", 2, 4096),
        ("tickets", 1, 100),
        ("tickets", 1, 4096),
        ("append", 1, 100),
        ("replay", 1, 100),
        ("append", 1, 4096),
        ("replay", 1, 4096),
    ];
    assert_eq!(found, expected);
    for cell in cells {
        assert!(
            cell["records"].as_u64().unwrap() > 0
                && cell["records_per_second"].as_f64().unwrap() > 0.0,
            "{cell}"
        );
        let latency = &cell["latency_us"];
        assert_eq!(latency.is_null(), cell["mode"] == "replay", "{cell}");
        if !latency.is_null() {
            let us = |name: &str| latency[name].as_f64().unwrap();
            assert!(us("p50") <= us("p99") && us("p99") <= us("p99.9"), "{cell}");
            assert!(!latency["curve"].as_array().unwrap().is_empty(), "{cell}");
        }
        let waits = ["durable", "tickets"].contains(&cell["mode"].as_str().unwrap());
        assert_eq!(cell["ratio_to_raw"].is_number(), waits, "{cell}");
    }
    assert!(
        ["direct", "buffered", "io_uring"].contains(&report["backend"].as_str().unwrap()),
        "{report}"
    );
    assert_eq!((&report["dir"], &report["ended_by"]), (&dir.as_str().into(), &"the end".into()));
    assert!(report["file_system"]["type"].is_string(), "{report}");
}

#[test]
fn the_page_is_one_file_that_loads_nothing() {
    let (parent, dir) = fresh_dir();
    let page = parent.path().join("out.html");
    let args = ["bench", &dir, "--report", page.to_str().unwrap()];
    let table = text(&check(0, run(&[&args[..], &SHORT].concat())));
    for words in [
        "RECORDS/S",
        "PER BARRIER",
        "raw, buffered",
        "durable",
        "tickets",
        "append",
        "replay",
        "out.html",
    ] {
        assert!(table.contains(words), "{words:?} is missing: {table}");
    }
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    for foreign in ["http://", "https://", "src=", "href=", "url(", "<script", "@import", "<link"] {
        assert!(!html.contains(foreign), "{foreign} is in the page");
    }
    // Durable records, one for each size of what a commit takes, and three for the rest.
    assert_eq!((html.matches("<svg ").count(), html.matches("</svg>").count()), (6, 6));
    for words in ["prefers-color-scheme: dark", "currentColor", "<td>durable</td>", "90%", &dir] {
        assert!(html.contains(words), "{words:?} is missing");
    }
    check_empty(&dir);
    // It fits a phone: the page has that one's width, wide things are scrolled by themselves.
    for words in [
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        "@media (max-width: 40rem)",
        "<div class=\"chart wide\">",
        "<div class=\"scroll\">\n<table>",
        "viewBox=\"0 0 1000 300\"",
    ] {
        assert!(html.contains(words), "{words:?} is missing");
    }
    for axis in ["records per second", "time of a commit", "part of the commits"] {
        assert!(html.contains(axis), "an axis has no title {axis:?}");
    }
    // Whether the machine was busy is said on the page as in the text.
    let busy = "The machine was busy with other things";
    assert_eq!(html.contains(busy), table.contains(busy));
}

#[test]
fn a_log_in_the_directory_is_left_alone() {
    let (_parent, dir) = fresh();
    append(&dir, &numbers(0..100));
    let before = std::fs::read(&segments(&dir)[0]).unwrap();
    check(0, run(&["bench", &dir, "--seconds", "0.01", "--threads", "1", "--size", "0"]));
    assert_eq!(std::fs::read(&segments(&dir)[0]).unwrap(), before);
    assert_eq!(cat(&dir), numbers(0..100));
    let info = json(&check(0, run(&["info", &dir, "--json"])));
    assert_eq!(info["strays"].as_array().unwrap().len(), 0, "{info}");
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    let (_parent, dir) = fresh();
    check_error(1, &run(&["bench", &dir]), &["no directory", &dir]);
    std::fs::write(&dir, "a file").unwrap();
    check_error(2, &run(&["bench", &dir]), &["not a directory", &dir]);
    let (_parent, dir) = fresh_dir();
    for args in [
        &["--seconds", "0"][..],
        &["--seconds", "NaN"],
        &["--threads", "0"],
        &["--threads", "1,many"],
        &["--size", "1GiB"],
        &["--report", "/no/such/directory/out.html"],
        &["--report", "/"],
    ] {
        check_error(2, &run(&[&["bench", &dir], args].concat()), &[]);
    }
    check_empty(&dir);
}

#[test]
fn a_signal_ends_it_with_what_was_measured_and_leaves_nothing_behind() {
    let (_parent, dir) = fresh_dir();
    let mut bench = cairn(&["bench", &dir, "--seconds", "0.3", "--threads", "2", "--json"]);
    let bench = bench.args(["--size", &["64"; 300].join(",")]);
    let bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first log begins when the raw loops are done.
    let has_log = || {
        let entries = std::fs::read_dir(&dir).unwrap();
        entries.flatten().any(|entry| entry.path().join("log").join("LOCK").exists())
    };
    while !has_log() {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(&bench, "INT");
    let report = json(&check(0, bench.wait_with_output().unwrap()));
    assert_eq!(report["ended_by"], "a signal");
    assert_eq!(report["cells"][0]["mode"], "raw-buffered");
    check_empty(&dir);
}

/// timeout(1) sends each signal twice, to the process and to its group.
#[test]
fn a_signal_that_comes_twice_is_one() {
    let (_parent, dir) = fresh_dir();
    let mut bench = cairn(&["bench", &dir, "--seconds", "600"]);
    let bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while std::fs::read_dir(&dir).unwrap().next().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    kill(&bench, "TERM");
    kill(&bench, "TERM");
    check_error(
        1,
        &bench.wait_with_output().unwrap(),
        &["ended by a signal before anything was measured"],
    );
    check_empty(&dir);
}
