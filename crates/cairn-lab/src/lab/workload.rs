//! Runs a workload in processes of its own and notes what it acknowledges when it does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use cairn_log::Inspection;
use clap::ValueEnum;
use fastrand::Rng;

use super::check::records_of;
use super::child::{Event, Message};
use super::device::succeed;
use super::history::{Cut, History, payload};
use super::recorder::Recorder;
use super::round::Plan;

const TOOL_SESSIONS: usize = 7;
/// A process of a workload that runs longer hangs.
const WORKLOAD_TIME_MAX: Duration = Duration::from_secs(120);

/// The workload of several threads, with the library. Also tells how the log wrote.
pub(crate) fn library(
    recorder: &Recorder,
    dir: &Path,
    plan: &Plan,
    mut history: History,
) -> Result<(History, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").arg(dir).arg(format!("--seed={}", plan.seed));
    command
        .arg(format!("--salt={}", history.salt()))
        .arg(format!("--first-id={}", history.next_id()));
    command.args(option("control", plan.control)).args(option("backend", plan.backend));
    let mut process = Piped::start(&mut command, &plan.interrupted)?;
    let (mut line, mut used) = (String::new(), String::new());
    while process.output.read_line(&mut line)? > 0 {
        // Stamped before anything is answered: the workload has not begun what it announces.
        let stamp = recorder.op_count();
        let message: Message = serde_json::from_str(&line)?;
        match message.event {
            Event::Opened { backend, first_seq, records } => {
                used = backend;
                history
                    .opened(stamp, first_seq, &records)
                    .map_err(|complaint| anyhow!("opened in place: {complaint}"))?;
            }
            Event::Durable { records, batch } => history.durable(stamp, &records, batch),
            Event::CutBegins(cut) => history.cut_begins(stamp, cut),
            Event::CutEnds => history.cut_ends(stamp),
        }
        if message.waits {
            process.feed(b"\n")?;
        }
        line.clear();
    }
    process.end()?;
    history.finish();
    Ok((history, used))
}

/// An option of our own command line, if it has a value.
fn option(name: &str, value: Option<impl ValueEnum>) -> Option<String> {
    Some(format!("--{name}={}", value?.to_possible_value()?.get_name()))
}

/// The `cairn` command: appends, ends well or is killed, truncates, and again.
pub(crate) fn tool(
    recorder: &Recorder,
    dir: &Path,
    plan: &Plan,
    history: History,
) -> Result<History> {
    let mut tool = Tool { recorder, dir, plan, history, next_id: 0 };
    let mut rng = Rng::with_seed(plan.seed);
    for _ in 0..TOOL_SESSIONS {
        tool.append(&mut rng)?;
        if rng.u8(..3) == 0 {
            tool.truncate(&mut rng)?;
        }
    }
    tool.history.finish();
    Ok(tool.history)
}

struct Tool<'a> {
    recorder: &'a Recorder,
    dir: &'a Path,
    plan: &'a Plan,
    history: History,
    next_id: u64,
}

impl Tool<'_> {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.plan.cairn);
        command.arg(name).arg(self.dir);
        if let Some(library) = &self.plan.preload {
            command.env("LD_PRELOAD", library);
        }
        command
    }

    fn append(&mut self, rng: &mut Rng) -> Result<()> {
        let segment_size = ["8KiB", "16KiB", "64KiB", "1MiB"][rng.usize(..4)];
        let mut command = self.command("append");
        command.args(["--ack", "--segment-size", segment_size]);
        if rng.bool() {
            command.arg("--each");
        }
        let mut process = Piped::start(&mut command, &self.plan.interrupted)?;
        let bursts = rng.usize(4..20);
        for _ in 0..bursts {
            // Bursts fit a pipe, so that nobody waits for the other.
            let ids: Vec<u64> = (0..rng.u64(1..8)).map(|_| self.take_id()).collect();
            process.feed(&self.lines(&ids))?;
            for id in ids {
                self.acknowledged(&mut process, id)?;
            }
        }
        if rng.u8(..3) > 0 {
            return process.end();
        }
        let ids: Vec<u64> = (0..8).map(|_| self.take_id()).collect();
        process.feed(&self.lines(&ids))?;
        for id in &ids[..rng.usize(..8)] {
            self.acknowledged(&mut process, *id)?;
        }
        process.kill()?;
        // What it had written stays with the operating system, and is what the next one finds.
        let log = Inspection::open(self.dir)?;
        let found = records_of(log.reader(log.head_lsn())?, self.history.salt())?;
        let known =
            found.iter().map(|record| Ok((record.lsn, record.id.context("a foreign record")?)));
        let known = known.collect::<Result<Vec<_>>>()?;
        self.history.written(&known);
        Ok(())
    }

    fn truncate(&mut self, rng: &mut Rng) -> Result<()> {
        let positions = self.history.positions();
        let Some(lsn) = rng.choice(positions) else { return Ok(()) };
        let before = rng.bool();
        self.history.cut_begins(
            self.recorder.op_count(),
            if before { Cut::Before(lsn) } else { Cut::After(lsn) },
        );
        let option = if before { "--before" } else { "--after" };
        succeed(self.command("truncate").arg(option).arg(lsn.to_string()))?;
        self.history.cut_ends(self.recorder.op_count());
        Ok(())
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn lines(&self, ids: &[u64]) -> Vec<u8> {
        let line = |id: &u64| [payload(self.history.salt(), *id), vec![b'\n']].concat();
        ids.iter().flat_map(line).collect()
    }

    /// Reads the acknowledgement of the record.
    fn acknowledged(&mut self, process: &mut Piped, id: u64) -> Result<()> {
        let mut line = String::new();
        process.output.read_line(&mut line)?;
        let stamp = self.recorder.op_count();
        let lsn = line.trim().parse().with_context(|| format!("no acknowledgement: {line:?}"))?;
        self.history.durable(stamp, &[(lsn, id)], false);
        Ok(())
    }
}

/// A process that is talked to. Killed when dropped, and when it takes too long or the user wants
/// to end.
struct Piped {
    child: Arc<Mutex<Child>>,
    /// `None` once closed.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
}

impl Piped {
    fn start(command: &mut Command, interrupted: &Arc<AtomicBool>) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start the workload")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let errors = child.stderr.take().context("no standard error")?;
        let child = Arc::new(Mutex::new(child));
        let (watched, interrupted) = (Arc::downgrade(&child), interrupted.clone());
        thread::spawn(move || watch(&watched, &interrupted));
        Ok(Piped { child, input, output, errors })
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let input = self.input.as_mut().context("no standard input")?;
        input.write_all(bytes).context("the workload ended early")
    }

    /// Closes its input and waits for it to end well.
    fn end(mut self) -> Result<()> {
        self.input = None;
        let mut said = String::new();
        self.errors.read_to_string(&mut said)?;
        let status = lock(&self.child).wait()?;
        ensure!(status.success(), "the workload failed: {status}: {}", said.trim());
        Ok(())
    }

    fn kill(self) -> Result<()> {
        let mut child = lock(&self.child);
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Piped {
    /// After a failure; a process that was waited for is not touched.
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a process that should be over: whoever reads from it then finds the end.
fn watch(child: &Weak<Mutex<Child>>, interrupted: &AtomicBool) {
    let started = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(100));
        let Some(child) = child.upgrade() else { return };
        if started.elapsed() > WORKLOAD_TIME_MAX || interrupted.load(Ordering::Relaxed) {
            let _ = lock(&child).kill();
        }
    }
}
