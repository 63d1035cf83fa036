//! `cairn torture`: kills a process that writes to a log, again and again, and checks what is left.
//!
//! This one plans and checks; [`killing`] starts and kills; [`child`] is what is killed; [`ledger`]
//! knows what must be there; [`summary`] reports.

mod args;
pub(crate) mod child;
mod killing;
mod ledger;
mod marker;
mod record;
mod summary;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use bytesize::ByteSize;
use cairnlog::{EndState, Error, Inspection, Log, Lsn};

use crate::report::{Outcome, UsageError};
use crate::{progress, signals};
pub(crate) use args::Args;
use killing::{Killer, Moment};
use ledger::{Finding, Found, FoundRecord, Ledger};
use marker::take_directory;
use record::{Dice, Said};
use summary::{Lost, Summary};

const RUNS: u64 = 100;
const SEGMENT_SIZE_MIN: ByteSize = ByteSize::kib(8);

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
            Err(error) => {
                return Err(error.context(format!("stopped after {}", torture.summary.progress())));
            }
        },
    };
    torture.summary.report(lost, args.json)
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
        let clock = || {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
        };
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
                return Err(UsageError(format!(
                    "{dir} holds records that torture did not write: name a new one"
                ))
                .into());
            }
            self.ledger = Ledger::of(&found);
            self.next_kill = self.ledger.last_kill().map_or(1, |kill| kill + 1);
            self.exists = true;
        }
        Ok(())
    }

    fn open_and_close(&self) -> anyhow::Result<()> {
        Ok(Log::options()
            .segment_size(self.args.segment_size.as_u64())
            .open(&self.args.dir)?
            .close()?)
    }

    /// Kills until something ends it; returns what.
    fn go_on(&mut self) -> anyhow::Result<&'static str> {
        let runs =
            self.args.runs.or(self.args.seconds.is_none().then_some(RUNS)).unwrap_or(u64::MAX);
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
        self.summary.recoveries +=
            said.iter().filter(|s| **s == Said::Opened { recovered: true }).count() as u64;
        self.summary.closes +=
            said.iter().filter(|s| matches!(s, Said::Closed { .. })).count() as u64;
        self.exists |= said.iter().any(|s| matches!(s, Said::Opened { .. }));
        self.check(kill, moment, &said)
    }

    /// Looks at what a kill left, and compares it with what was acknowledged.
    fn check(&mut self, kill: u64, moment: Moment, said: &[Said]) -> anyhow::Result<()> {
        let lost = |findings| Lost { kill, moment: format!("{moment:?}"), findings };
        let found = match inspect(&self.args.dir)? {
            Some((log, problems)) if problems.is_empty() => {
                self.exists = true;
                self.summary.torn_tails +=
                    u64::from(matches!(log.end_state(), EndState::Torn { .. }));
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
    let mut found =
        Found { head_seq: log.head_seq().0, next_seq: log.next_seq().0, records: Vec::new() };
    let mut reader = log.reader(Lsn::START)?;
    while let Some(record) = reader.next_record()? {
        found.records.push(FoundRecord::new(record.lsn().0, record.seq().0, record.payload()));
    }
    Ok(found)
}
