//! Visits the crash states of a trace, each with a number under which it can be had again.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::choice::Choices;
use crate::disk::Disk;
use crate::fs::SimFs;
use crate::model::{CrashModel, MetadataOrder, Torn};
use crate::rng::{Rng, derive};
use crate::trace::Trace;

/// The environment variable that makes [`CrashExplorer::for_each`] visit one state only:
/// `point:id`. An explorer with a [label](CrashExplorer::label) listens to `label@point:id`;
/// several are separated by commas.
pub const REPLAY_VARIABLE: &str = "CAIRN_SIM_REPLAY";

/// Visits the disk states that a power cut could leave, at every point of a trace.
///
/// At a point with at most [`exhaustive_limit`](Self::exhaustive_limit) combinations of what
/// landed, all are visited. At others, [`samples_per_point`](Self::samples_per_point) are: always
/// nothing, everything, only the lengths and names, only the sectors; then some states with a
/// single sector (or name, or length) landed or missing; the rest drawn from the seed. A state that
/// equals an earlier one of the same point is skipped.
///
/// Every state has a `point` and an `id`; the same trace and options give the same states.
#[derive(Clone, Debug)]
pub struct CrashExplorer {
    trace: Trace,
    model: CrashModel,
    seed: u64,
    samples_per_point: usize,
    exhaustive_limit: u64,
    points: RangeInclusive<usize>,
    label: String,
}

/// Ids of a sampled point: these four, then two for each dim, then random ones.
const NOTHING: u64 = 0;
const EVERYTHING: u64 = 1;
const ONLY_METADATA: u64 = 2;
const ONLY_SECTORS: u64 = 3;
const SINGLES: u64 = 4;

