//! Many rounds, several at a time, until enough states were checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::case::Case;
use super::check::{Bench, Verdict};
use super::device::succeed;
use super::round::{Plan, Survivor, record};
use crate::cli::{Control, FileSystem, Run, Workload};

/// After so many violations on one file system more of them tell nothing new.
const VIOLATIONS_MAX: u64 = 3;
/// Images of states that file systems could not cope with are kept as well, so many.
const OWN_KEPT_MAX: u64 = 3;
/// States that file systems could not cope with must be at most one in so many.
const OWN_RARE: u64 = 50;
/// How often a workload goes on from a state that was checked, before there is a new file system.
const DEPTH_MAX: u64 = 2;
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// Whether all went as it should.
pub(crate) fn run(run: &Run) -> Result<bool> {
    let campaign = Campaign::new(run)?;
    print_facts(run)?;
    let mut good = true;
    for &fs in &run.fs {
        good &= campaign.run_on(fs)?;
        if campaign.interrupted.load(Ordering::Relaxed) {
            println!("interrupted");
            return Ok(false);
        }
    }
    Ok(good)
}

/// Set from now on when the user wants to end.
pub(crate) fn interruption() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

fn print_facts(run: &Run) -> Result<()> {
    let kernel = rustix::system::uname();
    let release = kernel.release().to_string_lossy().into_owned();
    println!(
        "kernel {release} {}, {} processors, seed {}",
        kernel.machine().to_string_lossy(),
        processors(),
        run.seed
    );
    for fs in &run.fs {
        let mut command = std::process::Command::new(fs.maker());
        let output = command.arg("-V").output()?;
        let text = [output.stdout, output.stderr].concat();
        let version = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        println!("{}: {version}; device of {} MiB", fs.name(), fs.device_len() >> 20);
    }
    Ok(())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

struct Campaign<'a> {
    run: &'a Run,
    cairn: PathBuf,
    workloads: Vec<Workload>,
    preload: Option<PathBuf>,
    interrupted: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Totals {
    states: u64,
    /// Those among them where power had failed before, and the workload went on from there.
    nested: u64,
    rounds: u64,
    violations: u64,
    first_violation_at: u64,
    /// States that the file system could not cope with, by what was said.
    own: BTreeMap<String, u64>,
}

impl<'a> Campaign<'a> {
    fn new(run: &'a Run) -> Result<Self> {
        let mut workloads = run.workload.clone();
        let preload = run.control.and_then(barrier_remover);
        if run.backend.is_some() && workloads.contains(&Workload::Tool) {
            println!("the `cairn` command writes as it chooses: this runs with the library");
            workloads = vec![Workload::Library];
        }
        if run.control.is_some() && preload.is_none() && workloads.contains(&Workload::Tool) {
            if run.control == Some(Control::All) {
                println!(
                    "no libeatmydata here: the control runs with the library, not with the tool"
                );
            }
            workloads = vec![Workload::Library];
        }
        let cairn = match &run.cairn {
            Some(cairn) => cairn.clone(),
            None => env::current_exe()?.with_file_name("cairn"),
        };
        if workloads.contains(&Workload::Tool) {
            ensure!(
                cairn.is_file(),
                "no {}; build it with `cargo build --release -p cairn-tool`, or see --cairn",
                cairn.display()
            );
        }
        Ok(Campaign { run, cairn, workloads, preload, interrupted: interruption()? })
    }

    fn run_on(&self, fs: FileSystem) -> Result<bool> {
        let started = Instant::now();
        let shared = Shared {
            totals: Mutex::default(),
            rounds: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            started,
        };
        let jobs = self.run.jobs.unwrap_or(processors() * 2).max(1);
        let result = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..jobs).map(|_| scope.spawn(|| self.work(fs, &shared))).collect();
            let mut shown = Instant::now();
            while workers.iter().any(|worker| !worker.is_finished()) {
                thread::sleep(Duration::from_millis(20));
                if shown.elapsed() >= PROGRESS_EVERY {
                    shown = Instant::now();
                    println!("  {}", shared.progress(fs));
                }
            }
            let mut result = Ok(());
            for worker in workers {
                let ended =
                    worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")));
                result = result.and(ended);
            }
            result
        });
        let interrupted = self.interrupted.load(Ordering::Relaxed);
        if !interrupted {
            // The workload of an interrupted round fails, which is no news.
            result?;
        }
        println!("{}", shared.progress(fs));
        let totals = shared.lock();
        for (reason, count) in &totals.own {
            println!("  file system's own: {count} × {reason}");
        }
        if self.run.control.is_none() {
            let own: u64 = totals.own.values().sum();
            let rare = own * OWN_RARE <= totals.states;
            if !rare {
                println!(
                    "{}: the file system copes with too few states for them to say anything",
                    fs.name()
                );
            }
            return Ok(totals.violations == 0 && rare);
        }
        match totals.first_violation_at {
            0 => println!("{}: the control was NOT caught", fs.name()),
            at => println!("{}: the control was caught after {at} states", fs.name()),
        }
        Ok(totals.violations > 0)
    }

    fn work(&self, fs: FileSystem, shared: &Shared) -> Result<()> {
        let bench = Bench::new(fs, self.run.backend, &self.run.scratch)?;
        let (mut survivor, mut depth) = (None, 0);
        while self.goes_on(shared) {
            let nth = shared.rounds.fetch_add(1, Ordering::Relaxed);
            depth = if survivor.is_some() { depth + 1 } else { 0 };
            let found = self.round(&bench, nth, survivor.take(), shared);
            let found = found.inspect_err(|_| shared.stop.store(true, Ordering::Relaxed));
            survivor = found
                .with_context(|| format!("{}, round {nth}", fs.name()))?
                .filter(|_| depth < DEPTH_MAX);
        }
        Ok(())
    }

    fn round(
        &self,
        bench: &Bench,
        nth: u64,
        survivor: Option<Survivor>,
        shared: &Shared,
    ) -> Result<Option<Survivor>> {
        let nested = survivor.is_some();
        let plan = Plan {
            seed: self.run.seed.wrapping_mul(1_000_000).wrapping_add(nth),
            // Only the library tells what it found when it opened what survived.
            workload: if nested {
                Workload::Library
            } else {
                self.workloads[nth as usize % self.workloads.len()]
            },
            control: self.run.control,
            backend: self.run.backend,
            cairn: self.cairn.clone(),
            preload: self.preload.clone(),
            interrupted: self.interrupted.clone(),
        };
        let recorded = record(bench, plan, survivor)?;
        if nth < 2 {
            println!("  {}", recorded.summary());
        }
        let survivor = recorded.explore(bench, self.run.states_per_round, |verdict, case| {
            self.note(&verdict, case, nested, shared)?;
            Ok(self.goes_on(shared))
        })?;
        shared.lock().rounds += 1;
        Ok(survivor)
    }

    fn note(
        &self,
        verdict: &Verdict,
        case: &dyn Fn(&Verdict) -> Case,
        nested: bool,
        shared: &Shared,
    ) -> Result<()> {
        let mut totals = shared.lock();
        totals.states += 1;
        totals.nested += u64::from(nested);
        let (keep, label) = match verdict {
            Verdict::Sound => return Ok(()),
            Verdict::Violation(_) => {
                totals.violations += 1;
                if totals.violations == 1 {
                    totals.first_violation_at = totals.states;
                }
                (self.run.control.is_none(), "VIOLATION")
            }
            Verdict::Unmountable(reason) => (
                totals.count_own(format!("unmountable: {reason}")),
                "unmountable (file system's own)",
            ),
            Verdict::Damaged(reason) => {
                (totals.count_own(format!("damaged: {reason}")), "damaged (file system's own)")
            }
        };
        drop(totals);
        let case = case(verdict);
        if keep {
            let folder = case.save(&self.run.keep)?;
            println!(
                "{label}: {}\n  check it again: cairn-lab replay {}",
                case.describe(),
                folder.display()
            );
        } else if matches!(verdict, Verdict::Violation(_)) {
            println!("  caught: {}", case.describe());
        }
        Ok(())
    }

    fn goes_on(&self, shared: &Shared) -> bool {
        let totals = shared.lock();
        let violations_max = if self.run.control.is_some() { 1 } else { VIOLATIONS_MAX };
        let in_time = self
            .run
            .seconds
            .is_none_or(|seconds| shared.started.elapsed() < Duration::from_secs(seconds));
        totals.states < self.run.states
            && totals.violations < violations_max
            && in_time
            && !shared.stop.load(Ordering::Relaxed)
            && !self.interrupted.load(Ordering::Relaxed)
    }
}

