//! Many runs of a workload: each a life of the program, power cuts and deaths at moments of it, and
//! further lives after those.

mod bugs;
mod case;
mod coverage;
mod cut;
mod history;
mod runner;
mod script;
mod seed;
mod shrink;
mod story;
mod workload;

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use bugs::{Sought, seek_bugs};
pub use coverage::Explored;
pub use cut::End;
pub use history::{History, SERIAL};
pub use script::{Part, Script};
pub use seed::Seed;
pub use workload::{Told, Workload};

use crate::fs::SimFs;
use crate::model::Torn;
use crate::options::SectorSize;
use crate::schedule::{Broken, Faults};
use case::{Case, Life};
use coverage::Coverage;
use cut::{Cut, Cutter};
use runner::Runner;

/// The environment variable that makes a [`Simulation`] run one seed only.
pub const SEED_VARIABLE: &str = "CAIRN_SIM_SEED";
/// The environment variable that makes a [`Simulation`] run the case in this file only.
pub const CASE_VARIABLE: &str = "CAIRN_SIM_CASE";
/// The environment variable that says how many runs a [`Simulation`] makes; see
/// [`Simulation::budget`].
pub const RUNS_VARIABLE: &str = "CAIRN_SIM_RUNS";
/// The environment variable that says for how many seconds a [`Simulation`] begins runs.
pub const SECONDS_VARIABLE: &str = "CAIRN_SIM_SECONDS";
/// The environment variable that says with which seed a [`Simulation`] begins.
pub const FIRST_VARIABLE: &str = "CAIRN_SIM_FIRST";

/// Runs a [`Workload`] with many seeds. Each run is one life of the program, cut at several
/// moments; after each cut another life follows, some of which are cut again.
#[derive(Debug)]
pub struct Simulation<W> {
    runner: Runner<W>,
    first: u64,
    runs: u64,
    time: Option<Duration>,
    cuts: usize,
    later_cuts: Option<usize>,
    depth: usize,
    faults: Faults,
    steer: bool,
    known: fn(&Broken) -> bool,
}

impl<W: Workload> Simulation<W> {
    /// 100 runs from seed 0, ten cuts each, up to three lives in a row, no failing calls.
    pub fn new(workload: W) -> Self {
        Self {
            runner: Runner {
                workload: Rc::new(workload),
                cutter: Cutter::default(),
                shrink: Duration::from_secs(20),
            },
            first: 0,
            runs: 100,
            time: None,
            cuts: 10,
            later_cuts: None,
            depth: 3,
            faults: Faults::None,
            steer: true,
            known: |_| false,
        }
    }

