//! What a directory really does, found out by doing it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use cairnlog::Log;
use cairnlog::commit::slot::Slot;
use cairnlog::io::{Access, File, Fs, NativeFs, write_all_at};
use serde::Serialize;

use crate::latency::Latencies;

/// A cost is measured so many times, or for so long, but at least once.
const TIMES_MAX: u64 = 300;
const TIME_MAX: Duration = Duration::from_millis(1100);

const BLOCK: usize = 4096;
/// Blocks of a file that is overwritten.
const BLOCKS: u64 = 256;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(crate) struct Probes {
    pub(crate) barriers: Barriers,
    pub(crate) direct_io: Ability,
    /// Alignment of direct writes in bytes.
    pub(crate) direct_block_size: Option<usize>,
    pub(crate) io_uring: Ability,
    pub(crate) preallocation: Ability,
    pub(crate) locks: Ability,
    /// How a log in this directory commits.
    pub(crate) backend: String,
}

/// What it costs to make 4 KiB, or a name, durable.
#[derive(Debug, Serialize)]
pub(crate) struct Barriers {
    /// The barrier after bytes were overwritten.
    pub(crate) overwrite: Cost,
    /// The barrier after a file grew.
    pub(crate) append: Cost,
    /// The barrier of a directory after a file was created in it.
    pub(crate) directory: Cost,
    /// A direct write over old bytes that is its own barrier.
    pub(crate) direct: Option<Cost>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// Whether something works; `None`: it was not tried.
#[derive(Debug, Serialize)]
pub(crate) struct Ability {
    pub(crate) works: Option<bool>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Ability {
    pub(crate) fn yes() -> Self {
        Ability { works: Some(true), why: None }
    }

    pub(crate) fn no(why: impl ToString) -> Self {
        Ability { works: Some(false), why: Some(why.to_string()) }
    }

    fn of(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::yes(),
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Self::no("not supported here"),
            Err(e) => Self::no(e),
        }
    }
}

/// Tries everything in `dir`, an empty directory for this alone. Takes about five seconds on a slow
/// device and much less on a fast one.
pub(crate) fn probe(dir: &Path, stop: &AtomicBool) -> anyhow::Result<Probes> {
    let meter = Meter { dir, stop };
    let overwrite = meter.overwrite().context("overwriting and syncing a file")?;
    let append = meter.append().context("appending to a file and syncing it")?;
    let directory = meter.directory().context("syncing a directory")?;
    let direct = meter.direct()?;
    let (direct, direct_block_size, direct_io) = match direct {
        Ok((cost, block_size)) => (Some(cost), Some(block_size), Ability::yes()),
        Err(error) => (None, None, Ability::of(Err(error))),
    };
    Ok(Probes {
        barriers: Barriers { overwrite, append, directory, direct },
        direct_io,
        direct_block_size,
        io_uring: io_uring(dir),
        preallocation: Ability::of(preallocate(&dir.join("preallocated"))),
        locks: lock(&dir.join("locked")),
        backend: backend(&dir.join("log")).context("a log in this directory")?,
    })
}

struct Meter<'a> {
    dir: &'a Path,
    stop: &'a AtomicBool,
}