/// What the workers of one file system share.
struct Shared {
    totals: Mutex<Totals>,
    rounds: AtomicU64,
    stop: AtomicBool,
    started: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, fs: FileSystem) -> String {
        let totals = self.lock();
        let seconds = self.started.elapsed().as_secs_f64();
        let own: u64 = totals.own.values().sum();
        format!(
            "{}: {} states ({} nested) of {} workloads in {seconds:.0} s ({:.0}/min), {} \
             violations, {own} unmountable or damaged (file system's own)",
            fs.name(),
            totals.states,
            totals.nested,
            totals.rounds,
            totals.states as f64 / seconds * 60.0,
            totals.violations,
        )
    }
}

impl Totals {
    /// Whether this one is to be kept.
    fn count_own(&mut self, reason: String) -> bool {
        *self.own.entry(reason).or_default() += 1;
        self.own.values().sum::<u64>() <= OWN_KEPT_MAX
    }
}

/// A library that, preloaded, turns `fsync` and its like into nothing: `libeatmydata`, where the
/// dynamic linker finds it.
fn barrier_remover(control: Control) -> Option<PathBuf> {
    if control != Control::All {
        return None;
    }
    let listed = succeed(std::process::Command::new("ldconfig").arg("-p")).ok()?;
    let line = listed.lines().find(|line| line.contains("libeatmydata.so"))?;
    let path = PathBuf::from(line.rsplit(" => ").next()?.trim());
    fs::metadata(&path).is_ok().then_some(path)
}
