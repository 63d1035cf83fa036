//! Real-time scheduling: children run as this process was started, and this process above them.
//!
//! Under `chrt -f 10` a subject that spins would never let a parent of the same priority in again,
//! and the machine would stand still. So the parent rises by one, and keeps its time limits.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// How this process was scheduled when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheduling {
    /// By one of the policies for everybody.
    Normal,
    /// `SCHED_FIFO` or `SCHED_RR`, with the option of `chrt` that stands for it.
    RealTime {
        /// `-f` or `-r`.
        option: &'static str,
        /// 1 to 99.
        priority: u32,
    },
}

/// Fields of `/proc/self/stat` by their numbers in proc(5).
pub(crate) fn stat_field(n: usize) -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name, in parentheses, and may contain anything.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(n - 3).unwrap_or("?").to_owned()
}

impl Scheduling {
    /// Looks now.
    pub(crate) fn current() -> Self {
        let priority = stat_field(40).parse().unwrap_or(0);
        match stat_field(41).as_str() {
            "1" => Scheduling::RealTime { option: "-f", priority },
            "2" => Scheduling::RealTime { option: "-r", priority },
            _ => Scheduling::Normal,
        }
    }

    /// Puts this process above the children that it is going to have.
    pub(crate) fn rise(self) -> Result<()> {
        let Scheduling::RealTime { option, priority } = self else {
            return Ok(());
        };
        let mut chrt = Command::new("chrt");
        chrt.args([option, "-p", &(priority + 1).to_string(), &std::process::id().to_string()]);
        let status = chrt.status().context("chrt, to rise above the children")?;
        ensure!(status.success(), "chrt could not raise this process above its children");
        Ok(())
    }

    /// A command that runs `program` as this process was started.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Scheduling::Normal => Command::new(program),
            Scheduling::RealTime { option, priority } => {
                let mut command = Command::new("chrt");
                command.args([option, &priority.to_string()]).arg(program);
                command
            }
        }
    }

    /// A command that runs `program` like everybody else.
    pub(crate) fn normal_command(self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Scheduling::Normal => Command::new(program),
            Scheduling::RealTime { .. } => {
                let mut command = Command::new("chrt");
                command.args(["-o", "0"]).arg(program);
                command
            }
        }
    }
}
