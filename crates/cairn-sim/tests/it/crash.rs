//! What a power cut can and cannot do. Guards against a simulator that is a stub (L50) or that only
//! kills processes (L47).

use std::path::{Path, PathBuf};

use cairn_io::Fs;
use cairn_sim::{Call, Chooser, CrashExplorer, MetadataOrder, SectorSize, SimFs, SimOptions, Torn};

use crate::{create, last_states, open, outcomes, replace, write};

#[test]
fn unsynced_write_may_vanish() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, b"new");
    let found = outcomes(&sim, "/f");
    assert!(found.contains(&Some(vec![])), "nothing landed");
    assert!(found.contains(&Some(b"new".to_vec())), "everything landed");
    assert!(found.contains(&Some(vec![0; 3])), "the length landed, the bytes did not");
    assert_eq!(found.len(), 3);
}

#[test]
fn synced_write_always_survives() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, &[7; 5000]);
    file.sync_data().unwrap();
    assert_eq!(sim.dirty(), Vec::<PathBuf>::new());
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![7; 5000])]);
    write(&file, 6000, b"more");
    for found in outcomes(&sim, "/f") {
        assert_eq!(&found.unwrap()[..5000], &[7; 5000]);
    }
}

#[test]
fn file_length_is_not_durable_without_a_barrier() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    file.set_len(100).unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![]), Some(vec![0; 100])]);
    file.allocate(0, 200).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![0; 200])]);
}

#[test]
fn directory_entry_needs_directory_sync() {
    // guards: L05
    let sim = SimFs::new();
    let file = sim.create_new(Path::new("/f")).unwrap();
    write(&file, 0, b"x");
    file.sync_data().unwrap();
    assert_eq!(sim.dirty(), [PathBuf::from("/")]);
    assert_eq!(outcomes(&sim, "/f"), [None, Some(b"x".to_vec())]);
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(b"x".to_vec())]);
}

#[test]
fn directory_sync_does_not_sync_the_files_in_it() {
    let sim = SimFs::new();
    let file = sim.create_new(Path::new("/f")).unwrap();
    write(&file, 0, b"x");
    sim.sync_dir(Path::new("/")).unwrap();
    assert!(outcomes(&sim, "/f").contains(&Some(vec![])));
    assert_eq!(sim.dirty(), [PathBuf::from("/f")]);
}

#[test]
fn directory_whose_name_is_lost_takes_everything_in_it_along() {
    let sim = SimFs::new();
    sim.create_dir(Path::new("/d")).unwrap();
    let file = create(&sim, "/d/f");
    write(&file, 0, b"x");
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/d/f"), [None, Some(b"x".to_vec())]);
    let lost = sim.trace().crash_at(sim.op_count(), &mut Chooser::nothing());
    assert_eq!(lost.list(Path::new("/")).unwrap().len(), 0);
}

#[test]
fn unsynced_remove_may_come_undone() {
    // guards: L17
    let sim = SimFs::new();
    sim.write_file("/f", b"old").unwrap();
    sim.remove(Path::new("/f")).unwrap();
    assert_eq!(outcomes(&sim, "/f"), [None, Some(b"old".to_vec())]);
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(outcomes(&sim, "/f"), [None]);
}

#[test]
fn torn_write_yields_every_subset_of_sectors() {
    let sim = SimFs::new();
    sim.write_file("/f", [0xaa; 10 * 512]).unwrap();
    let file = open(&sim, "/f");
    write(&file, 0, &[0xbb; 10 * 512]);
    let explorer = CrashExplorer::new(sim.trace()).exhaustive_limit(1 << 10);
    let mut subsets: Vec<u32> = Vec::new();
    for state in last_states(&explorer, &sim) {
        let bytes = state.fs().read_file("/f").unwrap();
        let mut subset = 0;
        for (i, sector) in bytes.chunks(512).enumerate() {
            assert!(sector.iter().all(|&b| b == sector[0]), "a sector is never torn itself");
            subset |= u32::from(sector[0] == 0xbb) << i;
        }
        subsets.push(subset);
    }
    subsets.sort_unstable();
    assert_eq!(subsets, (0..1 << 10).collect::<Vec<u32>>());
}

