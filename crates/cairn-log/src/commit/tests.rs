use std::sync::mpsc;
use std::time::Duration;

use cairn_io::MemStore;

use super::*;

fn core() -> Arc<Core> {
    let store: Arc<dyn Store> = Arc::new(MemStore::new());
    let options = crate::Log::options().buffer_size(4 << 10);
    let (opened, _) = crate::single::open(&options, &store).expect("the store is empty");
    Core::new(options, Home::Store { store }, opened)
}

/// Whether `wait` returns: while nothing else happens, and then after `event`.
fn returns(wait: impl FnOnce() + Send, event: impl FnOnce()) -> [bool; 2] {
    let (done, heard) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            wait();
            let _ = done.send(());
        });
        let before = heard.recv_timeout(Duration::from_millis(300)).is_ok();
        event();
        [before, before || heard.recv_timeout(Duration::from_secs(60)).is_ok()]
    })
}

/// guards: L38
///
/// A record much larger than a buffer is being copied, for as long as it takes: who committed before it does not wait for that, who comes
/// behind it does.
#[test]
fn a_huge_append_keeps_nobody_waiting_who_came_before() {
    let core = core();
    let small = core.append(b"before", Patience::Wait).unwrap();
    let payload = vec![7; 1 << 20];
    let mut huge = core.place(frame_len(payload.len()), 1, Patience::Wait).unwrap();
    assert!(huge.slot > small.slot, "it has a slot of its own");
    assert_eq!(returns(|| core.settled(small).unwrap(), || ()), [true, true]);
    let behind = core.append(b"behind", Patience::Wait).unwrap();
    let publish = || {
        write_frame(&mut huge.part, FrameKind::Record, &payload, huge.lsn, huge.seed);
        huge.part.publish();
    };
    assert_eq!(returns(|| core.settled(behind).unwrap(), publish), [false, true]);
    let guard = core.lock();
    assert_eq!((guard.durable, guard.end.seq), (guard.end.lsn, 3));
    assert_eq!(core.reader_of(&guard).count(), 3);
}

/// guards: L01 L36
///
/// A flush waits for what has a place and is not copied yet; if that never will be, everybody hears of it.
#[test]
fn a_record_that_is_never_copied_stops_the_writer() {
    let core = core();
    let placed = core.place(frame_len(10), 1, Patience::Wait).unwrap();
    let behind = core.append(b"in the same buffer", Patience::Wait).unwrap();
    let mut outcome = None;
    assert_eq!(returns(|| outcome = Some(core.settled(behind)), || drop(placed)), [false, true]);
    assert!(matches!(outcome, Some(Err(Error::InDoubt { .. }))));
    assert!(matches!(core.append(b"more", Patience::Wait), Err(Error::Poisoned { .. })));
    assert_eq!(core.lock().durable, 0);
}

/// guards: L01
///
/// The zeros ahead are never where a slot is open.
#[test]
fn slots_keep_out_of_what_is_being_zeroed() {
    let mut prepared = crate::prepare::Prepared::new(0);
    assert_eq!(prepared.room(100, 1 << 30, 1000), Some(256 << 10), "so that zeros can follow");
    prepared.zeroing = Some(5000..9000);
    assert_eq!(prepared.room(100, 1 << 30, 1000), Some(4900));
    assert_eq!(prepared.room(4096, 1 << 30, 1000), None);
    assert_eq!(prepared.room(8000, 1 << 30, 8), None);
}

/// A leader waits for those who are about to come back, whatever they bring.
#[test]
fn who_brings_a_batch_has_arrived_once() {
    let core = core();
    assert_eq!(core.arrived(0), 0);
    let alone = core.append(b"alone", Patience::Wait).unwrap();
    core.append_batch(&[&b"in a batch"[..]; 10]).unwrap();
    assert_eq!(core.arrived(alone.slot), 2);
    assert_eq!(core.arrived(alone.slot - 1), u64::MAX, "nobody can come to what is closed");
    core.sync().unwrap();
    assert_eq!(core.arrived(alone.slot + 1), 0);
    core.append_batch(&[&b"in a batch"[..]; 10]).unwrap();
    assert_eq!(core.arrived(alone.slot + 1), 1);
}

#[test]
fn a_writer_that_waited_for_zeros_does_without_for_a_while() {
    let mut prepared = crate::prepare::Prepared::new(0);
    assert_eq!(prepared.room(0, 1 << 30, 1000), Some(256 << 10), "so that zeros can follow");
    prepared.note_wait();
    for _ in 0..64 {
        assert_eq!(prepared.room(0, 1 << 30, 1000), Some(1 << 30));
        prepared.note_flush(4096, true);
    }
    assert_eq!(prepared.room(0, 1 << 30, 1000), Some(256 << 10));
}
