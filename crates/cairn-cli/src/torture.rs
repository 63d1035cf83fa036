//! `cairn torture`: kills a process that writes to a log, again and again, and checks what is left.
//!
//! This one plans and checks; [`killing`] starts and kills; [`child`] is what is killed; [`ledger`] knows what must be there; [`summary`] reports.

pub(crate) mod child;
mod killing;
mod ledger;
mod record;
mod summary;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use bytesize::ByteSize;
use cairnlog::{EndState, Error, Inspection, Log, Lsn};

use crate::report::{Outcome, UsageError};
use crate::{progress, signals};
use killing::{Killer, Moment};
use ledger::{Finding, Found, FoundRecord, Ledger};
use record::{Dice, Said};
use summary::{Lost, Summary};

/// Kill a writing process again and again, and prove that nothing acknowledged was lost
///
/// Starts a child that writes to the log in DIR with everything a log can do, kills it with SIGKILL at a random moment, checks every
/// record, and starts the next one.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory for the log: new, empty, or left by an earlier torture
    dir: PathBuf,
    /// End after this many kills [default: 100, or no limit with --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Choose contents, calls and moments by this number [default: the clock]
    #[arg(long, value_name = "X")]
    seed: Option<u64>,
    /// Threads that append
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    writers: u64,
    /// Size at which a segment is sealed, 8KiB or more; small ones make more of what can go wrong
    #[arg(long, value_name = "SIZE", default_value = "32KiB")]
    segment_size: ByteSize,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn torture ./torture                          100 kills
  cairn torture ./torture --runs 10000 --json
  cairn torture ./torture --seconds 3600 --writers 16
  cairn verify ./torture                           the log stays, to be looked at

What it does:
  Writers commit, append and sync, append batches, submit tickets and flush; a follower follows,
  one thread truncates at both ends; segments rotate; some children close the log, or drop it, and
  open it again. A child says what was acknowledged after the log said so. It is killed while it
  opens or recovers (1 in 4), while it works, or while it closes (1 in 8).

What is checked after every kill:
  All segments verify, with a torn tail at most; every acknowledged record is there, with its
  bytes, in order, once; batches are whole; what an acknowledged truncation dropped is gone, and
  one that was under way happened as a whole or not at all; whatever was there after one kill is
  there after the next; the next child opens the log without help.

What it does not show:
  A kill leaves the page cache alive: what a process had written is there, synced or not. So this
  proves nothing about power cuts, nor that barriers are where they must be. The seed fixes what
  is written and which moments are asked for, but not what the scheduler makes of them: the same
  seed does not give the same run.

Exit codes:
  0  nothing was lost, also when SIGINT ended it early
  1  it could not go on: see the message
  2  wrong usage, or DIR is something else's
  4  something acknowledged was lost: DIR is kept, the evidence is printed and in DIR/TORTURE";

const RUNS: u64 = 100;
const SEGMENT_SIZE_MIN: ByteSize = ByteSize::kib(8);

/// The file that tells a log left by torture from somebody's data. Holds the evidence when something was lost.
const MARKER_NAME: &str = "TORTURE";
const MARKER: &str =
    "The log in this directory was made by `cairn torture`, which may use it again. Nothing in it is of use.\n";

pub(crate) fn run(args: &Args) -> Outcome {
    if args.segment_size < SEGMENT_SIZE_MIN {
        return Err(UsageError("--segment-size must be 8KiB or more".to_owned()).into());
    }
    let stop = signals::stop_flag().context("cannot handle signals")?;
    let _lock = take_directory(&args.dir)?;
    let mut torture = Torture::new(args, stop)?;
    let ended = torture.go_on();
    torture.bar.finish_and_clear();
    let ended = ended.and_then(|ended_by| torture.finish().map(|()| ended_by));
    let lost = match ended {
        Ok(ended_by) => {
            torture.summary.ended_by = ended_by;
            None
        }
        Err(error) => match error.downcast::<Lost>() {
            Ok(lost) => Some(lost),
            Err(error) => return Err(error.context(format!("stopped after {}", torture.summary.progress()))),
        },
    };
    torture.summary.report(lost, args.json)
}