#[test]
fn sectors_of_4096_bytes_do_not_tear_at_512() {
    let sim = SimFs::with_options(SimOptions::new().sector_size(SectorSize::Bytes4096));
    sim.write_file("/f", [1; 8192]).unwrap();
    write(&open(&sim, "/f"), 0, &[2; 8192]);
    assert_eq!(outcomes(&sim, "/f").len(), 4);
}

#[test]
fn rewritten_sector_may_hold_any_of_its_versions() {
    let sim = SimFs::new();
    sim.write_file("/f", b"0").unwrap();
    let file = open(&sim, "/f");
    for version in [b"1", b"2", b"3"] {
        write(&file, 0, version);
    }
    let found = outcomes(&sim, "/f");
    assert_eq!(found, [b"0", b"1", b"2", b"3"].map(|v| Some(v.to_vec())));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(b"3".to_vec())]);
}

#[test]
fn length_and_data_are_independent() {
    // guards: L27
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, &[1; 512]);
    file.sync_data().unwrap();
    write(&file, 512, &[2; 512]);
    let old = vec![1; 512];
    let zeros = [vec![1; 512], vec![0; 512]].concat();
    let new = [vec![1; 512], vec![2; 512]].concat();
    assert_eq!(outcomes(&sim, "/f"), [Some(old), Some(zeros), Some(new)]);
}

#[test]
fn long_write_passes_through_every_page_boundary() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, &[1; 10_000]);
    let explorer = CrashExplorer::new(sim.trace()).samples_per_point(2000);
    let mut lengths: Vec<u64> =
        last_states(&explorer, &sim).iter().map(|s| s.fs().files()[0].1).collect();
    lengths.sort_unstable();
    lengths.dedup();
    assert_eq!(lengths, [0, 4096, 8192, 10_000]);
}

#[test]
fn cut_and_regrown_file_may_show_old_bytes_or_zeros() {
    // guards: L16
    let sim = SimFs::new();
    sim.write_file("/f", [1; 1024]).unwrap();
    let file = open(&sim, "/f");
    file.set_len(0).unwrap();
    file.set_len(1024).unwrap();
    let found = outcomes(&sim, "/f");
    assert!(found.contains(&Some(vec![1; 1024])), "the cut did not land");
    assert!(found.contains(&Some(vec![0; 1024])), "all landed");
    assert!(found.contains(&Some(vec![])));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![0; 1024])]);
}

#[test]
fn synced_cut_never_brings_bytes_back() {
    let sim = SimFs::new();
    sim.write_file("/f", [1; 3000]).unwrap();
    let file = open(&sim, "/f");
    write(&file, 1000, &[2; 2500]);
    file.set_len(700).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![1; 700])]);
    file.set_len(4000).unwrap();
    for found in outcomes(&sim, "/f") {
        assert!(found.unwrap()[700..].iter().all(|&b| b == 0));
    }
}

#[test]
fn free_rename_can_come_apart() {
    let sim = SimFs::new();
    sim.write_file("/new", b"new").unwrap();
    sim.write_file("/name", b"old").unwrap();
    replace(&sim, "/new", "/name").unwrap();
    let explorer = CrashExplorer::new(sim.trace());
    let mut found: Vec<_> = last_states(&explorer, &sim)
        .iter()
        .map(|state| (state.fs().read_file("/new").ok(), state.fs().read_file("/name").unwrap()))
        .collect();
    found.sort();
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    let new_gone = [(None, new.clone()), (None, old.clone())];
    let new_kept = [(Some(new.clone()), new), (Some(b"new".to_vec()), old)];
    assert_eq!(found, [new_gone, new_kept].concat());
}

