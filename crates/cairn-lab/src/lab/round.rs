//! One round: record a workload, then visit states that power cuts could have left of it.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use fastrand::Rng;

use super::case::Case;
use super::check::{Bench, LOG, Verdict};
use super::device::{Loop, Mounted};
use super::history::History;
use super::image::Image;
use super::recorder::Recorder;
use super::trace::{Fate, Trace, choose_fates, describe};
use super::workload;
use crate::cli::{Backend, Control, Workload};

/// In every so many states the log is also written to.
const GOES_ON_EVERY: u64 = 8;

/// What to record.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) workload: Workload,
    pub(crate) control: Option<Control>,
    pub(crate) backend: Option<Backend>,
    /// The `cairn` command.
    pub(crate) cairn: PathBuf,
    /// Takes its barriers away.
    pub(crate) preload: Option<PathBuf>,
    /// Set when the user wants to end.
    pub(crate) interrupted: Arc<AtomicBool>,
}

/// A workload's traces on the device and in memory.
#[derive(Debug)]
pub(crate) struct Recorded {
    plan: Plan,
    /// How the log wrote, where that was told.
    used: Option<String>,
    trace: Trace,
    history: History,
}

/// A device as a power cut left it, to go on with: then power also fails in the recovery from a
/// power cut.
#[derive(Clone, Debug)]
pub(crate) struct Survivor {
    image: Image,
    history: History,
    cut_at: usize,
}

/// Runs the workload on a new file system, or on what survived.
pub(crate) fn record(bench: &Bench, plan: Plan, survivor: Option<Survivor>) -> Result<Recorded> {
    let (image, history) = match survivor {
        None => (make(bench)?, History::new(plan.seed)),
        Some(survivor) => (survivor.image, History::after(survivor.history, survivor.cut_at)),
    };
    let recorder = Recorder::serve(image, &bench.fuse_mount_point())?;
    let (history, used) = run(bench, &plan, &recorder, history)?;
    Ok(Recorded { plan, used, trace: recorder.finish()?, history })
}

fn make(bench: &Bench) -> Result<Image> {
    let path = bench.spare_file();
    let file =
        std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    file.set_len(bench.fs.device_len())?;
    bench.fs.make(&path)?;
    let image = Image::from_file(&file)?;
    std::fs::remove_file(&path)?;
    Ok(image)
}

fn run(
    bench: &Bench,
    plan: &Plan,
    recorder: &Recorder,
    history: History,
) -> Result<(History, Option<String>)> {
    let device = Loop::direct(&recorder.file())?;
    let mount_point = bench.mount_point();
    let mounted = Mounted::new(bench.fs, &device, &mount_point)
        .context("cannot mount what is to be recorded")?;
    let dir = mount_point.join(LOG);
    let done = match plan.workload {
        Workload::Tool => (workload::tool(recorder, &dir, plan, history)?, None),
        Workload::Library => {
            let (history, used) = workload::library(recorder, &dir, plan, history)?;
            (history, Some(used))
        }
    };
    mounted.unmount()?;
    Ok(done)
}

impl Recorded {
    pub(crate) fn summary(&self) -> String {
        let windows = self.trace.windows().len();
        let acknowledged = self.history.acknowledged(self.trace.ops.len());
        let used = self.used.as_deref().map(|used| format!(", {used}")).unwrap_or_default();
        format!(
            "{:?} {}{used}: {} operations, {windows} windows, {acknowledged} records at the end",
            self.plan.workload,
            self.plan.seed,
            self.trace.ops.len()
        )
    }

    /// Visits up to about `count` states, each window's in turn, until `seen` says no more. Returns
    /// one of them, any.
    pub(crate) fn explore(
        &self,
        bench: &Bench,
        count: u64,
        mut seen: impl FnMut(Verdict, &dyn Fn(&Verdict) -> Case) -> Result<bool>,
    ) -> Result<Option<Survivor>> {
        let mut rng = Rng::with_seed(self.plan.seed ^ 0xc2b2_ae3d);
        let mut before = self.trace.base.clone();
        before.restore(&bench.image)?;
        let windows = self.trace.windows();
        let per_window = (count as usize).div_ceil(windows.len()).max(2);
        let (mut nth, mut survivor) = (0, None);
        for window in windows {
            let writes = self.trace.writes(window.clone());
            let may_tear = |offset, len| bench.fs.may_tear(offset, len);
            for fates in choose_fates(&writes, may_tear, per_window, &mut rng) {
                for (offset, bytes) in survivors(&writes, &fates) {
                    bench.image.write_all_at(bytes, offset)?;
                }
                nth += 1;
                let verdict = bench.check(&self.history, window.end, nth % GOES_ON_EVERY == 0)?;
                if verdict == Verdict::Sound && rng.u64(..nth) == 0 {
                    let mut image = before.clone();
                    survivors(&writes, &fates)
                        .for_each(|(offset, bytes)| image.write(offset, bytes));
                    survivor =
                        Some(Survivor { image, history: self.history.clone(), cut_at: window.end });
                }
                let case = |verdict: &Verdict| {
                    let mut image = before.clone();
                    survivors(&writes, &fates)
                        .for_each(|(offset, bytes)| image.write(offset, bytes));
                    Case {
                        fs: bench.fs,
                        backend: bench.backend,
                        seed: self.plan.seed,
                        cut_at: window.end,
                        window: window.clone(),
                        fates: describe(&fates),
                        message: format!("{verdict:?}"),
                        history: self.history.clone(),
                        image: Some(image),
                    }
                };
                if !seen(verdict, &case)? {
                    return Ok(survivor);
                }
                before.restore(&bench.image)?;
            }
            for (offset, bytes) in writes {
                before.write(offset, bytes);
            }
            before.restore(&bench.image)?;
        }
        Ok(survivor)
    }
}

fn survivors<'a>(
    writes: &'a [(u64, &'a [u8])],
    fates: &'a [Fate],
) -> impl Iterator<Item = (u64, &'a [u8])> {
    writes.iter().zip(fates).flat_map(|((offset, bytes), fate)| fate.survivors(*offset, bytes))
}
