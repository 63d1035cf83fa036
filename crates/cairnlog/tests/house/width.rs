//! 100 columns, in everything that people read: Rust, Markdown, TOML and shell.
//!
//! A line may be wider
//! * if it is a row of a table, in Markdown or in documentation,
//! * if there is a link in it: a web address, or Markdown's `](`,
//! * if it cannot be broken: its longest word does not fit behind the line's indentation.

use crate::sources::texts;

const WIDTH: usize = 100;

fn is_read(name: &str, text: &str) -> bool {
    let by_name = [".rs", ".md", ".toml", ".sh"].iter().any(|end| name.ends_with(end));
    by_name || text.starts_with("#!")
}

/// Numbers of the lines that are too wide, from 1.
fn too_wide(text: &str) -> Vec<usize> {
    let may_be = |line: &str| {
        let inner = line.trim_start();
        let documented = inner.trim_start_matches(['/', '!']).trim_start();
        let indentation = line.chars().count() - documented.chars().count();
        let word = line.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
        documented.starts_with('|')
            || ["](", "http://", "https://"].iter().any(|link| line.contains(link))
            || indentation + word > WIDTH
    };
    let numbered = text.lines().zip(1..);
    let wide = numbered.filter(|(line, _)| line.chars().count() > WIDTH && !may_be(line));
    wide.map(|(_, number)| number).collect()
}

#[test]
fn nothing_that_is_read_is_wider() {
    let texts = texts();
    let read = texts.iter().filter(|(name, text)| is_read(name, text));
    let wide: Vec<String> = read
        .flat_map(|(name, text)| too_wide(text).into_iter().map(move |n| format!("{name}:{n}")))
        .collect();
    assert!(wide.is_empty(), "{} lines: {}", wide.len(), wide.join(" "));
}

#[test]
fn a_wide_line_is_found_and_a_table_a_link_and_an_endless_word_are_not() {
    let words = |count: usize| "word ".repeat(count);
    let text = |line: &str| format!("short\n{line}\nshort");
    assert_eq!(too_wide(&text(&words(20))), [0; 0], "100 columns");
    for wide in [words(21), format!("    // {}", words(19) + "four"), "ä".repeat(60) + &words(9)] {
        assert_eq!(too_wide(&text(&wide)), [2], "{wide}");
    }
    assert_eq!(too_wide(&"ä ".repeat(50)), [0; 0], "characters count, not bytes");
    for fine in [
        format!("| {}|", words(30)),
        format!("/// | {}|", words(30)),
        format!("{} [page](docs/page.md)", words(20)),
        format!("// {} https://example.org", words(20)),
        "x".repeat(101),
        format!("    {}", "x".repeat(97)),
    ] {
        assert_eq!(too_wide(&text(&fine)), [0; 0], "{fine}");
    }
    assert!(is_read("fuzz/run", "#!/bin/sh\n") && is_read("a.rs", "") && !is_read("a.hex", ""));
}