/// Makes sure that `dir` is torture's to use, and keeps another one out while the file that is returned stays open.
fn take_directory(dir: &Path) -> anyhow::Result<File> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create directory {}", dir.display()));
        }
        _ => {}
    }
    let refuse = |why: &str| UsageError(format!("{} {why}: name a new directory; nothing was changed", dir.display()));
    let path = dir.join(MARKER_NAME);
    if std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?.next().is_none() {
        std::fs::write(&path, MARKER).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refuse("is not empty and was not left by an earlier torture").into());
        }
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    if text != MARKER.as_bytes() {
        let is_evidence = text.starts_with(MARKER.as_bytes());
        return Err(
            refuse(if is_evidence { "holds the evidence of a loss" } else { "has a TORTURE of its own" }).into()
        );
    }
    let marker = File::options().append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match marker.try_lock() {
        Ok(()) => Ok(marker),
        Err(std::fs::TryLockError::WouldBlock) => bail!("{} is being tortured already", dir.display()),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// One run of the command.
struct Torture<'a> {
    args: &'a Args,
    killer: Killer<'a>,
    dice: Dice,
    ledger: Ledger,
    /// Whether there is a log: not before a first child got that far.
    exists: bool,
    next_kill: u64,
    started_at: Instant,
    summary: Summary,
    bar: indicatif::ProgressBar,
}

impl<'a> Torture<'a> {
    fn new(args: &'a Args, stop: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let seed = args.seed.unwrap_or_else(clock);
        let runs = args.runs.or(args.seconds.is_none().then_some(RUNS));
        let mut torture = Torture {
            args,
            killer: Killer {
                args,
                exe: std::env::current_exe().context("cannot find this program's file")?,
                seed,
                stop,
            },
            dice: Dice::of(&[seed]),
            ledger: Ledger::default(),
            exists: false,
            next_kill: 1,
            started_at: Instant::now(),
            summary: Summary { dir: args.dir.clone(), seed, ..Summary::default() },
            bar: progress::count(runs, "killing"),
        };
        torture.adopt()?;
        Ok(torture)
    }

    /// Takes over the log that an earlier run left.
    fn adopt(&mut self) -> anyhow::Result<()> {
        if inspect(&self.args.dir)?.is_none() {
            return Ok(());
        }
        self.open_and_close()?;
        if let Some((log, _)) = inspect(&self.args.dir)? {
            let found = read(&log)?;
            if !found.is_ours() {
                let dir = self.args.dir.display();
                return Err(
                    UsageError(format!("{dir} holds records that torture did not write: name a new one")).into()
                );
            }
            self.ledger = Ledger::of(&found);
            self.next_kill = self.ledger.last_kill().map_or(1, |kill| kill + 1);
            self.exists = true;
        }
        Ok(())
    }

    fn open_and_close(&self) -> anyhow::Result<()> {
        Ok(Log::options().segment_size(self.args.segment_size.as_u64()).open(&self.args.dir)?.close()?)
    }

