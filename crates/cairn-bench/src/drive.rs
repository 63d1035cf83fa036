//! What happens inside a child process: a subject is opened, threads work on it, counters are read at both ends of a window.
//!
//! Threads run until they are told to stop and publish how far they are; the main thread reads all counters at the beginning and at the end of
//! the window. So a main thread that wakes late makes the window longer and no figure wrong.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Barrier, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Mode, Phase};
use crate::device;
use crate::measure::{Measurement, Snapshot, histogram};
use crate::subject::{Ability, Entry, Pipeline, Seen, Subject, Writer};
use crate::subjects;

/// Precedes the result on the standard output of a child: peers may print things of their own.
pub(crate) const RESULT_MARK: &str = "CAIRN-BENCH-RESULT ";

/// One in this many appends is timed where an append takes no longer than looking at the clock.
const SAMPLE: u64 = 32;

/// No preparation takes longer.
const PREPARE_AT_MOST: Duration = Duration::from_secs(120);

/// What a child process answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Records that are there now and durable.
    Prepared(u64),
    /// Figures.
    Measured(Box<Measurement>),
    /// Nothing to say.
    Done,
}

/// Does one phase of a cell in this process and prints the answer.
pub(crate) fn child(json: &str) -> Result<()> {
    let cell: Cell = serde_json::from_str(json).context("the description of the cell")?;
    // Injected latencies are slept; the kernel may otherwise add 50 µs to each.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).context("timer slack")?;
    let entry = subjects::find(&cell.subject)?;
    let begin = Instant::now();
    let subject = (entry.open)(&cell.setup()).with_context(|| format!("{} does not open", entry.name))?;
    let opened = begin.elapsed();
    let answer = match (cell.phase, cell.mode) {
        (Phase::Prepare, _) => return prepare(&cell, entry, subject),
        (Phase::Prove(commits), _) => {
            commit_with_marks(&*subject, commits)?;
            Answer::Done
        }
        (Phase::Measure, Mode::Durable | Mode::Batch(_) | Mode::NoSync) => measured(write(&cell, &*subject)?),
        (Phase::Measure, Mode::Tickets(in_flight)) => measured(tickets(&cell, &*subject, in_flight)?),
        (Phase::Measure, Mode::Replay) => measured(replay(&cell, &*subject)?),
        (Phase::Measure, Mode::OpenClean | Mode::OpenCrashed) => measured(open(&cell, &*subject, opened)?),
    };
    subject.close().context("closing")?;
    print_answer(&answer)
}

fn measured(measurement: Measurement) -> Answer {
    Answer::Measured(Box::new(measurement))
}

