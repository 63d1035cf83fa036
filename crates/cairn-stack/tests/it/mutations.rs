//! guards: L02 L05 L08 L26 L27 L29 L47 L50 L51 L53
//!
//! The mutation catalogue: deliberate bugs, one at a time, and the test that catches each. A test
//! that cannot fail proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cairn_sim::{
    Call, Chooser, CrashExplorer, Errno, FailedSync, Fault, FaultPlan, MetadataOrder, SimFs,
    SimOptions, Torn, Visited,
};
use cairn_stack::{Durability, Error, Mutation, Stack};

use crate::crash::{Effort, LARGE, explore, run, tiny, workload};
use crate::histories::a_header_of_a_copy;
use crate::model::{Change, Driver, PATH, SIZES, Sizes, chain, check_state};
use crate::surroundings::{
    files_are_still_open, lock_file_removed, moved_and_begun_anew, used_in_a_child,
};

/// The first line of a panic or an error.
fn violation(outcome: std::thread::Result<Result<(), String>>) -> Option<String> {
    let text = match outcome {
        Ok(Ok(())) => return None,
        Ok(Err(violation)) => violation,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()),
        },
    };
    Some(text.lines().next().unwrap_or_default().to_owned())
}

const EFFORT: Effort = Effort { exhaustive: 256, samples: 96 };

/// Explores workloads, made with or without a bug, until a violation is found.
fn caught(name: &str, bug: Option<Mutation>, make: impl Fn(u64) -> Driver) {
    let mut visited = Visited::default();
    for seed in 1..40 {
        let explored = AssertUnwindSafe(|| {
            let driver = make(seed);
            explore(&driver, name, (Torn::Versions, MetadataOrder::Free), EFFORT, &mut visited)
        });
        let outcome = catch_unwind(|| match bug {
            Some(bug) => bug.during(explored),
            None => explored(),
        });
        if let Some(violation) = violation(outcome) {
            println!(
                "{name}: crash exploration, {} states of {seed} workloads: {violation}",
                visited.states()
            );
            return;
        }
    }
    panic!("{name} was not caught in {} states", visited.states());
}

/// Shows that `check` passes, and fails with the bug.
fn seen(bug: Mutation, layer: &str, check: impl Fn() -> Result<(), String>) {
    assert_eq!(check(), Ok(()), "without {bug:?}");
    let outcome = catch_unwind(AssertUnwindSafe(|| bug.during(&check)));
    let violation = violation(outcome).unwrap_or_else(|| panic!("{bug:?} was not caught"));
    println!("{bug:?}: {layer}: {violation}");
}

#[test]
fn barriers_that_do_nothing() {
    let with = |seed, faults: FaultPlan| {
        let sim = SimFs::with_options(SimOptions::new().seed(seed));
        let mut driver = Driver::new(sim, tiny().direct_io(true), Durability::Operation);
        driver.sim.set_faults(faults);
        driver.open().unwrap();
        for n in 0..10 {
            driver.change(&Change::Push(vec![n + 1; 700])).unwrap();
        }
        driver
    };
    caught("skipped barriers", None, |seed| with(seed, FaultPlan::new().ignore_barriers()));
    let direct = FaultPlan::new().on(Call::WriteDirect, 0..u64::MAX, Fault::Ignore);
    caught("direct writes that are none", None, |seed| with(seed, direct.clone()));
    caught("skipped directory barriers", None, |seed| {
        with(seed, FaultPlan::new().ignore_dir_syncs())
    });
}

/// Bugs that any workload of everything shows when it is cut off somewhere.
#[test]
fn bugs_that_a_power_cut_shows() {
    for bug in [
        Mutation::TrustLength,
        Mutation::WriteInPlaceAtOnce,
        Mutation::SkipReplay,
        Mutation::SkipPreviousReplay,
        Mutation::ApplyTooLate,
        Mutation::OneSlot,
        Mutation::TrustOldBytes,
        Mutation::DirectOverUnsynced,
        Mutation::AcknowledgeBeforeBarrier,
    ] {
        caught(&format!("{bug:?}"), Some(bug), |seed| run(seed, 40, SIZES));
    }
}

#[test]
fn a_barrier_that_takes_back_what_returned() {
    let check = crate::faults::a_barrier_that_cannot_be_had;
    seen(Mutation::DropReturned, "a barrier that cannot be had", check);
}

/// A commit with a large body, and then one that grows over it.
#[test]
fn a_body_behind_the_payload_that_is_overwritten() {
    let bug = Mutation::SkipSettle;
    caught(&format!("{bug:?}"), Some(bug), |seed| run(seed * 7, 12, LARGE));
}

