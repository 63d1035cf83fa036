//! The catalogue of deliberate bugs, against seeds alone: the workloads know of none of them.

use cairn_log::Mutation;
use cairn_sim::{Faults, Simulation, Sought, seek_bugs};

use crate::scripts::{Logs, Style};

/// Runs of each simulation within which a bug is found.
const RUNS: u64 = 300;

/// Bugs that show when bytes are damaged, or in files of megabytes: no simulation does that. And
/// those that show around a log, in a way that no seed of these met. All of them are caught by
/// `tests/it/mutations.rs`.
const NOT_SOUGHT: &[Mutation] = &[
    Mutation::UnboundGeneration,
    Mutation::UnboundPosition,
    Mutation::PlainPosition,
    Mutation::FailedReadIsTheEnd,
    Mutation::GuessNumbers,
    Mutation::TrustLength,
    Mutation::TrustEmptySuccessor,
    // What more runs find: seeds from 0 on met them in the runs that docs/evidence.md names.
    Mutation::RemoveStrangers,
    Mutation::EndBeforeSeal,
    Mutation::TrustFailedRename,
    // What only a full disk shows.
    Mutation::SpendReserve,
    Mutation::KeepSuperfluous,
    Mutation::KeepSuperseded,
    // What a file of another history shows, or one that somebody removed.
    Mutation::StaleEpoch,
    Mutation::UnboundEpoch,
    Mutation::UnchainedSegments,
    Mutation::UnchainedGroups,
    Mutation::ForgetCutOpenings,
    Mutation::BelieveAnyCutter,
    Mutation::BelieveBelowState,
    Mutation::SkipLongSeals,
    Mutation::CutUnstated,
    // What damage between two recoveries shows.
    Mutation::ForgetCutter,
    Mutation::TrustAbsence,
    // What only a repair shows.
    Mutation::NameBeforeGaps,
    // What only holds show.
    Mutation::IgnoreHolds,
    // What a clock that jumps shows.
    Mutation::TrustClock,
    Mutation::TrustEachMoment,
    // What goes on around a log.
    Mutation::KeepLock,
    Mutation::TrustName,
    Mutation::IgnoreFork,
    Mutation::ReplaceNames,
    Mutation::RecycleLinked,
    Mutation::TrimLinked,
];

/// The simulations that look for a bug, the one that is most likely to find it first.
fn simulations(bug: Mutation) -> Vec<(&'static str, Simulation<Logs>)> {
    let of = |style| {
        Simulation::new(Logs(style)).budget(RUNS).steer(false).known(crate::known::is_known)
    };
    let mut all = vec![
        ("directory", of(Style::Directory)),
        ("faults", of(Style::Directory).faults(Faults::Seeded)),
        ("no threads of its own", of(Style::Inline)),
        ("cuts of the end", of(Style::Cutting)),
        ("zeros ahead", of(Style::Ahead)),
        ("failing barriers", of(Style::Closing).faults(Faults::Barriers)),
        ("failing writes", of(Style::Directory).faults(Faults::Writes)),
        ("store", of(Style::Store)),
        ("cuts", of(Style::Plain).cuts(30)),
    ];
    let likely = match bug {
        Mutation::RetryFailedSync => "faults",
        Mutation::IgnoreFailedWrite => "failing writes",
        Mutation::PrepareTwice => "no threads of its own",
        Mutation::ForgetEarlierCuts => "cuts of the end",
        Mutation::ZeroUnderWriters => "zeros ahead",
        Mutation::TrustMark => "failing barriers",
        _ => "directory",
    };
    all.sort_by_key(|(name, _)| *name != likely);
    all
}

/// Seeks every other bug, so that two threads share the work.
fn seek(half: usize) {
    let sought = Mutation::ALL.iter().filter(|bug| !NOT_SOUGHT.contains(bug));
    let Sought { found, missed } =
        seek_bugs(sought.skip(half).step_by(2).copied(), simulations, |bug, look| bug.during(look));
    println!("{}", found.join("\n"));
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn seeds_find_one_half_of_the_catalogue() {
    seek(0);
}

#[test]
fn seeds_find_the_other_half() {
    seek(1);
}

/// Threads show nothing while the power stays, and one thread nothing when it fails.
#[test]
fn what_is_in_flight_needs_a_schedule_and_a_crash_to_show() {
    let of = |style| Simulation::new(Logs(style)).runs(100).steer(false);
    let without = [of(Style::Three).cuts(0), of(Style::Closing)];
    for bug in [Mutation::TrustFlight, Mutation::WatermarkInFlight] {
        bug.during(|| {
            let found = without.iter().find_map(|simulation| simulation.first_failure());
            assert_eq!(found, None, "{bug:?}");
            let (run, broken) = of(Style::Three).first_failure().expect("it shows with both");
            println!("{bug:?}: run {run}: {}", broken.property);
        });
    }
}
