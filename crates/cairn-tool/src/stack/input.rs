//! Bytes as users give and get them: raw or as hexadecimal digits.

use std::io::{self, Read};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::report::UsageError;

/// How bytes are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// As they are
    Raw,
    /// Hexadecimal digits; white space between them is ignored
    Hex,
}

/// What one change may hold: it is made in memory.
pub(super) const INPUT_MAX: u64 = 256 << 20;

/// All of standard input; `None` when it is longer than one change may be.
pub(super) fn input(form: Form) -> anyhow::Result<Option<Vec<u8>>> {
    let max = if form == Form::Hex { 3 * INPUT_MAX } else { INPUT_MAX };
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(max + 1)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    if bytes.len() as u64 > max {
        return Ok(None);
    }
    if form == Form::Hex { from_hex(&bytes).map(Some) } else { Ok(Some(bytes)) }
}

fn from_hex(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut half = None;
    for (at, c) in text.iter().enumerate().filter(|(_, c)| !c.is_ascii_whitespace()) {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => {
                return Err(
                    UsageError(format!("byte {at} of the input is no hexadecimal digit")).into()
                );
            }
        };
        match half.take() {
            None => half = Some(digit << 4),
            Some(high) => bytes.push(high | digit),
        }
    }
    match half {
        None => Ok(bytes),
        Some(_) => {
            Err(UsageError("the input has an odd number of hexadecimal digits".to_owned()).into())
        }
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_go_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(to_hex(&all).as_bytes()).unwrap(), all);
        assert_eq!(from_hex(b" 0A\nfF ").unwrap(), [10, 255]);
        assert!(from_hex(b"0").is_err() && from_hex(b"0g").is_err());
        assert!(from_hex(b"").unwrap().is_empty());
    }
}