/// The barrier of an operation fails, the process ends and another one opens the stack in the same
/// boot; then the power fails.
fn after_a_failed_barrier(
    barrier: Call,
    mode: FailedSync,
    evict: bool,
    change: &Change,
) -> Result<(), String> {
    for nth in 0..3 {
        let sim = SimFs::with_options(SimOptions::new().failed_sync(mode));
        let mut driver =
            Driver::new(sim, tiny().direct_io(barrier == Call::WriteDirect), Durability::Operation);
        driver.open().map_err(|e| chain(&e))?;
        driver.change(&Change::Push(vec![1; 3000])).map_err(|e| chain(&e))?;
        driver.change(&Change::Set(100, vec![2; 1200])).map_err(|e| chain(&e))?;
        driver.sim.set_faults(FaultPlan::new().fail(barrier, nth, Errno::Eio));
        for n in 0..=nth {
            let mut after = driver.model.clone();
            change.on_model(&mut after);
            match change.on_stack(driver.stack(), &driver.model) {
                Ok(()) => {
                    driver.model = after;
                    driver.returned();
                }
                Err(Error::InDoubt { .. }) if n == nth => driver.doubt(after),
                Err(e) => return Err(format!("barrier {nth}: {}", chain(&e))),
            }
        }
        driver.die();
        if evict {
            driver.sim.evict();
        }
        driver.open_whatever_is_there()?;
        // Opening has decided which operations took place.
        let opened = driver.sim.op_count();
        let explorer =
            CrashExplorer::new(driver.sim.trace()).exhaustive_limit(4096).samples_per_point(400);
        let report = explorer
            .points(opened..=opened)
            .for_each(|state| check_state(&driver, opened, &state.fs()));
        report.map_err(|failure| failure.to_string())?;
    }
    Ok(())
}

fn after_failed_barriers() -> Result<(), String> {
    let large = [Change::Push(vec![3; 1500]), Change::Set(1000, vec![4; 1500])];
    let small = [
        Change::Push(vec![3; 500]),
        Change::Set(1000, vec![4; 300]),
        Change::Discard(1),
        Change::Zero(1..900),
    ];
    let direct = small.iter().map(|change| (Call::WriteDirect, change));
    for (barrier, change) in
        large.iter().chain(&small).map(|change| (Call::Sync, change)).chain(direct)
    {
        for (mode, evict) in [
            (FailedSync::Old, false),
            (FailedSync::Old, true),
            (FailedSync::Persisted, false),
            (FailedSync::Persisted, true),
        ] {
            after_a_failed_barrier(barrier, mode, evict, change)
                .map_err(|e| format!("{barrier:?} {change:?} {mode:?} {evict}: {e}"))?;
        }
    }
    Ok(())
}

/// guards: L02 L51 L52 L53
#[test]
fn what_is_read_after_a_failed_barrier_is_made_durable_by_opening() {
    seen(Mutation::TrustPageCache, "failed barriers, then power cuts", after_failed_barriers);
}

/// A transaction is cut off and dropped by opening; then the same bytes are pushed alone, and the
/// power fails again.
fn part_of_a_dropped_transaction_is_repeated() -> Result<(), String> {
    let open = |sim: &SimFs| {
        Stack::options().reserve(0).fs(Arc::new(sim.clone())).open(PATH).map_err(|e| chain(&e))
    };
    let sim = SimFs::new();
    let (before, pushed) = (vec![1; 2000], vec![2; 4500]);
    let after = [&before[..], &pushed].concat();
    let stack = open(&sim)?;
    stack.push(&before).map_err(|e| chain(&e))?;
    let began = sim.op_count();
    let transaction = stack.transaction(|tx| {
        tx.set(0, [9; 10])?;
        tx.push(&pushed)
    });
    transaction.map_err(|e| chain(&e))?;
    let explorer =
        CrashExplorer::new(sim.trace()).points(began + 1..=sim.op_count()).samples_per_point(200);
    let explored = explorer.for_each(|state| {
        let sim = state.fs();
        let stack = open(&sim)?;
        if stack.peek(0).map_err(|e| chain(&e))? != before {
            return Ok(());
        }
        let began = sim.op_count();
        stack.push(&pushed).map_err(|e| chain(&e))?;
        let again = CrashExplorer::new(sim.trace())
            .label("again")
            .points(began..=sim.op_count())
            .samples_per_point(64);
        let explored = again.for_each(|state| {
            let found = open(&state.fs())?.peek(0).map_err(|e| chain(&e))?;
            if found == before || found == after { Ok(()) } else { Err("a third state".to_owned()) }
        });
        explored.map(drop).map_err(|failure| failure.to_string())
    });
    explored.map(drop).map_err(|failure| failure.to_string())
}

/// guards: L16 L30
#[test]
fn a_dropped_commit_does_not_come_back() {
    seen(Mutation::LeaveOtherSlot, "power cuts, twice", part_of_a_dropped_transaction_is_repeated);
}

/// The process dies after writing everything of a commit and before its barrier; its successor
/// opens; the power fails in between.
fn cut_while_opening_after_a_death() -> Result<(), String> {
    for seed in 1..12 {
        for at in 30.. {
            let mut driver = Driver::new(
                SimFs::with_options(SimOptions::new().seed(seed)),
                tiny(),
                Durability::Operation,
            );
            driver.sim.kill_at(at);
            if workload(&mut driver, seed, 6, Sizes { small: 900, ..SIZES }).is_ok()
                && !driver.sim.is_dead()
            {
                break;
            }
            // The operation under way may have taken place: the next opening decides.
            driver.die();
            let died = driver.sim.op_count();
            let Ok(stack) = Stack::options().fs(Arc::new(driver.sim.clone())).open(PATH) else {
                continue;
            };
            let found = stack.peek(0).map_err(|e| chain(&e))?;
            if driver.accepts(usize::MAX - 1, &found).is_err() {
                driver.doubt(found);
            }
            let explorer =
                CrashExplorer::new(driver.sim.trace()).exhaustive_limit(256).samples_per_point(64);
            let report = explorer
                .points(died..=driver.sim.op_count())
                .for_each(|state| check_state(&driver, died, &state.fs()));
            report.map_err(|failure| failure.to_string())?;
        }
    }
    Ok(())
}

