//! guards: L35 L67
//!
//! Callbacks are the caller's code: what they drop, close and panic with.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cairn_log::{Error, Log, Lsn};

/// Opens the log as soon as nobody has it.
fn reopened(path: &std::path::Path) -> Log {
    let begun = Instant::now();
    loop {
        match Log::open(path) {
            Err(Error::Locked { .. }) if begun.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// In the thread that makes records durable for tickets, and, if the record is durable by then, in
/// the caller's own.
#[test]
fn the_last_handle_can_be_dropped_or_closed_in_a_callback() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut own, mut others) = (0, 0);
    for n in 0..40u64 {
        let log = Arc::new(reopened(&path));
        let (told, ended) = mpsc::channel();
        let ticket = log.submit(&n.to_le_bytes()).unwrap();
        if n % 4 == 3 {
            log.sync().unwrap();
        }
        ticket.on_durable(move |durable| {
            durable.unwrap();
            let name = std::thread::current().name().map(ToOwned::to_owned);
            let log = Arc::into_inner(log);
            match n % 2 {
                0 => drop(log),
                _ => log.unwrap().close().unwrap(),
            }
            told.send(name).unwrap();
        });
        let name = ended.recv_timeout(Duration::from_secs(20)).expect("it hangs");
        let committer = name.as_deref() == Some("cairn-commit");
        (own, others) = (own + u64::from(!committer), others + u64::from(committer));
        let log = reopened(&path);
        assert_eq!(log.reader(Lsn::START).unwrap().count() as u64, n + 1);
        log.close().unwrap();
    }
    println!("{own} in the caller's thread, {others} in the log's");
    assert!(own > 0 && others > 0);
}

/// A panic's payload that panics when it is dropped, and again with one that does.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Bomb(self.0 - 1));
        }
    }
}

#[test]
fn a_panic_that_panics_when_it_is_dropped_kills_nobody() {
    for deep in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        for _ in 0..20 {
            let (told, called) = mpsc::channel();
            let first = log.submit(b"first").unwrap();
            let second = log.submit(b"second").unwrap();
            first.on_durable(move |_| std::panic::panic_any(Bomb(deep)));
            second.on_durable(move |result| told.send(result.is_ok()).unwrap());
            assert_eq!(called.recv_timeout(Duration::from_secs(20)), Ok(true));
        }
        log.commit(b"on").unwrap();
        log.close().unwrap();
    }
}
