//! guards: L28 L31 L32 L33
//!
//! The mutation catalogue: deliberate bugs, one at a time, and what catches each. A test that cannot fail proves nothing.

use std::collections::HashSet;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::rc::Rc;

use cairn_heap::{Allocator, Block, Mutation, Policy};
use cairn_sim::SimFs;

use crate::crash::explore;
use crate::model::{Dice, Driver, POLICIES, State, chain, check_state, open_at};
use crate::{hostile, policies};

/// What a panic or an error said, in one short line.
fn violation(outcome: std::thread::Result<Result<(), String>>) -> Option<String> {
    let text = match outcome {
        Ok(Ok(())) => return None,
        Ok(Err(violation)) => violation,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()),
        },
    };
    Some(text.lines().next().unwrap_or_default().chars().take(160).collect())
}

/// Shows that each bug is caught by `check`, which passes without.
fn caught(by: &str, check: impl Fn() -> Result<(), String> + Copy + RefUnwindSafe, bugs: &[Mutation]) {
    assert_eq!(check(), Ok(()), "{by}, without a bug");
    for bug in bugs {
        let outcome = catch_unwind(|| bug.during(check));
        let violation = violation(outcome).unwrap_or_else(|| panic!("{bug:?} was not caught by {by}"));
        println!("{bug:?}: {by}: {violation}");
    }
}

/// Shows that each bug makes a test fail that is there anyway.
fn caught_by_test(name: &str, test: fn(), bugs: &[Mutation]) {
    let check = || {
        test();
        Ok(())
    };
    caught(name, check, bugs);
}

/// Random programs: after each transaction the proof must hold, and the heap hold what the model does.
fn programs() -> Result<(), String> {
    for seed in 0..20u64 {
        let mut driver = Driver::new(SimFs::new(), POLICIES[(seed % 5) as usize]);
        driver.open().map_err(|e| chain(&e))?;
        let mut dice = Dice(seed);
        for _ in 0..40 {
            let steps = 1 + dice.below(4);
            driver.transaction(&mut dice, steps, 2000).map_err(|e| chain(&e))?;
            if State::of(driver.heap())? != driver.state {
                return Err("another state than the model's".into());
            }
        }
    }
    Ok(())
}

#[test]
fn bugs_of_the_arena_that_any_program_shows() {
    caught(
        "programs against a model",
        programs,
        &[
            Mutation::RepeatTag,
            Mutation::RootsStayBehind,
            Mutation::ReuseStaysListed,
            Mutation::ShowOldContents,
            Mutation::JoinLiveNeighbour,
            Mutation::LeaveNeighboursApart,
            Mutation::KeepTail,
            Mutation::LeavePrevLen,
            Mutation::LeaveMovedBlock,
        ],
    );
}

/// Single operations, and the power fails within one.
fn power_cuts() -> Result<(), String> {
    let mut driver = Driver::new(SimFs::new(), Policy::SizeClass);
    driver.open().map_err(|e| chain(&e))?;
    let (mut dice, mut blocks) = (Dice(5), Vec::<Block>::new());
    for _ in 0..12 {
        let len = 1 + dice.below(600);
        let mut state = driver.state.clone();
        let block = if blocks.len() > 3 {
            let old = blocks.swap_remove(dice.below(4));
            let mut bytes = state.blocks.remove(&old.to_raw()).ok_or("no such block")?;
            bytes.resize(len, 0);
            let new = driver.heap().realloc(old, len as u64).map_err(|e| chain(&e))?;
            state.blocks.insert(new.to_raw(), bytes);
            new
        } else {
            let bytes = dice.bytes(len);
            let new = driver.heap().alloc_with(&bytes).map_err(|e| chain(&e))?;
            state.blocks.insert(new.to_raw(), bytes);
            new
        };
        blocks.push(block);
        driver.history.push((driver.sim.op_count(), Rc::new(state.clone())));
        driver.state = state;
    }
    let check = |point: usize, sim: &SimFs| check_state(&driver, point, sim);
    explore(&driver, "single operations", 32, &mut HashSet::new(), &check)
}

#[test]
fn what_belongs_together_is_one_commit() {
    caught("power cuts", power_cuts, &[Mutation::FreeFirst, Mutation::FillLater]);
}

/// The header of a block that was joined with the free run before it is gone.
fn absorbed() -> Result<(), String> {
    let heap = open_at(&SimFs::new(), Policy::SizeClass).map_err(|e| chain(&e))?;
    let blocks = [(); 4].map(|()| heap.alloc(100));
    let [first, second, third, _last] = blocks.map(|block| block.map_err(|e| chain(&e)));
    let (first, second, third) = (first?, second?, third?);
    for block in [first, third, second] {
        heap.dealloc(block).map_err(|e| chain(&e))?;
    }
    match (second.read(&heap), third.read(&heap)) {
        (Err(_), Err(_)) => Ok(()),
        _ => Err("a handle is good whose block was freed".into()),
    }
}

#[test]
fn bugs_that_let_a_handle_live_too_long() {
    caught("free, joined with neighbours", absorbed, &[Mutation::KeepAbsorbedHeader]);
    caught_by_test(
        "a_handle_whose_block_is_gone",
        policies::a_handle_whose_block_is_gone_is_refused_for_ever,
        &[Mutation::IgnoreTag],
    );
    caught_by_test(
        "an_error_or_a_panic",
        policies::an_error_or_a_panic_in_a_transaction_changes_nothing,
        &[Mutation::ForgetRefusedTags],
    );
    caught_by_test(
        "no_root_dangles",
        policies::no_root_dangles,
        &[Mutation::LetRootsDangle, Mutation::RootsStayBehind],
    );
}

#[test]
fn bugs_that_follow_what_is_damaged() {
    caught_by_test(
        "what_is_found_halfway",
        hostile::what_is_found_halfway_breaks_the_transaction,
        &[Mutation::TrustLinks, Mutation::CommitHalf],
    );
}

#[test]
fn a_check_that_skips_something() {
    let test = hostile::the_check_names_everything_that_can_be_wrong_and_its_place;
    caught_by_test(
        "the_check_names_everything",
        test,
        &[
            Mutation::CheckSkipsLists,
            Mutation::CheckSkipsRoots,
            Mutation::CheckSkipsCounters,
            Mutation::CheckSkipsTags,
            Mutation::CheckSkipsNeighbours,
        ],
    );
}
