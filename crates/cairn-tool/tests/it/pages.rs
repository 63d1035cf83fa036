//! The pages that show commands: typed one after the other in one fresh directory, they print what
//! the pages show.

use std::path::Path;
use std::process::Command;

use crate::common::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A command and what is shown below it.
#[derive(Debug)]
struct Step {
    command: String,
    shown: String,
}

/// The steps of all `console` blocks of a page, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_console = line == "```console";
            continue;
        }
        if !is_console {
            continue;
        }
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { command: command.to_owned(), shown: String::new() });
            }
            (None, Some(step)) if step.command.ends_with('\\') => {
                step.command = format!("{}{}", step.command.trim_end_matches('\\'), line.trim());
            }
            (None, Some(step)) => step.shown += &format!("{line}\n"),
            (None, None) => panic!("a block begins without a command: {line}"),
        }
    }
    steps
}

/// Whether a page shows what was printed. Lines may be broken elsewhere; `…` stands for the rest of
/// a line, and figures that no two runs have in common are any.
fn is_shown(shown: &str, printed: &str) -> bool {
    let (mut shown, mut printed) = (shown.to_owned(), printed.to_owned());
    if let Some((before, after)) = shown.clone().split_once('…') {
        // What stands before it, and then the lines behind it.
        let words: Vec<&str> = before.split_whitespace().collect();
        let Some(rest) = skip(&printed, words.len()) else { return false };
        let line_end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let head = printed[..printed.len() - rest.len()].to_owned();
        return is_shown(before, &head) && is_shown(after, &rest[line_end..]);
    }
    for text in [&mut shown, &mut printed] {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let (shown, printed): (Vec<_>, Vec<_>) =
        (shown.split(' ').collect(), printed.split(' ').collect());
    let same = |n: usize| {
        let before = n.checked_sub(1).map_or("", |n| shown[n]);
        let after = shown.get(n + 1).copied().unwrap_or_default();
        let any = matches!(before, "in" | "LSN") || after.starts_with("barrier");
        let rate = shown[n].starts_with('(') || before.starts_with('(');
        let bare = |word: &str| word.replace(|c: char| c.is_ascii_digit() || c == '.', "");
        let is_figure = any && bare(shown[n]) == bare(printed[n]);
        shown[n] == printed[n] || is_figure || (rate && !after.is_empty())
    };
    shown.len() == printed.len() && (0..shown.len()).all(same)
}

/// What follows so many words.
fn skip(text: &str, words: usize) -> Option<&str> {
    let mut rest = text;
    for _ in 0..words {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        rest = &rest[rest.find(char::is_whitespace).unwrap_or(rest.len())..];
    }
    Some(rest)
}

/// Types each command, and compares.
#[track_caller]
fn check_page(page: &str) {
    let dir = tempfile::tempdir().unwrap();
    let bin = tempfile::tempdir().unwrap();
    // A checkout is needed for the examples of the library alone.
    let cargo = format!(
        "#!/bin/sh\ncommand=$1\nshift\n\
         exec {} \"$command\" --quiet --manifest-path {ROOT}/Cargo.toml \"$@\"\n",
        std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
    );
    let shim = bin.path().join("cargo");
    std::fs::write(&shim, cargo).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&shim, mode).unwrap();
    let cairn = Path::new(CAIRN).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{path}", bin.path().display(), cairn.display());
    let page = std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let steps = steps(&page);
    assert!(steps.len() > 4, "{steps:?}");
    for Step { command, shown } in &steps {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec 2>&1; {command}")]).current_dir(dir.path());
        let output = shell.env("PATH", &path).output().unwrap();
        let printed = text(&output.stdout);
        assert!(is_shown(shown, &printed), "$ {command}\nshown:\n{shown}\nprinted:\n{printed}");
    }
}

#[test]
fn the_readme_shows_what_its_commands_print() {
    check_page("README.md");
}

#[test]
fn the_readme_of_the_tool_shows_what_its_commands_print() {
    check_page("crates/cairn-tool/README.md");
}

#[test]
fn every_command_on_the_page_of_operations_prints_what_it_shows() {
    check_page("docs/operations.md");
}

#[test]
fn what_is_shown_is_compared_by_words_and_figures() {
    for (shown, printed, same) in [
        ("a b\nc\n", "a b c\n", true),
        ("a b", "a c", false),
        ("a b", "a b c", false),
        ("", "", true),
        ("3 records in 0.05 s", "3 records in 1.25 s", true),
        ("3 records in 0.05 s", "4 records in 0.05 s", false),
        ("(18.98 M records/s), 25 barriers,", "(701.2 k records/s), 7 barriers,", true),
        ("LSN 0..144, closed", "LSN 0..152, closed", true),
        ("LSN 0..144, closed", "LSN 0..152, unclosed", false),
        ("50 kills, …", "50 kills, 3 of it\n", true),
        ("50 kills, …", "49 kills, 3 of it\n", false),
        ("a …\nlast", "a b c\nlast", true),
        ("a …\nlast", "a b c\nother", false),
    ] {
        assert_eq!(is_shown(shown, printed), same, "{shown:?} {printed:?}");
    }
}
