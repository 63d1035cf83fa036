//! `cairn cat`: records of a log to standard output. Reads only: no lock, no change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use cairnlog::{EndState, Error, ErrorKind, Inspection, Lsn, Seq, Start};

use crate::report::{self, Outcome, Status};
use crate::sink::{Format, Sink};
use crate::{look, progress, signals};

/// Print a log's records
///
/// Takes no lock and changes nothing, also while another process appends.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Start at this LSN, where a record must start or end
    #[arg(long, value_name = "LSN", conflicts_with = "from_seq")]
    from: Option<u64>,
    /// Start at the record with this number; the first one ever has 0
    #[arg(long, value_name = "N")]
    from_seq: Option<u64>,
    /// Print at most this many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on with new records as they become durable, until SIGINT
    #[arg(long)]
    follow: bool,
    /// With --follow: print records as soon as they are with the operating system, durable or not
    #[arg(long, requires = "follow")]
    flushed: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Run this shell command once; it gets all records as --format framed writes them, and prints them
    #[arg(long, value_name = "CMD", conflicts_with_all = ["format", "json"])]
    decoder: Option<String>,
}

const HELP: &str = "\
Examples:
  cairn cat ./log | tail -1
  cairn cat ./log --from-seq 500 --limit 10 --json
  cairn cat ./log --follow | grep error
  cairn cat ./log --decoder './print-frames.py'

Durability:
  Without --follow, prints everything that verifies, which may be more than is durable when the
  log was not closed. With --follow, prints what the files prove to be durable. The proof of a
  group of records is written with the next group or at the close, so a follower is one group
  behind a writer that pauses; --flushed does not wait for the proof, and may show records that a
  power cut then takes back.

Damage:
  Prints what precedes the damage, then fails with code 4 and its position. To see what follows,
  start behind it with --from; `cairn verify` tells where. A torn tail was never acknowledged: it
  gets a note, and code 0.";

/// Time between two looks at a log that is followed, and how many times longer than a look it is at least.
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
    let log = look::inspect(&args.dir)?;
    let start = match (args.from, args.from_seq) {
        (Some(lsn), _) => Start::Lsn(Lsn(lsn)),
        (None, Some(seq)) => Start::Seq(Seq(seq)),
        (None, None) => Start::Lsn(Lsn::START),
    };
    let mut copier = Copier { start, left: args.limit.unwrap_or(u64::MAX), durable: args.follow && !args.flushed };
    // An LSN that is no boundary is told before a decoder is started.
    drop(log.reader(start)?);
    let mut sink = match &args.decoder {
        Some(command) => Sink::decoder(command)?,
        None => Sink::stdout(if args.json { Format::Json } else { args.format }),
    };
    let copied = if args.follow { copier.follow(log, &args.dir, &mut sink) } else { copier.once(&log, &mut sink) };
    // What precedes the damage is printed first.
    let finished = sink.finish();
    copied?;
    finished?;
    Ok(Status::Done)
}

/// Copies records and remembers where it is.
struct Copier {
    start: Start,
    /// Records that may still be printed.
    left: u64,
    /// Whether to stop at the watermark.
    durable: bool,
}

impl Copier {
    fn once(&mut self, log: &Inspection, sink: &mut Sink) -> anyhow::Result<()> {
        if self.copy(log, sink, true)? == End::OfLog
            && let EndState::Torn { bytes } = log.end_state()
        {
            report::note(&format!(
                "the log ends in {bytes} bytes of an unfinished write, never acknowledged; the next append cuts them"
            ));
        }
        Ok(())
    }

    fn follow(&mut self, mut log: Inspection, dir: &Path, sink: &mut Sink) -> anyhow::Result<()> {
        let stop = signals::stop_flag().context("cannot handle signals")?;
        let mut seen = None;
        let mut interval = FOLLOW_INTERVAL;
        loop {
            if self.copy(&log, sink, false)? != End::OfLog {
                return Ok(());
            }
            match sink.flush() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                flushed => flushed.context("cannot write to standard output")?,
            }
            loop {
                if sink.wait_closed(interval) || stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let now = Look::at(dir);
                if now.is_none() || now != seen {
                    seen = now;
                    break;
                }
            }
            let looking = Instant::now();
            log = look::inspect(dir)?;
            if let Err(error) = log.reader(self.start)
                && error.kind() == ErrorKind::Usage
            {
                anyhow::bail!("{error}: the log was cut while it was followed; start again");
            }
            interval = FOLLOW_INTERVAL.max(looking.elapsed() * FOLLOW_REST);
        }
    }

    /// Prints everything from where the copier stands up to the end of what `log` shows, or up to the first damage, which is then the error.
    fn copy(&mut self, log: &Inspection, sink: &mut Sink, with_progress: bool) -> anyhow::Result<End> {
        let mut reader = log.reader(self.start)?;
        if self.durable {
            reader = reader.durable();
        }
        let damages = log.problems().iter().filter_map(|problem| match problem {
            Error::Corrupt(damage) => Some(damage.lsn),
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
            let next = reader.next_record().map_err(|error| explain(error, log))?;
            let Some(record) = next else {
                return match damage_or_first(log, damage) {
                    Some(problem) => Err(problem.into()),
                    None => Ok(End::OfLog),
                };
            };
            if std::mem::take(&mut first) {
                damage = damages.clone().find(|at| *at > record.lsn());
            }
            if damage.is_some_and(|at| record.lsn() >= at) {
                return Err(damage_or_first(log, damage).map_or_else(|| anyhow::anyhow!("damaged"), Into::into));
            }
            match sink.write(&record) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Closed),
                written => written.context("cannot write to standard output")?,
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

/// An error of the reader, with what may be behind it: a gap, because the file that belongs there is not the log's.
fn explain(error: Error, log: &Inspection) -> anyhow::Error {
    match (&error, log.problems().first()) {
        // The same damage, seen by the look.
        (Error::Corrupt(damage), Some(Error::Corrupt(found))) if found.path == damage.path => error.into(),
        (Error::Corrupt(_), Some(problem)) => anyhow::Error::from(problem.clone()).context(error.to_string()),
        _ => error.into(),
    }
}

/// The problem at `damage`, or else the first one.
fn damage_or_first(log: &Inspection, damage: Option<Lsn>) -> Option<Error> {
    let at = |problem: &&Error| matches!(problem, Error::Corrupt(found) if Some(found.lsn) == damage);
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
    /// Clocks of file systems tick coarsely: a file that changed this recently may change again at the same time.
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
