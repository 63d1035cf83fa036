//! What happens inside a child process: a subject is opened, threads work on it, counters are read
//! at both ends of a window.
//!
//! Threads run until they are told to stop and publish how far they are; the main thread reads all
//! counters at the beginning and at the end of the window. So a main thread that wakes late makes
//! the window longer and no figure wrong.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Barrier, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cell::{Beside, Cell, Mode, PUSHERS, Phase};
use crate::device;
use crate::measure::{Latency, Measurement, Sample, Snapshot, histogram};
use crate::raw::frame::frame_len;
use crate::subject::{Ability, Entry, Pipeline, Seen, Setup, Subject, Writer};
use crate::subjects;

/// Precedes the result on the standard output of a child: peers may print things of their own.
pub(crate) const RESULT_MARK: &str = "CAIRN-BENCH-RESULT ";

/// One in this many appends is timed where an append takes no longer than looking at the clock.
const SAMPLE: u64 = 32;

/// No preparation, and no soak, takes longer: two minutes, and as long again for each of so many
/// bytes.
pub(crate) fn at_most(bytes: u64) -> Duration {
    Duration::from_secs(120) * (1 + (bytes >> 32) as u32)
}

/// Bytes of payload between two looks at what is used.
const SAMPLE_EVERY: u64 = 1 << 30;