    /// As many runs as the environment asks for: [`RUNS_VARIABLE`], or as many as there are in
    /// [`SECONDS_VARIABLE`]; `runs` without either. [`FIRST_VARIABLE`] is the first seed.
    ///
    /// # Panics
    /// When one of them is no number.
    #[must_use]
    pub fn budget(mut self, runs: u64) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number")))
        };
        self.runs = number(RUNS_VARIABLE).unwrap_or(runs);
        self.first = number(FIRST_VARIABLE).unwrap_or(self.first);
        if let Some(seconds) = number(SECONDS_VARIABLE) {
            self.time = Some(Duration::from_secs(seconds));
            self.runs = u64::MAX;
        }
        self
    }

    /// At most this many runs.
    #[must_use]
    pub fn runs(mut self, runs: u64) -> Self {
        self.runs = runs;
        self
    }

    /// The first seed.
    #[must_use]
    pub fn first(mut self, seed: u64) -> Self {
        self.first = seed;
        self
    }

    /// No run begins after this time.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// Cuts of the first life of each run.
    #[must_use]
    pub fn cuts(mut self, cuts: usize) -> Self {
        self.cuts = cuts;
        self
    }

    /// Cuts of every later life that others may follow. By default one in four is cut twice, and
    /// those that follow a death are cut four times.
    #[must_use]
    pub fn later_cuts(mut self, cuts: usize) -> Self {
        self.later_cuts = Some(cuts);
        self
    }

    /// How many lives may follow each other in a run; at least one.
    #[must_use]
    pub fn depth(mut self, lives: usize) -> Self {
        self.depth = lives.max(1);
        self
    }

    /// Whether calls of the file system fail in the first life. In later ones none does: after the
    /// last fault ends, everything must work.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// What a power cut can leave of sectors that were being written.
    #[must_use]
    pub fn torn(mut self, torn: Torn) -> Self {
        self.runner.cutter.model.torn = torn;
        self
    }

    /// Whether runs that met what is seldom met are repeated with other schedules and cuts.
    #[must_use]
    pub fn steer(mut self, steer: bool) -> Self {
        self.steer = steer;
        self
    }

    /// Failures that are known: a run that ends with one is listed in [`Explored::known`], and the
    /// next one begins. A test that uses this asserts what is in that list.
    #[must_use]
    pub fn known(mut self, is_known: fn(&Broken) -> bool) -> Self {
        self.known = is_known;
        self
    }

    /// For how long a failing run is made smaller before it is reported.
    #[must_use]
    pub fn shrink(mut self, time: Duration) -> Self {
        self.runner.shrink = time;
        self
    }

    /// Runs until something fails, or everything was run.
    ///
    /// With `CAIRN_SIM_SEED` or `CAIRN_SIM_CASE` in the environment, runs that seed or case only.
    ///
    /// # Errors
    /// The first run that failed, made as small as could be, with how to repeat it.
    ///
    /// # Panics
    /// When the environment asks for what is no seed or case.
    pub fn run(&self) -> Result<Explored, Box<Failed>> {
        let begun = Instant::now();
        let mut coverage = Coverage::new(self.runner.workload.can_meet());
        if let Ok(path) = std::env::var(CASE_VARIABLE) {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            self.repeat(&text)?;
            return Ok(coverage.explored(begun));
        }
        if let Ok(seed) = std::env::var(SEED_VARIABLE) {
            let seed = seed.parse().unwrap_or_else(|e| panic!("{SEED_VARIABLE}: {e}"));
            self.seed(seed, &mut coverage)?;
            return Ok(coverage.explored(begun));
        }
        self.seeds(&mut coverage, |seed, coverage| self.seed(seed, coverage))?;
        Ok(coverage.explored(begun))
    }

    /// Runs one case again: the text that [`Failed::case`] holds.
    ///
    /// # Errors
    /// What is still broken.
    ///
    /// # Panics
    /// When the text is no case of this workload.
    pub fn repeat(&self, case: &str) -> Result<(), Box<Failed>> {
        let case: Case<W> = case.parse().unwrap_or_else(|e| panic!("{e}"));
        match shrink::attempt(&self.runner, &case) {
            Some((case, broken)) => Err(Box::new(Failed::new(&self.runner, case, broken, 1))),
            None => Ok(()),
        }
    }

    /// Runs until something fails, and says in which run; not made small.
    pub fn first_failure(&self) -> Option<(u64, Broken)> {
        let mut coverage = Coverage::new(Vec::new());
        let failing = self.seeds(&mut coverage, |seed, coverage| self.lives_of(seed, coverage));
        failing.err().map(|(_, broken)| (coverage.runs, broken))
    }

    /// Runs seeds until one fails.
    fn seeds<E>(
        &self,
        coverage: &mut Coverage,
        run: impl Fn(Seed, &mut Coverage) -> Result<(), E>,
    ) -> Result<(), E> {
        let begun = Instant::now();
        let mut next = self.first;
        while coverage.runs < self.runs && self.time.is_none_or(|time| begun.elapsed() < time) {
            let seed = match coverage.vary().filter(|_| self.steer) {
                Some(seed) => seed,
                None => {
                    next += 1;
                    Seed::new(next - 1)
                }
            };
            run(seed, coverage)?;
        }
        Ok(())
    }

    /// All lives of one seed.
    fn seed(&self, seed: Seed, coverage: &mut Coverage) -> Result<(), Box<Failed>> {
        self.lives_of(seed, coverage).map_err(|(case, broken)| {
            let (case, broken) = shrink::shrink(&self.runner, case, broken);
            Box::new(Failed::new(&self.runner, case, broken, coverage.runs))
        })
    }

    fn lives_of(&self, seed: Seed, coverage: &mut Coverage) -> Result<(), (Case<W>, Broken)> {
        coverage.begin(seed);
        let mut dice = seed.dice(0);
        let sector = [SectorSize::Bytes512, SectorSize::Bytes512, SectorSize::Bytes4096];
        let case = Case {
            seed,
            machine: dice.number() >> 1,
            sector: *dice.pick(&sector),
            lives: Vec::new(),
        };
        let machine = case.machine();
        let failing = self.branch(&case, machine, W::Told::default(), coverage);
        coverage.end();
        match failing {
            Err((_, broken)) if (self.known)(&broken) => {
                coverage.known.push((seed, broken));
                Ok(())
            }
            failing => failing,
        }
    }

    /// Runs one more life after those of `before`, and cuts it.
    fn branch(
        &self,
        before: &Case<W>,
        machine: SimFs,
        told: W::Told,
        coverage: &mut Coverage,
    ) -> Result<(), (Case<W>, Broken)> {
        let depth = before.lives.len();
        let mut path = before.path();
        let script = self.runner.workload.script(&mut before.seed.script(path), depth);
        path = path.wrapping_add(1);
        let mut case = before.clone();
        let seed = before.seed.dice(path).number();
        let faults = if depth == 0 { self.faults } else { Faults::None };
        case.lives.push(Life { seed, faults, turns: None, script: script.clone(), end: None });
        let ran =
            self.runner.live(&machine, case.lives.last().expect("one was added"), told, false);
        coverage.add(&ran);
        let life = case.lives.last_mut().expect("one was added");
        life.turns = Some(ran.turns.clone());
        let told = match ran.result {
            Ok(Ok(told)) => told,
            Ok(Err(broken)) | Err(broken) => return Err((case, broken)),
        };
        if depth + 1 >= self.depth {
            return Ok(());
        }
        let mut dice = before.seed.dice(path ^ 0x0063_7574);
        let cuts = match self.later_cuts {
            _ if depth == 0 => self.cuts,
            Some(cuts) => cuts,
            // What a process left without a barrier is at stake until its successor has one.
            None if before.ended_by(End::Process) => 4,
            _ if dice.chance(1, 4) => 2,
            _ => 0,
        };
        let trace = machine.trace();
        let mut list: Vec<Cut> =
            (0..cuts).map(|_| self.runner.cutter.draw(&trace, depth > 0, &mut dice)).collect();
        list.sort_by_key(Cut::point);
        for (disk, cut) in self.runner.cutter.carry_out(&trace, list) {
            coverage.state(&disk);
            let mut case = case.clone();
            let told = told.at(cut.point(), cut.end());
            case.lives.last_mut().expect("one was added").end = Some(cut);
            self.branch(&case, disk, told, coverage)?;
        }
        Ok(())
    }
}

