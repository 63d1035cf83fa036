//! The measurements. Each has files of its own, warms up, and counts what began and ended inside
//! its window.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use cairnlog::commit::slot::Slot;
use cairnlog::io::{Backend, DirectStore, FileStore, NativeFs, Store};
use cairnlog::{Log, Retention, Stats, Ticket};
use serde::Serialize;

use crate::latency::Latencies;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// No log: 4 KiB written over zeros through the page cache, then fdatasync.
    RawBuffered,
    /// No log: 4 KiB written over zeros past the page cache, durable on return.
    RawDirect,
    /// Every record is waited for.
    Durable,
    /// One thread asks for durability and goes on, with at most [`IN_FLIGHT`] records on their way.
    Tickets,
    /// Nobody asks for durability.
    Append,
    /// Reading from the page cache, every checksum checked.
    Replay,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::RawBuffered => "raw, buffered",
            Mode::RawDirect => "raw, direct",
            Mode::Durable => "durable",
            Mode::Tickets => "tickets",
            Mode::Append => "append",
            Mode::Replay => "replay",
        }
    }

    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Mode::RawBuffered | Mode::RawDirect)
    }

    /// Whether a record counts once it is durable.
    pub(crate) fn is_durable(self) -> bool {
        !matches!(self, Mode::Append | Mode::Replay)
    }
}

/// What one measurement found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) mode: Mode,
    pub(crate) threads: usize,
    /// Bytes of a record's payload.
    pub(crate) size: usize,
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    pub(crate) records_per_second: f64,
    /// Payload, in 10^6 bytes.
    pub(crate) mb_per_second: f64,
    pub(crate) records_per_barrier: Option<f64>,
    /// Records per second over the best raw figure, where records are durable.
    pub(crate) ratio_to_raw: Option<f64>,
    /// How bytes reached the medium.
    pub(crate) backend: String,
    /// Of single calls; none for replay. Of appends and tickets, every so many is timed.
    pub(crate) latency_us: Option<Latency>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Pairs of a part, from 0 to 1, and what so many do not exceed; as far as there were enough
    /// calls to tell.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// Tickets on their way at most.
pub(crate) const IN_FLIGHT: usize = 4096;
/// Of calls that take no longer than looking at the clock, one in so many is timed.
const SAMPLE: u64 = 32;
/// A log's old segments go when it is longer than this.
const LOG_BYTES_MAX: u64 = 256 << 20;
const RAW_SIZE: usize = 4096;
const RAW_FILE_SIZE: u64 = 16 << 20;
/// How often the thread that waits for the others looks up.
const TICK: Duration = Duration::from_millis(20);

/// Where and how long is measured.
pub(crate) struct Meter<'a> {
    /// Belongs to the measurements alone.
    pub(crate) dir: &'a Path,
    pub(crate) seconds: f64,
    /// Once this is set, everything returns soon, with figures that mean nothing.
    pub(crate) stop: &'a AtomicBool,
}

/// The time that counts.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Instant,
    until: Instant,
}

impl Window {
    /// Begins a little later, so that files and threads are there.
    fn of(seconds: f64) -> Self {
        let from = Instant::now() + Duration::from_secs_f64((seconds / 5.0).min(0.3));
        Window { from, until: from + Duration::from_secs_f64(seconds) }
    }
}

/// What one thread did inside the window.
struct Tally {
    records: u64,
    latencies: Latencies,
    /// When the last record that counts was done.
    last: Instant,
}

impl Tally {
    fn new(window: Window) -> Self {
        Tally { records: 0, latencies: Latencies::new(), last: window.from }
    }

