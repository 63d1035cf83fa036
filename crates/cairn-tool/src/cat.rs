//! `cairn cat`: records of a log to standard output. Reads only: no lock, no change.

mod printed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use cairnlog::{CorruptionKind, Dropped, EndState, Error, ErrorKind, Inspection, Lsn, Start};

use self::printed::Printed;
use crate::range::Range;
use crate::report::{self, Outcome, Status, UsageError};
use crate::sink::{Format, Sink};
use crate::{look, progress, signals, verdict};

/// Print a log's records
///
/// Takes no lock and changes nothing, also while another process appends.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    #[command(flatten)]
    range: Range,
    /// Start with the last N records
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "from_seq"])]
    last: Option<u64>,
    /// Print at most this many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on with new records as they become durable, until SIGINT
    #[arg(long)]
    follow: bool,
    /// With --follow: print records as soon as they are with the operating system, durable or not
    #[arg(long, requires = "follow")]
    flushed: bool,
    /// Print what verifies behind the end instead: records of a torn tail, which the next append
    /// cuts
    #[arg(long, conflicts_with_all = ["follow", "from", "from_seq"])]
    torn: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print the LSN and a tab before each record, as lines or hex
    #[arg(long, conflicts_with_all = ["json", "decoder"])]
    with_lsn: bool,
    /// Run this shell command once; it gets all records as --format framed writes them, and prints
    /// them
    #[arg(long, value_name = "CMD", conflicts_with_all = ["format", "json"])]
    decoder: Option<String>,
}

const HELP: &str = "\
Examples:
  cairn cat ./log | tail -1
  cairn cat ./log --from-seq 500 --limit 10 --json
  cairn cat ./log --last 3 --with-lsn
  cairn cat ./log --from 81920 --to 90112       records that start in this range
  cairn cat ./log --follow | grep error
  cairn cat ./log --decoder './print-frames.py'
  cairn cat ./log --torn                  after a crash: what had been begun, and is cut next

Durability:
  Without --follow, prints everything that verifies, which may be more than is durable when the
  log was not closed. With --follow, prints what the files prove to be durable. The proof of a
  group of records is written with the next group or at the close, so a follower is one group
  behind a writer that pauses; --flushed does not wait for the proof, and may show records that a
  power cut then takes back. If records stay withheld for a second, a note says so, once.

Terminals:
  As lines on a terminal, control characters in a record are printed escaped, such as \\x1b or
  \\t. In a pipe or a file the bytes are as they were appended.

Truncation:
  With --follow, fails with code 1 when a truncation of the log takes back records that were
  printed, or removes some before they were printed, and says from which LSN on. To go on, start
  again with --from that LSN in the first case, and without it in the second.

Damage:
  Prints what precedes the damage, then fails with code 4 and its position. To see what follows,
  start behind it with --from; `cairn verify` tells where, and every position that it prints is a
  start. `cairn salvage` prints all that verifies. Where a repair recorded a loss, it says so and
  goes on. A torn tail gets a note, and code 0: nothing proves that it had been acknowledged.";

/// Time between two looks at a log that is followed, and how many times longer than a look it is at
/// least.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
const FOLLOW_REST: u32 = 4;

/// Why copying stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    OfLog,
    Limit,
    /// Nobody reads the output any more.
    Closed,
}

pub(crate) fn run(args: Args) -> Outcome {
    if args.with_lsn && args.format == Format::Framed {
        return Err(UsageError("--with-lsn is for lines and hex; --json has it".to_owned()).into());
    }
    let log = look::inspect(&args.dir)?;
    let start = args.range.start_of_last(args.last, &log);
    let mut copier = Copier {
        start,
        range: args.range,
        left: args.limit.unwrap_or(u64::MAX),
        durable: args.follow && !args.flushed,
        printed: args.follow.then(Printed::default),
    };
    // An LSN that is no boundary is told before a decoder is started.
    drop(log.reader(start)?);
    let mut sink = match &args.decoder {
        Some(command) => Sink::decoder(command)?,
        None => {
            let format = if args.json { Format::Json } else { args.format };
            Sink::stdout(format).with_lsn(args.with_lsn)
        }
    };
    let copied = if args.torn {
        copier.torn(&log, &mut sink)
    } else if args.follow {
        copier.follow(log, &args.dir, &mut sink)
    } else {
        copier.once(&log, &mut sink)
    };
    // What precedes the damage is printed first.
    let finished = sink.finish();
    copied?;
    finished?;
    Ok(Status::Done)
}

