//! What the documentation promises of a log that nothing bad happens to.

use cairn_log::{EndState, Error, Log, Lsn, Options, Seq};

fn payloads(log: &Log) -> Vec<Vec<u8>> {
    log.reader(Lsn::START).unwrap().map(|r| r.unwrap().payload().to_vec()).collect()
}

fn numbered(n: u64) -> Vec<u8> {
    format!("record {n} {}", "x".repeat((n % 97) as usize)).into_bytes()
}

fn small() -> Options {
    Log::options().segment_size(16 << 10).buffer_size(4 << 10)
}

#[test]
fn records_are_read_in_order_across_segments_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..5u64 {
        let log = small().open(dir.path()).unwrap();
        assert_eq!(log.next_seq(), Seq(round * 500));
        for n in round * 500..(round + 1) * 500 {
            log.append(&numbered(n)).unwrap();
            expected.push(numbered(n));
            if n.is_multiple_of(50) {
                log.sync().unwrap();
            }
        }
        assert_eq!(payloads(&log), expected);
        log.close().unwrap();
    }
    let log = small().open(dir.path()).unwrap();
    assert_eq!(log.open_report().end_state, EndState::Closed);
    assert!(log.open_report().segments > 5);
    assert_eq!(payloads(&log), expected);
}

#[test]
fn a_log_that_was_not_closed_opens_with_everything_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for n in 0..200 {
        let log = small().open(dir.path()).unwrap();
        log.append(&numbered(n)).unwrap();
        expected.push(numbered(n));
        assert_eq!(payloads(&log), expected);
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().count() < 10);
}

#[test]
fn readers_start_at_any_record_by_position_or_number() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let lsns: Vec<Lsn> = (0..1000).map(|n| log.append(&numbered(n)).unwrap()).collect();
    for n in [0u64, 1, 17, 499, 500, 998, 999] {
        for start in [cairn_log::Start::Lsn(lsns[n as usize]), Seq(n).into()] {
            let record = log.reader(start).unwrap().next().unwrap().unwrap();
            assert_eq!(
                (record.lsn(), record.seq(), record.payload()),
                (lsns[n as usize], Seq(n), &numbered(n)[..])
            );
        }
        let record = log.reader(lsns[n as usize]).unwrap().next().unwrap().unwrap();
        let next = log.reader(record.end_lsn()).unwrap().next().map(|r| r.unwrap().seq());
        assert_eq!(next, (n < 999).then_some(Seq(n + 1)));
    }
    assert_eq!(log.reader(Seq(1000)).unwrap().count(), 0);
    assert!(matches!(log.reader(Seq(1001)), Err(Error::SeqOutOfRange { .. })));
    assert!(matches!(log.reader(Lsn(lsns[500].0 + 1)), Err(Error::NotARecord { .. })));
    assert!(matches!(log.reader(Lsn(1 << 40)), Err(Error::OutOfRange { .. })));
}

#[test]
fn truncations_drop_exactly_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let lsns: Vec<Lsn> = (0..1000).map(|n| log.append(&numbered(n)).unwrap()).collect();
    log.truncate_before(lsns[300]).unwrap();
    log.truncate_after(lsns[700]).unwrap();
    let expected: Vec<_> = (300..=700).map(numbered).collect();
    assert_eq!(payloads(&log), expected);
    assert_eq!(log.next_seq(), Seq(701));
    assert!(matches!(log.reader(lsns[299]), Err(Error::OutOfRange { .. })));
    assert!(log.truncate_after(Lsn(lsns[500].0 + 1)).is_err());
    assert_eq!(payloads(&log), expected);
    log.append(b"after").unwrap();
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    let mut expected = expected;
    expected.push(b"after".to_vec());
    assert_eq!(payloads(&log), expected);
    let end = log.appended_lsn();
    log.truncate_before(end).unwrap();
    assert_eq!(payloads(&log), Vec::<Vec<u8>>::new());
}

#[test]
fn batches_and_tickets_and_followers_work_together() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let mut follower = log.follow(Lsn::START).unwrap();
    assert!(follower.try_next().unwrap().is_none());
    let range = log.append_batch([b"a", b"b", b"c"]).unwrap();
    assert!(follower.try_next().unwrap().is_none());
    log.sync_to(*range.end()).unwrap();
    for expected in [b"a", b"b", b"c"] {
        assert_eq!(follower.next_blocking().unwrap().unwrap().payload(), expected);
    }
    let ticket = log.submit(b"d").unwrap();
    drop(log.submit(b"e").unwrap());
    ticket.wait().unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    log.submit(b"f").unwrap().on_durable(move |r| told.send(r.is_ok()).unwrap());
    assert!(heard.recv().unwrap());
    for expected in [b"d", b"e", b"f"] {
        assert_eq!(follower.next_blocking().unwrap().unwrap().payload(), expected);
    }
    let waiter = std::thread::spawn(move || follower.next_blocking().unwrap());
    log.close().unwrap();
    assert_eq!(waiter.join().unwrap(), None);
}
