//! guards: L01 L03 L06 L26
//!
//! A process with several writers is killed at random moments, on the real file system: every
//! acknowledged record is there with its bytes, in order, once, and the log opens without help.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cairn_log::{Log, Lsn};

use crate::crash::Dice;

const DIR_VARIABLE: &str = "CAIRN_KILLED_CHILD_DIR";
const WRITERS: u64 = 4;

/// Says something only when the next test runs it, in a process of its own: four threads append
/// until they are killed, and tell what was acknowledged.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let log = Log::options().segment_size(64 << 10).open(dir).unwrap();
    let start = log.next_seq().0;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let log = &log;
            scope.spawn(move || {
                for n in 0u64.. {
                    let unique = format!("{start}.{writer}.{n}");
                    let acknowledged: Vec<(Lsn, String)> = match n % 4 {
                        0 => vec![(log.commit(unique.as_bytes()).unwrap(), unique)],
                        1 => {
                            let ticket = log.submit(unique.as_bytes()).unwrap();
                            let lsn = ticket.lsn();
                            ticket.wait().unwrap();
                            vec![(lsn, unique)]
                        }
                        2 => {
                            let batch = [format!("{unique}.a"), format!("{unique}.b")];
                            let range = log.append_batch(&batch).unwrap();
                            log.sync_to(*range.end()).unwrap();
                            let [a, b] = batch;
                            vec![(*range.start(), a), (*range.end(), b)]
                        }
                        _ => {
                            log.append(unique.as_bytes()).unwrap();
                            continue;
                        }
                    };
                    let text: String = acknowledged
                        .iter()
                        .map(|(lsn, record)| format!("{lsn} {record}\n"))
                        .collect();
                    // One write per acknowledgement, so that a kill tears no line but the last.
                    let _ = std::io::stdout().lock().write_all(text.as_bytes());
                }
            });
        }
    });
}

/// Runs the child for a while; returns what it said was acknowledged.
fn run_and_kill(dir: &Path, pause: Duration) -> Vec<(Lsn, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child_that_writes_until_it_is_killed", "--nocapture", "--quiet"])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        // What follows the last newline was being written when the kill came.
        while stdout.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
            let acknowledged = line
                .trim_end()
                .split_once(' ')
                .and_then(|(lsn, record)| Some((Lsn(lsn.parse().ok()?), record.to_owned())));
            lines.extend(acknowledged);
            line.clear();
        }
        lines
    });
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn a_killed_process_with_several_writers_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    let mut acknowledged = BTreeMap::new();
    let (mut kills, mut torn) = (0, 0);
    while kills < 200 {
        let pause = Duration::from_millis(8 + dice.below(50) as u64);
        acknowledged.extend(run_and_kill(dir.path(), pause));
        kills += 1;
        let log = Log::options().segment_size(64 << 10).open(dir.path()).unwrap();
        torn += u64::from(log.open_report().bytes_cut > 0);
        let mut found = BTreeMap::new();
        let mut last = Lsn::START;
        for record in log.reader(Lsn::START).unwrap() {
            let record = record.unwrap();
            assert!(record.lsn() > last);
            last = record.lsn();
            let text = String::from_utf8(record.into_payload().to_vec()).unwrap();
            assert!(found.insert(text.clone(), last).is_none(), "{text} is there twice");
        }
        for (lsn, record) in &acknowledged {
            assert_eq!(
                found.get(record),
                Some(lsn),
                "{record} was acknowledged after {kills} kills"
            );
        }
        // An end that was not clean, too: the next child recovers from it.
        if kills % 2 == 0 {
            log.close().unwrap();
        }
    }
    println!("{kills} kills, {} records acknowledged, {torn} torn tails", acknowledged.len());
    assert!(acknowledged.len() > 1000);
}