impl CrashExplorer {
    /// Seed 0, 32 samples at a point, exhaustive up to 256 combinations, [`Torn::Versions`],
    /// [`MetadataOrder::Free`].
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        Self {
            points: 0..=trace.len(),
            trace,
            model: CrashModel::default(),
            seed: 0,
            samples_per_point: 32,
            exhaustive_limit: 256,
            label: String::new(),
        }
    }

    /// A name for `CAIRN_SIM_REPLAY`, needed where several explorers meet in one test (an
    /// exploration of the recovery from each state of another).
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Where the random states come from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many states to draw at a point that has too many to visit all; at least 4 are.
    #[must_use]
    pub fn samples_per_point(mut self, samples: usize) -> Self {
        self.samples_per_point = samples;
        self
    }

    /// Up to how many combinations a point is visited exhaustively.
    #[must_use]
    pub fn exhaustive_limit(mut self, combinations: u64) -> Self {
        self.exhaustive_limit = combinations;
        self
    }

    /// What in-flight sectors can hold.
    #[must_use]
    pub fn torn(mut self, torn: Torn) -> Self {
        self.model.torn = torn;
        self
    }

    /// How names survive.
    #[must_use]
    pub fn metadata_order(mut self, order: MetadataOrder) -> Self {
        self.model.order = order;
        self
    }

    /// Visits only these points; what lies beyond the trace is ignored.
    #[must_use]
    pub fn points(mut self, points: RangeInclusive<usize>) -> Self {
        self.points = points;
        self
    }

    /// Checks every state with `check`, which says what is wrong with it or panics. Stops at the
    /// first bad one.
    ///
    /// With `CAIRN_SIM_REPLAY=point:id` in the environment, checks that one state only
    /// ([`REPLAY_VARIABLE`]).
    ///
    /// # Errors
    /// The first state that failed, with everything needed to see it again.
    ///
    /// # Panics
    /// When `CAIRN_SIM_REPLAY` is set to something else, or to a point that the trace does not
    /// have.
    pub fn for_each<E: fmt::Display>(
        &self,
        mut check: impl FnMut(&CrashState) -> Result<(), E>,
    ) -> Result<Report, Failure> {
        let mut report = Report { points: 0, states: 0, distinct: 0 };
        if let Some((point, id)) = self.asked_for() {
            self.check(&self.replay(point, id), &mut check)?;
            return Ok(Report { points: 1, states: 1, distinct: 1 });
        }
        let mut distinct = HashSet::new();
        let mut at_point = HashSet::new();
        self.walk(&mut |point| {
            report.points += 1;
            at_point.clear();
            for id in self.ids(&point) {
                let state = self.state(&point, id);
                if at_point.insert(state.fingerprint()) {
                    report.states += 1;
                    distinct.insert(state.fingerprint());
                    self.check(&state, &mut check)?;
                }
            }
            Ok(())
        })?;
        report.distinct = distinct.len() as u64;
        Ok(report)
    }

    /// One state again. The options must be those under which it was found.
    ///
    /// # Panics
    /// When there is no such point in the trace.
    #[must_use]
    pub fn replay(&self, point: usize, id: u64) -> CrashState {
        let disk = self.trace.disk_at(point);
        let choices = Choices::new(&disk, self.model);
        self.state(&Arc::new(Point { point, disk, choices, trace: self.trace.clone() }), id)
    }

    /// What the environment says about the explorer with this label.
    fn asked_for(&self) -> Option<(usize, u64)> {
        let value = std::env::var(REPLAY_VARIABLE).ok()?;
        let mine =
            |entry: &&str| entry.split_once('@').map_or("", |(label, _)| label) == self.label;
        let entry = value.split(',').find(mine)?;
        let numbers = entry.rsplit('@').next().and_then(|numbers| numbers.split_once(':'));
        let parsed = numbers
            .and_then(|(point, id)| Some((point.trim().parse().ok()?, id.trim().parse().ok()?)));
        Some(
            parsed
                .unwrap_or_else(|| panic!("{REPLAY_VARIABLE}: expected point:id, found {entry:?}")),
        )
    }

    fn walk(
        &self,
        visit: &mut dyn FnMut(Arc<Point>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut disk = self.trace.initial.clone();
        for point in 0..=self.trace.len().min(*self.points.end()) {
            if let Some(op) = point.checked_sub(1).and_then(|last| self.trace.ops.get(last)) {
                disk.apply(point as u64, &op.change);
            }
            if self.points.contains(&point) {
                let choices = Choices::new(&disk, self.model);
                visit(Arc::new(Point {
                    point,
                    disk: disk.clone(),
                    choices,
                    trace: self.trace.clone(),
                }))?;
            }
        }
        Ok(())
    }

    fn ids(&self, point: &Point) -> Vec<u64> {
        let count = point.choices.count();
        if count <= self.exhaustive_limit {
            return (0..count).collect();
        }
        let singles = 2 * point.choices.len() as u64;
        let samples = (self.samples_per_point as u64).max(SINGLES);
        let mut ids: Vec<u64> = (NOTHING..SINGLES).collect();
        let wanted = singles.min((samples - SINGLES) / 2);
        if wanted == singles {
            ids.extend(SINGLES..SINGLES + singles);
        } else {
            let mut rng = Rng::new(derive(self.seed, point.point as u64));
            let all = usize::try_from(singles).unwrap_or(usize::MAX);
            ids.extend((0..wanted).map(|_| SINGLES + rng.below(all) as u64));
        }
        let random = samples - ids.len() as u64;
        ids.extend((0..random).map(|i| SINGLES + singles + i));
        ids
    }

    fn state(&self, point: &Arc<Point>, id: u64) -> CrashState {
        let choices = &point.choices;
        let singles = 2 * choices.len() as u64;
        let salt = derive(derive(self.seed, point.point as u64), id);
        let picks = match id {
            _ if choices.count() <= self.exhaustive_limit => choices.nth(id),
            NOTHING => choices.nothing(),
            EVERYTHING => choices.everything(),
            ONLY_METADATA => choices.only_kind(false),
            ONLY_SECTORS => choices.only_kind(true),
            _ if id < SINGLES + singles => {
                let which = usize::try_from((id - SINGLES) / 2).expect("below the number of dims");
                if id.is_multiple_of(2) { choices.only(which) } else { choices.all_but(which) }
            }
            _ => choices.random(&mut Rng::new(salt)),
        };
        let disk = choices.build(&picks, salt);
        let fingerprint = disk.fingerprint();
        CrashState { point: point.clone(), id, picks, disk, fingerprint }
    }

    fn check<E: fmt::Display>(
        &self,
        state: &CrashState,
        check: &mut impl FnMut(&CrashState) -> Result<(), E>,
    ) -> Result<(), Failure> {
        let Some(message) = verdict(state, check) else { return Ok(()) };
        let smallest = shrink(state, check);
        let mut text = state.to_string();
        if smallest.picks != state.picks {
            text = format!("{text}\nstill wrong when all but this is the newest:\n{smallest}");
        }
        Err(Failure {
            message,
            point: state.point(),
            id: state.id,
            seed: self.seed,
            state: text,
            label: self.label.clone(),
        })
    }
}