/// Where a heap is prepared whose allocator takes a barrier or more for each of many blocks: there
/// barriers cost nothing.
const MEMORY: &str = "/dev/shm";

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
    if (cell.phase, cell.mode) == (Phase::Prepare, Mode::HeapOpen) {
        return prepare_heap(&cell, entry);
    }
    let setup = cell.setup();
    let begin = Instant::now();
    let subject = (entry.open)(&setup).with_context(|| format!("{} does not open", entry.name))?;
    let opened = begin.elapsed();
    let answer = match (cell.phase, cell.mode) {
        (Phase::Prepare, _) => return prepare(&cell, entry, subject),
        (Phase::Prove(commits), _) => {
            commit_with_marks(&*subject, commits)?;
            Answer::Done
        }
        (Phase::Measure, Mode::Tickets(in_flight)) => {
            measured(tickets(&cell, &*subject, in_flight)?)
        }
        (Phase::Measure, Mode::Replay) => measured(replay(&cell, &*subject)?),
        (Phase::Measure, Mode::Soak) => measured(soak(&cell, &*subject)?),
        (Phase::Measure, mode) if mode.opens() => measured(open(&cell, &*subject, opened)?),
        (Phase::Measure, _) => measured(write(&cell, &*subject)?),
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
    /// What each thread has done; those at the end work beside the ones that are measured.
    records: Vec<Counter>,
    measured: usize,
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
            records: (0..threads + beside(cell.mode)).map(|_| Counter::default()).collect(),
            measured: threads,
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
        let _ = self.stopping.wait_timeout_while(
            stopped,
            Duration::from_secs_f64(seconds),
            |stopped| !*stopped,
        );
    }

    fn snapshot(&self, subject: &dyn Subject) -> Result<Snapshot> {
        let records =
            || self.records[..self.measured].iter().map(|c| c.0.load(Ordering::Relaxed)).sum();
        Snapshot::take(records, Some(subject), self.device.as_deref())
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
        let _ = self.phase.compare_exchange(
            WARMING_UP,
            MEASURING,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
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

/// Threads that work beside those that are measured.
fn beside(mode: Mode) -> usize {
    if mode == Mode::StackGet(Beside::Pushes) { PUSHERS } else { 0 }
}

/// What one thread found.
struct Latencies {
    all: Histogram<u64>,
    /// Of the commits during which a segment was sealed.
    at_rotation: Histogram<u64>,
}

impl Latencies {
    fn new() -> Self {
        Latencies { all: histogram(), at_rotation: histogram() }
    }

    fn add(&mut self, other: &Latencies) -> Result<()> {
        self.all.add(&other.all)?;
        Ok(self.at_rotation.add(&other.at_rotation)?)
    }
}

/// Every thread with a writer of its own.
fn write(cell: &Cell, subject: &dyn Subject) -> Result<Measurement> {
    let control = Control::new(cell, subject, cell.threads);
    let threads = control.records.len();
    let start = Barrier::new(threads + 1);
    let finished = Barrier::new(threads + 1);
    let (window, latencies) = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (control, start, finished) = (&control, &start, &finished);
                scope.spawn(move || {
                    let writer = if thread < cell.threads {
                        subject.writer(thread)
                    } else {
                        subject.disturber()
                    };
                    start.wait();
                    let result = writer.and_then(|mut writer| {
                        write_until_stopped(cell, control, thread, subject, &mut *writer)
                    });
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
        let latencies: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
        (window, latencies)
    });
    let mut merged = Latencies::new();
    for (thread, one) in latencies.into_iter().enumerate() {
        let one = one.map_err(|_| anyhow!("a thread panicked"))??;
        if thread < cell.threads {
            merged.add(&one)?;
        }
    }
    let (begin, end) = window?;
    let mut note = subject.note();
    if beside(cell.mode) > 0 {
        let pushed: u64 =
            control.records[cell.threads..].iter().map(|c| c.0.load(Ordering::Relaxed)).sum();
        note = Some(format!("{:.0} pushes/s beside", pushed as f64 / (cell.warmup + cell.seconds)));
    }
    let mut measurement = Measurement::between(&begin, &end, cell.size, &merged.all, note)?;
    if !merged.at_rotation.is_empty() {
        measurement.at_rotation_us = Some(Latency::of(&merged.at_rotation));
    }
    if let Some(space) = subject.space()? {
        let frame_bytes = space.records * frame_len(cell.size) as u64;
        measurement.disk_per_frame_byte = Some(space.disk_bytes as f64 / frame_bytes as f64);
    }
    Ok(measurement)
}

/// One thread's part of a measurement.
fn write_until_stopped(
    cell: &Cell,
    control: &Control,
    thread: usize,
    subject: &dyn Subject,
    writer: &mut dyn Writer,
) -> Result<Latencies> {
    let mut latencies = Latencies::new();
    let batch = if let Mode::Batch(k) = cell.mode { k } else { 1 };
    let payloads = random_bytes(cell.size * batch, thread as u64 + 1);
    let records: Vec<&[u8]> = payloads.chunks(cell.size.max(1)).collect();
    let record: &[u8] = records.first().copied().unwrap_or_default();
    let published = &control.records[thread].0;
    let mut rotations = subject.rotations();
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
        let took = begin.elapsed().as_nanos() as u64;
        if phase == MEASURING {
            latencies.all.saturating_record(took);
        }
        if cell.mode == Mode::Rotations {
            let before = rotations;
            rotations = subject.rotations();
            if rotations != before && phase == MEASURING {
                latencies.at_rotation.saturating_record(took);
            }
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
    Ok(latencies)
}

/// One thread, many commits in flight.
fn tickets(cell: &Cell, subject: &dyn Subject, in_flight: usize) -> Result<Measurement> {
    let control = Control::new(cell, subject, 1);
    let (window, histogram) = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let result = subject.pipeline().and_then(|mut pipeline| {
                submit_until_stopped(cell, &control, in_flight, &mut *pipeline)
            });
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
    ensure!(
        seen.records >= expected,
        "{expected} records were acknowledged and {} are there",
        seen.records
    );
    ensure!(
        seen.bytes == seen.records * cell.size as u64,
        "{} records have {} bytes",
        seen.records,
        seen.bytes
    );
    Ok(())
}

/// One thread appends and waits, with large batches, and looks at what is used as it goes on.
fn soak(cell: &Cell, subject: &dyn Subject) -> Result<Measurement> {
    let stat = device::stat_file(&cell.dir);
    let (mut histogram, mut series) = (histogram(), Vec::new());
    let payloads = random_bytes(cell.size * batch_of(cell.size), 7);
    let records: Vec<&[u8]> = payloads.chunks(cell.size.max(1)).collect();
    let mut writer = subject.writer(0)?;
    let begin = Snapshot::take(|| 0, Some(subject), stat.as_deref())?;
    let mut written = 0;
    while written < cell.max_bytes {
        ensure!(
            begin.at.elapsed() < at_most(cell.max_bytes),
            "wrote only {written} bytes in {:?}",
            begin.at.elapsed()
        );
        let one = Instant::now();
        writer.commit_many(&records)?;
        histogram.saturating_record(one.elapsed().as_nanos() as u64);
        let before = written;
        written += payloads.len() as u64;
        if before / SAMPLE_EVERY != written / SAMPLE_EVERY || written >= cell.max_bytes {
            series.push(Sample::take(written, begin.at, &cell.dir)?);
        }
    }
    let end = Snapshot::take(|| written / cell.size as u64, Some(subject), stat.as_deref())?;
    let measurement = Measurement::between(&begin, &end, cell.size, &histogram, subject.note())?;
    Ok(Measurement { series, ..measurement })
}

/// Records that are written at once where it is not writing that is measured.
fn batch_of(size: usize) -> usize {
    ((1 << 20) / size.max(1)).clamp(1, 4096)
}

/// The opening that has just happened, and a look whether everything is there.
fn open(cell: &Cell, subject: &dyn Subject, opened: Duration) -> Result<Measurement> {
    let rss_peak = crate::measure::rss_peak()?;
    let mut histogram = histogram();
    histogram.saturating_record(opened.as_nanos() as u64);
    let begin = Snapshot::take(|| 0, None, None)?;
    let mut measurement =
        Measurement::between(&begin, &begin, cell.size, &histogram, subject.note())?;
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

/// Writes `max_bytes` of payload, durable; then closes, or ends like a killed process with some
/// more records on the way.
fn prepare(cell: &Cell, entry: &Entry, subject: Box<dyn Subject>) -> Result<()> {
    let payloads = random_bytes(cell.size * batch_of(cell.size), 7);
    let records: Vec<&[u8]> = payloads.chunks(cell.size.max(1)).collect();
    let begin = Instant::now();
    let mut written = 0;
    {
        let mut writer = subject.writer(0)?;
        while written * (cell.size as u64) < cell.max_bytes {
            ensure!(
                begin.elapsed() < at_most(cell.max_bytes),
                "wrote only {written} records in {:?}",
                begin.elapsed()
            );
            writer.commit_many(&records)?;
            written += records.len() as u64;
        }
        if cell.mode.crashed() && entry.abilities.contains(&Ability::NoSync) {
            for record in &records {
                writer.append(record)?;
            }
        }
    }
    if cell.mode.crashed() {
        subject.flush()?;
        print_answer(&Answer::Prepared(written))?;
        // What is in memory stays there.
        std::mem::forget(subject);
        std::process::exit(0);
    }
    subject.close().context("closing")?;
    print_answer(&Answer::Prepared(written))
}

/// Leaves a heap with as many free blocks as are expected, made where it takes no time, and copied
/// to where it is opened.
fn prepare_heap(cell: &Cell, entry: &Entry) -> Result<()> {
    let memory = tempfile::Builder::new()
        .prefix("cairn-bench-")
        .tempdir_in(MEMORY)
        .context("a directory in memory")?;
    let setup = Setup { dir: memory.path().to_owned(), ..cell.setup() };
    let subject = (entry.open)(&setup).with_context(|| format!("{} does not open", entry.name))?;
    subject.fragment(cell.expected_records)?;
    subject.close().context("closing")?;
    for file in std::fs::read_dir(memory.path())? {
        let file = file?;
        let copy = cell.dir.join(file.file_name());
        std::fs::copy(file.path(), &copy).context("copying the heap")?;
        std::fs::File::open(&copy)?.sync_all().context("syncing the heap")?;
    }
    std::fs::File::open(&cell.dir)?.sync_all().context("syncing the heap's directory")?;
    print_answer(&Answer::Prepared(cell.expected_records))
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
