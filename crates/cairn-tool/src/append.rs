//! `cairn append`: records from standard input into a log.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use bytesize::ByteSize;
use cairnlog::{Error, Log, Lsn, Options};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::input::{Event, Framing, Input, Patience, Place, Splitter};
use crate::report::{self, Outcome, Status, UsageError};
use crate::{progress, signals};

/// Append records from standard input, one per line, to a log
///
/// Creates the log if there is none. A record is a line without its newline; the last line needs
/// none. Any bytes may be in it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Read frames instead of lines: a little-endian u32 length, then that many bytes
    #[arg(long)]
    framed: bool,
    /// Records end in a zero byte, not in a newline; as find -print0 and sort -z write them
    #[arg(short = '0', long, conflicts_with_all = ["framed", "delimiter"])]
    null: bool,
    /// Records end in this byte: a character, or \t, \0, \xHH
    #[arg(long, value_name = "BYTE", value_parser = byte, conflicts_with = "framed")]
    delimiter: Option<u8>,
    /// Leave lines out that are longer than --max-record-size, and say which, instead of failing
    #[arg(long, conflicts_with = "framed")]
    skip_long: bool,
    /// If another process has the log, wait until it is free, instead of failing
    #[arg(long)]
    wait: bool,
    /// Create a log also in a directory that holds other files
    #[arg(long)]
    force: bool,
    /// Print the LSN of each record, one per line, once it is durable and not before
    #[arg(long)]
    ack: bool,
    /// Give each record a barrier of its own, instead of one for as many as there are
    #[arg(long)]
    each: bool,
    /// Size at which a segment is sealed and the next one begun, such as 64MiB [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    segment_size: Option<ByteSize>,
    /// Largest record to accept, at most 2GiB - 1 [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    max_record_size: Option<ByteSize>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// Print no summary and no notes, only errors
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

const HELP: &str = "\
Examples:
  seq 1 1000000 | cairn append ./log
  tail -f events.log | cairn append ./log --ack     LSNs as records become durable
  cairn cat ./a --format framed | cairn append ./b --framed
  find . -print0 | cairn append ./log -0
  cairn append ./log --delimiter '\\t' < fields
  cairn append ./log --skip-long --max-record-size 1MiB < events.log
  logger-command | cairn append ./log --wait --quiet

Lines:
  A line that is refused is named by its number; what precedes it is appended. In a directory that
  holds other files no log is created without --force: that is mostly a wrong path.

Durability:
  With --ack, a group of records is made durable as soon as no more input is there, or after
  4096 records or 1 MiB. Without it, when the input pauses for 100 ms, once a second, and at
  the end. With --each, after every record. A power cut takes back nothing that was acknowledged.

Ending:
  The summary (records, bytes, seconds, rate, barriers, last durable LSN) goes to standard
  output, with --ack to standard error. SIGINT, SIGTERM and SIGHUP end as the end of the input
  does: what was read is appended, made durable (in groups, for a quick end), acknowledged and
  closed, and the exit code is 0, because nothing is lost. A second signal ends at once. Only a
  record whose end was not read yet is left out, with a note.
  If input or disk fail, what was appended before is made durable and acknowledged; the exit
  code is then 1, and the message says how many records are durable.";

/// As in the log's own options.
const RECORD_SIZE_MAX: u64 = 64 << 20;
/// With acknowledgements, a group is made durable at the latest after this many records or bytes.
const GROUP_RECORDS_MAX: usize = 4096;
const GROUP_BYTES_MAX: u64 = 1 << 20;
/// Without acknowledgements nobody waits: the barrier comes when the input pauses, or after a
/// while.
const PAUSE: Duration = Duration::from_millis(100);
const UNSYNCED_MAX: Duration = Duration::from_secs(1);

