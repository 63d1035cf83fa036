//! What `--json` prints is what `docs/json.md` says, for each command.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;

use cairnlog::heap::{Heap, SizeClass};
use serde_json::Value;

use crate::common::*;

const PAGE: &str = include_str!("../../../../docs/json.md");

/// A key as the page has it.
#[derive(Clone)]
struct Row {
    types: Vec<String>,
    may_be_missing: bool,
}

/// The rows of each section, by its heading.
fn page() -> BTreeMap<String, BTreeMap<String, Row>> {
    let mut sections: BTreeMap<String, BTreeMap<String, Row>> = BTreeMap::new();
    let mut heading = String::new();
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.to_owned();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let Some(key) = cells.get(1).and_then(|key| key.strip_prefix('`')?.strip_suffix('`'))
        else {
            continue;
        };
        let (types, missing) = match cells[2].split_once(", ") {
            Some((types, missing)) => (types, missing),
            None => (cells[2], ""),
        };
        let types = types.split(" or ").map(str::to_owned).collect();
        let row = Row { types, may_be_missing: missing == "may be missing" };
        sections.entry(heading.clone()).or_default().insert(key.to_owned(), row);
    }
    sections
}

/// Every path in a value, with the types found there.
fn paths(value: &Value, at: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !at.is_empty() && !at.ends_with("[]") {
        found.entry(at.to_owned()).or_default().insert(kind);
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                paths(value, &at, found);
            }
        }
        Value::Array(values) => {
            let objects = values.iter().filter(|value| value.is_object());
            objects.for_each(|value| paths(value, &format!("{at}[]"), found));
        }
        _ => {}
    }
}

/// Whether a path of the page is this one: a `*` is any key.
fn is(row: &str, path: &str) -> bool {
    let (row, path): (Vec<_>, Vec<_>) = (row.split('.').collect(), path.split('.').collect());
    row.len() == path.len() && row.iter().zip(&path).all(|(row, key)| *row == "*" || row == key)
}

/// Compares lines of JSON with a section, which may use others' rows.
#[track_caller]
fn check_lines(section: &str, others: &[&str], lines: &str) {
    let page = page();
    let mut rows = page.get(section).unwrap_or_else(|| panic!("no section {section}")).clone();
    for other in others {
        for (key, row) in &page[*other] {
            rows.insert(key.clone(), Row { may_be_missing: true, ..row.clone() });
        }
    }
    let mut found = BTreeMap::new();
    let mut count = 0;
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(value.is_object(), "{section}: {line}");
        let mut here = BTreeMap::new();
        paths(&value, "", &mut here);
        for (key, row) in &rows {
            let parent = key.rsplit_once('.').map(|(parent, _)| parent);
            let expected = match parent {
                None => true,
                Some(parent) if parent.ends_with("[]") => false,
                Some(parent) => here.get(parent).is_some_and(|types| types.contains("object")),
            };
            if expected && !row.may_be_missing && !key.contains('*') {
                assert!(here.contains_key(key), "{section}: {key} is missing: {line}");
            }
        }
        for (path, types) in here {
            found.entry(path).or_insert_with(BTreeSet::new).extend(types);
        }
        count += 1;
    }
    assert!(count > 0, "{section}: nothing was printed");
    for (path, types) in &found {
        let row = rows.iter().find(|(key, _)| is(key, path));
        let (_, row) = row.unwrap_or_else(|| panic!("{section}: {path} is not on the page"));
        for kind in types {
            assert!(row.types.iter().any(|t| t == kind), "{section}: {path} is a {kind}");
        }
    }
    // What never appears is on the page for nothing, unless what it is in is not there.
    for (key, _) in page[section].iter().filter(|(_, row)| !row.may_be_missing) {
        let appears = found.keys().any(|path| is(key, path));
        let parent = key.rsplit_once('.').map(|(parent, _)| parent);
        let is_there = parent.is_none_or(|parent| {
            let parent = format!("{parent}.");
            found.keys().any(|path| path.starts_with(&parent))
        });
        assert!(appears || !is_there, "{section}: {key} never appears");
    }
}

#[track_caller]
fn check_page(section: &str, others: &[&str], expected: i32, output: Output) {
    check_lines(section, others, &text(&check(expected, output)));
}

/// Runs and compares the keys of standard output.
#[track_caller]
fn shows(section: &str, args: &[&str]) {
    check_page(section, &[], 0, run(&[args, &["--json"]].concat()));
}