fn print_answer(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    // On a line of its own, whatever was printed before.
    writeln!(out, "\n{RESULT_MARK}{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}

/// Bytes that do not compress, different for each seed.
fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*, Vigna 2016.
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        bytes.extend_from_slice(&x.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Where a measurement stands.
const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const STOP: u8 = 2;

/// A counter on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

/// What the threads and the main thread share.
struct Control {
    phase: AtomicU8,
    records: Vec<Counter>,
    stopped: Mutex<bool>,
    stopping: Condvar,
    device: Option<PathBuf>,
    /// Records that a thread may write before the disk is in danger.
    most: u64,
}

impl Control {
    fn new(cell: &Cell, subject: &dyn Subject, threads: usize) -> Self {
        let most = cell.max_bytes / cell.size.max(1) as u64 / threads as u64;
        Control {
            most: if subject.keeps_nothing() { u64::MAX } else { most },
            phase: AtomicU8::new(WARMING_UP),
            records: (0..threads).map(|_| Counter::default()).collect(),
            stopped: Mutex::new(false),
            stopping: Condvar::new(),
            device: device::stat_file(&cell.dir),
        }
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    /// Called by a thread that cannot or need not go on.
    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopping.notify_all();
    }

    /// Waits for the time to pass or a thread to stop.
    fn wait(&self, seconds: f64) {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.stopping.wait_timeout_while(stopped, Duration::from_secs_f64(seconds), |stopped| !*stopped);
    }

    fn snapshot(&self, subject: &dyn Subject) -> Result<Snapshot> {
        let records = || self.records.iter().map(|c| c.0.load(Ordering::Relaxed)).sum();
        Snapshot::take(records, subject.barriers(), self.device.as_deref())
    }

    /// The main thread's part: the window, with `finish` inside it.
    fn conduct(
        &self,
        cell: &Cell,
        subject: &dyn Subject,
        finish: impl FnOnce() -> Result<()>,
    ) -> Result<(Snapshot, Snapshot)> {
        self.wait(cell.warmup);
        let begin = self.snapshot(subject);
        let _ = self.phase.compare_exchange(WARMING_UP, MEASURING, Ordering::Relaxed, Ordering::Relaxed);
        self.wait(cell.seconds);
        let stop = || self.phase.store(STOP, Ordering::Relaxed);
        let end = if cell.mode == Mode::NoSync {
            // What is not with the operating system yet has not been paid for.
            stop();
            finish().and_then(|()| self.snapshot(subject))
        } else {
            let end = self.snapshot(subject);
            stop();
            end
        };
        Ok((begin?, end?))
    }
}

/// Durable, batch and nosync: every thread with a writer of its own.
fn write(cell: &Cell, subject: &dyn Subject) -> Result<Measurement> {
    let control = Control::new(cell, subject, cell.threads);
    let start = Barrier::new(cell.threads + 1);
    let finished = Barrier::new(cell.threads + 1);
    let (window, histograms) = thread::scope(|scope| {
        let threads: Vec<_> = (0..cell.threads)
            .map(|thread| {
                let (control, start, finished) = (&control, &start, &finished);
                scope.spawn(move || {
                    let writer = subject.writer(thread);
                    start.wait();
                    let result = writer.and_then(|mut writer| write_until_stopped(cell, control, thread, &mut *writer));
                    control.stop();
                    finished.wait();
                    result
                })
            })
            .collect();
        start.wait();
        let flush = || {
            finished.wait();
            subject.flush()
        };
        let window = control.conduct(cell, subject, flush);
        if cell.mode != Mode::NoSync {
            finished.wait();
        }
        let histograms: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
        (window, histograms)
    });
    let mut merged = histogram();
    for one in histograms {
        merged.add(one.map_err(|_| anyhow!("a thread panicked"))??)?;
    }
    let (begin, end) = window?;
    Measurement::between(&begin, &end, cell.size, &merged, subject.note())
}

/// One thread's part of a measurement.
fn write_until_stopped(
    cell: &Cell,
    control: &Control,
    thread: usize,
    writer: &mut dyn Writer,
) -> Result<Histogram<u64>> {
    let mut histogram = histogram();
    let batch = if let Mode::Batch(k) = cell.mode { k } else { 1 };
    let payloads = random_bytes(cell.size * batch, thread as u64 + 1);
    let records: Vec<&[u8]> = payloads.chunks(cell.size.max(1)).collect();
    let record: &[u8] = records.first().copied().unwrap_or_default();
    let published = &control.records[thread].0;
    let mut done = 0;
    while done <= control.most {
        let phase = control.phase();
        if phase == STOP {
            break;
        }
        let begin = Instant::now();
        match cell.mode {
            Mode::Batch(_) => writer.commit_many(&records)?,
            Mode::NoSync => writer.append(record)?,
            _ => writer.commit(record)?,
        }
        if phase == MEASURING {
            histogram.saturating_record(begin.elapsed().as_nanos() as u64);
        }
        done += records.len() as u64;
        if cell.mode == Mode::NoSync {
            for _ in 1..SAMPLE {
                writer.append(record)?;
            }
            done += SAMPLE - 1;
        }
        published.store(done, Ordering::Relaxed);
    }
    Ok(histogram)
}

/// One thread, many commits in flight.
fn tickets(cell: &Cell, subject: &dyn Subject, in_flight: usize) -> Result<Measurement> {
    let control = Control::new(cell, subject, 1);
    let (window, histogram) = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let result = subject
                .pipeline()
                .and_then(|mut pipeline| submit_until_stopped(cell, &control, in_flight, &mut *pipeline));
            control.stop();
            result
        });
        let window = control.conduct(cell, subject, || Ok(()));
        (window, thread.join())
    });
    let histogram = histogram.map_err(|_| anyhow!("the thread panicked"))??;
    let (begin, end) = window?;
    Measurement::between(&begin, &end, cell.size, &histogram, subject.note())
}

fn submit_until_stopped(
    cell: &Cell,
    control: &Control,
    in_flight: usize,
    pipeline: &mut dyn Pipeline,
) -> Result<Histogram<u64>> {
    let mut histogram = histogram();
    let record = random_bytes(cell.size, 1);
    // When every SAMPLEth of those in flight was submitted.
    let mut times = std::collections::VecDeque::new();
    let (mut submitted, mut settled) = (0, 0);
    loop {
        let phase = control.phase();
        let ending = phase == STOP || submitted > control.most;
        if !ending {
            if submitted % SAMPLE == 0 {
                times.push_back(Instant::now());
            }
            pipeline.submit(&record)?;
            submitted += 1;
        }
        if submitted == settled {
            return Ok(histogram);
        }
        if ending || submitted - settled >= in_flight as u64 {
            pipeline.wait_oldest()?;
            if settled % SAMPLE == 0
                && let Some(begin) = times.pop_front()
                && phase == MEASURING
            {
                histogram.saturating_record(begin.elapsed().as_nanos() as u64);
            }
            settled += 1;
            if settled % SAMPLE == 0 {
                control.records[0].0.store(settled, Ordering::Relaxed);
            }
        }
    }
}

