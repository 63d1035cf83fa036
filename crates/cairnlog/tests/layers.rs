//! The layer rules of ARCHITECTURE.md, looked up in the sources.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files below a folder, with their text. Comments are taken out: words in prose break no
/// rule.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![crates().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text
                    .lines()
                    .filter(|l| !l.trim_start().starts_with("//"))
                    .collect::<Vec<_>>()
                    .join("\n");
                found.push((path, code));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// Fails for every source in which one of the words stands, outside of its unit tests.
fn none_mentions(folder: &str, words: &[&str]) {
    none_mentions_but(folder, "", words);
}

/// The same, where `allowed` is no mention.
fn none_mentions_but(folder: &str, allowed: &str, words: &[&str]) {
    for (path, code) in sources(folder) {
        // A file of unit tests.
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        let code = if allowed.is_empty() { code.to_owned() } else { code.replace(allowed, "") };
        for word in words {
            assert!(!code.contains(word), "{} mentions {word}", path.display());
        }
    }
}

fn dependencies(name: &str) -> String {
    let manifest = fs::read_to_string(crates().join(name).join("Cargo.toml")).unwrap();
    let from =
        manifest.find("[dependencies]").unwrap_or_else(|| panic!("{name} has no dependencies"));
    manifest[from + 1..].split("\n[").next().unwrap().to_owned()
}

#[test]
fn the_foundation_knows_nothing_above_it() {
    assert!(!dependencies("cairn-io").contains("cairn"));
    none_mentions(
        "cairn-io/src",
        &["cairn_log", "cairn_stack", "cairnlog", "cairn_sim", "cairn_segmented", "Lsn"],
    );
    // A store of many files is on the foundation, and the structures do not need it.
    for other in ["cairn-log", "cairn-stack", "cairn-commit", "cairn-sim"] {
        assert!(!dependencies("cairn-segmented").contains(other));
        assert!(!dependencies(other).contains("cairn-segmented"));
    }
    for above in ["cairn-log", "cairn-stack"] {
        assert!(!dependencies("cairn-sim").contains(above));
    }
}

#[test]
fn the_format_does_no_io() {
    for format in ["cairn-log/src/format", "cairn-stack/src/format"] {
        // How a file says what it is takes bytes and returns a verdict.
        none_mentions_but(
            format,
            "cairn_io::preamble",
            &["std::fs", "std::io", "cairn_io", "std::thread", "std::time"],
        );
    }
    for pure in ["preamble.rs", "stop.rs"] {
        let (_, code) =
            sources("cairn-io/src").into_iter().find(|(path, _)| path.ends_with(pure)).unwrap();
        let code = code.split("#[cfg(test)]").next().unwrap();
        for word in ["std::fs", "std::io", "std::thread", "std::time", "crate::"] {
            assert!(!code.contains(word), "{pure} mentions {word}");
        }
    }
}

#[test]
fn the_log_knows_no_runtime_and_no_file_but_through_the_seams() {
    none_mentions(
        "cairn-log/src",
        &["tokio", "async_std", "smol", "std::fs", "SystemTime::now", "Instant::now", "rand::"],
    );
    for runtime in ["tokio", "smol", "futures"] {
        assert!(!dependencies("cairn-log").contains(runtime));
    }
    for (path, code) in sources("cairn-log/src") {
        // A module of tests may wait as it likes.
        let shim = path.file_name().is_some_and(|name| name == "sync.rs" || name == "tests.rs");
        for word in ["std::thread", "Mutex::new", "Condvar"] {
            let locks = ["core.rs", "ahead.rs"].iter().any(|file| path.ends_with(file));
            let allowed = shim || (word == "Mutex::new" && locks);
            assert!(
                allowed || !code.contains(word),
                "{} takes {word} past the shim",
                path.display()
            );
        }
    }
}

#[test]
fn the_stack_knows_no_log_no_runtime_and_no_file_but_through_the_seams() {
    none_mentions(
        "cairn-stack/src",
        &[
            "cairn_log",
            "cairnlog",
            "tokio",
            "async_std",
            "smol",
            "async fn",
            "std::fs",
            "SystemTime::now",
            "Instant::now",
            "rand::",
            "std::thread",
        ],
    );
    for other in ["cairn-log", "cairnlog", "tokio", "smol", "futures"] {
        assert!(!dependencies("cairn-stack").contains(other));
    }
    assert!(!dependencies("cairn-log").contains("cairn-stack"));
    for (path, code) in sources("cairn-stack/src") {
        let shim = path.file_name().is_some_and(|n| n == "sync.rs");
        for word in ["std::sync::Mutex", "std::sync::RwLock", "Condvar"] {
            assert!(shim || !code.contains(word), "{} takes {word} past the shim", path.display());
        }
    }
}

#[test]
fn the_heap_knows_nothing_below_the_stack() {
    none_mentions(
        "cairn-heap/src",
        &["cairn_log", "cairnlog", "tokio", "async fn", "std::fs", "std::thread", "Instant::now"],
    );
    for other in ["cairn-log", "cairnlog", "tokio"] {
        assert!(!dependencies("cairn-heap").contains(other));
    }
    assert!(!dependencies("cairn-stack").contains("cairn-heap"));
}

#[test]
fn unsafe_code_is_nowhere_but_in_the_foundation() {
    for name in [
        "cairn-log",
        "cairn-stack",
        "cairn-heap",
        "cairn-segmented",
        "cairnlog",
        "cairn-sim",
        "cairn-tool",
    ] {
        none_mentions(
            &format!("{name}/src"),
            &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"],
        );
    }
}

#[test]
fn no_library_prints() {
    for name in [
        "cairn-io",
        "cairn-commit",
        "cairn-log",
        "cairn-stack",
        "cairn-heap",
        "cairn-segmented",
        "cairnlog",
        "cairn-sim",
    ] {
        none_mentions(&format!("{name}/src"), &["println!", "print!(", "dbg!"]);
    }
}
