//! guards: L28 L31 L32
//!
//! The two example structures, in one heap, under power cuts. Each has the state before or after
//! its step, its invariants hold, and they reach every block of the heap.

use std::collections::{BTreeMap, HashSet};

use cairn_heap::{Heap, Result};
use cairn_sim::{CrashExplorer, SimFs};

use crate::crash::wanted;
use crate::model::{ALL, Dice, chain, open_at};

#[path = "../../examples/hash_map/map.rs"]
mod map;
#[path = "../../examples/records/records.rs"]
mod records;

#[derive(Clone, Default, PartialEq, Debug)]
struct Both {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    records: Vec<Vec<u8>>,
}

const RECORD_LEN: u64 = 24;

fn step(heap: &Heap, model: &mut Both, dice: &mut Dice) -> Result<()> {
    let (map, records) = (map::Map::open(heap, 0)?, records::Records::open(heap, 1, RECORD_LEN)?);
    let key = format!("key {}", dice.below(60)).into_bytes();
    match dice.below(10) {
        0..4 => {
            let len = dice.below(300);
            let value = dice.bytes(len);
            assert_eq!(map.insert(&key, &value)?, model.map.insert(key, value));
        }
        4..6 => assert_eq!(map.remove(&key)?, model.map.remove(&key)),
        6 => assert_eq!(
            (map.get(&key)?, map.len()?),
            (model.map.get(&key).cloned(), model.map.len() as u64)
        ),
        7 if !model.records.is_empty() => {
            let (index, record) =
                (dice.below(model.records.len()), dice.bytes(RECORD_LEN as usize));
            records.set(index as u64, &record)?;
            // There may be room behind the last one.
            assert!(records.set(model.records.len() as u64, &record).is_err());
            model.records[index] = record;
        }
        8 => assert_eq!(records.pop()?, model.records.pop()),
        _ => {
            let record = dice.bytes(RECORD_LEN as usize);
            assert_eq!(records.push(&record)?, model.records.len() as u64);
            model.records.push(record);
        }
    }
    Ok(())
}

/// What the heap holds; and that it holds nothing else.
fn found(heap: &Heap) -> std::result::Result<Both, String> {
    let report = heap.check().map_err(|e| chain(&e))?;
    if !report.is_sound() || report.lost_bytes > 0 {
        return Err(format!("{:?}", report.violations));
    }
    let look = || {
        let (mut both, mut blocks) = (Both::default(), 0);
        if !heap.root(0)?.is_empty() {
            both.map = map::Map::open(heap, 0)?.entries()?.into_iter().collect();
            blocks += 2 + both.map.len() as u64;
        }
        if !heap.root(1)?.is_empty() {
            both.records = records::Records::open(heap, 1, RECORD_LEN)?.all()?;
            blocks += 1 + u64::from(report.live_blocks > blocks + 1);
        }
        Ok((both, blocks))
    };
    let (both, blocks) = look().map_err(|e: cairn_heap::Error| chain(&e))?;
    if blocks == report.live_blocks {
        Ok(both)
    } else {
        Err(format!("{blocks} of {} blocks are reached", report.live_blocks))
    }
}

#[test]
fn the_examples_keep_their_invariants_in_every_state() {
    let wanted = wanted(60_000) / 6;
    let mut distinct = HashSet::new();
    for seed in 1.. {
        if distinct.len() >= wanted && seed > ALL.len() as u64 {
            break;
        }
        let (sim, policy) = (SimFs::new(), ALL[seed as usize % ALL.len()]);
        let (mut dice, mut model) = (Dice(seed), Both::default());
        let heap = open_at(&sim, policy).unwrap();
        let mut history = vec![(0, model.clone())];
        for _ in 0..40 {
            step(&heap, &mut model, &mut dice).unwrap();
            history.push((sim.op_count(), model.clone()));
        }
        assert_eq!(found(&heap).unwrap(), model);
        let explorer = CrashExplorer::new(sim.trace())
            .label(format!("structures-{seed}"))
            .exhaustive_limit(64)
            .samples_per_point(16);
        let report = explorer.for_each(|state| {
            distinct.insert(state.fingerprint());
            let heap = open_at(&state.fs(), policy).map_err(|e| chain(&e))?;
            let found = found(&heap)?;
            let returned = history.iter().take_while(|(at, _)| *at <= state.point()).count();
            let possible = &history[returned - 1..(returned + 1).min(history.len())];
            if possible.iter().any(|(_, both)| *both == found) {
                Ok(())
            } else {
                Err("neither before nor after".to_owned())
            }
        });
        report.unwrap_or_else(|failure| panic!("{policy:?}, seed {seed}: {failure}"));
    }
    println!("{} distinct states", distinct.len());
}
