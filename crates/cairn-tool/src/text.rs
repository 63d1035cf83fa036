//! Words of others, as a terminal may get them.

use std::path::Path;

/// Without the line breaks and control characters that paths and system messages may contain.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A path for people: control characters in it do nothing to a terminal.
pub(crate) fn shown(path: &Path) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    path.to_string_lossy().chars().map(escape).collect()
}
