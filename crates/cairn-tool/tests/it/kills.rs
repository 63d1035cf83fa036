//! Killed at random moments, again and again: every acknowledged record is there, in order, once.
//!
//! Killing proves what the process hands to the operating system and what recovery makes of it;
//! power cuts are the business of the simulator.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairnlog::{Inspection, Seq};

use crate::common::*;

const KILLS_PER_MODE: u64 = 150;

/// guards: L01, L10, L16
#[test]
fn records_acknowledged_one_by_one_survive_kills() {
    kill_again_and_again(&["--each"], 0x5eed_0001);
}

/// guards: L01, L10, L16
#[test]
fn records_acknowledged_in_groups_survive_kills() {
    kill_again_and_again(&[], 0x5eed_0002);
}

fn kill_again_and_again(mode: &[&str], seed: u64) {
    let (_parent, dir) = fresh();
    let mut dice = Dice(seed);
    // What the log holds for certain: the LSN and payload of each record by number.
    let mut known: Vec<(u64, String)> = Vec::new();
    let (mut acknowledged, mut unacknowledged, mut torn, mut killed) = (0, 0, 0, 0);
    while killed < KILLS_PER_MODE {
        let run_number = killed;
        let context = format!("seed {seed:#x}, kill {killed}, {mode:?}");
        let args = [&["append", &dir, "--ack", "--segment-size", "64KiB"], mode].concat();
        let mut appender = Appender::start(&args);
        let mut stdin = appender.stdin.take().unwrap();
        let fed = Arc::new(AtomicU64::new(0));
        let (counter, burst_max) = (fed.clone(), 1 + dice.roll(64));
        let mut feeding_dice = Dice(dice.roll(u64::MAX));
        let feeder = std::thread::spawn(move || {
            let mut next = 0;
            loop {
                let burst = 1 + feeding_dice.roll(burst_max);
                let lines: String =
                    (next..next + burst).map(|n| line(run_number, n) + "\n").collect();
                // Counted before it is written: no more than this can be in the log.
                counter.store(next + burst, Ordering::SeqCst);
                if stdin.write_all(lines.as_bytes()).is_err() {
                    return;
                }
                next += burst;
                std::thread::sleep(Duration::from_micros(feeding_dice.roll(300)));
            }
        });
        // Some are killed while they start or recover, most while they append, however slow the
        // machine is.
        let mut acks = Vec::new();
        let wait_us_max = if dice.roll(5) == 0 {
            5_000
        } else {
            acks.push(appender.ack());
            20_000
        };
        std::thread::sleep(Duration::from_micros(dice.roll(wait_us_max)));
        appender.child.kill().unwrap();
        acks.extend(appender.remaining_acks());
        let output = appender.end();
        assert_eq!(output.status.code(), None, "{context}: {}", text(&output.stderr));
        feeder.join().unwrap();
        killed += 1;

        let verified = run(&["verify", &dir]);
        match code(&verified) {
            0 => {}
            3 => torn += 1,
            // Killed before there was a log.
            1 if acks.is_empty() && known.is_empty() => continue,
            other => panic!("{context}: verify says {other}: {}", text(&verified.stderr)),
        }
        let new = read_from(&dir, known.len() as u64, &context);
        let fed = fed.load(Ordering::SeqCst);
        assert!(new.len() as u64 <= fed, "{context}: {} records of {fed}", new.len());
        for (n, (_, payload)) in new.iter().enumerate() {
            assert_eq!(*payload, line(run_number, n as u64), "{context}");
        }
        assert!(
            acks.len() <= new.len(),
            "{context}: {} acknowledged, {} there",
            acks.len(),
            new.len()
        );
        for (ack, (lsn, _)) in acks.iter().zip(&new) {
            assert_eq!(ack, lsn, "{context}");
        }
        acknowledged += acks.len();
        unacknowledged += new.len() - acks.len();
        known.extend(new);
    }
    // What a kill left behind is not lost by later recoveries, acknowledged or not.
    assert_eq!(read_from(&dir, 0, "at the end"), known);
    append(&dir, b"closed\n");
    check(0, run(&["verify", &dir]));
    assert_eq!(records(&dir).len(), known.len() + 1);
    println!(
        "{mode:?}: {killed} kills, {acknowledged} acknowledged, {unacknowledged} more, {torn} torn \
         tails"
    );
}

/// Content that is there once.
fn line(run: u64, n: u64) -> String {
    format!("{run}:{n}:{}", "z".repeat((n % 97) as usize))
}

/// LSN and payload of every record from a number on, with dense numbers and rising positions.
fn read_from(dir: &str, seq: u64, context: &str) -> Vec<(u64, String)> {
    let log = Inspection::open(dir).unwrap();
    assert!(log.problems().is_empty(), "{context}: {:?}", log.problems());
    let mut reader = log.reader(Seq(seq)).unwrap();
    let mut found: Vec<(u64, String)> = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        assert_eq!(record.seq().0, seq + found.len() as u64, "{context}");
        assert!(found.last().is_none_or(|(lsn, _)| *lsn < record.lsn().0), "{context}");
        found.push((record.lsn().0, text(record.payload())));
    }
    found
}