    /// Takes in what another thread did at the same time.
    fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.latencies.add(&other.latencies);
        self.last = self.last.max(other.last);
    }

    fn figures(
        &self,
        mode: Mode,
        (threads, size): (usize, usize),
        window: Window,
        backend: Backend,
    ) -> Figures {
        let seconds = (self.last - window.from).as_secs_f64().max(1e-9);
        let records_per_second = self.records as f64 / seconds;
        Figures {
            mode,
            threads,
            size,
            records: self.records,
            seconds,
            records_per_second,
            mb_per_second: records_per_second * size as f64 / 1e6,
            records_per_barrier: None,
            ratio_to_raw: None,
            backend: backend.to_string(),
            latency_us: (self.latencies.count() > 0).then(|| Latency::of(&self.latencies)),
        }
    }
}

impl Latency {
    fn of(latencies: &Latencies) -> Self {
        let at = |part| latencies.quantile_us(part);
        // Nines, a tenth of one at a time, as many as there are calls for.
        let nines = (latencies.count() as f64).log10().min(6.0);
        let steps = (0..60).map(|tenths| f64::from(tenths) / 10.0).take_while(|n| *n < nines);
        let parts = steps.map(|nines| 1.0 - 10f64.powf(-nines)).chain([1.0 - 10f64.powf(-nines)]);
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: latencies.max_us(),
            curve: parts.map(|part| (part, at(part))).collect(),
        }
    }
}

