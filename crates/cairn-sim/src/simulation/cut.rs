//! How a life ends before its time, and what is left of the disk.

use std::fmt;
use std::str::FromStr;

use crate::choice::Choices;
use crate::dice::Dice;
use crate::fs::SimFs;
use crate::model::CrashModel;
use crate::rng::Rng;
use crate::trace::Trace;

/// Operations in which a life takes over what another one left.
const EARLY: usize = 12;

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power failed.
    Power,
    /// The process died, or ended; the machine goes on with its page cache.
    Process,
}

/// What survives a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Drawn from this number.
    Drawn(u64),
    /// The process died; perhaps the page cache let go of its clean pages.
    Process { evicted: bool },
    /// The option with this number of each thing that was open.
    Picks(Vec<u32>, u64),
}

/// The end of a life at a point of its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    point: usize,
    state: State,
}

impl Cut {
    pub(super) fn point(&self) -> usize {
        self.point
    }

    pub(super) fn end(&self) -> End {
        match self.state {
            State::Process { .. } => End::Process,
            State::Drawn(_) | State::Picks(..) => End::Power,
        }
    }

    pub(super) fn power(point: usize, salt: u64) -> Self {
        Self { point, state: State::Drawn(salt) }
    }

    /// What survives the power cut, if it is one.
    fn picks(&self, choices: &Choices) -> Option<(Vec<u32>, u64)> {
        match &self.state {
            State::Process { .. } => None,
            State::Drawn(salt) => Some((drawn(choices, *salt), *salt)),
            State::Picks(picks, salt) => Some((choices.bounded(picks), *salt)),
        }
    }
}

/// The state with this number: the extremes come first.
fn drawn(choices: &Choices, number: u64) -> Vec<u32> {
    match number % 16 {
        0 => choices.nothing(),
        1 => choices.everything(),
        2 => choices.only_kind(false),
        3 => choices.only_kind(true),
        _ => choices.random(&mut Rng::new(number)),
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Process { evicted: false } => write!(f, "process {}", self.point),
            State::Process { evicted: true } => write!(f, "process {} evicted", self.point),
            State::Drawn(salt) => write!(f, "power {} {salt}", self.point),
            State::Picks(picks, salt) => {
                let picks: Vec<String> = picks.iter().map(ToString::to_string).collect();
                write!(f, "power {} {salt} {}", self.point, picks.join(","))
            }
        }
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut words = text.split_whitespace();
            let kind = words.next()?;
            let point = words.next()?.parse().ok()?;
            if kind == "process" {
                let evicted = words.next() == Some("evicted");
                return Some(Self { point, state: State::Process { evicted } });
            }
            let salt = words.next()?.parse().ok()?;
            let Some(picks) = words.next() else { return Some(Self::power(point, salt)) };
            let picks = picks.split(',').map(|pick| pick.parse().ok()).collect::<Option<_>>()?;
            Some(Self { point, state: State::Picks(picks, salt) })
        };
        parse().ok_or_else(|| format!("{text:?} is no end of a life"))
    }
}

/// Chooses ends of lives and makes the machines that they leave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cutter {
    pub(super) model: CrashModel,
}

impl Cutter {
    /// Any point, but one in two is right behind a barrier, where callers are told most.
    /// Processes die anywhere, or end.
    /// `early` is set for lives that follow others: what those left is at stake in the first
    /// operations.
    pub(super) fn draw(&self, trace: &Trace, early: bool, dice: &mut Dice) -> Cut {
        let early = early && dice.chance(1, 2);
        let points = if early { trace.len().min(EARLY) } else { trace.len() };
        let mut point = dice.below(points + 1);
        if !early && dice.chance(1, 2) {
            let barrier = (1..=point).rev().find(|&at| {
                let op = &trace.ops()[at - 1];
                op.covers().is_some() || op.durable().is_some()
            });
            point = barrier.unwrap_or(point);
        }
        if dice.chance(1, 8) {
            let evicted = dice.chance(1, 2);
            // Every other process ends by itself.
            if dice.chance(1, 2) {
                point = trace.len();
            }
            return Cut { point, state: State::Process { evicted } };
        }
        Cut::power(point, dice.number())
    }

    /// The machines after each of `cuts`, which are in order of their points.
    pub(super) fn carry_out(&self, trace: &Trace, cuts: Vec<Cut>) -> Vec<(SimFs, Cut)> {
        let mut machines = Vec::with_capacity(cuts.len());
        let mut disk = trace.disk_at(0);
        let mut done = 0;
        for cut in cuts {
            let point = cut.point.min(trace.len());
            for (i, op) in trace.ops[done..point].iter().enumerate() {
                disk.apply((done + i) as u64 + 1, &op.change);
            }
            done = point;
            let machine = match cut.state {
                State::Process { evicted } => {
                    let machine = trace.revive(disk.clone().in_the_past(), point);
                    if evicted {
                        machine.evict();
                    }
                    machine
                }
                State::Drawn(_) | State::Picks(..) => {
                    let choices = Choices::new(&disk, self.model);
                    let (picks, salt) = cut.picks(&choices).expect("the power was cut");
                    trace.revive(choices.build(&picks, salt), point)
                }
            };
            machines.push((machine, cut));
        }
        machines
    }

    /// The machine after one cut.
    pub(super) fn after(&self, trace: &Trace, cut: &Cut) -> SimFs {
        let mut machines = self.carry_out(trace, vec![cut.clone()]);
        machines.pop().expect("one for each cut").0
    }

    /// Cuts that lose less than this one, each with one thing more that survives.
    pub(super) fn milder(&self, trace: &Trace, cut: &Cut) -> Vec<Cut> {
        let choices = Choices::new(&trace.disk_at(cut.point.min(trace.len())), self.model);
        let Some((picks, salt)) = cut.picks(&choices) else { return Vec::new() };
        let newest = choices.everything();
        let changed = (0..picks.len()).filter(|&i| picks[i] != newest[i]);
        changed
            .map(|i| {
                let mut milder = picks.clone();
                milder[i] = newest[i];
                Cut { point: cut.point, state: State::Picks(milder, salt) }
            })
            .collect()
    }

    /// What survived, to be read.
    pub(super) fn describe(&self, trace: &Trace, cut: &Cut) -> String {
        let disk = trace.disk_at(cut.point.min(trace.len()));
        let choices = Choices::new(&disk, self.model);
        let mut text = String::new();
        match cut.picks(&choices) {
            None => text.push_str("the process dies; the page cache stays\n"),
            Some((picks, _)) => {
                text.push_str("the power fails\n");
                let _ = choices.describe(&picks, &disk, &mut text);
            }
        }
        text
    }
}