/// Copies records and remembers where it is.
struct Copier {
    start: Start,
    range: Range,
    /// Records that may still be printed.
    left: u64,
    /// Whether to stop at the watermark.
    durable: bool,
    /// What was printed, if the log is looked at again.
    printed: Option<Printed>,
}

impl Copier {
    fn once(&mut self, log: &Inspection, sink: &mut Sink) -> anyhow::Result<()> {
        if self.copy(log, sink, true)? == End::OfLog
            && let EndState::Torn { bytes } = log.end_state()
        {
            report::note(&format!("{}; {}", verdict::torn(bytes), verdict::TORN_NEXT));
        }
        Ok(())
    }

    /// Prints what verifies behind the end.
    fn torn(&mut self, log: &Inspection, sink: &mut Sink) -> anyhow::Result<()> {
        let mut reader = log.torn_reader()?;
        while self.left > 0 {
            let record = match reader.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(Error::Corrupt(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            match sink.write(&record) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written.context("cannot write to standard output")?,
            }
            self.left -= 1;
        }
        Ok(())
    }

    fn follow(&mut self, mut log: Inspection, dir: &Path, sink: &mut Sink) -> anyhow::Result<()> {
        let stop = signals::stop_flag().context("cannot handle signals")?;
        let mut seen = None;
        let mut interval = FOLLOW_INTERVAL;
        let mut withheld = Withheld::default();
        loop {
            self.check(&log)?;
            match self.copy(&log, sink, false) {
                Ok(End::OfLog) => {}
                Ok(End::Limit | End::Closed) => return Ok(()),
                // A file that the look found is gone: the next look tells what that means.
                Err(error) if truncated(&error) => seen = None,
                Err(error) => return Err(error),
            }
            match sink.flush() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                flushed => flushed.context("cannot write to standard output")?,
            }
            loop {
                if sink.wait_closed(interval) || stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if self.durable {
                    withheld.look(&log);
                }
                let now = Look::at(dir);
                if now.is_none() || now != seen {
                    seen = now;
                    break;
                }
            }
            let looking = Instant::now();
            log = look::inspect(dir)?;
            interval = FOLLOW_INTERVAL.max(looking.elapsed() * FOLLOW_REST);
        }
    }

    /// Fails if a truncation took back what was printed, or removed what comes next.
    fn check(&mut self, log: &Inspection) -> anyhow::Result<()> {
        if let Some(printed) = &mut self.printed {
            match printed.check(log) {
                // Again: a truncation of this moment, which the next look shows.
                Err(Error::Truncated { dropped: Dropped::Unread, .. }) => {}
                checked => checked?,
            }
        }
        match (log.reader(self.start), self.start) {
            (Err(Error::OutOfRange { first, .. }), Start::Lsn(lsn)) if lsn < first => {
                Err(Error::Truncated { lsn, dropped: Dropped::Unread }.into())
            }
            (Err(error), _) if error.kind() == ErrorKind::Usage => {
                anyhow::bail!("{error}: the log was cut while it was followed; start again")
            }
            _ => Ok(()),
        }
    }

    /// Prints everything from where the copier stands up to the end of what `log` shows, or up to
    /// the first damage, which is then the error.
    fn copy(
        &mut self,
        log: &Inspection,
        sink: &mut Sink,
        with_progress: bool,
    ) -> anyhow::Result<End> {
        let mut reader = log.reader(self.start)?;
        if self.durable {
            reader = reader.durable();
        }
        let damages = log.problems().iter().filter_map(|problem| match problem {
            // The state lies beside the records: all of them are printed, and then the error.
            Error::Corrupt(damage) if damage.kind != CorruptionKind::State => Some(damage.lsn),
            _ => None,
        });
        let mut damage = match self.start {
            Start::Lsn(lsn) => damages.clone().find(|at| *at >= lsn.max(log.head_lsn())),
            Start::Seq(_) => None,
        };
        let mut first = matches!(self.start, Start::Seq(_));
        let bar = with_progress.then(|| Bar::new(log));
        let mut until_tick = Bar::RECORDS_PER_TICK;
        while self.left > 0 {
            let next = match reader.next_record() {
                Err(Error::Gap(gap)) => {
                    report::note_lost(&gap);
                    self.start = Start::Lsn(gap.to);
                    continue;
                }
                next => next.map_err(|error| explain(error, log))?,
            };
            let Some(record) = next else {
                return match damage_or_first(log, damage) {
                    Some(problem) => Err(problem.into()),
                    None => Ok(End::OfLog),
                };
            };
            if std::mem::take(&mut first) {
                damage = damages.clone().find(|at| *at > record.lsn());
            }
            if self.range.ends_before(&record) {
                return Ok(End::Limit);
            }
            if damage.is_some_and(|at| record.lsn() >= at) {
                return Err(damage_or_first(log, damage)
                    .map_or_else(|| anyhow::anyhow!("damaged"), Into::into));
            }
            match sink.write(&record) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Closed),
                written => written.context("cannot write to standard output")?,
            }
            if let Some(printed) = &mut self.printed {
                printed.note(&record);
            }
            self.start = Start::Lsn(record.end_lsn());
            self.left -= 1;
            until_tick -= 1;
            if until_tick == 0 {
                until_tick = Bar::RECORDS_PER_TICK;
                if let Some(bar) = &bar {
                    bar.tick(record.end_lsn());
                }
            }
        }
        Ok(End::Limit)
    }
}

