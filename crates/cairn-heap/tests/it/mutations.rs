//! guards: L28 L31 L32 L33
//!
//! The catalogue of deliberate bugs: each is switched on alone, and a test catches it. A test that
//! cannot fail proves nothing.

use std::panic::{RefUnwindSafe, catch_unwind};
use std::rc::Rc;

use cairn_heap::{Block, Mutation};
use cairn_sim::{SimFs, Visited};

use crate::crash::explore;
use crate::model::{ALL, Dice, Driver, SIZE_CLASS, State, chain, check_state, open_at};
use crate::{ends, histories, hostile, lies, own_policy, policies};

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

/// The check that catches a bug; a bug that no test knows does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Programs,
    PowerCuts,
    JoinedNeighbours,
    GoneHandle,
    FailedTransaction,
    DanglingRoot,
    FoundHalfway,
    RunLength,
    OutOfRun,
    Misaligned,
    ShortGap,
    NotFree,
    StrayBytes,
    Growing,
    CheckNamesAll,
    Copies,
}

fn catcher(bug: Mutation) -> By {
    use Mutation::*;
    match bug {
        RepeatTag | RootsStayBehind | ReuseStaysListed | ShowOldContents | JoinLiveNeighbour => {
            By::Programs
        }
        LeaveNeighboursApart | KeepTail | LeavePrevLen | LeaveMovedBlock | LeakGap => By::Programs,
        FreeFirst | FillLater => By::PowerCuts,
        KeepAbsorbedHeader => By::JoinedNeighbours,
        IgnoreTag => By::GoneHandle,
        CountOn => By::Copies,
        ForgetRefusedTags => By::FailedTransaction,
        LetRootsDangle => By::DanglingRoot,
        TrustLinks | CommitHalf => By::FoundHalfway,
        BelieveRunLength => By::RunLength,
        BelieveRange => By::OutOfRun,
        BelieveAlignment => By::Misaligned,
        BelieveGap => By::ShortGap,
        BelieveFree => By::NotFree,
        OpenBelievesTheEnd | CheckBelievesTheEnd => By::StrayBytes,
        GrowBelievesTheEnd => By::Growing,
        CheckSkipsLists | CheckSkipsRoots | CheckSkipsCounters | CheckSkipsTags
        | CheckSkipsNeighbours => By::CheckNamesAll,
    }
}

/// Shows that `check` catches every bug that it is there for, and passes without one.
fn caught(by: By, check: impl Fn() -> Result<(), String> + Copy + RefUnwindSafe) {
    let bugs = Mutation::ALL.iter().copied().filter(|bug| catcher(*bug) == by);
    assert_eq!(check(), Ok(()), "{by:?}, without a bug");
    let mut count = 0;
    for bug in bugs {
        catches(&format!("{by:?}"), check, bug);
        count += 1;
    }
    assert!(count > 0, "{by:?} is there for no bug");
}

fn catches(by: &str, check: impl Fn() -> Result<(), String> + Copy + RefUnwindSafe, bug: Mutation) {
    let outcome = catch_unwind(|| bug.during(check));
    let violation = violation(outcome).unwrap_or_else(|| panic!("{bug:?} was not caught by {by}"));
    println!("{bug:?}: {by}: {violation}");
}

/// The same with a test that is there anyway.
fn caught_by_test(by: By, test: fn()) {
    caught(by, || {
        test();
        Ok(())
    });
}

/// Random programs: after each transaction the proof must hold, and the heap hold what the model
/// does.
fn programs() -> Result<(), String> {
    for seed in 0..20u64 {
        let mut driver = Driver::new(SimFs::new(), ALL[seed as usize % ALL.len()]);
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
    caught(By::Programs, programs);
}

/// Single operations, and the power fails within one.
fn power_cuts() -> Result<(), String> {
    let mut driver = Driver::new(SimFs::new(), SIZE_CLASS);
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
    explore(&driver, "single operations", 32, &mut Visited::default(), &check)
}

#[test]
fn what_belongs_together_is_one_commit() {
    caught(By::PowerCuts, power_cuts);
}

/// The header of a block that was joined with the free run before it is gone.
fn absorbed() -> Result<(), String> {
    let heap = open_at(&SimFs::new(), SIZE_CLASS).map_err(|e| chain(&e))?;
    let blocks = [(); 4].map(|()| heap.alloc(100));
    let [first, second, third, _last] = blocks.map(|block| block.map_err(|e| chain(&e)));
    let (first, second, third) = (first?, second?, third?);
    for block in [first, third, second] {
        heap.dealloc(block).map_err(|e| chain(&e))?;
    }
    match (heap.read(second), heap.read(third)) {
        (Err(_), Err(_)) => Ok(()),
        _ => Err("a handle is good whose block was freed".into()),
    }
}

#[test]
fn bugs_that_let_a_handle_live_too_long() {
    caught(By::JoinedNeighbours, absorbed);
    caught_by_test(By::GoneHandle, policies::a_handle_whose_block_is_gone_is_refused_for_ever);
    caught_by_test(
        By::FailedTransaction,
        policies::an_error_or_a_panic_in_a_transaction_changes_nothing,
    );
    caught_by_test(By::DanglingRoot, policies::no_root_dangles);
}

#[test]
fn bugs_that_take_a_copy_for_the_heap() {
    caught(By::Copies, histories::a_block_of_a_copy);
}

#[test]
fn bugs_that_follow_what_is_damaged() {
    caught_by_test(By::FoundHalfway, hostile::what_is_found_halfway_breaks_the_transaction);
}

#[test]
fn bugs_that_believe_a_policy() {
    caught_by_test(By::RunLength, own_policy::a_wrong_length_of_a_run_is_refused);
    caught_by_test(By::OutOfRun, own_policy::a_place_out_of_its_free_run_is_refused);
    caught_by_test(By::Misaligned, own_policy::a_place_where_no_run_can_start_is_refused);
    caught_by_test(
        By::ShortGap,
        own_policy::a_place_that_leaves_less_than_a_run_before_it_is_refused,
    );
    caught_by_test(By::NotFree, own_policy::what_is_not_free_is_no_place);
    // A policy that answers at random shows them, too.
    let programs = || lies::lies(0..4).map(drop);
    for bug in [Mutation::BelieveRunLength, Mutation::BelieveRange, Mutation::BelieveAlignment] {
        catches("a policy that lies", programs, bug);
    }
}

#[test]
fn bugs_that_take_the_end_of_the_stack_for_that_of_the_arena() {
    let stray_bytes = ends::stray_bytes_behind_the_arena_are_refused_and_named;
    caught_by_test(By::StrayBytes, stray_bytes);
    caught_by_test(By::Growing, ends::a_heap_does_not_grow_behind_stray_bytes);
}

#[test]
fn a_check_that_skips_something() {
    let test = hostile::the_check_names_everything_that_can_be_wrong_and_its_place;
    caught_by_test(By::CheckNamesAll, test);
}
