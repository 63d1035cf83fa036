//! What was met, how often, and which seeds are worth another look.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use super::seed::Seed;
use crate::fs::SimFs;
use crate::schedule::Broken;
use crate::world::Ran;

/// What was met fewer times than this is seldom.
const SELDOM: u64 = 4;
/// Further schedules of a run that met what is seldom met.
const VARIATIONS: u32 = 3;

/// What a [`Simulation`](super::Simulation) did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explored {
    /// Seeds that were run.
    pub runs: u64,
    /// Lives of the program: one for each run, one after each cut.
    pub lives: u64,
    /// Distinct disk states that lives began with.
    pub states: u64,
    /// Steps of all schedules.
    pub steps: u64,
    /// How long it took.
    pub time: Duration,
    /// What was met, and how often.
    pub met: BTreeMap<String, u64>,
    /// What can be met and never was.
    pub never: Vec<String>,
    /// Runs that ended with a [known](super::Simulation::known) failure.
    pub known: Vec<(Seed, Broken)>,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64().max(1e-9);
        let Self { runs, lives, states, steps, .. } = self;
        write!(f, "{runs} runs, {lives} lives, {states} states, {steps} steps; ")?;
        #[expect(clippy::cast_precision_loss, reason = "rates are shown roughly")]
        let rate = |count: u64| count as f64 / seconds;
        writeln!(f, "{:.0} runs/s, {:.0} states/s", rate(*runs), rate(*states))?;
        for (what, count) in &self.met {
            writeln!(f, "  {count:8}  {what}")?;
        }
        for what in &self.never {
            writeln!(f, "     never  {what}")?;
        }
        for (seed, broken) in &self.known {
            writeln!(f, "     known, seed {seed}: {}", broken.property)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Coverage {
    pub(super) runs: u64,
    lives: u64,
    states: HashSet<u64>,
    steps: u64,
    met: BTreeMap<String, u64>,
    can_meet: Vec<String>,
    /// The run under way, and whether it met what is seldom met.
    current: Option<(Seed, bool)>,
    /// Seeds to be varied, and how often they were.
    queue: Vec<(Seed, u32)>,
    /// Runs that ended with a known failure.
    pub(super) known: Vec<(Seed, Broken)>,
    /// Whether the last run was a variation: every other one is new.
    varied: bool,
}

impl Coverage {
    pub(super) fn new(can_meet: Vec<String>) -> Self {
        Self {
            runs: 0,
            lives: 0,
            states: HashSet::new(),
            steps: 0,
            met: BTreeMap::new(),
            can_meet,
            current: None,
            queue: Vec::new(),
            known: Vec::new(),
            varied: false,
        }
    }

    pub(super) fn begin(&mut self, seed: Seed) {
        self.runs += 1;
        self.current = Some((seed, false));
    }

    pub(super) fn end(&mut self) {
        if let Some((seed, true)) = self.current.take()
            && seed == seed.variation(0)
        {
            self.queue.push((seed, 0));
        }
    }

    pub(super) fn add<T>(&mut self, ran: &Ran<T>) {
        self.lives += 1;
        self.steps += ran.steps;
        for (what, count) in &ran.met {
            let known = match self.met.get_mut(what) {
                Some(known) => known,
                None => self.met.entry(what.clone()).or_default(),
            };
            if *known < SELDOM
                && let Some((_, seldom)) = &mut self.current
            {
                *seldom = true;
            }
            *known += count;
        }
    }

    pub(super) fn state(&mut self, disk: &SimFs) {
        self.states.insert(disk.fingerprint());
    }

    /// A seed to be varied, for every other run.
    pub(super) fn vary(&mut self) -> Option<Seed> {
        self.varied = !self.varied;
        if self.varied {
            return None;
        }
        let (seed, times) = self.queue.last_mut()?;
        *times += 1;
        let next = seed.variation(*times);
        if *times >= VARIATIONS {
            self.queue.pop();
        }
        Some(next)
    }

    pub(super) fn explored(self, begun: Instant) -> Explored {
        let never = self.can_meet.into_iter().filter(|what| !self.met.contains_key(what)).collect();
        Explored {
            runs: self.runs,
            lives: self.lives,
            states: self.states.len() as u64,
            steps: self.steps,
            time: begun.elapsed(),
            met: self.met,
            never,
            known: self.known,
        }
    }
}
