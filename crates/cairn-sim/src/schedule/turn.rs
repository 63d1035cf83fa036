//! What a seed decides of a schedule, as text that can be read, shrunk and repeated.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::faults::{Errno, Fault};

/// One thing that went another way than it goes by default: a thread runs until it waits, then the
/// next one by number; calls take their time and succeed.
///
/// Threads are numbered in the order in which they begin, and each counts its own steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The thread.
    pub thread: u32,
    /// Its step.
    pub step: u64,
    /// What was decided there.
    pub what: Decision,
}

/// See [`Turn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The thread with this number goes on.
    Switch(u32),
    /// The thread is delayed, inside a file system call, by this much simulated time.
    Delay(Duration),
    /// The file system call fails, or is short.
    Fault(Fault),
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.thread, self.step)?;
        match self.what {
            Decision::Switch(to) => write!(f, ">{to}"),
            Decision::Delay(time) => write!(f, "~{}", time.as_micros()),
            Decision::Fault(fault) => write!(f, "!{}", name_of(fault)),
        }
    }
}

fn name_of(fault: Fault) -> String {
    match fault {
        Fault::Fail(errno) => errno.to_string(),
        Fault::Short(bytes) => format!("short:{bytes}"),
        Fault::ShortThenFail(bytes, errno) => format!("short:{bytes}:{errno}"),
        Fault::FailAfter(bytes, errno) => format!("after:{bytes}:{errno}"),
        Fault::Ignore => "ignore".to_owned(),
    }
}

fn fault_of(text: &str) -> Option<Fault> {
    let mut parts = text.split(':');
    let kind = parts.next()?;
    let number = parts.next().map(str::parse::<usize>).transpose().ok()?;
    let errno = parts.next().map(str::parse::<Errno>).transpose().ok()?;
    match (kind, number, errno) {
        ("ignore", None, None) => Some(Fault::Ignore),
        ("short", Some(bytes), None) => Some(Fault::Short(bytes)),
        ("short", Some(bytes), Some(errno)) => Some(Fault::ShortThenFail(bytes, errno)),
        ("after", Some(bytes), Some(errno)) => Some(Fault::FailAfter(bytes, errno)),
        (errno, None, None) => errno.parse().ok().map(Fault::Fail),
        _ => None,
    }
}

impl FromStr for Turn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (thread, rest) = text.split_once('@')?;
            let at = rest.find(|c: char| !c.is_ascii_digit())?;
            let (step, what) = rest.split_at(at);
            let what = match what.split_at(1) {
                (">", to) => Decision::Switch(to.parse().ok()?),
                ("~", micros) => Decision::Delay(Duration::from_micros(micros.parse().ok()?)),
                ("!", fault) => Decision::Fault(fault_of(fault)?),
                _ => return None,
            };
            Some(Turn { thread: thread.parse().ok()?, step: step.parse().ok()?, what })
        };
        parse().ok_or_else(|| format!("{text:?} is no turn of a schedule"))
    }
}