/// What is wrong with a state: what the check says, or the message of its panic.
fn verdict<E: fmt::Display>(
    state: &CrashState,
    check: &mut impl FnMut(&CrashState) -> Result<(), E>,
) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| check(state))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text =
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Some(format!("panicked: {text}"))
        }
    }
}

/// A failing state with as little lost as possible: one thing after the other gets its newest
/// value, and keeps it if the state still fails.
fn shrink<E: fmt::Display>(
    state: &CrashState,
    check: &mut impl FnMut(&CrashState) -> Result<(), E>,
) -> CrashState {
    let choices = &state.point.choices;
    let mut smallest = state.clone();
    for (which, newest) in choices.everything().into_iter().enumerate() {
        if smallest.picks[which] == newest {
            continue;
        }
        let mut picks = smallest.picks.clone();
        picks[which] = newest;
        let disk = choices.build(&picks, state.id);
        let fingerprint = disk.fingerprint();
        let candidate = CrashState { picks, disk, fingerprint, ..smallest.clone() };
        if verdict(&candidate, check).is_some() {
            smallest = candidate;
        }
    }
    smallest
}

/// A point of a trace with everything that is open there; shared by its states.
#[derive(Debug)]
struct Point {
    point: usize,
    disk: Disk,
    choices: Choices,
    trace: Trace,
}

/// One disk state that a power cut could leave. Its [`Display`](fmt::Display) says what survived.
#[derive(Clone, Debug)]
pub struct CrashState {
    point: Arc<Point>,
    id: u64,
    picks: Vec<u32>,
    disk: Disk,
    fingerprint: u64,
}

impl CrashState {
    /// How many operations of the trace had been done. Whatever was acknowledged when
    /// [`SimFs::op_count`] was at most this must have survived.
    #[must_use]
    pub fn point(&self) -> usize {
        self.point.point
    }

    /// The number of this state at its point; see [`CrashExplorer::replay`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A machine that starts with this disk: nothing open, nothing locked, nothing unsynced, an
    /// empty trace. Every call gives another one.
    #[must_use]
    pub fn fs(&self) -> SimFs {
        self.point.trace.revive(self.disk.clone(), self.point.point)
    }

    /// A hash of all names, lengths and bytes.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl fmt::Display for CrashState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = self.point.point;
        writeln!(f, "power cut at point {point}, state {}", self.id)?;
        for (i, op) in
            self.point.trace.ops[..point].iter().enumerate().skip(point.saturating_sub(3))
        {
            writeln!(f, "  done: {i} {op}")?;
        }
        if let Some(op) = self.point.trace.ops.get(point) {
            writeln!(f, "  next: {point} {op}")?;
        }
        self.point.choices.describe(&self.picks, &self.point.disk, f)
    }
}

/// What an exploration visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Points of the trace.
    pub points: u64,
    /// States that were checked, each distinct at its point.
    pub states: u64,
    /// Distinct disk contents among all of them.
    pub distinct: u64,
}

/// A crash state that failed its check. `Debug` prints the same text as `Display`, so that `unwrap`
/// in a test is readable.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What the check said, or the message of its panic.
    pub message: String,
    /// The point of the state.
    pub point: usize,
    /// The id of the state.
    pub id: u64,
    /// The seed of the explorer.
    pub seed: u64,
    /// What survived.
    pub state: String,
    label: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, point, id, seed, state, label } = self;
        let at = if label.is_empty() { "" } else { "@" };
        write!(f, "{message}\n{state}seed {seed}; ")?;
        write!(
            f,
            "to see this state again, run the test with {REPLAY_VARIABLE}={label}{at}{point}:{id}"
        )
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Failure {}
