//! Prints the figures that the README gives: durable appends, group commit, replay, and what opening costs.
//!
//! ```sh
//! chrt -f 10 cargo run --release -p cairn-log --example figures -- /path/on/the/device
//! ```
#![allow(clippy::print_stdout, clippy::cast_possible_truncation, reason = "printing figures is what it is for")]

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_log::{Log, Lsn};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let base = std::env::args().nth(1).ok_or("usage: figures DIR")?;
    let base = Path::new(&base).join(format!("cairn-figures-{}", std::process::id()));
    std::fs::create_dir(&base)?;
    let result = run(&base);
    std::fs::remove_dir_all(&base)?;
    result
}

fn run(base: &Path) -> Result<()> {
    println!("{} cores", std::thread::available_parallelism()?);
    println!("raw: write of 4 KiB and fdatasync on a file of full length: {}", median(9, || raw(&base.join("raw")))?);
    for (threads, size) in [(1, 100), (1, 1024), (8, 100), (64, 100)] {
        let each = if threads == 1 { 20_000 } else { 80_000 / threads };
        let rate = median(5, || durable(&base.join("durable"), threads, each, size))?;
        println!("durable, {threads} threads, {size} B: {rate} records/s");
    }
    println!("append without sync, 1 thread, 100 B: {} records/s", median(5, || unsynced(&base.join("unsynced")))?);
    println!("replay of 1,000,000 records of 100 B, borrowed: {} records/s", replay(&base.join("replay"))?);
    for megabytes in [200, 2000] {
        println!("open of {megabytes} MB in segments of 64 MiB: {}", opening(&base.join("open"), megabytes)?);
    }
    Ok(())
}

fn median(runs: usize, mut run: impl FnMut() -> Result<u64>) -> Result<u64> {
    let mut figures = (0..runs).map(|_| run()).collect::<Result<Vec<_>>>()?;
    figures.sort_unstable();
    Ok(figures[runs / 2])
}

fn per_second(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

fn raw(path: &Path) -> Result<u64> {
    use std::io::{Seek, Write};
    let mut file = std::fs::File::create(path)?;
    file.write_all(&vec![0; 8 << 20])?;
    file.sync_all()?;
    let started = Instant::now();
    for n in 0..2000u64 {
        file.seek(std::io::SeekFrom::Start(n * 4096))?;
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
    }
    Ok(per_second(2000, started.elapsed()))
}

fn durable(dir: &Path, threads: u64, each: u64, size: usize) -> Result<u64> {
    let _ = std::fs::remove_dir_all(dir);
    let log = Log::open(dir)?;
    let failed = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let record = vec![7; size];
                for _ in 0..each {
                    if log.commit(&record).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let rate = per_second(threads * each, started.elapsed());
    if failed.into_inner() > 0 {
        return Err("commits failed".into());
    }
    log.close()?;
    Ok(rate)
}

fn unsynced(dir: &Path) -> Result<u64> {
    let _ = std::fs::remove_dir_all(dir);
    let log = Log::open(dir)?;
    let record = [7; 100];
    let started = Instant::now();
    for _ in 0..2_000_000 {
        log.append(&record)?;
    }
    let rate = per_second(2_000_000, started.elapsed());
    log.close()?;
    Ok(rate)
}

fn replay(dir: &Path) -> Result<u64> {
    let log = Log::open(dir)?;
    for _ in 0..1_000_000 {
        log.append(&[7; 100])?;
    }
    log.sync()?;
    median(7, || {
        let started = Instant::now();
        let mut reader = log.reader(Lsn::START)?;
        let (mut records, mut bytes) = (0, 0);
        while let Some(record) = reader.next_record()? {
            records += 1;
            bytes += record.payload().len();
        }
        if (records, bytes) != (1_000_000, 100_000_000) {
            return Err("records are missing".into());
        }
        Ok(per_second(records, started.elapsed()))
    })
}

fn opening(dir: &Path, megabytes: u64) -> Result<String> {
    let _ = std::fs::remove_dir_all(dir);
    let log = Log::open(dir)?;
    // The last segment is half full in both cases.
    let until = megabytes * 1_000_000 / (64 << 20) * (64 << 20) + (32 << 20);
    let record = vec![7; 1000];
    while log.appended_lsn().0 < until {
        log.append(&record)?;
    }
    log.close()?;
    let mut descriptors = 0;
    let time = median(7, || {
        let started = Instant::now();
        let log = Log::open(dir)?;
        let micros = started.elapsed().as_micros() as u64;
        descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0);
        log.close()?;
        Ok(micros)
    })?;
    let segments = std::fs::read_dir(dir)?.count() - 1;
    Ok(format!("{time} µs, {segments} segments, {descriptors} descriptors in the process"))
}
