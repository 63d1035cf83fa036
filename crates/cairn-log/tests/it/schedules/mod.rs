//! Schedules: what the order in which threads get on does to a log. Two races that were found once
//! are held still by hand; delays and random calls look for others.

mod delays;
mod explore;
pub(crate) mod races;
mod threads;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cairn_sim::Call;

use crate::hooked::Hook;

/// How many rounds of a kind to make: with `CAIRN_SCHEDULES=n` in the environment *n* times as
/// many. With `CAIRN_SCHEDULE=n` round *n* is the only one.
fn rounds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match number("CAIRN_SCHEDULE") {
        Some(only) => only..only + 1,
        None => 0..usual * number("CAIRN_SCHEDULES").unwrap_or(1),
    }
}

/// Scatters the bits of `x`.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Random numbers of one thread.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(mix(seed.wrapping_add(1)) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        all[self.below(N as u64) as usize]
    }

    /// Lets other threads run, for up to half a millisecond.
    fn pause(&mut self) {
        match self.below(6) {
            0 => thread::sleep(Duration::from_micros(self.below(500))),
            1 | 2 => thread::yield_now(),
            _ => {}
        }
    }
}

/// Whose calls are delayed.
#[derive(Clone, Copy, Debug)]
enum Delayed {
    /// The log's threads whose names are among these.
    Threads(&'static [&'static str]),
    /// The test's threads.
    Callers,
    /// Calls for files that have no segment's name yet.
    Unnamed,
    All,
}

/// Delays calls at random, before and after they take effect.
#[derive(Debug)]
struct Delays {
    random: AtomicU64,
    whose: Delayed,
    /// One call in so many is delayed.
    odds: u64,
    max: Duration,
    /// One call in so many of the thread that prepares fails, after or before it took effect.
    faults: Option<u64>,
    background: bool,
}

impl Delays {
    fn next(&self) -> u64 {
        mix(self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst))
    }

    fn delay(&self, path: &Path) {
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        let delayed = match self.whose {
            Delayed::Threads(names) => names.contains(&name),
            Delayed::Callers => !name.starts_with("cairn-"),
            Delayed::Unnamed => path.extension().is_some_and(|end| end == "tmp"),
            Delayed::All => true,
        };
        if !delayed {
            return;
        }
        let random = self.next();
        if random.is_multiple_of(self.odds) {
            let max = u64::try_from(self.max.as_micros()).unwrap();
            thread::sleep(Duration::from_micros((random >> 8) % max));
        } else if random.is_multiple_of(3) {
            thread::yield_now();
        }
    }

    fn fail(&self, call: Call) -> io::Result<()> {
        match self.faults {
            // A failed barrier of the directory ends the log, as it should.
            _ if matches!(call, Call::Read | Call::SyncDir) => Ok(()),
            Some(odds) if thread::current().name() == Some("cairn-prepare") => {
                let random = self.next();
                // EIO, ENOSPC, EMFILE.
                let errno = [5, 28, 24][(random >> 20) as usize % 3];
                match random.is_multiple_of(odds) {
                    true => Err(io::Error::from_raw_os_error(errno)),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Hook for Delays {
    fn before(&self, call: Call, path: &Path) -> io::Result<()> {
        self.delay(path);
        self.fail(call)
    }
    fn after(&self, call: Call, path: &Path) -> io::Result<()> {
        if call != Call::Read {
            self.delay(path);
        }
        self.fail(call)
    }
    fn background(&self, _: bool) -> bool {
        self.background
    }
}
