//! `cairn stack push`, `pop` and `set`.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use bytesize::ByteSize;
use cairnlog::stack::{Error, Stack};
use serde::Serialize;

use super::input::{Form, INPUT_MAX, input};
use super::opening::{open, open_existing};
use super::read::Output;
use crate::report::{self, Outcome, Status, UsageError};

/// Put standard input on top, and print its offset once it is durable
///
/// One push, whole or not at all. Creates the stack when there is none.
#[derive(Debug, clap::Args)]
#[command(after_help = PUSH_HELP)]
pub(super) struct PushArgs {
    /// File of the stack
    file: PathBuf,
    /// A push for each line, with its newline; prints an offset for each
    #[arg(long, conflicts_with_all = ["form", "chunk_size"])]
    lines: bool,
    /// A push for each piece of this size: for input that is too large for one; prints an offset
    /// for each
    #[arg(long, value_name = "SIZE", conflicts_with = "form")]
    chunk_size: Option<ByteSize>,
    /// What standard input is
    #[arg(long, value_enum, default_value = "raw")]
    form: Form,
    /// Print {"offset", "len"} instead, of each push
    #[arg(long)]
    json: bool,
}

const PUSH_HELP: &str = "\
Examples:
  echo hello | cairn stack push ./stack
  echo 'de ad be ef' | cairn stack push ./stack --form hex
  tail -f events | cairn stack push ./stack --lines
  cairn stack push ./stack --chunk-size 64MiB < large";

/// Take the last bytes off, and print them
///
/// They are printed first and taken off only when that went well. A crash in between leaves them
/// on the stack; a reader that goes away, too.
#[derive(Debug, clap::Args)]
#[command(after_help = POP_HELP)]
pub(super) struct PopArgs {
    /// File of the stack
    file: PathBuf,
    /// How many
    bytes: u64,
    /// Do not print them
    #[arg(long, conflicts_with_all = ["json", "form"])]
    discard: bool,
    #[command(flatten)]
    output: Output,
}

const POP_HELP: &str = "\
Examples:
  cairn stack pop ./stack 6
  cairn stack pop ./stack 16 --form hex
  cairn stack pop ./stack 1000000 --discard";

/// Write standard input over what is there
///
/// One change, whole or not at all; the length stays.
#[derive(Debug, clap::Args)]
#[command(after_help = SET_HELP)]
pub(super) struct SetArgs {
    /// File of the stack
    file: PathBuf,
    /// Where the first byte goes
    offset: u64,
    /// What standard input is
    #[arg(long, value_enum, default_value = "raw")]
    form: Form,
    /// Print {"offset", "len"} once it is durable
    #[arg(long)]
    json: bool,
}

const SET_HELP: &str = "\
Examples:
  printf HELLO | cairn stack set ./stack 0
  echo 00000001 | cairn stack set ./stack 128 --form hex --json";

/// What was written, and where.
#[derive(Debug, Serialize)]
struct Written {
    offset: u64,
    len: u64,
}

pub(super) fn push(args: &PushArgs) -> Outcome {
    let pushed = if args.lines || args.chunk_size.is_some() {
        let chunk = args.chunk_size.map_or(INPUT_MAX, |size| size.as_u64());
        if chunk == 0 || chunk > INPUT_MAX {
            return Err(UsageError(format!("--chunk-size is from 1 to {INPUT_MAX} bytes")).into());
        }
        let stack = open(&args.file)?;
        let pushed = push_many(args, chunk, &stack);
        // Whatever happened, what was acknowledged stays, and the file opens at once.
        pushed.and_then(|()| Ok(stack.close()?))
    } else {
        let Some(bytes) = input(args.form)? else {
            let text = format!(
                "the input is longer than {INPUT_MAX} bytes, the most for one push: nothing was \
                 pushed"
            );
            return Err(UsageError(format!("{text}; use --chunk-size")).into());
        };
        let stack = open(&args.file)?;
        let offset = stack.push(&bytes)?;
        tell(args.json, offset, bytes.len())?;
        stack.close().map_err(Into::into)
    };
    pushed.map(|()| Status::Done)
}

fn push_many(args: &PushArgs, chunk: u64, stack: &Stack) -> anyhow::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut limited = stdin.by_ref().take(chunk);
        let read = if args.lines {
            limited.read_until(b'\n', &mut bytes)
        } else {
            limited.read_to_end(&mut bytes)
        };
        if read.context("cannot read standard input")? == 0 {
            return Ok(());
        }
        let offset = stack.push(&bytes)?;
        tell(args.json, offset, bytes.len())?;
    }
}

/// Says that bytes are durable.
fn tell(json: bool, offset: u64, len: usize) -> anyhow::Result<()> {
    if json {
        return report::print_json(&Written { offset, len: len as u64 });
    }
    report::print(&format!("{offset}\n"))
}

pub(super) fn pop(args: &PopArgs) -> Outcome {
    let stack = open_existing(&args.file)?;
    if args.discard {
        stack.discard(args.bytes)?;
    } else {
        stack.transaction(|tx| {
            let len = tx.len();
            let too_short = Error::TooShort { op: "pop", bytes: args.bytes, len };
            let start = len.checked_sub(args.bytes).ok_or(too_short)?;
            args.output.write(start..len, |offset, buf| Ok(tx.get_into(offset, buf)?))?;
            io::stdout()
                .flush()
                .context("cannot write to standard output; nothing was taken off")?;
            Ok::<_, anyhow::Error>(tx.discard(args.bytes)?)
        })?;
    }
    stack.close()?;
    Ok(Status::Done)
}

pub(super) fn set(args: &SetArgs) -> Outcome {
    let Some(bytes) = input(args.form)? else {
        let text = format!(
            "the input is longer than {INPUT_MAX} bytes, the most for one change: nothing was \
             written"
        );
        return Err(UsageError(text).into());
    };
    let stack = open_existing(&args.file)?;
    let done = stack.set(args.offset, &bytes);
    if done.is_ok() && args.json {
        tell(true, args.offset, bytes.len())?;
    }
    stack.close()?;
    done?;
    Ok(Status::Done)
}
