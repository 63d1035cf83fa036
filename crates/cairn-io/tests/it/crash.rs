//! guards: L02, L05, L08, L23, L25, L27, L47, L48
//!
//! Power cuts and failing system calls under the direct store and the atomic replace: whatever
//! subset of unsynced sectors, lengths and names survives, what was synced is there, and no byte is
//! there that was never written.

#![expect(clippy::print_stdout, reason = "the number of states says what was covered")]

use std::path::Path;

use cairn_io::{Backend, DirectStore, Fs, ReplaceState, replace_file};
use cairn_sim::{
    Call, CrashExplorer, Errno, Fault, FaultPlan, MetadataOrder, SimFs, SimOptions, Visited,
};
use cairn_trial::{
    Kind, Outcome, Step, Tally, every_fault, explore, explore_many, healthy, run,
    survives_every_failing_call,
};

const DIRECT: Kind = Kind {
    open: |sim| {
        let store = DirectStore::open(sim, Path::new("/store"))
            .map_err(|e| format!("does not open: {e:?}"))?;
        Ok(Box::new(store))
    },
    head_unit: 0,
    steps: DIRECT_STEPS,
};

/// Both ways of writing, before, after, beside and over each other, with and without a barrier in
/// between.
const DIRECT_STEPS: &[Step] = &[
    |d| d.write_blocks(0, 3),
    |d| d.append(700),
    // Over bytes that no barrier has covered, and bytes that a direct write made durable.
    |d| d.write_blocks(2, 2),
    |d| d.write(100, 900),
    |d| d.write_blocks(1, 1),
    |d| d.sync(),
    |d| d.write(600, 2000),
    |d| d.write_durable(5000, 1500),
    |d| d.truncate(2100),
    // Behind the end that the cut has left, which is not durable.
    |d| d.write_blocks(8, 2),
    |d| d.append(300),
    |d| d.sync(),
    |d| d.write(4000, 3000),
    |d| d.write_blocks(20, 1),
    |d| d.write_blocks(20, 4),
    |d| d.truncate(10_500),
    |d| d.sync(),
    |d| {
        d.close();
        d.open()
    },
    |d| d.append(2000),
    |d| d.recover(),
    |d| d.preallocate(12_000, 6000),
    |d| d.write_blocks(24, 6),
    |d| d.write_blocks(30, 6),
    |d| d.sync(),
    |d| d.write(100, 9000),
    |d| d.write_blocks(0, 2),
    |d| d.truncate_before(5000),
    |d| d.append(100),
    |d| d.sync(),
];

#[test]
fn no_power_cut_takes_back_what_a_direct_store_synced_or_wrote_durably() {
    let direct = run(DIRECT, healthy);
    assert_eq!(direct.store().backend(), Backend::Direct);
    assert!(direct.sim().counters().calls(Call::WriteDirect) >= 9, "the blocks took another way");
    explore_many(DIRECT, "direct");
}

#[test]
fn a_lying_barrier_under_a_direct_store_is_found() {
    // One direct write that is durable a step later only, and a fallback that forgets its barrier.
    const BLOCKS: usize = 4;
    let one_write = |step| match step {
        BLOCKS => FaultPlan::new().on(Call::WriteDirect, 0..1, Fault::Ignore),
        _ => FaultPlan::new(),
    };
    let fallback = |step| match step {
        BLOCKS => FaultPlan::new().fail(Call::WriteDirect, 0, Errno::Enotsup).on(
            Call::Sync,
            0..1,
            Fault::Ignore,
        ),
        _ => FaultPlan::new(),
    };
    let lies: [(&str, &dyn Fn(usize) -> FaultPlan); 4] = [
        ("bytes", &|_| FaultPlan::new().ignore_barriers()),
        ("direct", &|_| FaultPlan::new().on(Call::WriteDirect, 0..u64::MAX, Fault::Ignore)),
        ("one-write", &one_write),
        ("fallback", &fallback),
    ];
    for (lie, plan) in lies {
        let found = explore(&run(DIRECT, plan), lie, MetadataOrder::Free, &mut Visited::default());
        let why = found.expect_err(lie);
        println!("{lie}: {}", why.lines().next().unwrap_or_default());
    }
}

#[test]
fn a_direct_store_survives_every_failing_call() {
    survives_every_failing_call(DIRECT, 400);
}

const FILE: &str = "/dir/settings";

/// Contents of different lengths, shorter and longer than before, empty too.
fn contents() -> Vec<Vec<u8>> {
    [3000, 100, 0, 9000, 9000].iter().zip(1..).map(|(len, byte)| vec![byte; *len]).collect()
}

/// What may be at the path, `None` for no file, from each operation on.
type Versions = Vec<(usize, Vec<Option<Vec<u8>>>)>;