/// Everything there is, again and again; the first time is not counted and fills the page cache.
fn replay(cell: &Cell, subject: &dyn Subject) -> Result<Measurement> {
    let mut first = Seen::default();
    subject.replay(&mut first)?;
    check_replayed(cell, &first)?;
    let stat = device::stat_file(&cell.dir);
    let mut seen = Seen::default();
    let mut histogram = histogram();
    let begin = Snapshot::take(|| 0, None, stat.as_deref())?;
    while begin.at.elapsed().as_secs_f64() < cell.seconds {
        let one = Instant::now();
        subject.replay(&mut seen)?;
        histogram.saturating_record(one.elapsed().as_nanos() as u64);
    }
    let end = Snapshot::take(|| seen.records, None, stat.as_deref())?;
    Measurement::between(&begin, &end, cell.size, &histogram, subject.note())
}

fn check_replayed(cell: &Cell, seen: &Seen) -> Result<()> {
    let expected = cell.expected_records;
    ensure!(seen.records >= expected, "{expected} records were acknowledged and {} are there", seen.records);
    ensure!(seen.bytes == seen.records * cell.size as u64, "{} records have {} bytes", seen.records, seen.bytes);
    Ok(())
}

/// The opening that has just happened, and a look whether everything is there.
fn open(cell: &Cell, subject: &dyn Subject, opened: Duration) -> Result<Measurement> {
    let rss_peak = crate::measure::rss_peak()?;
    let mut histogram = histogram();
    histogram.saturating_record(opened.as_nanos() as u64);
    let begin = Snapshot::take(|| 0, None, None)?;
    let mut measurement = Measurement::between(&begin, &begin, cell.size, &histogram, subject.note())?;
    let mut seen = Seen::default();
    subject.replay(&mut seen)?;
    check_replayed(cell, &seen)?;
    measurement.rss_peak = rss_peak;
    measurement.records = seen.records;
    measurement.seconds = opened.as_secs_f64();
    measurement.per_second = 1.0 / opened.as_secs_f64();
    measurement.mb_per_second = seen.bytes as f64 / 1e6 / opened.as_secs_f64();
    Ok(measurement)
}

/// Writes `max_bytes` of payload, durable; then closes, or ends like a killed process with some more records on the way.
fn prepare(cell: &Cell, entry: &Entry, subject: Box<dyn Subject>) -> Result<()> {
    let batch = (1 << 20) / cell.size.max(1);
    let batch = batch.clamp(1, 4096);
    let payloads = random_bytes(cell.size * batch, 7);
    let records: Vec<&[u8]> = payloads.chunks(cell.size.max(1)).collect();
    let begin = Instant::now();
    let mut written = 0;
    {
        let mut writer = subject.writer(0)?;
        while written * (cell.size as u64) < cell.max_bytes {
            if begin.elapsed() > PREPARE_AT_MOST {
                bail!("wrote only {written} records in {PREPARE_AT_MOST:?}");
            }
            writer.commit_many(&records)?;
            written += records.len() as u64;
        }
        if cell.mode == Mode::OpenCrashed && entry.abilities.contains(&Ability::NoSync) {
            for record in &records {
                writer.append(record)?;
            }
        }
    }
    if cell.mode == Mode::OpenCrashed {
        subject.flush()?;
        print_answer(&Answer::Prepared(written))?;
        // What is in memory stays there.
        std::mem::forget(subject);
        std::process::exit(0);
    }
    subject.close().context("closing")?;
    print_answer(&Answer::Prepared(written))
}

/// Text in the record with number `n`, and in the mark that follows its acknowledgement.
pub(crate) fn prove_record(n: usize) -> String {
    format!("cairn-bench-record-{n:07}.")
}

/// What a tracer sees after record `n` was acknowledged.
pub(crate) fn prove_mark(n: usize) -> String {
    format!("cairn-bench-acknowledged-{n:07}.")
}

/// Commits, each followed by a mark: a write to a file that keeps nothing.
fn commit_with_marks(subject: &dyn Subject, commits: usize) -> Result<()> {
    let mut null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    let mut writer = subject.writer(0)?;
    for n in 0..commits {
        let mut record = prove_record(n).into_bytes();
        record.resize(100, b'-');
        writer.commit(&record)?;
        null.write_all(prove_mark(n).as_bytes())?;
    }
    Ok(())
}