pub(crate) fn run(args: Args) -> Outcome {
    signals::survive_file_size_limit().context("cannot handle signals")?;
    let mut options = Log::options();
    if let Some(size) = args.segment_size {
        options = options.segment_size(size.as_u64());
    }
    let record_size_max = args.max_record_size.map_or(RECORD_SIZE_MAX, |size| size.as_u64());
    if !args.force {
        refuse_other_files(&args.dir)?;
    }
    let log = open(options.max_record_size(record_size_max), &args)?;
    if !args.quiet {
        report::opened(&args.dir, log.open_report());
    }

    let framing = match (args.framed, args.null, args.delimiter) {
        (true, ..) => Framing::Framed,
        (_, true, _) => Framing::Lines(0),
        (.., byte) => Framing::Lines(byte.unwrap_or(b'\n')),
    };
    let mut splitter = Splitter::new(framing, record_size_max, args.skip_long);
    let mut appender = Appender::new(log, &args);
    let consumed = Input::start()
        .context("cannot start reading standard input")
        .and_then(|mut input| appender.consume(&mut input, &mut splitter));
    let settled = appender.settle();
    let (durable_records, last_durable) = appender.durable();
    let mut summary = appender.summary(durable_records, last_durable);
    let closed = appender.close();
    summary.ended_by = match consumed.and_then(|ended_by| settled.and(closed).map(|()| ended_by)) {
        Ok(ended_by) => ended_by,
        Err(error) => return Err(failure(&error, durable_records, last_durable)),
    };
    summary.skipped_lines = splitter.skipped().count;
    if !args.quiet {
        left_out(&splitter, record_size_max);
        summary.print(&args)?;
    }
    Ok(Status::Done)
}

/// Says what of the input is not in the log.
fn left_out(splitter: &Splitter, record_size_max: u64) {
    let skipped = splitter.skipped();
    if skipped.count > 0 {
        let numbers: Vec<_> = skipped.first.iter().map(ToString::to_string).collect();
        let more = if skipped.count > skipped.first.len() as u64 { ", …" } else { "" };
        report::note(&format!(
            "{} longer than {record_size_max} bytes left out: {}{more}",
            report::count(skipped.count, "line"),
            numbers.join(", ")
        ));
    }
    if splitter.unfinished_bytes() > 0 {
        let bytes = splitter.unfinished_bytes();
        report::note(&format!(
            "the last {bytes} bytes read are not a whole record and were left out"
        ));
    }
}

/// Between two tries to get a log that another process has.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Opens the log, and with `--wait` as soon as nobody else has it.
fn open(options: Options, args: &Args) -> anyhow::Result<Log> {
    let mut was_told = args.quiet;
    loop {
        match options.clone().open(&args.dir) {
            Err(Error::Locked { .. }) if args.wait => {
                if !std::mem::replace(&mut was_told, true) {
                    report::note(&format!("{} is in use: waiting for it", args.dir.display()));
                }
                std::thread::sleep(TRY_AGAIN);
            }
            Err(error) => return Err(opening(error, args)),
            Ok(log) => return Ok(log),
        }
    }
}

/// Fails if a log would be created among other files: that is mostly a wrong path.
fn refuse_other_files(dir: &Path) -> anyhow::Result<()> {
    let mut other = None;
    // What cannot be listed is for the log to tell.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        match name.to_str() {
            Some(name) if name.ends_with(".cairn") || name == "STATE" => return Ok(()),
            // What a creation that was interrupted leaves, and every new file system has.
            Some("LOCK" | "next.tmp" | "spare.tmp" | "lost+found") => {}
            _ => other = Some(name),
        }
    }
    match other {
        None => Ok(()),
        Some(name) => Err(UsageError(format!(
            "{} holds no log, but other files, such as {}: name a directory of the log's own, or \
             use --force",
            dir.display(),
            name.display()
        ))
        .into()),
    }
}

/// One byte: a character, or an escape.
fn byte(text: &str) -> Result<u8, String> {
    let hex = |digits: &str| u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2);
    let byte = match text {
        "\\n" => Some(b'\n'),
        "\\t" => Some(b'\t'),
        "\\r" => Some(b'\r'),
        "\\0" => Some(0),
        "\\\\" => Some(b'\\'),
        _ => match (text.as_bytes(), text.strip_prefix("\\x")) {
            ([byte], _) => Some(*byte),
            (_, Some(digits)) => hex(digits),
            _ => None,
        },
    };
    byte.ok_or_else(|| "one byte is needed: a character, or \\t, \\0, \\xHH".to_owned())
}

fn opening(error: Error, args: &Args) -> anyhow::Error {
    match error {
        Error::Io { ref source, .. }
            if source.kind() == io::ErrorKind::NotFound && !args.dir.exists() =>
        {
            anyhow!(
                "{error}: {source}; create the directory that is to hold {} first",
                args.dir.display()
            )
        }
        error => error.into(),
    }
}