#[test]
fn two_names_of_one_file_after_a_crash_share_its_bytes() {
    let sim = SimFs::new();
    let file = create(&sim, "/a");
    write(&file, 0, b"x");
    file.sync_data().unwrap();
    replace(&sim, "/a", "/b").unwrap();
    let explorer = CrashExplorer::new(sim.trace());
    let both = last_states(&explorer, &sim).into_iter().find(|state| state.fs().files().len() == 2);
    let sim = both.expect("both names survive in one state").fs();
    write(&open(&sim, "/a"), 0, b"y");
    assert_eq!(sim.read_file("/b").unwrap(), b"y");
}

#[test]
fn ordered_metadata_is_a_prefix() {
    let sim = SimFs::new();
    for name in ["/a", "/b", "/c"] {
        sim.create_new(Path::new(name)).unwrap();
    }
    replace(&sim, "/a", "/d").unwrap();
    sim.remove(Path::new("/b")).unwrap();
    let explorer = CrashExplorer::new(sim.trace()).metadata_order(MetadataOrder::Ordered);
    let names = |sim: SimFs| {
        sim.files().iter().map(|(path, _)| path.display().to_string()).collect::<String>()
    };
    let found: Vec<String> =
        last_states(&explorer, &sim).iter().map(|state| names(state.fs())).collect();
    assert_eq!(found, ["", "/a", "/a/b", "/a/b/c", "/b/c/d", "/c/d"]);
}

#[test]
fn garbage_appears_only_when_asked_for_and_only_in_flight() {
    let sim = SimFs::new();
    sim.write_file("/f", [1; 1024]).unwrap();
    write(&open(&sim, "/f"), 512, &[2; 512]);
    let garbage = |torn: Torn| {
        let states = last_states(&CrashExplorer::new(sim.trace()).torn(torn), &sim);
        let bytes: Vec<_> =
            states.iter().map(|state| state.fs().read_file("/f").unwrap()).collect();
        assert!(
            bytes.iter().all(|bytes| bytes[..512] == [1; 512]),
            "what is not in flight is whole"
        );
        bytes.iter().filter(|bytes| bytes[512..] != [1; 512] && bytes[512..] != [2; 512]).count()
    };
    assert_eq!(garbage(Torn::Versions), 0);
    assert_eq!(garbage(Torn::Garbage), 1);
}

#[test]
fn crash_state_is_settled_unlocked_and_apart_from_its_origin() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    assert!(file.try_lock().unwrap());
    write(&file, 0, b"x");
    let after = sim.trace().crash_at(sim.op_count(), &mut Chooser::everything());
    assert_eq!(after.dirty(), Vec::<PathBuf>::new());
    let reopened = open(&after, "/f");
    assert!(reopened.try_lock().unwrap());
    write(&reopened, 0, b"y");
    assert_eq!(sim.read_file("/f").unwrap(), b"x");
    assert_eq!(after.read_file("/f").unwrap(), b"y");
    assert_ne!(
        sim.random().unwrap(),
        after.random().unwrap(),
        "a rebooted machine draws other numbers"
    );
}

#[test]
fn barrier_covers_only_what_returned_before_it_was_called() {
    // guards: L01
    let sim = SimFs::new();
    sim.write_file("/f", [0; 1024]).unwrap();
    let file = open(&sim, "/f");
    write(&file, 0, &[1; 512]);
    let hold = sim.hold(Call::Sync);
    let syncing = file.clone();
    let thread = std::thread::spawn(move || syncing.sync_data());
    hold.wait_for(1);
    write(&file, 0, &[2; 512]);
    write(&file, 512, &[3; 512]);
    drop(hold);
    thread.join().unwrap().unwrap();
    assert_eq!(sim.trace().ops().last().unwrap().covers(), Some(2));
    let least = sim.trace().crash_at(sim.op_count(), &mut Chooser::nothing());
    assert_eq!(least.read_file("/f").unwrap(), [[1; 512], [0; 512]].concat());
    assert_eq!(outcomes(&sim, "/f").len(), 4);
}

