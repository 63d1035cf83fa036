//! guards: L18 L23
//!
//! One thread appends, waits and truncates; calls of the file system are delayed at random, those
//! of the log's own threads, of the caller, or all. Opened again, the log holds what the caller was
//! told. Before one thread at a time prepared segments, 51 of 720 such rounds lost records.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use cairn_io::{Fs, NativeFs};
use cairn_log::{Log, Lsn, Options};
use cairn_sim::SimFs;

use super::{Delayed, Delays, Random, rounds};
use crate::hooked::hooked;

/// Positions and payloads that must be in the log.
type Live = Vec<(Lsn, Vec<u8>)>;

fn options(fs: Arc<dyn Fs>) -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10).fs(fs)
}

/// Random calls of one thread.
fn call(log: &Log, random: &mut Random) -> cairn_log::Result<Live> {
    let mut live = Live::new();
    for step in 0..80u8 {
        if random.below(5) == 0 && live.len() > 3 {
            let kept = live.len() - 1 - random.below(3) as usize;
            log.truncate_before(live[kept].0)?;
            live.drain(..kept);
            continue;
        }
        let payload = vec![step; 30 + random.below(900) as usize];
        for _ in 0..random.below(3) {
            live.push((log.append(&payload)?, payload.clone()));
        }
        let ticket = log.submit(&payload)?;
        live.push((ticket.lsn(), payload));
        random.pause();
        ticket.wait()?;
    }
    Ok(live)
}

/// What is in the log after random calls with delays.
fn delayed(fs: &Arc<dyn Fs>, path: &Path, round: u64, background: bool) -> Result<(), String> {
    let whose =
        [Delayed::Callers, Delayed::Threads(&["cairn-commit", "cairn-prepare"]), Delayed::All];
    let delays = Delays {
        random: AtomicU64::new(round * 7919),
        whose: whose[round as usize % whose.len()],
        odds: 4,
        max: Duration::from_millis(1),
        faults: None,
        background,
    };
    let log = options(Arc::new(hooked(fs.clone(), delays))).open(path).unwrap();
    let live = call(&log, &mut Random::new(round)).map_err(|e| format!("a call: {e:?}"))?;
    drop(log);
    let log = options(fs.clone()).open(path).map_err(|e| format!("open: {e}"))?;
    let found: Result<Live, _> = log
        .reader(log.head_lsn())
        .unwrap()
        .map(|record| record.map(|record| (record.lsn(), record.payload().to_vec())))
        .collect();
    match found {
        Ok(found) if found == live => Ok(()),
        Ok(found) => Err(format!("opens, and holds {} of {} records", found.len(), live.len())),
        Err(error) => Err(format!("opens, and does not read: {error}")),
    }
}

#[test]
fn delays_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for round in rounds(24) {
        let native = dir.path().join(round.to_string());
        let places: [(Arc<dyn Fs>, &Path); 2] =
            [(Arc::new(SimFs::new()), Path::new("/log")), (Arc::new(NativeFs), &native)];
        let (fs, path) = &places[round as usize % 2];
        // Both ways in both places.
        let background = round / 2 % 2 == 0;
        if let Err(error) = delayed(fs, path, round, background) {
            panic!("round {round}, again with CAIRN_SCHEDULE={round}: {error}");
        }
    }
}