/// A run that failed. `Debug` prints the same text as `Display`, so that `unwrap` in a test is
/// readable.
#[derive(Clone)]
#[non_exhaustive]
pub struct Failed {
    /// What is broken.
    pub broken: Broken,
    /// The seed.
    pub seed: Seed,
    /// Which run it was, from 1.
    pub run: u64,
    /// The smallest case found, as text: see [`CASE_VARIABLE`].
    pub case: String,
    /// What happened in it, to be read.
    pub story: String,
    command: String,
}

impl Failed {
    fn new<W: Workload>(runner: &Runner<W>, case: Case<W>, broken: Broken, run: u64) -> Self {
        let story = story::tell(runner, &case);
        let seed = case.seed;
        Self { broken, seed, run, case: case.to_string(), story, command: command(seed) }
    }
}

/// The command that runs the seed again.
fn command(seed: Seed) -> String {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let target = std::env::current_exe().ok();
    let target = target.as_deref().and_then(|path| path.file_stem()?.to_str());
    let target = target.and_then(|stem| stem.rsplit_once('-')).map_or("", |(name, _)| name);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    format!("{SEED_VARIABLE}={seed} cargo test -p {package} --test {target} -- --exact {test}")
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.broken, self.story)?;
        writeln!(f, "seed {}, run {}; again, with every schedule and cut:", self.seed, self.run)?;
        writeln!(f, "  {}", self.command)?;
        writeln!(f, "this case alone, from a file with the lines below: {CASE_VARIABLE}=FILE")?;
        write!(f, "{}", self.case)
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failed {}