    /// Kills until something ends it; returns what.
    fn go_on(&mut self) -> anyhow::Result<&'static str> {
        let runs = self.args.runs.or(self.args.seconds.is_none().then_some(RUNS)).unwrap_or(u64::MAX);
        let seconds = Duration::from_secs(self.args.seconds.unwrap_or(u64::MAX));
        loop {
            match () {
                () if self.killer.stop.load(Ordering::Relaxed) => return Ok("a signal"),
                () if self.summary.kills >= runs => return Ok("runs"),
                () if self.started_at.elapsed() >= seconds => return Ok("seconds"),
                () => self.kill_and_check()?,
            }
            self.summary.seconds = self.started_at.elapsed().as_secs_f64();
            self.bar.set_position(self.summary.kills);
            let rate = self.summary.kills as f64 / self.summary.seconds;
            self.bar.set_message(format!("{}, {rate:.1} kills/s", self.summary.progress()));
        }
    }

    fn kill_and_check(&mut self) -> anyhow::Result<()> {
        let kill = self.next_kill;
        self.next_kill += 1;
        let moment = Moment::roll(&mut self.dice);
        let closes = matches!(moment, Moment::Closing(_)) || self.dice.roll(3) == 0;
        let session_us = if closes { 1 + self.dice.roll(20_000) } else { 0 };
        let said = self.killer.run_child(kill, moment, session_us)?;
        self.summary.kills += 1;
        match moment {
            Moment::Opening(_) => self.summary.kills_opening += 1,
            Moment::Working(_) => self.summary.kills_working += 1,
            Moment::Closing(_) => self.summary.kills_closing += 1,
        }
        self.summary.recoveries += said.iter().filter(|s| **s == Said::Opened { recovered: true }).count() as u64;
        self.summary.closes += said.iter().filter(|s| matches!(s, Said::Closed { .. })).count() as u64;
        self.exists |= said.iter().any(|s| matches!(s, Said::Opened { .. }));
        self.check(kill, moment, &said)
    }

    /// Looks at what a kill left, and compares it with what was acknowledged.
    fn check(&mut self, kill: u64, moment: Moment, said: &[Said]) -> anyhow::Result<()> {
        let lost = |findings| Lost { kill, moment: format!("{moment:?}"), findings };
        let found = match inspect(&self.args.dir)? {
            Some((log, problems)) if problems.is_empty() => {
                self.exists = true;
                self.summary.torn_tails += u64::from(matches!(log.end_state(), EndState::Torn { .. }));
                read(&log)?
            }
            Some((_, problems)) => {
                let finding = |problem: &Error| Finding {
                    acknowledged: "a log that verifies, up to a torn tail".to_owned(),
                    found: problem.to_string(),
                };
                return Err(lost(problems.iter().map(finding).collect()).into());
            }
            None if self.exists => {
                let (acknowledged, found) = ("a log".to_owned(), "none".to_owned());
                return Err(lost(vec![Finding { acknowledged, found }]).into());
            }
            // Killed before there was one.
            None => Found::default(),
        };
        let tally = self.ledger.settle(kill, said, &found).map_err(lost)?;
        let total = &mut self.summary.tally;
        total.acknowledged_records += tally.acknowledged_records;
        total.acknowledged_bytes += tally.acknowledged_bytes;
        total.unacknowledged_records += tally.unacknowledged_records;
        total.truncations += tally.truncations;
        total.truncations_interrupted += tally.truncations_interrupted;
        Ok(())
    }

    /// After the last kill: the log opens once more, and holds what it held.
    fn finish(&mut self) -> anyhow::Result<()> {
        if self.exists {
            self.open_and_close()?;
            self.check(self.next_kill - 1, Moment::Opening(Duration::ZERO), &[])?;
        }
        self.summary.seconds = self.started_at.elapsed().as_secs_f64();
        Ok(())
    }
}

/// Reads every byte of the log in `dir`; `None` when there is no log. Nobody writes to it.
fn inspect(dir: &Path) -> anyhow::Result<Option<(Inspection, Vec<Error>)>> {
    match Inspection::open(dir) {
        Ok(log) => {
            let problems = log.verify(|_| {})?.problems;
            Ok(Some((log, problems)))
        }
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow!(error)),
    }
}

/// Reads every record of a log without problems.
fn read(log: &Inspection) -> anyhow::Result<Found> {
    let mut found = Found { head_seq: log.head_seq().0, next_seq: log.next_seq().0, records: Vec::new() };
    let mut reader = log.reader(Lsn::START)?;
    while let Some(record) = reader.next_record()? {
        found.records.push(FoundRecord::new(record.lsn().0, record.seq().0, record.payload()));
    }
    Ok(found)
}