/// Records that a follower does not print, because nothing in the files proves them durable.
#[derive(Debug, Default)]
struct Withheld {
    /// Where they begin and end, and since when.
    since: Option<(Lsn, Lsn, Instant)>,
    was_told: bool,
}

impl Withheld {
    /// A writer at work proves its records with the next group: those are not worth a word.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Says it, once, when the same records have been withheld for a while.
    fn look(&mut self, log: &Inspection) {
        let (from, to) = (log.durable_lsn(), log.end_lsn());
        match self.since {
            _ if self.was_told || from >= to => self.since = None,
            Some((first, end, at)) if (first, end) == (from, to) => {
                if at.elapsed() >= Self::PATIENCE {
                    self.was_told = true;
                    report::note(&format!(
                        "records from LSN {from} to {to} are withheld: nothing in the files proves \
                         them durable yet. The next group or the close does; --flushed prints \
                         them without"
                    ));
                }
            }
            _ => self.since = Some((from, to, Instant::now())),
        }
    }
}

/// Whether a reader says that a truncation removed what it was to read.
fn truncated(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::Truncated { .. })))
}

/// An error of the reader, with what may be behind it: a gap, because the file that belongs there
/// is not the log's.
fn explain(error: Error, log: &Inspection) -> anyhow::Error {
    match (&error, log.problems().first()) {
        // The same damage, seen by the look.
        (Error::Corrupt(damage), Some(Error::Corrupt(found))) if found.path == damage.path => {
            error.into()
        }
        (Error::Corrupt(_), Some(problem)) => {
            anyhow::Error::from(problem.clone()).context(error.to_string())
        }
        _ => error.into(),
    }
}

/// The problem at `damage`, or else the first one.
fn damage_or_first(log: &Inspection, damage: Option<Lsn>) -> Option<Error> {
    let at =
        |problem: &&Error| matches!(problem, Error::Corrupt(found) if Some(found.lsn) == damage);
    log.problems().iter().find(at).or(log.problems().first()).cloned()
}

/// Progress, when only the records go elsewhere.
struct Bar {
    bar: indicatif::ProgressBar,
    from: u64,
}

impl Bar {
    const RECORDS_PER_TICK: u32 = 4096;

    fn new(log: &Inspection) -> Self {
        use io::IsTerminal as _;
        let from = log.head_lsn().0;
        let bar = if io::stdout().is_terminal() {
            indicatif::ProgressBar::hidden()
        } else {
            progress::bytes(Some(log.end_lsn().0.saturating_sub(from)), "reading")
        };
        Bar { bar, from }
    }

    fn tick(&self, at: Lsn) {
        self.bar.set_position(at.0 - self.from);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Names, lengths and times of a directory's files: while they stay the same, the log does.
#[derive(Debug, PartialEq, Eq)]
struct Look(Vec<(std::ffi::OsString, u64, SystemTime)>);

impl Look {
    /// Clocks of file systems tick coarsely: a file that changed this recently may change again at
    /// the same time.
    const SETTLED: Duration = Duration::from_secs(2);

    /// `None` when the files cannot be relied on to tell a change.
    fn at(dir: &Path) -> Option<Self> {
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).ok()? {
            let entry = entry.ok()?;
            let about = entry.metadata().ok()?;
            let changed = about.modified().ok()?;
            if now.duration_since(changed).map_or(true, |age| age < Self::SETTLED) {
                return None;
            }
            files.push((entry.file_name(), about.len(), changed));
        }
        files.sort();
        Some(Look(files))
    }
}