/// Replaces a file again and again. Where a call is under way, and after one that failed, two
/// contents are possible.
fn replace_all(sim: &SimFs) -> Result<Versions, String> {
    sim.create_dir(Path::new("/dir")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    let mut versions: Versions = vec![(sim.op_count(), vec![None])];
    for contents in contents() {
        let possible = versions.last().unwrap().1.clone();
        let old = sim.read_file(FILE).ok();
        let new = Some(contents.clone());
        let during: Vec<_> = possible.iter().cloned().chain([new.clone()]).collect();
        versions.push((sim.op_count(), during.clone()));
        let result = replace_file(sim, Path::new(FILE), &contents);
        let live = sim.read_file(FILE).ok();
        let expected = match &result {
            Ok(()) => vec![new.clone()],
            Err(e) => match e.state {
                ReplaceState::Old => possible,
                _ => during,
            },
        };
        let right = match result.as_ref().map_err(|e| e.state) {
            Ok(()) | Err(ReplaceState::NewUntilCrash) => live == new,
            Err(ReplaceState::Old) => live == old,
            Err(_) => live == new || live == old,
        };
        if !right {
            return Err(format!("{result:?}, and another file is there"));
        }
        versions.push((sim.op_count(), expected));
    }
    Ok(versions)
}

fn check_replaced(versions: &Versions, point: usize, sim: &SimFs) -> Outcome {
    let found = sim.read_file(FILE).ok();
    let last = versions.partition_point(|(at, _)| *at <= point);
    // Several entries at one point: the call before it, and the call after it, which has done
    // nothing yet.
    let possible: Vec<_> = versions[..last]
        .iter()
        .rev()
        .take(1)
        .chain(versions[..last].iter().filter(|(at, _)| *at == point))
        .flat_map(|(_, possible)| possible)
        .collect();
    if last > 0 && !possible.contains(&&found) {
        let shown = |file: &Option<Vec<u8>>| {
            file.as_ref().map(|bytes| (bytes.len(), bytes.first().copied()))
        };
        return Err(format!(
            "{:?} found, possible {:?}",
            shown(&found),
            possible.into_iter().map(shown).collect::<Vec<_>>()
        ));
    }
    if last > 0 {
        // Whatever is left over is in nobody's way.
        replace_file(sim, Path::new(FILE), b"next")
            .map_err(|e| format!("cannot be replaced again: {e}"))?;
        let names = sim.list(Path::new("/dir")).map_err(|e| e.to_string())?;
        if sim.read_file(FILE).ok().as_deref() != Some(b"next") || names.len() != 1 {
            return Err(format!("replaced again, and {names:?} are there"));
        }
    }
    Ok(())
}

fn explore_replaced(sim: &SimFs, versions: &Versions, order: MetadataOrder) -> Result<u64, String> {
    let explorer = CrashExplorer::new(sim.trace()).metadata_order(order).samples_per_point(128);
    let report = explorer.for_each(|state| check_replaced(versions, state.point(), &state.fs()));
    report.map(|report| report.distinct).map_err(|failure| failure.to_string())
}

#[test]
fn a_replaced_file_is_old_or_new_after_any_power_cut() {
    let sim = SimFs::new();
    let versions = replace_all(&sim).unwrap();
    let states: u64 = [MetadataOrder::Free, MetadataOrder::Ordered]
        .map(|order| explore_replaced(&sim, &versions, order).unwrap())
        .iter()
        .sum();
    println!("{states} distinct states");
    assert!(states > 300);
}

#[test]
fn a_lying_barrier_under_a_replaced_file_is_found() {
    for (lie, plan) in [
        ("bytes", FaultPlan::new().ignore_barriers()),
        ("names", FaultPlan::new().ignore_dir_syncs()),
    ] {
        let sim = SimFs::new();
        sim.set_faults(plan);
        let versions = replace_all(&sim).unwrap();
        let why = explore_replaced(&sim, &versions, MetadataOrder::Free).expect_err(lie);
        println!("{lie}: {}", why.lines().next().unwrap_or_default());
    }
}

#[test]
fn a_replace_says_the_truth_about_every_failing_call() {
    let run = |call, nth: u64, fault, failed, tally: &mut Tally| {
        let sim = SimFs::with_options(SimOptions::new().failed_sync(failed));
        // The directory's creation and its barrier are not the subject.
        let skipped = u64::from(matches!(call, Call::CreateDir | Call::OpenDir | Call::SyncDir));
        let nth = nth + skipped;
        sim.set_faults(FaultPlan::new().on(call, nth..nth + 1, fault));
        let versions = replace_all(&sim)?;
        if sim.counters().faults == 0 {
            return Ok(false);
        }
        tally.faults += 1;
        tally.failed_calls += u64::from(versions.iter().any(|(_, possible)| possible.len() > 1));
        tally.states += explore_replaced(&sim, &versions, MetadataOrder::Free)?;
        Ok(true)
    };
    let Tally { faults, states, .. } = every_fault(run);
    println!("{faults} faults, {states} crash states around them");
    assert!(faults > 100 && states > 1000);
}
