//! Makes a failing case small: fewer lives, calls, turns and losses that still break the same
//! property.

use std::time::Instant;

use super::case::{Case, Life};
use super::cut::Cut;
use super::runner::Runner;
use super::script::Script;
use super::workload::{Told as _, Workload};
use crate::dice::Dice;
use crate::fs::SimFs;
use crate::schedule::Broken;

/// Runs a case as it is. `None` when nothing is broken, or a life before the last one ends badly.
pub(super) fn attempt<W: Workload>(
    runner: &Runner<W>,
    case: &Case<W>,
) -> Option<(Case<W>, Broken)> {
    from(runner, case, 0, case.machine(), W::Told::default())
}

/// Runs the lives of a case from number `first` on. A life that breaks something earlier than the
/// last one is a shorter case.
fn from<W: Workload>(
    runner: &Runner<W>,
    case: &Case<W>,
    first: usize,
    machine: SimFs,
    told: W::Told,
) -> Option<(Case<W>, Broken)> {
    let (mut machine, mut told) = (machine, told);
    for (i, life) in case.lives.iter().enumerate().skip(first) {
        let ran = runner.live(&machine, life, told, false);
        match ran.result {
            Ok(Err(broken)) | Err(broken) => {
                let mut case = case.clone();
                case.lives.truncate(i + 1);
                case.lives[i].end = None;
                return Some((case, broken));
            }
            Ok(Ok(after)) => {
                let end = life.end.as_ref()?;
                told = after.at(end.point(), end.end());
                machine = runner.cutter.after(&machine.trace(), end);
            }
        }
    }
    None
}

/// Failing runs that shrinking may make.
const FAILURES_MAX: usize = 1000;

struct Shrinker<'a, W: Workload> {
    runner: &'a Runner<W>,
    begun: Instant,
    /// Runs that failed so far: each leaks what its threads held.
    failures: usize,
    case: Case<W>,
    broken: Broken,
}

/// The smallest case found in the time there is.
pub(super) fn shrink<W: Workload>(
    runner: &Runner<W>,
    case: Case<W>,
    broken: Broken,
) -> (Case<W>, Broken) {
    let mut shrinker = Shrinker { runner, begun: Instant::now(), failures: 0, case, broken };
    loop {
        let before = shrinker.size();
        shrinker.scripts();
        shrinker.turns();
        shrinker.losses();
        if shrinker.size() >= before || shrinker.is_late() {
            return (shrinker.case, shrinker.broken);
        }
    }
}

