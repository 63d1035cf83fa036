//! guards: L02, L04, L05, L08, L17, L23, L25, L27, L47, L48
//!
//! Power cuts and failing system calls under the segmented store: whatever subset of unsynced
//! sectors, lengths and names survives, what was synced is there, and no byte is there that was
//! never written.

#![expect(clippy::print_stdout, reason = "the number of states says what was covered")]

use std::path::Path;
use std::sync::Arc;

use cairn_segmented::SegmentedOptions;
use cairn_sim::{Call, CrashExplorer, Fault, FaultPlan, MetadataOrder, Torn, Visited};
use cairn_trial::{
    Image, Kind, Step, explore, explore_many, healthy, run, survives_every_failing_call,
};

/// Payload of a file: as small as it can be, so that few writes fill many files.
const SEGMENT: u64 = 4096;

const SEGMENTED: Kind = Kind {
    open: |sim| {
        let options = SegmentedOptions::new().segment_size_bytes(SEGMENT).open_files_max(2);
        let store = options.open(Arc::new(sim.clone()), Path::new("/store"));
        Ok(Box::new(store.map_err(|e| format!("does not open: {e:?}"))?))
    },
    head_unit: SEGMENT,
    steps: SEGMENTED_STEPS,
};

/// Every operation, in places that matter: over file boundaries, in earlier files, behind the end,
/// around barriers.
const SEGMENTED_STEPS: &[Step] = &[
    |d| d.append(1000),
    |d| d.sync(),
    |d| d.append(6000),
    |d| d.append(700),
    // A late write to the first file, when others were written since (L04).
    |d| d.write(500, 900),
    |d| d.sync(),
    |d| d.write(3000, 2500),
    |d| d.truncate(5000),
    |d| d.append(300),
    |d| d.sync(),
    |d| d.append(9000),
    |d| d.truncate(8192),
    |d| d.sync(),
    |d| d.write(9000, 100),
    |d| d.sync(),
    // Far behind the end: files nobody wrote to.
    |d| d.write(21_000, 700),
    |d| d.write(100, 50),
    |d| d.sync(),
    |d| d.truncate_before(9500),
    |d| d.write(12_000, 600),
    |d| d.write_durable(13_000, 1500),
    |d| d.truncate(17_000),
    |d| d.append(400),
    |d| d.sync(),
    |d| {
        d.close();
        d.open()
    },
    |d| d.append(2000),
    |d| d.recover(),
    |d| d.write_durable(19_000, 2600),
    |d| d.preallocate(24_000, 3000),
    |d| d.write(24_500, 800),
    |d| d.sync(),
    |d| d.truncate_before(20_000),
    |d| d.truncate(16_384),
    |d| d.append(5000),
    |d| d.sync(),
];

#[test]
fn no_power_cut_takes_back_what_a_segmented_store_synced() {
    explore_many(SEGMENTED, "store");
}

/// Garbage is what nobody wrote, so what was in flight cannot be judged; what was not, can, and the
/// store opens.
#[test]
fn garbage_in_flight_does_not_keep_a_segmented_store_from_opening() {
    let explorer = CrashExplorer::new(run(SEGMENTED, healthy).sim().trace()).torn(Torn::Garbage);
    let report =
        explorer.for_each(|state| Image::of(&*(SEGMENTED.open)(&state.fs())?).map(drop)).unwrap();
    println!("{} distinct states", report.distinct);
    assert!(report.distinct > 500);
}

#[test]
fn a_lying_barrier_under_a_segmented_store_is_found() {
    // The barrier of one file alone, of those that the step's sync covers: of the first one, which
    // was written to late (L04).
    const LATE_WRITE: usize = 4;
    let one_file = |step| match step {
        s if s == LATE_WRITE + 1 => FaultPlan::new().on(Call::Sync, 0..1, Fault::Ignore),
        _ => FaultPlan::new(),
    };
    let lies: [(&str, &dyn Fn(usize) -> FaultPlan); 3] = [
        ("bytes", &|_| FaultPlan::new().ignore_barriers()),
        ("names", &|_| FaultPlan::new().ignore_dir_syncs()),
        ("one-file", &one_file),
    ];
    for (lie, plan) in lies {
        let found =
            explore(&run(SEGMENTED, plan), lie, MetadataOrder::Free, &mut Visited::default());
        let why = found.expect_err(lie);
        println!("{lie}: {}", why.lines().next().unwrap_or_default());
    }
}

#[test]
fn a_segmented_store_survives_every_failing_call() {
    survives_every_failing_call(SEGMENTED, 500);
}
