//! `cairn torture`: kills a process that writes to a log, again and again, and checks what is left.
//!
//! Three parties: this one plans, kills and reports; [`child`] is what is killed; [`ledger`] knows what must be there.

pub(crate) mod child;
mod ledger;
mod record;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use bytesize::ByteSize;
use cairnlog::{EndState, Error, Inspection, Log, Lsn};
use serde::Serialize;

use crate::report::{self, LostError, Outcome, Status, UsageError};
use crate::{progress, signals};
use ledger::{Finding, Found, FoundRecord, Ledger, Tally};
use record::{Dice, Said};

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
/// So long a child may take to open its log, or to get to its close, before it is said to hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the wait for a child looks up.
const TICK: Duration = Duration::from_millis(50);
/// What is shown of the evidence at most.
const FINDINGS_MAX: usize = 20;
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
    torture.report(lost)
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

/// When a child is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// While it opens or recovers, so long after it was started.
    Opening(Duration),
    /// So long after it said that the log is open.
    Working(Duration),
    /// So long after it said that it closes the log.
    Closing(Duration),
}

impl Moment {
    fn roll(dice: &mut Dice) -> Self {
        let (kind, mut up_to) = (dice.roll(8), |us| Duration::from_micros(dice.roll(us)));
        match kind {
            0 | 1 => Moment::Opening(up_to(6_000)),
            2 => Moment::Closing(up_to(1_000)),
            _ => Moment::Working(Duration::from_micros(500) + up_to(59_500)),
        }
    }

    /// Whether this is what the moment is counted from.
    fn begins_with(self, said: &Said) -> bool {
        match self {
            Moment::Opening(_) => false,
            Moment::Working(_) => matches!(said, Said::Opened { .. }),
            Moment::Closing(_) => matches!(said, Said::Closing),
        }
    }
}

/// Something acknowledged is not there: the evidence.
#[derive(Debug, Serialize)]
struct Lost {
    kill: u64,
    moment: String,
    findings: Vec<Finding>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "kill {} ({}): {}", self.kill, self.moment, report::count(self.findings.len() as u64, "finding"))?;
        self.findings.iter().take(FINDINGS_MAX).try_for_each(|finding| writeln!(f, "  {finding}"))?;
        if self.findings.len() > FINDINGS_MAX {
            writeln!(f, "  and {} more", self.findings.len() - FINDINGS_MAX)?;
        }
        Ok(())
    }
}

impl std::error::Error for Lost {}

/// What is printed at the end.
#[derive(Debug, Default, Serialize)]
struct Summary {
    dir: PathBuf,
    seed: u64,
    kills: u64,
    kills_opening: u64,
    kills_working: u64,
    kills_closing: u64,
    #[serde(flatten)]
    tally: Tally,
    torn_tails: u64,
    /// Openings that found the log not closed.
    recoveries: u64,
    /// Closes that returned.
    closes: u64,
    seconds: f64,
    ended_by: &'static str,
}

impl Summary {
    /// Counts so far, for a line.
    fn progress(&self) -> String {
        format!(
            "{}, {} acknowledged, {}",
            report::count(self.kills, "kill"),
            report::count(self.tally.acknowledged_records, "record"),
            report::count(self.torn_tails, "torn tail"),
        )
    }

    fn to_text(&self, result: &str) -> String {
        let Summary { tally, .. } = self;
        let mut text = format!("{result}: {} in {:.1} s", self.progress(), self.seconds);
        if !matches!(self.ended_by, "runs" | "seconds" | "") {
            let _ = write!(text, ", ended by {}", self.ended_by);
        }
        text.push('\n');
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        let Summary { kills_opening, kills_working, kills_closing, .. } = self;
        line("killed", format!("{kills_opening} opening, {kills_working} working, {kills_closing} closing"));
        line(
            "records",
            format!(
                "{} acknowledged ({}), {} found that were not",
                tally.acknowledged_records,
                ByteSize(tally.acknowledged_bytes),
                tally.unacknowledged_records
            ),
        );
        line(
            "truncations",
            format!("{} acknowledged, {} under way when killed", tally.truncations, tally.truncations_interrupted),
        );
        line("openings", format!("{} recovered; {} clean", self.recoveries, report::count(self.closes, "close")));
        line("seed", self.seed.to_string());
        line("log", format!("kept in {}", self.dir.display()));
        text
    }
}

