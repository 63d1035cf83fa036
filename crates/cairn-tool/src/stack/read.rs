//! `cairn stack peek`, `get` and `export`: reading without a lock.

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cairnlog::stack::{Error, Inspection};
use serde::Serialize;

use super::input::{Form, to_hex};
use super::look::look;
use crate::report::{Outcome, Status, UsageError};

/// Print bytes up to the top, and leave them there
///
/// Takes no lock and changes nothing, also while another process writes: what is printed is of one
/// moment.
#[derive(Debug, clap::Args)]
#[command(after_help = PEEK_HELP)]
pub(super) struct PeekArgs {
    /// File of the stack
    file: PathBuf,
    /// Offset of the first byte
    #[arg(default_value = "0")]
    offset: u64,
    /// Print the last bytes instead, so many, or all if there are fewer
    #[arg(long, value_name = "BYTES", conflicts_with = "offset")]
    last: Option<u64>,
    #[command(flatten)]
    output: Output,
}

const PEEK_HELP: &str = "\
Examples:
  cairn stack peek ./stack
  cairn stack peek ./stack 128 --form hex
  cairn stack peek ./stack --last 16 --json";

/// Print a range
///
/// Takes no lock and changes nothing, also while another process writes: what is printed is of one
/// moment.
#[derive(Debug, clap::Args)]
#[command(after_help = GET_HELP)]
pub(super) struct GetArgs {
    /// File of the stack
    file: PathBuf,
    /// Offset of the first byte
    start: u64,
    /// Offset of the byte after the last one
    end: u64,
    #[command(flatten)]
    output: Output,
}

const GET_HELP: &str = "\
Examples:
  cairn stack get ./stack 0 16 --form hex
  cairn stack get ./stack 0 5 --json | jq -r .data";

/// Print all bytes, as they are
///
/// `cairn stack import` makes a stack of them again. Takes no lock and changes nothing; fails when
/// the stack changes meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPORT_HELP)]
pub(super) struct ExportArgs {
    /// File of the stack
    file: PathBuf,
}

const EXPORT_HELP: &str = "\
Examples:
  cairn stack export ./stack > bytes
  cairn stack export ./stack | cairn stack import ./copy";

/// How bytes are printed.
#[derive(Debug, clap::Args)]
pub(super) struct Output {
    /// What is printed
    #[arg(long, value_enum, default_value = "raw")]
    form: Form,
    /// Print {"offset", "len", "data"}; "data_hex" when the bytes are not UTF-8
    #[arg(long, conflicts_with = "form")]
    json: bool,
}

/// Bytes as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    offset: u64,
    len: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_hex: Option<String>,
}

/// Bytes are read so many at a time.
const CHUNK: u64 = 4 << 20;
/// The most that is printed as JSON, which is made in memory.
const JSON_MAX: u64 = 256 << 20;

impl Output {
    const RAW: Output = Output { form: Form::Raw, json: false };

    /// Prints the bytes of a range that is within the stack.
    pub(super) fn write(
        &self,
        range: Range<u64>,
        mut read: impl FnMut(u64, &mut [u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let len = range.end - range.start;
        let chunk = if self.json { len } else { len.min(CHUNK) };
        if self.json && len > JSON_MAX {
            return Err(
                UsageError(format!("{len} bytes are too many for JSON ({JSON_MAX})")).into()
            );
        }
        let mut buf = vec![0; usize::try_from(chunk).context("too many bytes for this machine")?];
        let mut out = BufWriter::new(io::stdout().lock());
        let mut write =
            |bytes: &[u8]| out.write_all(bytes).context("cannot write to standard output");
        let mut offset = range.start;
        while offset < range.end {
            let part = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(buf.len());
            read(offset, &mut buf[..part])?;
            offset += part as u64;
            match self.form {
                _ if self.json => {}
                Form::Raw => write(&buf[..part])?,
                Form::Hex => write(to_hex(&buf[..part]).as_bytes())?,
            }
        }
        if self.json {
            let data = std::str::from_utf8(&buf).ok();
            let data_hex = data.is_none().then(|| to_hex(&buf));
            let shown = Shown { offset: range.start, len, data, data_hex };
            write((serde_json::to_string(&shown)? + "\n").as_bytes())?;
        } else if self.form == Form::Hex {
            write(b"\n")?;
        }
        out.flush().context("cannot write to standard output")
    }
}

pub(super) fn peek(args: &PeekArgs) -> Outcome {
    print(&args.file, &args.output, |len| match args.last {
        Some(last) => len.saturating_sub(last)..len,
        None => args.offset..len.max(args.offset),
    })
}

pub(super) fn get(args: &GetArgs) -> Outcome {
    print(&args.file, &args.output, |_| args.start..args.end)
}

pub(super) fn export(args: &ExportArgs) -> Outcome {
    print(&args.file, &Output::RAW, |len| 0..len)
}

/// Prints a range of one moment. Begins again when the stack changed and nothing was printed yet.
fn print(path: &Path, output: &Output, range: impl Fn(u64) -> Range<u64>) -> Outcome {
    const ATTEMPTS: u32 = 100;
    for attempt in 1.. {
        let stack = look(path)?;
        let printed = print_once(&stack, output, range(stack.len()));
        match printed {
            Err(Stop::Changed { printed: false }) if attempt < ATTEMPTS => {}
            Err(Stop::Changed { .. }) => {
                bail!(
                    "the stack changed while it was read; stop its writer, or run the command again"
                )
            }
            Err(Stop::Other(error)) => return Err(error),
            Ok(()) => return Ok(Status::Done),
        }
    }
    unreachable!("the last attempt returns")
}

enum Stop {
    Changed { printed: bool },
    Other(anyhow::Error),
}

fn print_once(stack: &Inspection, output: &Output, range: Range<u64>) -> Result<(), Stop> {
    let len = stack.len();
    if range.start > range.end || range.end > len {
        let error = Error::OutOfRange { start: range.start, end: range.end, len };
        return Err(Stop::Other(error.into()));
    }
    let (mut changed, mut reads) = (false, 0);
    let printed = output.write(range, |offset, buf| {
        stack.get_into(offset, buf)?;
        reads += 1;
        if !stack.is_current()? {
            changed = true;
            bail!("changed");
        }
        Ok(())
    });
    match printed {
        Err(_) if changed => Err(Stop::Changed { printed: reads > 1 }),
        // A reader that went away is no error.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        printed => printed.map_err(Stop::Other),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}
