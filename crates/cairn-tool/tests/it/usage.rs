//! Help, usage errors, completions and the manual: the same for all commands.

use std::process::Command;

use crate::common::*;

/// Every command by its words, the outermost one first.
pub(crate) fn commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut next = 0;
    while next < all.len() {
        let args: Vec<&str> = all[next].iter().map(String::as_str).collect();
        let help = help(&args);
        let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        let list = list.split("\n\n").next().unwrap_or_default();
        let names = list.lines().filter_map(|line| line.strip_prefix("  "));
        let names =
            names.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next());
        for name in names.filter(|name| *name != "help") {
            all.push([&all[next][..], &[name.to_owned()]].concat());
        }
        next += 1;
    }
    all
}

#[track_caller]
pub(crate) fn help(command: &[&str]) -> String {
    text(&check(0, run(&[command, &["--help"]].concat())))
}

#[test]
fn all_help_fits_80_columns_and_has_examples() {
    let commands = commands();
    for name in ["append", "dump", "diff", "digest", "completions", "man", "stack", "heap"] {
        assert!(commands.iter().any(|command| *command == [name]), "{name}: {commands:?}");
    }
    assert!(commands.len() > 25, "{commands:?}");
    for command in &commands {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        let help = help(&args);
        assert!(help.contains("\nExamples:\n  "), "{command:?}: no examples");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command:?}: {line}");
        }
        let short = text(&check(0, run(&[&args[..], &["-h"]].concat())));
        assert!(short.lines().all(|line| line.chars().count() <= 80), "{short}");
    }
}

#[test]
fn a_usage_error_names_its_command() {
    let (_parent, dir) = fresh();
    let cases: &[(&[&str], &str)] = &[
        (&["append"], "cairn append: "),
        (&["append", &dir, "--bogus"], "cairn append: "),
        (&["--bogus", "append", &dir], "cairn append: "),
        (&["append", &dir, "--segment-size", "pig"], "cairn append: "),
        (&["cat", &dir, "--from", "x"], "cairn cat: "),
        (&["truncate", &dir], "cairn truncate: "),
        (&["stack", "push"], "cairn stack push: "),
        (&["stack", "pop", "f", "x"], "cairn stack pop: "),
        (&["heap", "dump", "f", "--limit", "-1"], "cairn heap dump: "),
        (&["stack", "frobnicate"], "cairn stack: "),
        (&["frobnicate", &dir], "cairn: "),
        (&["completions", "tcsh"], "cairn completions: "),
        (&["man", "frobnicate"], "cairn man: "),
    ];
    for (args, name) in cases {
        check_error(2, &run(args), &[name]);
        let json = run(&[*args, &["--json"]].concat());
        if *args != ["man", "frobnicate"] {
            check_error(2, &json, &[name.trim_end_matches(": "), "\"usage\"", "--help"]);
        }
    }
}

#[test]
fn shells_complete_commands_and_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&check(0, run(&["completions", shell])));
        for words in ["append", "skip-long", "keep-age", "import"] {
            assert!(script.contains(words), "{shell}: {words}");
        }
        assert!(!script.contains("torture-child"), "{shell}");
    }
    let complete = "source <('__CAIRN__' completions bash); COMP_WORDS=(cairn tru); COMP_CWORD=1; \
                    _cairn cairn tru cairn; echo \"${COMPREPLY[*]}\"; COMP_WORDS=(cairn cat --wi); \
                    COMP_CWORD=2; _cairn cairn --wi cat; echo \"${COMPREPLY[*]}\"";
    let output =
        Command::new("bash").args(["-c", &complete.replace("__CAIRN__", CAIRN)]).output().unwrap();
    assert_eq!(text(&check(0, output)), "truncate\n--with-lsn\n");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("man1");
    check(0, run(&["man", "--dir", dir.to_str().unwrap()]));
    for command in commands() {
        let title = [&["cairn".to_owned()][..], &command].concat().join("-");
        let page = std::fs::read_to_string(dir.join(format!("{title}.1"))).unwrap();
        let args = [&["man".to_owned()][..], &command].concat();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(text(&check(0, run(&args))), page);
        for words in [format!(".TH {title} 1").as_str(), ".SH SYNOPSIS", ".SH EXAMPLES\n.nf\n"] {
            assert!(page.contains(words), "{title}: {words} is missing: {page}");
        }
    }
    assert!(!dir.join("cairn-torture-child.1").exists());
    // As man(1) shows it, if there is one.
    let page = dir.join("cairn-append.1");
    let shown = Command::new("man").env("MANWIDTH", "80").arg("-l").arg(page).output();
    match shown {
        Ok(shown) if shown.status.success() => {
            let shown = text(&shown.stdout);
            assert!(shown.contains("find . -print0 | cairn append ./log -0\n"), "{shown}");
            assert_eq!(text(&shown.clone().into_bytes()).matches("EXAMPLES").count(), 1);
        }
        _ => println!("skipped: there is no man(1) that works"),
    }
}