#[test]
fn opening_writes_in_place_only_what_is_certain() {
    seen(
        Mutation::ReplayBeforeBarrier,
        "kills, then power cuts while opening",
        cut_while_opening_after_a_death,
    );
}

/// guards: L08
#[test]
fn a_failed_write_is_noticed() {
    seen(Mutation::IgnoreFailedWrite, "faults", || {
        let sim = SimFs::new();
        let stack = Stack::options()
            .reserve(0)
            .fs(Arc::new(sim.clone()))
            .open(PATH)
            .map_err(|e| chain(&e))?;
        stack.push([1; 3000]).map_err(|e| chain(&e))?;
        sim.set_faults(FaultPlan::new().fail(Call::Write, 0, Errno::Eio));
        match stack.push([2; 3000]) {
            Err(Error::Io { .. }) => {}
            other => return Err(format!("{other:?}")),
        }
        stack.push([3; 3000]).map_err(|e| chain(&e))?;
        let found = sim.power_cut(&mut Chooser::everything());
        let stack = Stack::options().fs(Arc::new(found)).open(PATH).map_err(|e| chain(&e))?;
        if stack.peek(3000).map_err(|e| chain(&e))? == [3; 3000] {
            Ok(())
        } else {
            Err("a hole".into())
        }
    });
}

/// guards: L26
#[test]
fn two_handles_at_once() {
    seen(Mutation::IgnoreLock, "two openers", || {
        let sim = SimFs::new();
        let _first =
            Stack::options().fs(Arc::new(sim.clone())).open(PATH).map_err(|e| chain(&e))?;
        match Stack::options().fs(Arc::new(sim)).open(PATH) {
            Err(Error::Locked { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Each bug with the check that passes without it.
#[test]
fn bugs_that_what_goes_on_around_a_stack_shows() {
    let layer = "a stack's surroundings";
    seen(Mutation::TrustName, layer, moved_and_begun_anew);
    seen(Mutation::IgnoreLock, layer, lock_file_removed);
    seen(Mutation::KeepLock, layer, files_are_still_open);
    seen(Mutation::IgnoreFork, layer, used_in_a_child);
}

#[test]
fn a_predecessor_that_is_not_compared() {
    seen(Mutation::IgnorePredecessor, "copies that went their own way", a_header_of_a_copy);
}

/// guards: L05
#[test]
fn a_name_that_is_believed_because_it_can_be_listed() {
    seen(Mutation::TrustListedName, "kills, then power cuts", || {
        for at in 0..12 {
            let mut driver = Driver::new(SimFs::new(), tiny(), Durability::Operation);
            driver.sim.kill_at(at);
            let _ = driver.open();
            driver.stack = None;
            driver.die();
            driver.open_whatever_is_there()?;
            driver.change(&Change::Push(vec![1; 10])).map_err(|e| chain(&e))?;
            let point = driver.sim.op_count();
            let explorer = CrashExplorer::new(driver.sim.trace()).points(point..=point);
            let report = explorer.for_each(|state| check_state(&driver, point, &state.fs()));
            report.map_err(|failure| failure.message)?;
        }
        Ok(())
    });
}

/// The system grants a part of the space, and then says that there is no more.
#[test]
fn a_refused_push_that_keeps_the_space_it_was_granted() {
    let refused = |pushed: usize| {
        let sim = SimFs::new();
        let stack = tiny().fs(Arc::new(sim.clone())).open(PATH).unwrap();
        stack.push("kept").unwrap();
        let len = || sim.files().into_iter().map(|(_, len)| len).sum::<u64>();
        let before = len();
        let partly = Fault::FailAfter(0, Errno::Enospc);
        sim.set_faults(FaultPlan::new().on(Call::Allocate, 0..u64::MAX, partly));
        let error = stack.push(vec![7; pushed]).unwrap_err();
        if error.kind() != cairn_stack::ErrorKind::Space {
            return Err(chain(&error));
        }
        sim.set_faults(FaultPlan::new());
        if len() > before {
            return Err(format!("{before} bytes before, {} after a refused push", len()));
        }
        stack.push("after").unwrap();
        stack.close().map_err(|e| chain(&e))?;
        let stack = tiny().fs(Arc::new(sim)).open(PATH).unwrap();
        match stack.len() {
            9 => Ok(()),
            found => Err(format!("{found} bytes")),
        }
    };
    let all = || [300_000, 3_000_000].into_iter().try_for_each(refused);
    seen(Mutation::KeepRefusedSpace, "space", all);
}