/// One run of the command.
struct Torture<'a> {
    args: &'a Args,
    exe: PathBuf,
    stop: Arc<AtomicBool>,
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
            exe: std::env::current_exe().context("cannot find this program's file")?,
            stop,
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
                () if self.stop.load(Ordering::Relaxed) => return Ok("a signal"),
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
        let said = self.run_child(kill, moment, session_us)?;
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

    /// Starts a child and kills it at the moment; returns what it said.
    fn run_child(&self, kill: u64, moment: Moment, session_us: u64) -> anyhow::Result<Vec<Said>> {
        let mut command = Command::new(&self.exe);
        command.arg("torture-child").arg(&self.args.dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, value) in [
            ("--seed", self.summary.seed),
            ("--kill", kill),
            ("--writers", self.args.writers),
            ("--segment-size", self.args.segment_size.as_u64()),
            ("--session-us", session_us),
        ] {
            command.arg(name).arg(value.to_string());
        }
        // A signal from the terminal is for this process alone.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().context("cannot start a child")?;
        let (mut said, waited) = match listen(&mut child) {
            Ok(lines) => {
                let mut said = Vec::new();
                let waited = self.wait(&lines, moment, &mut said);
                child.kill().context("cannot kill the child")?;
                said.extend(lines);
                (said, waited)
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        let _ = child.kill();
        let status = child.wait().context("cannot wait for the child")?;
        if let Some(Said::Failed { code, error }) = said.iter().find(|s| matches!(s, Said::Failed { .. })) {
            // What makes the log unusable is a loss; anything else is the surroundings' fault.
            if *code != report::CORRUPT {
                bail!("kill {kill}: the child could not go on: {error}");
            }
            said.push(Said::Wrong { what: format!("a log that refuses: {error}") });
        } else if status.code().is_some() {
            bail!("kill {kill}: the child ended by itself ({status})");
        }
        waited.with_context(|| format!("kill {kill}"))?;
        Ok(said)
    }

    /// Listens to a child until the moment to kill it.
    fn wait(&self, lines: &Receiver<Said>, moment: Moment, said: &mut Vec<Said>) -> anyhow::Result<()> {
        let (mut deadline, mut is_counting) = match moment {
            Moment::Opening(pause) => (Instant::now() + pause, true),
            Moment::Working(_) | Moment::Closing(_) => (Instant::now() + PATIENCE, false),
        };
        while !self.stop.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if is_counting {
                    break;
                }
                bail!("the child hangs: it did not come to what was waited for in {} s", PATIENCE.as_secs());
            }
            match lines.recv_timeout(left.min(TICK)) {
                Ok(line) => {
                    if let (false, true, Moment::Working(pause) | Moment::Closing(pause)) =
                        (is_counting, moment.begins_with(&line), moment)
                    {
                        (deadline, is_counting) = (Instant::now() + pause, true);
                    }
                    said.push(line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
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

    fn report(&self, lost: Option<Lost>) -> Outcome {
        let result = if lost.is_some() { "LOST" } else { "nothing acknowledged was lost" };
        let text = self.summary.to_text(result);
        let Some(lost) = lost else {
            if self.args.json {
                report::print_json(&Reported { result: "nothing lost", summary: &self.summary, lost: None })?;
            } else {
                let limits = "a kill leaves the page cache alive: this says nothing about power cuts";
                report::print(&format!("{text}{:<12} {limits}\n", "not shown"))?;
            }
            return Ok(Status::Done);
        };
        let path = self.args.dir.join(MARKER_NAME);
        let written = File::options().append(true).open(&path).and_then(|mut file| write!(file, "\n{text}\n{lost}"));
        written.with_context(|| format!("cannot write the evidence to {}", path.display()))?;
        if self.args.json {
            report::print_json(&Reported { result: "lost", summary: &self.summary, lost: Some(&lost) })?;
        } else {
            report::print(&format!("{text}{lost}"))?;
        }
        let first = lost.findings.first().map_or_else(String::new, ToString::to_string);
        let (kill, seed) = (lost.kill, self.summary.seed);
        let kept = format!("{} is kept, with the evidence in {}", self.args.dir.display(), path.display());
        Err(LostError(format!("kill {kill}, seed {seed}: {first}; {kept}")).into())
    }
}

/// The summary as JSON.
#[derive(Serialize)]
struct Reported<'a> {
    result: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<&'a Lost>,
}

/// Reads what the child says in a thread of its own, until it is dead.
fn listen(child: &mut Child) -> anyhow::Result<Receiver<Said>> {
    let stdout = child.stdout.take().context("the child has no standard output")?;
    let (sender, lines) = mpsc::channel();
    let read = move || {
        let (mut stdout, mut line) = (BufReader::new(stdout), String::new());
        // What follows the last newline was being written when the kill came.
        while stdout.read_line(&mut line).is_ok_and(|len| len > 0) && line.ends_with('\n') {
            let said = serde_json::from_str(&line);
            let said = said.unwrap_or_else(|_| Said::Failed { code: 1, error: format!("it said {line:?}") });
            if sender.send(said).is_err() {
                return;
            }
            line.clear();
        }
    };
    std::thread::Builder::new().name("listener".into()).spawn(read).context("cannot start a thread")?;
    Ok(lines)
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