/// What went wrong, with what is safe in spite of it. Always code 1: the arguments were good when
/// the log was opened.
fn failure(
    error: &anyhow::Error,
    durable_records: u64,
    last_durable: Option<Lsn>,
) -> anyhow::Error {
    let hint = report::hint(error, "append").map_or_else(String::new, |hint| format!("; {hint}"));
    match last_durable {
        Some(lsn) => anyhow!(
            "{error:#}{hint}; durable of this run: {}, the last one at LSN {lsn}",
            report::count(durable_records, "record")
        ),
        None => anyhow!("{error:#}{hint}; no record of this run is durable"),
    }
}

/// Appends records, decides when to make them durable, and acknowledges them.
struct Appender {
    log: Log,
    each: bool,
    /// A signal asked to end: what was read ahead is not made to wait for a barrier per record.
    stopping: Arc<AtomicBool>,
    /// LSNs not yet acknowledged; `None` when nobody asked for them.
    unacknowledged: Option<Vec<Lsn>>,
    records: u64,
    bytes: u64,
    first: Option<Lsn>,
    last: Option<Lsn>,
    unsynced_records: u64,
    unsynced_bytes: u64,
    synced_at: Instant,
    started_at: Instant,
    bar: ProgressBar,
}

impl Appender {
    fn new(log: Log, args: &Args) -> Self {
        // A bar would get in the way of what is typed or printed.
        let quiet =
            args.quiet || io::stdin().is_terminal() || (args.ack && io::stdout().is_terminal());
        let bar = if quiet { ProgressBar::hidden() } else { progress::bytes(None, "appending") };
        let now = Instant::now();
        Appender {
            log,
            each: args.each,
            stopping: Arc::default(),
            unacknowledged: args.ack.then(Vec::new),
            records: 0,
            bytes: 0,
            first: None,
            last: None,
            unsynced_records: 0,
            unsynced_bytes: 0,
            synced_at: now,
            started_at: now,
            bar,
        }
    }

