//! `cairn stack import`: makes a stack of bytes, or of a stack that another program wrote.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use cairnlog::io::{Fs as _, NativeFs};
use cairnlog::stack::{Durability, Error, Stack};
use clap::ValueEnum;
use serde::Serialize;

use super::opening::beside;
use crate::progress;
use crate::report::{self, LostError, Outcome, Status, UsageError, note};

/// Make a new stack of bytes, or of another program's stack
///
/// The source is never changed. The new stack is there as a whole, durable, or not at all.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// File of the new stack; there must be none
    file: PathBuf,
    /// File to read; standard input if there is none
    source: Option<PathBuf>,
    /// What the source is; found out unless said
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Print {"len", "format"}
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn stack export ./stack | cairn stack import ./copy
  cairn stack import ./stack ./old.bstack
  cairn stack import ./stack ./bytes --format raw

A file that begins with \"BSTK\", 0, 1 is taken for a stack of the bstack crate. Of that, as much as
its committed length says is imported, or what is there if that is less.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Bytes as they are
    Raw,
    /// A single-file stack with a header of 16 bytes, "BSTK" 0.1
    Bstk,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Imported {
    len: u64,
    format: Format,
}

/// Begins a stack of ours.
const OURS: &[u8] = b"CAIRNSTK";
const BSTK_HEADER_LEN: usize = 16;
const CHUNK: u64 = 1 << 20;

pub(super) fn run(args: &Args) -> Outcome {
    let mut source = Source::open(args)?;
    let target = Target::begin(&args.file)?;
    let stack = target.stack()?;
    let bar = progress::bytes(source.len, "importing");
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = source.bytes.by_ref().take(CHUNK).read_to_end(&mut bytes);
        if read.with_context(|| format!("cannot read {}", source.name))? == 0 {
            break;
        }
        stack.push(&bytes)?;
        bar.inc(bytes.len() as u64);
    }
    bar.finish_and_clear();
    let len = stack.len();
    if source.format == Format::Bstk && source.len != Some(len) {
        bail!("{} changed while it was read; no stack was made", source.name);
    }
    stack.close()?;
    target.finish()?;
    if let Some(more) = &source.said {
        note(more);
    }
    if args.json {
        report::print_json(&Imported { len, format: source.format })?;
    } else {
        report::print(&format!("{} imported from {}\n", report::count(len, "byte"), source.name))?;
    }
    Ok(Status::Done)
}

/// Where bytes come from.
struct Source {
    name: String,
    bytes: Box<dyn Read>,
    format: Format,
    /// Bytes there will be, if that is known.
    len: Option<u64>,
    /// What is worth knowing about it.
    said: Option<String>,
}

impl Source {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let (name, mut input, file_len): (_, Box<dyn Read>, _) = match &args.source {
            None => ("standard input".to_owned(), Box::new(io::stdin().lock()), None),
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
                let found = file.metadata().with_context(|| format!("cannot look at {name}"))?;
                if found.is_dir() {
                    bail!("{name} is a directory; name a file");
                }
                lock_shared(&file, &name)?;
                let len = found.is_file().then_some(found.len());
                (name, Box::new(file), len)
            }
        };
        let mut head = Vec::new();
        let read = input.by_ref().take(BSTK_HEADER_LEN as u64).read_to_end(&mut head);
        read.with_context(|| format!("cannot read {name}"))?;
        let format = match args.format {
            Some(format) => format,
            None if head.starts_with(b"BSTK") => Format::Bstk,
            None if head.starts_with(OURS) => {
                let text =
                    "is a stack already: pipe `cairn stack export` into this, or say --format raw";
                return Err(UsageError(format!("{name} {text}")).into());
            }
            None => Format::Raw,
        };
        if format == Format::Raw {
            let bytes = Box::new(io::Cursor::new(head).chain(input));
            return Ok(Source { name, bytes, format, len: file_len, said: None });
        }
        let committed = bstk_len(&head, &name)?;
        let Some(file_len) = file_len else {
            // Its length is part of what it means.
            return Err(UsageError(format!(
                "{name} is no file: give the path of the stack to import"
            ))
            .into());
        };
        let there = file_len - BSTK_HEADER_LEN as u64;
        let said = match committed.cmp(&there) {
            std::cmp::Ordering::Less => Some(format!(
                "{name}: {} bytes behind its committed length were left out",
                there - committed
            )),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(format!(
                "{name} is {} bytes shorter than its committed length; what is there was imported",
                committed - there
            )),
        };
        let len = committed.min(there);
        Ok(Source { name, bytes: Box::new(input.take(len)), format, len: Some(len), said })
    }
}

/// Committed length of another program's stack, from its header.
fn bstk_len(head: &[u8], name: &str) -> anyhow::Result<u64> {
    let lost = |what: &str| LostError(format!("{name} {what}; no stack was made"));
    if !head.starts_with(b"BSTK") {
        return Err(lost("does not begin with \"BSTK\"").into());
    }
    let Ok(head) = <[u8; BSTK_HEADER_LEN]>::try_from(head) else {
        return Err(lost("ends within its header").into());
    };
    let [_, _, _, _, major, minor, _patch, zero, len @ ..] = head;
    if (major, minor, zero) != (0, 1, 0) {
        let text = format!("has version {major}.{minor}, this program knows 0.1");
        return Err(lost(&text).into());
    }
    Ok(u64::from_le_bytes(len))
}

/// Whoever writes to it has it locked.
fn lock_shared(file: &File, name: &str) -> anyhow::Result<()> {
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            bail!("{name} is in use by another process; wait until that one ends, or stop it")
        }
        // Not every file can be locked.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// A stack that has no name yet. It is made in a file beside its place, under the lock that whoever
/// opens it there would take.
struct Target {
    path: PathBuf,
    unnamed: PathBuf,
    finished: bool,
    _lock: File,
}

impl Target {
    fn begin(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let exists = || fs::symlink_metadata(path).is_ok();
        let refused = || UsageError(format!("{shown} exists; name a file that does not"));
        if exists() {
            return Err(refused().into());
        }
        let lock = beside(path, ".lock");
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).open(&lock);
        let file =
            file.with_context(|| format!("cannot create {}; check the directory", lock.display()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path: path.to_owned() }.into());
            }
            locked => locked.with_context(|| format!("cannot lock {}", lock.display()))?,
        }
        if exists() {
            return Err(refused().into());
        }
        let target = Target {
            path: path.to_owned(),
            unnamed: beside(path, ".import"),
            finished: false,
            _lock: file,
        };
        // What an import left that was killed.
        target.remove_unnamed();
        Ok(target)
    }

    fn stack(&self) -> anyhow::Result<Stack> {
        let options = Stack::options().durability(Durability::Explicit);
        Ok(options.open(&self.unnamed)?)
    }

    /// Gives the stack, which is closed, its name.
    fn finish(mut self) -> anyhow::Result<()> {
        let shown = self.path.display();
        let named = NativeFs.open_parent(&self.path).and_then(|(dir, name)| {
            let from = self.unnamed.file_name().unwrap_or_default();
            dir.rename(from, name).map(|()| dir)
        });
        let dir = named.with_context(|| format!("cannot name {shown}"))?;
        self.finished = true;
        self.remove_unnamed();
        dir.sync().map_err(|e| anyhow!(e).context(format!("cannot sync the directory of {shown}")))
    }

    fn remove_unnamed(&self) {
        for more in ["", ".lock", ".tmp"] {
            let _ = fs::remove_file(beside(&self.unnamed, more));
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.finished {
            self.remove_unnamed();
        }
    }
}