#[test]
fn commands_of_logs_print_what_the_page_says() {
    let (parent, dir) = fresh();
    let other = parent.path().join("other").to_str().unwrap().to_owned();
    let small = ["append", &dir, "--json", "--segment-size", "8KiB"];
    check_page("cairn append", &[], 0, feed(cairn(&small), &numbers(0..600)));
    check(0, feed(cairn(&["append", &dir, "-0"]), b"\xff"));
    append(&other, b"0\n2\n3\n");
    check(0, run(&["truncate", &other, "--before-seq", "1"]));
    shows("cairn cat", &["cat", &dir]);
    // Of a section with arrays each has to be there once.
    let segment = segments(&dir)[0].to_str().unwrap().to_owned();
    let dumped = ["dump", &segment, "--json"];
    check_page("cairn dump", &[], 0, run(&dumped));
    check_page("cairn info", &["Problems"], 0, run(&["info", &dir, "--json", "--stats"]));
    check_page("cairn info", &["Problems"], 0, run(&["info", &other, "--json"]));
    check_page("cairn verify", &["Problems"], 0, run(&["verify", &dir, "--json"]));
    shows("cairn digest", &["digest", &dir]);
    let different =
        [run(&["diff", &dir, &other, "--json"]), run(&["diff", &other, &dir, "--json"])];
    let lines: String = different.into_iter().map(|output| text(&check(5, output))).collect();
    check_lines("cairn diff", &[], &lines);
    shows("cairn truncate", &["truncate", &dir, "--before-seq", "3"]);
    shows("cairn truncate", &["truncate", &dir, "--before-seq", "4", "--dry-run"]);
    shows("cairn doctor", &["doctor", &dir]);
    let bench = ["bench", &dir, "--seconds", "0.01", "--threads", "1", "--size", "100", "--json"];
    check_page("cairn bench", &["cairn doctor"], 0, run(&bench));
    let torture = parent.path().join("torture").to_str().unwrap().to_owned();
    shows("cairn torture", &["torture", &torture, "--runs", "1"]);
    let place = |name: &str| parent.path().join(name).to_str().unwrap().to_owned();
    let (copy, again) = (place("copy"), place("again"));
    shows("cairn backup", &["backup", &dir, &copy]);
    shows("cairn restore", &["restore", &copy, &again]);
    // What is damaged: problems on standard output, and the error on standard error.
    flip(&segments(&dir)[0], 4500);
    let output = run(&["verify", &dir, "--json"]);
    check_lines("Errors and notes", &[], &(text(&output.stderr) + "{\"note\":{\"message\":\"\"}}"));
    check_page("cairn verify", &["Problems"], 4, output);
    let output = run(&["salvage", &dir, "--json"]);
    assert!(text(&output.stdout).contains("{\"lost\":"));
    check_lines("cairn salvage", &["cairn cat"], &text(&output.stdout));
    let stranger = format!("{dir}/00000000000009999992-0000000001.cairn");
    std::fs::write(stranger, "a text").unwrap();
    check_page("cairn repair", &["Problems"], 4, run(&["repair", &dir, "--json"]));
    check_page("cairn repair", &["Problems"], 0, run(&["repair", &dir, "--json", "--apply"]));
    flip(&segments(&dir)[0], 5000);
    check_page("cairn repair", &["Problems"], 4, run(&["repair", &dir, "--json"]));
    check_page("cairn verify", &["Problems"], 4, run(&["verify", &dir, "--json"]));
    check_page("cairn info", &["Problems"], 0, run(&["info", &dir, "--json"]));
    let (_parent, torn) = torn_log();
    let output = run(&["cat", &torn, "--json"]);
    assert!(text(&output.stderr).starts_with("{\"note\":{\"message\":\"the last "));
}

#[test]
fn commands_of_stacks_and_heaps_print_what_the_page_says() {
    let (_parent, file) = fresh();
    let args = ["stack", "push", &file, "--json"];
    check_page("cairn stack push", &[], 0, feed(cairn(&args), b"hello"));
    let args = ["stack", "set", &file, "0", "--json"];
    check_page("cairn stack set", &[], 0, feed(cairn(&args), b"\xff"));
    shows("cairn stack peek", &["stack", "peek", &file]);
    shows("cairn stack get", &["stack", "get", &file, "1", "2"]);
    shows("cairn stack pop", &["stack", "pop", &file, "1"]);
    shows("cairn stack info", &["stack", "info", &file]);
    shows("cairn stack verify", &["stack", "verify", &file]);
    shows("cairn stack repair", &["stack", "repair", &file]);
    let (_other, copy) = fresh();
    std::fs::write(format!("{copy}.raw"), "bytes").unwrap();
    let raw = format!("{copy}.raw");
    shows("cairn stack import", &["stack", "import", &copy, &raw, "--format", "raw"]);
    check_page("cairn stack verify", &[], 4, {
        std::fs::write(&copy, "not a stack").unwrap();
        run(&["stack", "verify", &copy, "--json"])
    });

    let (_parent, file) = fresh();
    let heap = Heap::open(open_stack(&file), SizeClass).unwrap();
    heap.transaction(|tx| {
        let block = tx.alloc_with("Ada")?;
        tx.set_root(3, block)
    })
    .unwrap();
    heap.close().unwrap();
    shows("cairn heap info", &["heap", "info", &file]);
    shows("cairn heap roots", &["heap", "roots", &file]);
    shows("cairn heap dump", &["heap", "dump", &file]);
    shows("cairn heap check", &["heap", "check", &file]);
    shows("cairn heap repair", &["heap", "repair", &file]);
}

/// Each command that has `--json` has a section, and each section a command.
#[test]
fn the_page_has_each_command() {
    let mut with_json = BTreeSet::new();
    for command in crate::usage::commands() {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        let help = crate::usage::help(&args);
        if help.lines().any(|line| line.trim_start().starts_with("--json")) {
            with_json.insert(format!("cairn {}", command.join(" ")));
        }
    }
    let sections: BTreeSet<String> =
        page().into_keys().filter(|title| title.starts_with("cairn ")).collect();
    assert_eq!(sections, with_json);
}