#[test]
fn write_behind_a_cut_may_show_old_bytes_in_the_gap() {
    let sim = SimFs::new();
    sim.write_file("/f", [1; 1536]).unwrap();
    let file = open(&sim, "/f");
    file.set_len(0).unwrap();
    write(&file, 1024, &[2; 512]);
    let found = outcomes(&sim, "/f");
    let [old, zeros] = [1, 0].map(|byte| Some([[byte; 512], [0; 512], [2; 512]].concat()));
    assert!(found.contains(&old) && found.contains(&zeros));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f"), [zeros]);
}

#[test]
fn barrier_that_covers_a_cut_but_not_what_follows_keeps_the_cut() {
    let sim = SimFs::new();
    sim.write_file("/f", [1; 1024]).unwrap();
    let file = open(&sim, "/f");
    file.set_len(100).unwrap();
    let hold = sim.hold(Call::Sync);
    let syncing = file.clone();
    let thread = std::thread::spawn(move || syncing.sync_data());
    hold.wait_for(1);
    file.set_len(1024).unwrap();
    drop(hold);
    thread.join().unwrap().unwrap();
    let regrown = [vec![1; 100], vec![0; 924]].concat();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![1; 100]), Some(regrown)]);
}

#[test]
fn directory_barrier_covers_only_what_returned_before_it_was_called() {
    let sim = SimFs::new();
    sim.create_new(Path::new("/a")).unwrap();
    let hold = sim.hold(Call::SyncDir);
    let syncing = sim.clone();
    let thread = std::thread::spawn(move || syncing.sync_dir(Path::new("/")));
    hold.wait_for(1);
    sim.create_new(Path::new("/b")).unwrap();
    drop(hold);
    thread.join().unwrap().unwrap();
    assert_eq!(outcomes(&sim, "/a"), [Some(vec![])]);
    assert_eq!(outcomes(&sim, "/b"), [None, Some(vec![])]);
}

/// Page numbers and positions do not share a type: on 32 bits their product once overflowed here.
#[test]
fn growing_over_a_cut_is_seen_beyond_4_gib() {
    const FAR: u64 = 1 << 32;
    let sim = SimFs::new();
    sim.create_new(Path::new("/f")).unwrap();
    let file = open(&sim, "/f");
    file.set_len(FAR).unwrap();
    write(&file, FAR, &[1; 1024]);
    file.sync_data().unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    file.set_len(FAR + 100).unwrap();
    file.set_len(FAR + 1024).unwrap();
    let states = last_states(&CrashExplorer::new(sim.trace()), &sim);
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    for state in states {
        let file = open(&state.fs(), "/f");
        let mut bytes = vec![0; 1024];
        let read = file.read_at(FAR, &mut bytes).unwrap();
        bytes.truncate(read);
        found.push((file.len().unwrap(), bytes));
    }
    let old = (FAR + 1024, vec![1; 1024]);
    let regrown = (FAR + 1024, [vec![1; 100], vec![0; 924]].concat());
    assert!(found.contains(&old) && found.contains(&regrown));
    assert!(found.contains(&(FAR + 100, vec![1; 100])));
}

/// A symbolic link is a name like any other: there after the barrier of its directory. It leads to
/// whatever has the name that it holds.
#[test]
fn a_symbolic_link_survives_from_the_barrier_of_its_directory_on() {
    let sim = SimFs::new();
    let file = create(&sim, "/file");
    write(&file, 0, b"one");
    file.sync_data().unwrap();
    sim.symlink("file", "/link").unwrap();
    assert_eq!(sim.read_file("/link").unwrap(), b"one");
    assert_eq!(outcomes(&sim, "/link"), [None, Some(b"one".to_vec())]);
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(outcomes(&sim, "/link"), [Some(b"one".to_vec())]);
    let other = create(&sim, "/other");
    write(&other, 0, b"two");
    other.sync_data().unwrap();
    replace(&sim, "/other", "/file").unwrap();
    assert_eq!(outcomes(&sim, "/link"), [Some(b"one".to_vec()), Some(b"two".to_vec())]);
    assert_eq!(sim.read_link("/link").unwrap(), Path::new("file"));
    sim.remove_all("/link").unwrap();
    assert_eq!(sim.read_file("/file").unwrap(), b"two");
    assert!(sim.read_link("/file").is_err());
}
