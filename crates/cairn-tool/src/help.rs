//! Help that fits 80 columns, wherever it is printed.

use clap::Command;
use clap::builder::StyledStr;

/// Columns that help and output for people keep to.
pub(crate) const WIDTH: usize = 80;

/// Sections whose lines stand as they are written.
const AS_WRITTEN: &str = "Examples:";

/// Breaks the lines of all help texts at [`WIDTH`]; clap does so with the rest.
pub(crate) fn fit(command: Command) -> Command {
    let after = command.get_after_help().map(|text| break_lines(&text.to_string(), WIDTH));
    let command = match after {
        Some(text) => command.after_help(StyledStr::from(text)),
        None => command,
    };
    command.max_term_width(WIDTH).mut_subcommands(fit)
}

/// Fills paragraphs anew: lines that belong together are joined, then broken.
pub(crate) fn break_lines(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut entry: Option<Entry> = None;
    let mut as_written = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            as_written = line == AS_WRITTEN;
        }
        if as_written || line.is_empty() || line.ends_with(':') {
            lines.extend(entry.take().map(|entry| entry.fill(width)));
            lines.push(line.to_owned());
            continue;
        }
        match &mut entry {
            Some(entry) if entry.goes_on(line) => {
                entry.text = format!("{} {}", entry.text, line.trim())
            }
            _ => {
                lines.extend(entry.replace(Entry::new(line)).map(|entry| entry.fill(width)));
            }
        }
    }
    lines.extend(entry.map(|entry| entry.fill(width)));
    lines.join("\n")
}

/// A paragraph, or a word with its explanation.
struct Entry {
    text: String,
    /// Column of the first line, and of the lines behind it.
    indent: usize,
    hang: usize,
}

impl Entry {
    fn new(line: &str) -> Self {
        let indent = line.len() - line.trim_start().len();
        let hang = label_len(&line[indent..]).map_or(indent, |label| indent + label);
        Entry { text: line.trim().to_owned(), indent, hang }
    }

    /// Whether a line belongs to what precedes it: it stands below its text, and begins no entry
    /// of its own.
    fn goes_on(&self, line: &str) -> bool {
        let indent = line.len() - line.trim_start().len();
        indent == self.hang && (self.hang > self.indent || label_len(line.trim_start()).is_none())
    }

    fn fill(self, width: usize) -> String {
        let (first, rest) = (" ".repeat(self.indent), " ".repeat(self.hang));
        fill(&self.text, &first, &rest, width)
    }
}

/// Bytes up to the text of `word   text`; `None` for a line that is none. Two spaces end the word.
fn label_len(line: &str) -> Option<usize> {
    let word = line.find("  ")?;
    let text = line[word..].trim_start();
    (word <= 24 && !text.is_empty()).then(|| line.len() - text.len())
}

/// Breaks one paragraph at spaces; keeps runs of them, and words that are too long.
fn fill(text: &str, first: &str, rest: &str, width: usize) -> String {
    let options = textwrap::Options::new(width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit);
    textwrap::fill(text, options)
}

/// Breaks the lines of a text for people that are too long. What follows stands below the value of
/// `name   value`, or as far in as the line itself.
pub(crate) fn break_long(text: &str) -> String {
    let fit = |line: &str| {
        if textwrap::core::display_width(line) <= WIDTH {
            return line.to_owned();
        }
        Entry::new(line).fill(WIDTH)
    };
    let mut broken: String = text.lines().map(fit).collect::<Vec<_>>().join("\n");
    if text.ends_with('\n') {
        broken.push('\n');
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_entries_are_filled_and_examples_stand() {
        let word = "word ".repeat(18);
        let text = format!(
            "Examples:\n  a      b\n  c      d\n\nWords:\n  one   {word}\n        more\n  two   x\n\
             {word}\nlast"
        );
        let broken = break_lines(&text, WIDTH);
        assert!(broken.lines().all(|line| line.len() <= WIDTH), "{broken}");
        assert!(broken.starts_with("Examples:\n  a      b\n  c      d\n\nWords:\n  one   word"));
        assert!(broken.contains("\n        word word word word more\n  two   x\nword"), "{broken}");
        assert!(broken.ends_with(" word\nword word last"), "{broken}");
    }

    #[test]
    fn a_long_line_goes_on_below_its_value() {
        let long = format!("name   {}\nshort\n", "value ".repeat(20).trim_end());
        let broken = break_long(&long);
        assert!(broken.lines().all(|line| line.len() <= WIDTH), "{broken}");
        assert!(
            broken.contains("\n       value") && broken.ends_with("value\nshort\n"),
            "{broken}"
        );
        assert_eq!(break_long(&"x".repeat(100)), "x".repeat(100));
    }
}
