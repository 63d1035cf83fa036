//! The explorer: every state can be had again, the extremes are never missed, a failure says how to
//! repeat it.

use std::collections::HashSet;
use std::path::Path;

use cairn_io::Fs;
use cairn_sim::{CrashExplorer, CrashState, MetadataOrder, SimFs, SimOptions, Torn};

use crate::{create, open, replace, write};

/// A few files, synced now and then.
fn workload(seed: u64) -> SimFs {
    let sim = SimFs::with_options(SimOptions::new().seed(seed));
    sim.create_dir(Path::new("/d")).unwrap();
    for i in 0..4u8 {
        let file = sim.create_new(Path::new(&format!("/d/tmp{i}"))).unwrap();
        for j in 0..6u8 {
            write(&file, u64::from(j) * 700, &[i * 16 + j + 1; 1000]);
            if j % 3 == i {
                file.sync_data().unwrap();
            }
        }
        file.set_len(3000).unwrap();
        replace(&sim, &format!("/d/tmp{i}"), &format!("/d/f{i}")).unwrap();
        if i == 1 {
            sim.sync_dir(Path::new("/d")).unwrap();
            sim.sync_dir(Path::new("/")).unwrap();
        }
    }
    sim.remove(Path::new("/d/f0")).unwrap();
    sim
}

fn all(explorer: &CrashExplorer) -> Vec<CrashState> {
    let mut states = Vec::new();
    let report = explorer.for_each(|state| {
        states.push(state.clone());
        Ok::<(), String>(())
    });
    assert_eq!(report.unwrap().states, states.len() as u64);
    states
}

#[test]
fn replay_reproduces_every_state() {
    for order in [MetadataOrder::Free, MetadataOrder::Ordered] {
        for torn in [Torn::Versions, Torn::Garbage] {
            let explorer =
                CrashExplorer::new(workload(1).trace()).metadata_order(order).torn(torn).seed(9);
            for state in all(&explorer).iter().step_by(7) {
                let again = explorer.replay(state.point(), state.id());
                assert_eq!(again.fingerprint(), state.fingerprint());
                assert_eq!(again.to_string(), state.to_string());
                assert_eq!(again.fs().fingerprint(), state.fingerprint());
            }
        }
    }
}

#[test]
fn same_calls_give_the_same_trace_and_states() {
    let runs = [workload(3), workload(3)];
    assert_eq!(runs[0].trace().to_string(), runs[1].trace().to_string());
    assert_eq!(runs[0].random().unwrap(), runs[1].random().unwrap());
    assert_eq!(runs[0].now(), runs[1].now());
    let states = runs.map(|sim| {
        let states = all(&CrashExplorer::new(sim.trace()).seed(5));
        states
            .iter()
            .map(|state| (state.point(), state.id(), state.fingerprint()))
            .collect::<Vec<_>>()
    });
    assert_eq!(states[0], states[1]);
    let other = all(&CrashExplorer::new(workload(3).trace()).seed(6));
    assert_ne!(
        states[0],
        other.iter().map(|s| (s.point(), s.id(), s.fingerprint())).collect::<Vec<_>>()
    );
}

#[test]
fn sampled_states_are_among_the_exhaustive_ones() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, &[1; 1500]);
    file.sync_data().unwrap();
    write(&file, 300, &[2; 1500]);
    replace(&sim, "/f", "/g").unwrap();
    let explorer = CrashExplorer::new(sim.trace());
    let fingerprints = |explorer: &CrashExplorer| -> HashSet<_> {
        all(explorer).iter().map(|state| (state.point(), state.fingerprint())).collect()
    };
    let exhaustive = fingerprints(&explorer.clone().exhaustive_limit(1 << 20));
    let sampled = fingerprints(&explorer.exhaustive_limit(1).samples_per_point(4000));
    assert_eq!(sampled, exhaustive, "and enough samples find them all");
}

#[test]
fn extremes_are_always_visited() {
    let sim = SimFs::new();
    sim.write_file("/f", [0; 64 * 512]).unwrap();
    write(&open(&sim, "/f"), 0, &[1; 64 * 512]);
    let explorer = CrashExplorer::new(sim.trace()).samples_per_point(16).points(2..=2);
    let landed: Vec<usize> = all(&explorer)
        .iter()
        .map(|state| {
            state.fs().read_file("/f").unwrap().chunks(512).filter(|sector| sector[0] == 1).count()
        })
        .collect();
    for count in [0, 1, 63, 64] {
        assert!(landed.contains(&count), "{count} sectors in {landed:?}");
    }
}

