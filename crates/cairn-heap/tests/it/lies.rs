//! guards: L31 L32 L33
//!
//! A policy that answers at random, rightly and wrongly, while programs run and the power fails at
//! every point. The heap makes each step or refuses it, and loses and leaks no block.

use std::sync::{Arc, Mutex};

use cairn_heap::{Error, FreeRuns, Heap, Place, Policy, PolicyId, Result};
use cairn_sim::{Chooser, SimFs, Visited};

use crate::crash::explore;
use crate::model::{Dice, Driver, KEY, PATH, State, chain, check_state};

/// Right answers at random: any free run, any place in it, any gap, any length. They depend only on
/// the heap's state, so that a program does the same every time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scatter;

pub(crate) const SCATTER: PolicyId =
    PolicyId::Custom { number: PolicyId::CUSTOM_MIN, parameter: u64::MAX };

/// A multiple of the granule: 0, or from the shortest run to `most`.
fn length(dice: &mut Dice, most: u64) -> u64 {
    match most / 16 {
        0..3 => 0,
        granules if dice.below(2) == 0 => 48 + 16 * dice.below(granules as usize - 2) as u64,
        _ => 0,
    }
}

impl Policy for Scatter {
    fn id(&self) -> PolicyId {
        SCATTER
    }

    fn run_len(&self, shortest: u64) -> u64 {
        shortest + length(&mut Dice(shortest), 300)
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
        let mut dice = Dice(free.arena().end ^ free.bytes() << 20 ^ run_len << 40);
        let (mut list, mut fits) = (free.next_list(free.list_of(run_len)), Vec::new());
        while let Some(nth) = list {
            for run in free.runs(nth) {
                fits.extend(Some(run?).filter(|run| run.len >= run_len));
            }
            list = free.next_list(nth + 1);
        }
        if fits.is_empty() || dice.below(4) == 0 {
            return Ok(Place::AtEnd { gap: length(&mut dice, 700) });
        }
        let run = fits[dice.below(fits.len())];
        Ok(Place::Within { run, start: run.start + length(&mut dice, run.len - run_len) })
    }
}

/// Wrong answers among right ones.
#[derive(Debug)]
struct Liar(Mutex<Dice>);

impl Liar {
    fn lies(&self) -> Option<Dice> {
        let mut dice = self.0.lock().unwrap();
        (dice.below(5) == 0).then(|| Dice(dice.below(1 << 30) as u64))
    }
}

impl Policy for Liar {
    fn id(&self) -> PolicyId {
        SCATTER
    }

    fn run_len(&self, shortest: u64) -> u64 {
        let right = Scatter.run_len(shortest);
        match self.lies() {
            Some(mut dice) => lie(&mut dice, right, shortest),
            None => right,
        }
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
        let (right, end) = (Scatter.place(run_len, free)?, free.arena().end);
        let Some(mut dice) = self.lies() else { return Ok(right) };
        Ok(match right {
            Place::AtEnd { gap } => Place::AtEnd { gap: lie(&mut dice, gap, end) },
            Place::Within { mut run, start } => {
                match dice.below(3) {
                    0 => run.start = lie(&mut dice, run.start, end),
                    1 => run.len = lie(&mut dice, run.len, run_len),
                    _ => {}
                }
                Place::Within { run, start: lie(&mut dice, start, end) }
            }
        })
    }
}

/// A number that is near the right one, near another one, or anywhere.
fn lie(dice: &mut Dice, right: u64, other: u64) -> u64 {
    let near = [0, 1, 8, 16, 32, 48, 96, 144, 1 << 20][dice.below(9)];
    match dice.below(6) {
        0 => right.wrapping_add(near),
        1 => right.wrapping_sub(near),
        2 => other.wrapping_sub(near),
        3 => other.wrapping_add(near),
        4 => near,
        _ => u64::MAX - near,
    }
}

/// Runs programs on a heap whose policy often answers wrongly. The heap makes each step or refuses
/// it; a power cut at any point leaves the state before or after a step.
pub(crate) fn lies(seeds: std::ops::Range<u64>) -> std::result::Result<[u64; 3], String> {
    let [mut taken, mut refused, mut states] = [0; 3];
    for seed in seeds {
        let mut driver = Driver::new(SimFs::new(), SCATTER);
        let (mut dice, policy) = (Dice(seed), Arc::new(Liar(Mutex::new(Dice(seed)))));
        for round in 0..30 {
            if round % 10 == 0 {
                drop(driver.heap.take());
                let options = cairn_stack::Stack::options().reserve(4 << 10);
                let stack = options.fs(Arc::new(driver.sim.clone())).open(PATH);
                let heap = Heap::open_with_key(stack.unwrap(), policy.clone(), KEY);
                driver.heap = Some(heap.map_err(|e| chain(&e))?);
            }
            let steps = 1 + dice.below(4);
            match driver.transaction(&mut dice, steps, 2000) {
                Ok(()) => taken += 1,
                // `TooLarge`: a gap beyond the longest stack.
                Err(Error::Policy { .. } | Error::TooLarge { .. }) => refused += 1,
                Err(error) => return Err(chain(&error)),
            }
            if State::of(driver.heap())? != driver.state {
                return Err("another state than the model's".into());
            }
        }
        let mut visited = Visited::default();
        let check = |point: usize, sim: &SimFs| check_state(&driver, point, sim);
        explore(&driver, &format!("liar-{seed}"), 16, &mut visited, &check)?;
        states += visited.distinct() as u64;
        drop(driver.heap.take());
        driver.sim = driver.sim.power_cut(&mut Chooser::seeded(seed));
        driver.open().map_err(|e| chain(&e))?;
    }
    Ok([taken, refused, states])
}

#[test]
fn a_policy_that_lies_loses_nothing_in_any_state_of_the_disk() {
    let [taken, refused, states] = lies(0..12).unwrap();
    println!("{taken} steps took place, {refused} were refused, {states} distinct states");
    assert!(taken > refused && refused > 50 && states > 1000);
}