    /// Appends everything up to the end of the input or a signal; returns which.
    fn consume(
        &mut self,
        input: &mut Input,
        splitter: &mut Splitter,
    ) -> anyhow::Result<&'static str> {
        self.stopping = input.stopping();
        loop {
            match self.next_event(input)? {
                Event::Chunk(chunk) => self.take(input, splitter, chunk)?,
                Event::End => {
                    splitter.finish(|record, place| self.append(record, place))?;
                    return Ok("end of input");
                }
                Event::Failed(error) => {
                    return Err(anyhow!(error).context("cannot read standard input"));
                }
                Event::Stop(signal) => {
                    while let Some(chunk) = input.next_read_before_stop() {
                        self.take(input, splitter, chunk)?;
                    }
                    return Ok(signal);
                }
            }
        }
    }

    /// The next event; makes durable what was appended when the input pauses.
    fn next_event(&mut self, input: &mut Input) -> anyhow::Result<Event> {
        loop {
            let patience = match (self.unsynced_records, &self.unacknowledged) {
                (0, _) => Patience::Endless,
                (_, Some(_)) => Patience::None,
                (_, None) => Patience::UpTo(PAUSE),
            };
            if let Some(event) = input.next(patience) {
                return Ok(event);
            }
            self.sync()?;
        }
    }

    fn take(
        &mut self,
        input: &Input,
        splitter: &mut Splitter,
        chunk: Vec<u8>,
    ) -> anyhow::Result<()> {
        splitter.feed(&chunk, |record, place| self.append(record, place))?;
        input.recycle(chunk);
        if self.unacknowledged.is_none()
            && self.unsynced_records > 0
            && self.synced_at.elapsed() > UNSYNCED_MAX
        {
            self.sync()?;
        }
        if !self.bar.is_hidden() {
            let rate = self.records as f64 / self.started_at.elapsed().as_secs_f64();
            self.bar.set_position(self.bytes);
            self.bar.set_message(format!(
                "{} records, {} records/s",
                self.records,
                progress::short_count(rate)
            ));
        }
        Ok(())
    }

    fn append(&mut self, record: &[u8], place: Place) -> anyhow::Result<()> {
        let appended = self.log.append(record).map_err(anyhow::Error::from);
        let lsn = appended.with_context(|| format!("{place} was not appended"))?;
        self.records += 1;
        self.bytes += record.len() as u64;
        self.first.get_or_insert(lsn);
        self.last = Some(lsn);
        self.unsynced_records += 1;
        self.unsynced_bytes += record.len() as u64;
        let group_is_full = match &mut self.unacknowledged {
            Some(lsns) => {
                lsns.push(lsn);
                lsns.len() >= GROUP_RECORDS_MAX || self.unsynced_bytes >= GROUP_BYTES_MAX
            }
            None => false,
        };
        let alone = self.each && !self.stopping.load(Ordering::Relaxed);
        if alone || group_is_full { self.sync() } else { Ok(()) }
    }

    /// Makes everything appended durable, then acknowledges it.
    fn sync(&mut self) -> anyhow::Result<()> {
        if let Some(last) = self.last {
            self.log.sync_to(last)?;
        }
        self.unsynced_records = 0;
        self.unsynced_bytes = 0;
        self.synced_at = Instant::now();
        self.acknowledge()
    }

    /// Prints the LSNs of the records that are durable.
    fn acknowledge(&mut self) -> anyhow::Result<()> {
        let Some(lsns) = &mut self.unacknowledged else {
            return Ok(());
        };
        let durable = self.log.durable_lsn();
        let known = lsns.partition_point(|lsn| *lsn < durable);
        if known == 0 {
            return Ok(());
        }
        let mut text = String::with_capacity(known * 12);
        for lsn in lsns.drain(..known) {
            let _ = writeln!(text, "{lsn}");
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.context("cannot print acknowledgements to standard output")
    }

    /// At the end, however it came about: makes durable what was appended, and acknowledges what is
    /// durable even if that fails.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        if self.unsynced_records == 0 {
            return Ok(());
        }
        let synced = self.sync();
        synced.and(self.acknowledge())
    }

    /// How many records of this run are durable, and where the last one starts.
    fn durable(&self) -> (u64, Option<Lsn>) {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return (0, None);
        };
        if last < self.log.durable_lsn() {
            return (self.records, Some(last));
        }
        let mut found = (0, None);
        if let Ok(reader) = self.log.reader(first) {
            let mut reader = reader.durable();
            while let Ok(Some(record)) = reader.next_record() {
                found = (found.0 + 1, Some(record.lsn()));
            }
        }
        found
    }

    fn summary(&self, durable_records: u64, last_durable_lsn: Option<Lsn>) -> Summary {
        let seconds = self.started_at.elapsed().as_secs_f64();
        Summary {
            records: self.records,
            durable_records,
            bytes: self.bytes,
            seconds,
            records_per_second: self.records as f64 / seconds,
            barriers: self.log.stats().barriers,
            last_durable_lsn: last_durable_lsn.map(|lsn| lsn.0),
            skipped_lines: 0,
            ended_by: "",
        }
    }

    fn close(self) -> anyhow::Result<()> {
        self.log.close().context("cannot close the log")
    }
}

/// What is printed at the end.
#[derive(Debug, Serialize)]
struct Summary {
    records: u64,
    durable_records: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
    barriers: u64,
    last_durable_lsn: Option<u64>,
    skipped_lines: u64,
    ended_by: &'static str,
}

impl Summary {
    fn print(&self, args: &Args) -> anyhow::Result<()> {
        let mut text = if args.json { serde_json::to_string(self)? } else { self.to_line() };
        text.push('\n');
        if args.ack {
            let text = report::for_people(&text, &io::stderr());
            let _ = io::stderr().write_all(text.as_bytes());
            return Ok(());
        }
        report::print(&text)
    }

    fn to_line(&self) -> String {
        let mut line = format!(
            "{}, {} in {:.3} s ({} records/s), {}",
            report::count(self.records, "record"),
            report::count(self.bytes, "byte"),
            self.seconds,
            progress::short_count(self.records_per_second),
            report::count(self.barriers, "barrier"),
        );
        if let Some(lsn) = self.last_durable_lsn {
            let _ = write!(line, ", last durable LSN {lsn}");
        }
        if self.ended_by != "end of input" {
            let _ = write!(line, ", ended by {}", self.ended_by);
        }
        line
    }
}