impl Meter<'_> {
    /// Measures again and again what `step` returns.
    fn cost(&self, mut step: impl FnMut(u64) -> io::Result<Duration>) -> anyhow::Result<Cost> {
        let mut latencies = Latencies::new();
        let began = Instant::now();
        for n in 0..TIMES_MAX {
            if self.stop.load(Ordering::Relaxed) {
                bail!("ended by a signal; nothing was left behind");
            }
            latencies.record(step(n)?);
            if began.elapsed() > TIME_MAX {
                break;
            }
        }
        let (p50_us, p99_us) = (latencies.quantile_us(0.5), latencies.quantile_us(0.99));
        Ok(Cost { count: latencies.count(), p50_us, p99_us, max_us: latencies.max_us() })
    }

    /// A file that holds zeros, durable.
    fn zeros(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        let file = NativeFs.create_new(&path)?;
        for n in 0..BLOCKS {
            write_all_at(&*file, n * BLOCK as u64, &[IoSlice::new(&[0; BLOCK])])?;
        }
        file.sync_data()?;
        Ok(path)
    }

    fn overwrite(&self) -> anyhow::Result<Cost> {
        let file = NativeFs.open(&self.zeros("overwritten")?, Access::ReadWrite)?;
        self.cost(|n| write_and_sync(&*file, n % BLOCKS))
    }

    fn append(&self) -> anyhow::Result<Cost> {
        let file = NativeFs.create_new(&self.dir.join("appended"))?;
        self.cost(|n| write_and_sync(&*file, n))
    }

    fn directory(&self) -> anyhow::Result<Cost> {
        let dir = self.dir.join("names");
        NativeFs.create_dir(&dir)?;
        self.cost(|n| {
            NativeFs.create_new(&dir.join(n.to_string()))?;
            timed(|| NativeFs.sync_dir(&dir))
        })
    }

    /// With the alignment; or why there are no direct writes. A file system may refuse no earlier
    /// than at the first one.
    fn direct(&self) -> anyhow::Result<io::Result<(Cost, usize)>> {
        let path = self.zeros("direct")?;
        let file = match NativeFs.open_direct(&path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let block_size = file.block_size();
        let memory = Slot::new(block_size.max(BLOCK));
        let mut bytes = memory.contents().map_err(|_| anyhow!("memory that is ours"))?;
        bytes.fill(1);
        let slices = [IoSlice::new(&bytes)];
        if let Err(error) = write_all_at(&*file, 0, &slices) {
            return Ok(Err(error));
        }
        let places = BLOCKS * BLOCK as u64 / bytes.len() as u64;
        let cost =
            self.cost(|n| timed(|| write_all_at(&*file, n % places * bytes.len() as u64, &slices)));
        Ok(Ok((cost.context("direct writes")?, block_size)))
    }
}

fn timed(act: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

/// Writes one block; returns how long the barrier took.
fn write_and_sync(file: &dyn File, block: u64) -> io::Result<Duration> {
    write_all_at(file, block * BLOCK as u64, &[IoSlice::new(&[1; BLOCK])])?;
    timed(|| file.sync_data())
}

fn preallocate(path: &Path) -> io::Result<()> {
    const LEN: u64 = 1 << 20;
    let file = NativeFs.create_new(path)?;
    file.allocate(0, LEN)?;
    if file.len()? != LEN {
        return Err(io::Error::other("it says yes, and the file does not grow"));
    }
    Ok(())
}

/// Whether a lock keeps others out while it is held, and no longer.
fn lock(path: &Path) -> Ability {
    let attempt = || -> io::Result<Option<&'static str>> {
        let first = NativeFs.create_new(path)?;
        let second = NativeFs.open(path, Access::ReadWrite)?;
        if !first.try_lock()? {
            return Ok(Some("a file that nobody else uses cannot be locked"));
        }
        if second.try_lock()? {
            return Ok(Some("two holders of one exclusive lock"));
        }
        drop(first);
        Ok((!second.try_lock()?).then_some("a lock outlives its holder"))
    };
    match attempt() {
        Ok(None) => Ability::yes(),
        Ok(Some(why)) => Ability::no(why),
        Err(error) => Ability::of(Err(error)),
    }
}

#[cfg(feature = "io-uring")]
fn io_uring(dir: &Path) -> Ability {
    use cairn_io::{Backend, UringFs};
    let attempt = || -> io::Result<Backend> {
        let path = dir.join("ring");
        UringFs.create_new(&path)?;
        let file = UringFs.open_direct(&path)?;
        let memory = Slot::new(file.block_size().max(BLOCK));
        let bytes = memory.contents().map_err(|_| io::ErrorKind::OutOfMemory)?;
        write_all_at(&*file, 0, &[IoSlice::new(&bytes)])?;
        // After a write it is known whether the ring was refused.
        Ok(file.backend())
    };
    match attempt() {
        Ok(Backend::Uring) => Ability::yes(),
        Ok(_) => Ability::no("the kernel, or the container, allows none"),
        Err(error) => Ability::of(Err(error)),
    }
}

#[cfg(not(feature = "io-uring"))]
fn io_uring(_: &Path) -> Ability {
    Ability { works: None, why: Some("not in this build".to_owned()) }
}

/// How a log in a new directory commits, after it did once.
fn backend(dir: &Path) -> anyhow::Result<String> {
    let log = Log::open(dir)?;
    log.commit(b"how?")?;
    let backend = log.backend().to_string();
    log.close()?;
    Ok(backend)
}
