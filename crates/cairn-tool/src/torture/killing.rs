//! Starting a child, listening to it, and killing it at the moment.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::args::Args;
use super::record::{Dice, Said};
use crate::report;

/// So long a child may take to open its log, or to get to its close, before it is said to hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the wait for a child looks up.
const TICK: Duration = Duration::from_millis(50);

/// When a child is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// While it opens or recovers, so long after it was started.
    Opening(Duration),
    /// So long after it said that the log is open.
    Working(Duration),
    /// So long after it said that it closes the log.
    Closing(Duration),
}

impl Moment {
    pub(super) fn roll(dice: &mut Dice) -> Self {
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

/// Who starts and kills children.
pub(super) struct Killer<'a> {
    pub(super) args: &'a Args,
    pub(super) exe: PathBuf,
    pub(super) seed: u64,
    /// Set when a signal asks for the end.
    pub(super) stop: Arc<AtomicBool>,
}

impl Killer<'_> {
    /// Starts a child and kills it at the moment; returns what it said.
    pub(super) fn run_child(
        &self,
        kill: u64,
        moment: Moment,
        session_us: u64,
    ) -> anyhow::Result<Vec<Said>> {
        let mut command = Command::new(&self.exe);
        command
            .arg("torture-child")
            .arg(&self.args.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (name, value) in [
            ("--seed", self.seed),
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
        if let Some(Said::Failed { code, error }) =
            said.iter().find(|s| matches!(s, Said::Failed { .. }))
        {
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
    fn wait(
        &self,
        lines: &Receiver<Said>,
        moment: Moment,
        said: &mut Vec<Said>,
    ) -> anyhow::Result<()> {
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
                bail!(
                    "the child hangs: it did not come to what was waited for in {} s",
                    PATIENCE.as_secs()
                );
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
            let said = said
                .unwrap_or_else(|_| Said::Failed { code: 1, error: format!("it said {line:?}") });
            if sender.send(said).is_err() {
                return;
            }
            line.clear();
        }
    };
    std::thread::Builder::new()
        .name("listener".into())
        .spawn(read)
        .context("cannot start a thread")?;
    Ok(lines)
}