impl Meter<'_> {
    /// A loop without a log, the limit of what one thread can do.
    pub(crate) fn raw_buffered(&self) -> anyhow::Result<Figures> {
        let path = self.dir.join("raw");
        let figures = self.raw(&FileStore::open(&NativeFs, &path)?, Mode::RawBuffered)?;
        std::fs::remove_file(&path)?;
        Ok(figures)
    }

    /// The same past the page cache; `None` where that cannot be done.
    pub(crate) fn raw_direct(&self) -> anyhow::Result<Option<Figures>> {
        let path = self.dir.join("raw");
        let store = DirectStore::open(&NativeFs, &path)?;
        let figures = match store.backend() {
            Backend::Buffered => None,
            _ => Some(self.raw(&store, Mode::RawDirect)?),
        };
        std::fs::remove_file(&path)?;
        // The first write may have been refused.
        Ok(figures.filter(|_| store.backend() != Backend::Buffered))
    }

    fn raw(&self, store: &dyn Store, mode: Mode) -> anyhow::Result<Figures> {
        fill_with_zeros(store)?;
        let memory = Slot::new(RAW_SIZE);
        let mut block = memory.contents().map_err(|_| anyhow!("memory that is ours"))?;
        block.copy_from_slice(&noise(RAW_SIZE, 1));
        let window = Window::of(self.seconds);
        let mut tally = Tally::new(window);
        for n in 0.. {
            let began = Instant::now();
            if self.is_over(window, began, &tally) {
                break;
            }
            store.write_durable(n * RAW_SIZE as u64 % RAW_FILE_SIZE, &[IoSlice::new(&block)])?;
            tally.count_call(window, began);
        }
        Ok(tally.figures(mode, (1, RAW_SIZE), window, store.backend()))
    }

    /// `threads` threads that commit one record at a time.
    pub(crate) fn durable(&self, threads: usize, size: usize) -> anyhow::Result<Figures> {
        let log = self.create_log()?;
        let work = |thread: usize, window: Window| {
            let payload = noise(size, thread as u64);
            let mut tally = Tally::new(window);
            loop {
                let began = Instant::now();
                if self.is_over(window, began, &tally) {
                    return Ok(tally);
                }
                log.commit(&payload)?;
                tally.count_call(window, began);
            }
        };
        let figures = self.drive(&log, Mode::Durable, threads, size, work)?;
        self.remove_log(log)?;
        Ok(figures)
    }

    /// One thread that goes on before its records are durable.
    pub(crate) fn tickets(&self, size: usize) -> anyhow::Result<Figures> {
        let log = self.create_log()?;
        let figures =
            self.drive(&log, Mode::Tickets, 1, size, |_, window| self.submit(&log, size, window))?;
        self.remove_log(log)?;
        Ok(figures)
    }

    fn submit(&self, log: &Log, size: usize, window: Window) -> anyhow::Result<Tally> {
        let payload = noise(size, 1);
        let mut tally = Tally::new(window);
        let mut in_flight: VecDeque<(Option<Instant>, Ticket)> = VecDeque::with_capacity(IN_FLIGHT);
        for n in 0u64.. {
            let sampled = n.is_multiple_of(SAMPLE).then(Instant::now);
            if let Some(now) = sampled {
                if self.is_over(window, now, &tally) {
                    break;
                }
                let durable = log.durable_lsn();
                let settled =
                    in_flight.iter().take_while(|(_, ticket)| ticket.lsn() < durable).count();
                in_flight
                    .drain(..settled)
                    .for_each(|(began, _)| tally.count_ticket(window, began, now));
            }
            in_flight.push_back((sampled, log.submit(&payload)?));
            if in_flight.len() == IN_FLIGHT
                && let Some((began, ticket)) = in_flight.pop_front()
            {
                ticket.wait()?;
                tally.count_ticket(window, began, Instant::now());
            }
        }
        in_flight.into_iter().try_for_each(|(_, ticket)| ticket.wait())?;
        Ok(tally)
    }

    /// One thread that appends and never asks for durability; and what it takes to read that again.
    pub(crate) fn append_and_replay(&self, size: usize) -> anyhow::Result<[Figures; 2]> {
        let log = self.create_log()?;
        let work = |_, window: Window| {
            let payload = noise(size, 1);
            let mut tally = Tally::new(window);
            loop {
                let began = Instant::now();
                if self.is_over(window, began, &tally) {
                    return Ok(tally);
                }
                log.append(&payload)?;
                tally.count_call(window, began);
                for _ in 1..SAMPLE {
                    log.append(&payload)?;
                }
                tally.records += if began >= window.from { SAMPLE - 1 } else { 0 };
                tally.last = Instant::now();
            }
        };
        let append = self.drive(&log, Mode::Append, 1, size, work)?;
        log.sync()?;
        let replay = self.replay(&log, size)?;
        self.remove_log(log)?;
        Ok([append, replay])
    }

    /// Reads the log again and again. The first time, which may go to the device, does not count.
    fn replay(&self, log: &Log, size: usize) -> anyhow::Result<Figures> {
        const LONG: Duration = Duration::from_secs(3600);
        let now_for = |length| {
            let from = Instant::now();
            Window { from, until: from + length }
        };
        let first = now_for(LONG);
        self.read(log, first, &mut Tally::new(first))?;
        let window = now_for(Duration::from_secs_f64(self.seconds));
        let mut tally = Tally::new(window);
        while !self.is_over(window, Instant::now(), &tally) {
            self.read(log, window, &mut tally)?;
        }
        Ok(tally.figures(Mode::Replay, (1, size), window, log.backend()))
    }

    /// Reads once, or until the window ends.
    fn read(&self, log: &Log, window: Window, tally: &mut Tally) -> anyhow::Result<()> {
        let mut reader = log.reader(log.head_lsn())?;
        while let Some(record) = reader.next_record()? {
            std::hint::black_box(record.payload());
            tally.records += 1;
            if tally.records.is_multiple_of(1024) && self.is_over(window, Instant::now(), tally) {
                break;
            }
        }
        tally.last = Instant::now();
        Ok(())
    }

    /// Whether a thread ends. Each does something that counts, however slow the device.
    fn is_over(&self, window: Window, now: Instant, tally: &Tally) -> bool {
        self.stop.load(Ordering::Relaxed) || (now >= window.until && tally.records > 0)
    }

    fn create_log(&self) -> anyhow::Result<Log> {
        Ok(Log::open(self.dir.join("log"))?)
    }

    fn remove_log(&self, log: Log) -> anyhow::Result<()> {
        log.close()?;
        let path = self.dir.join("log");
        std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Has threads work on a log, and keeps it short meanwhile.
    fn drive(
        &self,
        log: &Log,
        mode: Mode,
        threads: usize,
        size: usize,
        work: impl Fn(usize, Window) -> anyhow::Result<Tally> + Sync,
    ) -> anyhow::Result<Figures> {
        let window = Window::of(self.seconds);
        let work = &work;
        let (total, stats) = thread::scope(|scope| -> anyhow::Result<_> {
            let spawn = |n| thread::Builder::new().spawn_scoped(scope, move || work(n, window));
            let workers: Vec<_> = (0..threads).map(spawn).collect();
            let stats = self.attend(log, window);
            let mut total = Tally::new(window);
            for worker in workers {
                let worker = worker.context("cannot start a thread; ask for fewer")?;
                total.add(&worker.join().map_err(|_| anyhow!("a thread panicked"))??);
            }
            Ok((total, stats?))
        })?;
        let mut figures = total.figures(mode, (threads, size), window, log.backend());
        let (before, after) = stats;
        let barriers = after.barriers - before.barriers;
        if mode.is_durable() && barriers > 0 {
            figures.records_per_barrier =
                Some((after.records - before.records) as f64 / barriers as f64);
        }
        Ok(figures)
    }

    /// Waits for the end of the window; returns the log's counters at its beginning and at its end.
    fn attend(&self, log: &Log, window: Window) -> anyhow::Result<(Stats, Stats)> {
        self.pause_until(log, window.from)?;
        let before = log.stats();
        self.pause_until(log, window.until)?;
        Ok((before, log.stats()))
    }

    fn pause_until(&self, log: &Log, end: Instant) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(TICK));
            if log.appended_lsn().0 - log.head_lsn().0 > LOG_BYTES_MAX {
                log.retain(Retention::Bytes(LOG_BYTES_MAX))?;
            }
        }
        Ok(())
    }
}