impl<W: Workload> Shrinker<'_, W> {
    fn is_late(&self) -> bool {
        self.begun.elapsed() > self.runner.shrink || self.failures > FAILURES_MAX
    }

    fn size(&self) -> usize {
        let of =
            |life: &Life<W>| 1 + life.script.len() + life.turns.as_ref().map_or(1 << 20, Vec::len);
        self.case.lives.iter().map(of).sum()
    }

    /// Takes a case over if it breaks the same property.
    fn accept(&mut self, candidate: &Case<W>) -> bool {
        let failing = attempt(self.runner, candidate);
        self.failures += usize::from(failing.is_some());
        match failing {
            Some((case, broken)) if broken.property == self.broken.property => {
                (self.case, self.broken) = (case, broken);
                true
            }
            _ => false,
        }
    }

    /// Removes calls: halves, then smaller parts. If life `i` was changed, its trace is another
    /// one, so its end is looked for again.
    fn scripts(&mut self) {
        for i in (0..self.case.lives.len()).rev() {
            let mut chunk = match self.case.lives.get(i) {
                Some(life) => life.script.len(),
                None => continue,
            };
            while chunk > 0 && !self.is_late() {
                let mut at = 0;
                while let Some(life) = self.case.lives.get(i)
                    && at < life.script.len()
                    && !self.is_late()
                {
                    let smaller = life.script.without(at, at + chunk);
                    if !self.with_script(i, smaller) {
                        at += chunk;
                    }
                }
                chunk /= 2;
            }
        }
    }

    fn with_script(&mut self, i: usize, script: Script<W::Call>) -> bool {
        let mut candidate = self.case.clone();
        candidate.lives[i].script = script;
        if self.accept(&candidate) {
            return true;
        }
        // The turns were those of another script: take what the seed says, and look for an end.
        candidate.lives[i].turns = None;
        self.search(&candidate, i)
    }

    /// Looks for an end of life `i` after which the case breaks the same property.
    fn search(&mut self, candidate: &Case<W>, i: usize) -> bool {
        let (mut machine, mut told) = (candidate.machine(), W::Told::default());
        for life in &candidate.lives[..i] {
            let ran = self.runner.live(&machine, life, told, false);
            let (Ok(Ok(after)), Some(end)) = (ran.result, &life.end) else { return false };
            told = after.at(end.point(), end.end());
            machine = self.runner.cutter.after(&machine.trace(), end);
        }
        let ran = self.runner.live(&machine, &candidate.lives[i], told, false);
        let mut candidate = candidate.clone();
        candidate.lives[i].turns = Some(ran.turns);
        let after = match ran.result {
            Ok(Ok(after)) => after,
            Ok(Err(broken)) | Err(broken) => {
                if broken.property != self.broken.property {
                    return false;
                }
                candidate.lives.truncate(i + 1);
                candidate.lives[i].end = None;
                (self.case, self.broken) = (candidate, broken);
                return true;
            }
        };
        if candidate.lives[i].end.is_none() {
            return false;
        }
        let trace = machine.trace();
        let mut dice = Dice::new(i as u64);
        for attempt in 0..64 {
            if self.is_late() {
                return false;
            }
            let cut = match attempt {
                0..8 => Cut::power(trace.len().saturating_sub(attempt), attempt as u64 % 4),
                _ => self.runner.cutter.draw(&trace, false, &mut dice),
            };
            let told = after.at(cut.point(), cut.end());
            let machine = self.runner.cutter.after(&trace, &cut);
            candidate.lives[i].end = Some(cut);
            if let Some((case, broken)) = from(self.runner, &candidate, i + 1, machine, told)
                && broken.property == self.broken.property
            {
                (self.case, self.broken) = (case, broken);
                return true;
            }
        }
        false
    }

    /// Removes turns of the schedules.
    fn turns(&mut self) {
        for i in 0..self.case.lives.len() {
            let Some(turns) = self.case.lives[i].turns.clone() else { continue };
            let mut chunk = turns.len();
            while chunk > 0 && !self.is_late() {
                let mut at = 0;
                while let Some(turns) = self.case.lives.get(i).and_then(|life| life.turns.clone())
                    && at < turns.len()
                    && !self.is_late()
                {
                    let end = (at + chunk).min(turns.len());
                    let mut candidate = self.case.clone();
                    candidate.lives[i].turns = Some([&turns[..at], &turns[end..]].concat());
                    if !self.accept(&candidate) && !self.search(&candidate, i) {
                        at += chunk;
                    }
                }
                chunk /= 2;
            }
        }
    }

    /// Has more survive.
    fn losses(&mut self) {
        let mut i = 0;
        while i + 1 < self.case.lives.len() && !self.is_late() {
            let mut candidates = self.milder(i);
            candidates.reverse();
            let mut milder = false;
            for cut in candidates {
                let mut candidate = self.case.clone();
                candidate.lives[i].end = Some(cut);
                milder = self.accept(&candidate);
                if milder || self.is_late() {
                    break;
                }
            }
            if !milder {
                i += 1;
            }
        }
    }

    fn milder(&self, i: usize) -> Vec<Cut> {
        let (mut machine, mut told) = (self.case.machine(), W::Told::default());
        for (n, life) in self.case.lives.iter().enumerate() {
            let ran = self.runner.live(&machine, life, told, false);
            let Some(end) = &life.end else { break };
            if n == i {
                return self.runner.cutter.milder(&machine.trace(), end);
            }
            let Ok(Ok(after)) = ran.result else { break };
            told = after.at(end.point(), end.end());
            machine = self.runner.cutter.after(&machine.trace(), end);
        }
        Vec::new()
    }
}
