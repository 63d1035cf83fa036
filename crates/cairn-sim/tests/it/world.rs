//! Worlds: the same seed gives the same run, other seeds give other schedules, and what hangs,
//! panics or is left over is reported.

use std::sync::Arc;
use std::time::Duration;

use cairn_io::sync::atomic::{AtomicU64, Ordering};
use cairn_io::sync::{Condvar, Event, Listener as _, Mutex, RwLock, thread};
use cairn_sim::{Broken, WorldOptions, block_on, run};

use crate::{create, read, write};

/// Two threads that read, then write: an update can be lost.
fn lost_update(seed: u64) -> u64 {
    run(seed, |world| {
        let count = Arc::new(AtomicU64::new(0));
        let add = |name: &str| {
            let count = count.clone();
            world.spawn(name, move || {
                let seen = count.load(Ordering::SeqCst);
                count.store(seen + 1, Ordering::SeqCst);
            })
        };
        let threads = [add("one"), add("two")];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        count.load(Ordering::SeqCst)
    })
    .unwrap()
}

#[test]
fn seeds_find_both_outcomes_of_a_race_and_repeat_them() {
    let outcomes: Vec<u64> = (0..200).map(lost_update).collect();
    assert!(outcomes.contains(&1) && outcomes.contains(&2), "{outcomes:?}");
    assert_eq!(outcomes, (0..200).map(lost_update).collect::<Vec<_>>());
}

/// Threads write to files, guarded by a lock, in the order in which they get it.
fn writers(options: WorldOptions) -> (String, Vec<cairn_sim::Turn>) {
    let ran = options.run(|world| {
        let sim = world.fs();
        let file = Arc::new(Mutex::new((create(&sim, "/f"), 0)));
        let threads: Vec<_> = (0..3u8)
            .map(|n| {
                let file = file.clone();
                world.spawn(format!("writer {n}"), move || {
                    for _ in 0..4 {
                        let mut held = file.lock().unwrap();
                        write(&held.0, held.1, &[n; 10]);
                        held.1 += 10;
                        if n == 1 {
                            held.0.sync_data().unwrap();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let held = file.lock().unwrap();
        assert_eq!(read(&held.0).len(), 120);
        format!("{}{:?}", sim.trace(), read(&held.0))
    });
    (ran.result.unwrap(), ran.turns)
}

#[test]
fn a_seed_and_its_turns_give_the_same_trace() {
    let runs: Vec<_> = (0..20).map(|seed| writers(WorldOptions::new(seed))).collect();
    for (seed, (trace, turns)) in runs.iter().enumerate() {
        let again = WorldOptions::new(seed as u64);
        assert_eq!(&writers(again.clone()).0, trace);
        let text: Vec<String> = turns.iter().map(ToString::to_string).collect();
        let parsed = text.iter().map(|turn| turn.parse().unwrap()).collect();
        let (repeated, kept) = writers(again.turns(parsed));
        assert_eq!((&repeated, &kept), (trace, turns));
    }
    let mut distinct: Vec<_> = runs.iter().map(|(trace, _)| trace).collect();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 10, "{} of 20", distinct.len());
}

#[test]
fn threads_that_wait_for_each_other_are_named() {
    let found: Vec<Broken> = (0..100)
        .filter_map(|seed| {
            run(seed, |world| {
                let locks = Arc::new((Mutex::new(()), Mutex::new(())));
                let other = locks.clone();
                let thread = world.spawn("crossing", move || {
                    let _second = other.1.lock().unwrap();
                    let _first = other.0.lock().unwrap();
                });
                let _first = locks.0.lock().unwrap();
                let _second = locks.1.lock().unwrap();
                drop((_first, _second));
                thread.join().unwrap();
            })
            .err()
        })
        .collect();
    assert!(!found.is_empty());
    for broken in found {
        assert_eq!(broken.property, "no call hangs");
        assert!(broken.text.contains("(crossing) waits for lock"), "{broken}");
    }
}

#[test]
fn what_panics_and_what_is_left_waiting_is_reported() {
    let broken = run(1, |world| {
        world.spawn("bad", || panic!("on purpose"));
    });
    assert_eq!(broken.unwrap_err(), Broken::new("no thread panics", "bad: on purpose"));
    let broken = run(1, |world| {
        let never = Arc::new(Event::new());
        world.spawn("waits", move || never.listen().wait());
    });
    assert_eq!(broken.unwrap_err().property, "no thread is left waiting");
    let broken = WorldOptions::new(1).steps_max(1000).run(|_| {
        loop {
            thread::yield_now();
        }
    });
    let broken: Broken = broken.result.map(|(): ()| ()).unwrap_err();
    assert_eq!(broken.property, "no call hangs");
}

#[test]
fn conditions_events_futures_and_time() {
    for seed in 0..50 {
        let total = run(seed, |world| {
            let shared = Arc::new((Mutex::new(Vec::new()), Condvar::new(), RwLock::new(0)));
            let event = Arc::new(Event::new());
            let listener = event.listen();
            let threads: Vec<_> = (0..3)
                .map(|n| {
                    let (shared, event) = (shared.clone(), event.clone());
                    world.spawn("worker", move || {
                        thread::sleep(Duration::from_millis(n));
                        shared.0.lock().unwrap().push(n);
                        *shared.2.write().unwrap() += n;
                        shared.1.notify_all();
                        event.notify(usize::MAX);
                    })
                })
                .collect();
            let list = shared.0.lock().unwrap();
            let list = shared.1.wait_while(list, |list| list.len() < 3).unwrap();
            assert_eq!(*list, [0, 1, 2], "sleepers wake in order of time");
            let (list, late) = shared.1.wait_timeout(list, Duration::from_secs(1)).unwrap();
            assert!(late.timed_out() || list.len() == 3);
            drop(list);
            block_on(listener);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            *shared.2.read().unwrap()
        });
        assert_eq!(total, Ok(3));
    }
}