impl Tally {
    /// Counts a call that just ended.
    fn count_call(&mut self, window: Window, began: Instant) {
        if began >= window.from {
            let now = Instant::now();
            self.records += 1;
            self.latencies.record(now - began);
            self.last = now;
        }
    }

    /// Counts a record that was found to be durable at `now`.
    fn count_ticket(&mut self, window: Window, began: Option<Instant>, now: Instant) {
        if now >= window.from {
            self.records += 1;
            self.last = now;
            if let Some(began) = began {
                self.latencies.record(now.saturating_duration_since(began));
            }
        }
    }
}

/// Makes a file's blocks exist, so that overwriting them changes nothing but their bytes.
fn fill_with_zeros(store: &dyn Store) -> anyhow::Result<()> {
    const CHUNK: usize = 1 << 20;
    let memory = Slot::new(CHUNK);
    let zeros = memory.contents().map_err(|_| anyhow!("memory that is ours"))?;
    for offset in (0..RAW_FILE_SIZE).step_by(CHUNK) {
        store.write_durable(offset, &[IoSlice::new(&zeros)])?;
    }
    Ok(())
}

/// Bytes that do not compress (xorshift64*, Vigna 2016).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        bytes.extend_from_slice(&x.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_as_far_as_there_are_calls() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let curve = Latency::of(&latencies).curve;
        assert_eq!(curve.len(), 31);
        assert!(curve.is_sorted());
        assert!(
            (curve[10].0 - 0.9).abs() < 1e-9 && (curve[10].1 - 900.0).abs() < 2.0,
            "{:?}",
            curve[10]
        );
        assert!((curve[30].0 - 0.999).abs() < 1e-9, "{:?}", curve[30]);
    }

    #[test]
    fn noise_is_of_any_length() {
        for len in [0, 1, 8, 100] {
            assert_eq!(noise(len, 3).len(), len);
        }
        assert_ne!(noise(64, 1), noise(64, 2));
    }
}