#[test]
fn states_of_a_fully_synced_trace_are_one_at_each_point_after_the_barriers() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, b"x");
    file.sync_data().unwrap();
    let end = sim.op_count();
    assert_eq!(all(&CrashExplorer::new(sim.trace()).points(end..=end)).len(), 1);
}

#[test]
fn failure_says_which_state_and_how_to_repeat_it() {
    let sim = workload(1);
    let explorer = CrashExplorer::new(sim.trace()).seed(7);
    let bad = |state: &CrashState| match state.fs().read_file("/d/f2") {
        Ok(bytes) if bytes.len() == 3000 => Err("found it"),
        _ => Ok(()),
    };
    let failure = explorer.for_each(bad).unwrap_err();
    assert_eq!((failure.message.as_str(), failure.seed), ("found it", 7));
    let text = failure.to_string();
    assert!(text.contains(&format!("CAIRN_SIM_REPLAY={}:{}", failure.point, failure.id)), "{text}");
    assert!(text.contains("length 3000"), "{text}");
    assert!(bad(&explorer.replay(failure.point, failure.id)).is_err());
}

/// Says something only when the next test runs it, in a process of its own with the variable set.
#[test]
fn child_with_environment_variable() {
    if std::env::var(cairn_sim::REPLAY_VARIABLE).is_err() {
        return;
    }
    let explorer = CrashExplorer::new(workload(1).trace());
    let visited = |label: &str| {
        let states = all(&explorer.clone().label(label));
        states.iter().map(|state| (state.point(), state.id())).collect::<Vec<_>>()
    };
    assert_eq!(visited(""), [(5, 1)]);
    assert_eq!(visited("inner"), [(7, 2)]);
    assert!(visited("other").len() > 100);
}

#[test]
fn environment_variable_picks_one_state() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "explorer::child_with_environment_variable"])
        .env(cairn_sim::REPLAY_VARIABLE, "5:1,inner@7:2")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn panic_in_a_check_is_reported_with_its_state() {
    let sim = workload(1);
    let failure = CrashExplorer::new(sim.trace())
        .for_each(|state| -> Result<(), String> {
            assert!(state.point() < 3, "too far");
            Ok(())
        })
        .unwrap_err();
    assert_eq!((failure.message.as_str(), failure.point), ("panicked: too far", 3));
}

#[test]
fn recovery_can_be_crashed_again() {
    let sim = workload(1);
    let explorer = CrashExplorer::new(sim.trace()).samples_per_point(8).exhaustive_limit(8);
    let mut inner_states = 0;
    for state in all(&explorer).iter().step_by(11) {
        let recovering = state.fs();
        recovering.write_file("/marker", b"old").unwrap();
        let file = open(&recovering, "/marker");
        write(&file, 0, b"new");
        file.sync_data().unwrap();
        let inner = all(&CrashExplorer::new(recovering.trace()));
        assert_eq!(
            inner[0].fingerprint(),
            state.fingerprint(),
            "the inner trace begins where the outer ended"
        );
        inner_states += inner.len();
    }
    assert!(inner_states > 100);
}

#[test]
fn failing_state_is_shrunk_to_what_matters() {
    let sim = SimFs::new();
    sim.write_file("/f", vec![0; 8 * 512]).unwrap();
    let file = crate::open(&sim, "/f");
    crate::write(&file, 0, &[1; 8 * 512]);
    // Wrong whenever sector 5 is missing, whatever else is.
    let now = sim.op_count();
    let failure = CrashExplorer::new(sim.trace())
        .points(now..=now)
        .for_each(|state| match state.fs().read_file("/f").unwrap()[5 * 512] {
            0 => Err("sector 5 is missing"),
            _ => Ok(()),
        })
        .unwrap_err();
    let (_, smallest) =
        failure.state.split_once("still wrong when all but this is the newest:").unwrap();
    let missing = smallest.lines().find(|line| line.contains("did not land")).unwrap();
    assert_eq!(missing.split_once(": ").unwrap().1.trim(), "5", "{smallest}");
}
