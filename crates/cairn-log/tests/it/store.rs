//! guards: L16 L17 L18 L20 L22
//!
//! The log in one store, whatever that is made of: memory, a file, many files, or something its
//! user wrote.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cairn_io::{FileStore, Fs, MemStore, NativeFs, Store, contract};
use cairn_log::{Dropped, EndState, Error, Log, Lsn, Options, Seq};
use cairn_segmented::SegmentedOptions;
use cairn_sim::{CrashExplorer, SimFs, SimOptions};
use proptest::prelude::*;

use crate::crash::Dice;
use crate::model::{Driver, Medium, Model, Timeline, chain, contents};

fn options() -> Options {
    Log::options().buffer_size(4 << 10)
}

fn open(store: Arc<dyn Store>) -> Log {
    Log::with_store(store, options()).unwrap()
}

/// What a user might write: blocks in a map, nothing but the methods that a store must have.
#[derive(Debug, Default)]
struct Blocks(Mutex<(BTreeMap<u64, [u8; Self::LEN]>, u64)>);

impl Blocks {
    const LEN: usize = 100;

    fn place(at: u64) -> (u64, usize) {
        (at / Self::LEN as u64, usize::try_from(at % Self::LEN as u64).unwrap())
    }
}

impl Store for Blocks {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if end > 1 << 40 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let mut all = self.0.lock().unwrap();
        for (at, byte) in (offset..).zip(bytes) {
            let (block, inside) = Self::place(at);
            all.0.entry(block).or_insert([0; Self::LEN])[inside] = *byte;
        }
        all.1 = all.1.max(end);
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let all = self.0.lock().unwrap();
        let n = usize::try_from(all.1.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        for (i, byte) in buf[..n].iter_mut().enumerate() {
            let (block, inside) = Self::place(offset + i as u64);
            *byte = all.0.get(&block).map_or(0, |block| block[inside]);
        }
        Ok(n)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut all = self.0.lock().unwrap();
        if len < all.1 {
            let (block, inside) = Self::place(len);
            all.0.split_off(&(block + 1));
            all.0.entry(block).or_insert([0; Self::LEN])[inside..].fill(0);
            all.1 = len;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().1)
    }
}

/// Something to keep a log in. Every call opens it again; nobody else has it open then.
type Opener = Box<dyn Fn() -> Arc<dyn Store>>;

fn small_files(fs: &Arc<dyn Fs>, dir: &Path) -> Arc<dyn Store> {
    let options = SegmentedOptions::new().segment_size_bytes(64 << 10).open_files_max(2);
    Arc::new(options.open(fs.clone(), dir).unwrap())
}

/// All kinds of stores, empty.
fn media() -> Vec<(&'static str, Opener)> {
    let memory: Arc<dyn Store> = Arc::new(MemStore::new());
    let blocks: Arc<dyn Store> = Arc::new(Blocks::default());
    let (file, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sim, sim_files): (SimFs, Arc<dyn Fs>) = (SimFs::new(), Arc::new(SimFs::new()));
    let native: Arc<dyn Fs> = Arc::new(NativeFs);
    vec![
        ("memory", Box::new(move || memory.clone())),
        ("blocks", Box::new(move || blocks.clone())),
        (
            "a file",
            Box::new(move || {
                Arc::new(FileStore::open(&NativeFs, &file.path().join("log")).unwrap())
            }),
        ),
        (
            "a simulated file",
            Box::new(move || Arc::new(FileStore::open(&sim, Path::new("/log")).unwrap())),
        ),
        ("files", Box::new(move || small_files(&native, files.path()))),
        ("simulated files", Box::new(move || small_files(&sim_files, Path::new("/log")))),
    ]
}

fn numbered(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|n| n.to_le_bytes().repeat(1 + n as usize % 300)).collect()
}

#[test]
fn a_store_that_a_user_wrote_keeps_the_contract() {
    contract::store(|| Box::new(Blocks::default()));
}

#[test]
fn what_was_appended_is_there_after_reopening_on_every_store() {
    for (name, medium) in media() {
        let log = open(medium());
        assert!(log.open_report().created, "{name}");
        let uuid = log.uuid();
        let records = numbered(0..200);
        for record in &records[..50] {
            log.append(record).unwrap();
        }
        log.append_batch(&records[50..100]).unwrap();
        log.close().unwrap();
        let log = open(medium());
        assert_eq!((log.uuid(), log.open_report().end_state), (uuid, EndState::Closed), "{name}");
        assert_eq!(contents(&log).unwrap(), (0, records[..100].to_vec()), "{name}");
        for record in &records[100..] {
            log.append(record).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        let log = open(medium());
        // All of it was durable, and the handle that was dropped said so.
        assert_eq!((log.uuid(), log.open_report().end_state), (uuid, EndState::Closed), "{name}");
        assert_eq!(contents(&log).unwrap(), (0, records), "{name}");
        assert_eq!(log.next_seq(), Seq(200));
    }
}

#[test]
fn what_was_truncated_never_returns_on_every_store() {
    for (name, medium) in media() {
        let mut expected = numbered(0..60);
        let mut lsns: Vec<Lsn> = Vec::new();
        let log = open(medium());
        lsns.extend(expected.iter().map(|r| log.append(r).unwrap()));
        drop(log);
        for (round, keep) in [50, 48, 20, 19, 19, 1].into_iter().enumerate() {
            // What is appended after a cut is shorter than what was dropped, so that old records
            // lie behind it (L16).
            let log = open(medium());
            assert_eq!(contents(&log).unwrap(), (0, expected.clone()), "{name}, round {round}");
            log.truncate_after(lsns[keep - 1]).unwrap();
            expected.truncate(keep);
            lsns.truncate(keep);
            assert_eq!(contents(&log).unwrap(), (0, expected.clone()), "{name}, round {round}");
            if round % 2 == 0 {
                let short = vec![round as u8; round];
                lsns.push(log.commit(&short).unwrap());
                expected.push(short);
            }
            if round % 3 == 0 {
                log.close().unwrap();
            }
        }
        assert_eq!(contents(&open(medium())).unwrap(), (0, expected), "{name}");
    }
}

/// guards: L66
///
/// As in a directory: a follower that returned a record is told when that record is cut.
#[test]
fn a_follower_learns_of_a_cut_on_every_store() {
    for (name, medium) in media() {
        let log = open(medium());
        let kept = log.commit(b"kept").unwrap();
        log.commit(b"cut").unwrap();
        let mut ahead = log.follow(Lsn::START).unwrap();
        for payload in [&b"kept"[..], b"cut"] {
            assert_eq!(ahead.next_blocking().unwrap().unwrap().payload(), payload, "{name}");
        }
        log.truncate_after(kept).unwrap();
        log.commit(b"new").unwrap();
        assert!(matches!(ahead.try_next(), Err(Error::Truncated { .. })), "{name}");
    }
}

/// What is dropped meanwhile is never taken for damage, wherever the reader stands.
#[test]
fn who_reads_a_beginning_that_was_dropped_is_told_on_every_store() {
    for (name, medium) in media() {
        let (mut told, mut read_on) = (0, 0);
        for stands in [0, 1, 5, 17, 39] {
            let log = open(medium());
            let first = log.next_seq();
            let records: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 9000]).collect();
            let lsns: Vec<Lsn> = records.iter().map(|r| log.commit(r).unwrap()).collect();
            let mut reader = log.reader(first).unwrap();
            let mut follower = log.follow(first).unwrap();
            for record in &records[..stands] {
                assert_eq!(reader.next_record().unwrap().unwrap().payload(), record, "{name}");
                assert_eq!(follower.try_next().unwrap().unwrap().payload(), record, "{name}");
            }
            log.truncate_before(lsns[38]).unwrap();
            for (n, record) in records.iter().enumerate().skip(stands) {
                match reader.next_record() {
                    Ok(Some(found)) => assert_eq!(found.payload(), record, "{name}: {n}"),
                    Err(Error::Truncated { dropped: Dropped::Unread, .. }) => {
                        told += 1;
                        break;
                    }
                    other => panic!("{name}: record {n}: {other:?}"),
                }
                read_on += 1;
            }
            match follower.try_next() {
                Err(Error::Truncated { dropped: Dropped::Unread, .. }) if stands < 38 => {}
                Ok(Some(last)) if stands == 39 => assert_eq!(last.payload(), records[39]),
                other => panic!("{name}: {other:?}"),
            }
            log.close().unwrap();
        }
        println!("{name}: {told} told, {read_on} records read");
    }
}

#[test]
fn a_prefix_is_dropped_and_the_log_is_found_again_without_its_superblock() {
    for (name, medium) in media() {
        let log = open(medium());
        let uuid = log.uuid();
        let records: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 9000]).collect();
        let mut lsns: Vec<Lsn> = records.iter().map(|r| log.append(r).unwrap()).collect();
        for head in [3, 11, 12, 30] {
            log.truncate_before(lsns[head]).unwrap();
            assert_eq!(log.head_lsn(), lsns[head], "{name}");
            assert_eq!(
                contents(&log).unwrap(),
                (head as u64, records[head..].to_vec()),
                "{name}, {head}"
            );
        }
        drop(log);
        let dropped = medium().head();
        let can_drop = !matches!(name, "blocks" | "a file" | "a simulated file");
        assert_eq!(dropped > 64 << 10, can_drop, "{name} dropped {dropped}");
        for (round, head) in [30, 30, 39, 40].into_iter().enumerate() {
            let log = open(medium());
            assert_eq!((log.uuid(), log.open_report().created), (uuid, false), "{name}");
            let (first, found) = contents(&log).unwrap();
            let old = &records[usize::try_from(first).unwrap().min(40)..];
            assert_eq!(found[..old.len()], *old, "{name}, round {round}");
            assert_eq!(found.len(), old.len() + round, "{name}, round {round}");
            assert!(found[old.len()..].iter().all(|record| record == b"more"));
            if first > 0 && lsns[0] < log.head_lsn() {
                assert!(
                    matches!(log.reader(lsns[0]), Err(Error::OutOfRange { .. }))
                        || lsns[0] == Lsn::START
                );
                assert!(matches!(log.truncate_after(lsns[0]), Err(Error::OutOfRange { .. })));
            }
            lsns.push(log.commit(b"more").unwrap());
            log.truncate_before(lsns[head]).unwrap();
            if round == 1 {
                log.close().unwrap();
            }
        }
        let log = open(medium());
        assert_eq!(contents(&log).unwrap(), (40, vec![b"more".to_vec(); 4]), "{name}");
    }
}

#[test]
fn everything_can_be_dropped_from_a_store() {
    for (name, medium) in media() {
        let log = open(medium());
        for n in 0..30u8 {
            log.append(&[n; 5000]).unwrap();
        }
        log.truncate_before(log.appended_lsn()).unwrap();
        drop(log);
        let log = open(medium());
        assert_eq!(contents(&log).unwrap(), (30, vec![]), "{name}");
        assert_eq!(log.next_seq(), Seq(30), "{name}");
        log.commit(b"one").unwrap();
        drop(log);
        assert_eq!(contents(&open(medium())).unwrap(), (30, vec![b"one".to_vec()]), "{name}");
    }
}

fn image() -> Vec<u8> {
    let store = Arc::new(MemStore::new());
    let log = open(store.clone());
    log.append_batch(numbered(0..20)).unwrap();
    log.close().unwrap();
    store.to_bytes()
}

/// A refused store is as it was.
#[track_caller]
fn refusal(bytes: &[u8], head: u64) -> Error {
    let store = Arc::new(MemStore::from_bytes(bytes));
    store.truncate_before(head).unwrap();
    let before = store.to_bytes();
    let refused = Log::with_store(store.clone(), options());
    assert!(store.to_bytes() == before && store.head() == head, "a refused store was changed");
    refused.expect_err("a store that must be refused")
}

#[test]
fn foreign_bytes_in_a_store_are_refused_and_kept() {
    let text = b"Dear diary, this is not a log. ".repeat(300);
    let mut late = vec![0; 300_000];
    late[299_999] = 1;
    for foreign in [b"x".to_vec(), text.clone(), late, vec![0xFF; 5000]] {
        assert!(matches!(refusal(&foreign, 0), Error::Foreign { .. }));
    }
    // Without a beginning, nothing says what it was.
    for head in [1, 4096, 5000] {
        assert!(matches!(refusal(&text, head), Error::Foreign { .. }));
    }
    assert!(matches!(refusal(&vec![0; 10_000], 4096), Error::Foreign { .. }));
}

#[test]
fn a_damaged_superblock_in_a_store_is_corrupt_not_new() {
    // guards: L22
    let good = image();
    for at in [8, 12, 20, 33, 41, 100, 4095] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(matches!(refusal(&bytes, 0), Error::Corrupt(_)), "byte {at}");
    }
    for len in [8, 100, 4095] {
        assert!(matches!(refusal(&good[..len], 0), Error::Corrupt(_)), "{len} bytes");
    }
}

#[test]
fn a_newer_version_in_a_store_is_refused_and_kept() {
    let mut bytes = image();
    bytes[8..12].copy_from_slice(&3u32.to_le_bytes());
    bytes[12..16].fill(0);
    let crc = crc32c::crc32c(&bytes[..4096]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let error = refusal(&bytes, 0);
    assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 2, .. }), "{error}");
}

#[test]
fn damage_below_the_watermark_in_a_store_is_refused_and_kept() {
    // guards: L10
    let good = image();
    for at in (4096..good.len()).step_by(97) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let store = Arc::new(MemStore::from_bytes(bytes.clone()));
        match Log::with_store(store.clone(), options()) {
            Err(Error::Corrupt(_)) => assert!(store.to_bytes() == bytes, "byte {at}"),
            Err(error) => panic!("byte {at}: {error}"),
            // The last group of all: nothing says that it had been durable.
            Ok(log) => {
                let mark = good.iter().rposition(|b| *b != 0).unwrap() - 56;
                assert!(at >= mark, "byte {at} of {}", good.len());
                assert_eq!(contents(&log).unwrap().1, numbered(0..20));
            }
        }
    }
}

/// What is left of a log after its oldest records were dropped, once for each of `heads`, and where
/// that begins. Four records are appended before each drop.
fn beheaded(heads: &[usize], end: impl FnOnce(Log)) -> (Vec<u8>, u64) {
    let store = Arc::new(MemStore::new());
    let log = open(store.clone());
    let mut lsns = Vec::new();
    for head in heads {
        lsns.extend((0..4u8).map(|n| log.commit(&[n; 20]).unwrap()));
        log.truncate_before(lsns[*head]).unwrap();
    }
    end(log);
    (store.to_bytes(), store.head())
}

/// A store that begins at `head` with `kept`.
fn begins_at(head: u64, kept: &[u8]) -> Arc<MemStore> {
    let store = MemStore::from_bytes([&vec![0; usize::try_from(head).unwrap()], kept].concat());
    store.truncate_before(head).unwrap();
    Arc::new(store)
}

#[test]
fn no_flipped_bit_is_cut_from_a_store_whose_beginning_was_dropped() {
    // guards: L10 The last group is a head group. It lies at the watermark; but the drop tells that
    // it had been durable.
    for heads in [&[2][..], &[1, 6], &[1, 4, 9]] {
        // Dropped, the log would end in a mark.
        let (kept, head) = beheaded(heads, std::mem::forget);
        assert!(head > 4096 && Log::with_store(begins_at(head, &kept), options()).is_ok());
        for bit in 0..kept.len() * 8 {
            let mut bytes = kept.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let store = begins_at(head, &bytes);
            match Log::with_store(store.clone(), options()) {
                // Foreign when the group that names the log cannot be told from any other bytes.
                Err(Error::Corrupt(_) | Error::Foreign { .. }) => {}
                opened => panic!("heads {heads:?}, bit {bit}: {opened:?}"),
            }
            assert!(
                store.to_bytes() == bytes && store.head() == head,
                "a refused store was changed"
            );
        }
    }
}

#[test]
fn a_store_whose_beginning_was_dropped_opens_again_or_not_at_all() {
    // guards: L10
    let ends: [fn(Log); 3] = [
        drop,
        |log| log.close().unwrap(),
        |log| {
            log.commit(b"and one").unwrap();
        },
    ];
    for at_end in ends {
        let (kept, head) = beheaded(&[1, 5], at_end);
        let (mut opened, mut refused) = (0, 0);
        let mut image = |bytes: &[u8]| {
            let store = begins_at(head, bytes);
            let Ok(log) = Log::with_store(store.clone(), options()) else {
                assert!(store.to_bytes() == bytes, "a refused store was changed");
                refused += 1;
                return;
            };
            let (first, mut records) = contents(&log).unwrap();
            assert_eq!((first, &records[..3]), (5, &[vec![1; 20], vec![2; 20], vec![3; 20]][..]));
            log.commit(b"more").unwrap();
            drop(log);
            records.push(b"more".to_vec());
            assert_eq!(contents(&open(store)).unwrap(), (5, records));
            opened += 1;
        };
        image(&kept);
        for at in 0..kept.len() {
            let mut bytes = kept.clone();
            bytes[at] ^= 0x10;
            image(&bytes);
            image(&kept[..at]);
        }
        assert!(opened > 0 && refused > 300, "{opened} opened, {refused} refused");
    }
}

/// The head group of some log, made for the position `lsn`: that its checksums are right takes no
/// secret.
fn head_group(lsn: u64) -> Vec<u8> {
    let uuid = [0xAA; 16];
    let sum = |parts: &[&[u8]]| crc32c::crc32c(&parts.concat()).to_le_bytes();
    let (generation, at) = (1u32.to_le_bytes(), lsn.to_le_bytes());
    let number = 3u64.to_le_bytes();
    let (epoch, rest) = (7u64.to_le_bytes(), [0; 8]);
    let header =
        [&[0xC7, 4, 0, 0, 104, 0, 0, 0][..], &generation, &at, &at, &number, &epoch, &rest]
            .concat();
    let frame = [&[32, 0, 0, 0, 3, 0, 0, 0][..], &at, &number, &uuid, &[0; 4]].concat();
    let place = u32::try_from((lsn + 56) / 8).unwrap().wrapping_mul(0x9E37_79B9);
    let of_frame = crc32c::crc32c_append(
        u32::from_le_bytes(sum(&[&uuid, &generation, &epoch])) ^ place,
        &frame,
    )
    .to_le_bytes();
    [&sum(&[&uuid, &header])[..], &header, &of_frame, &frame].concat()
}

#[test]
fn a_record_that_holds_a_head_group_does_not_become_the_log() {
    // guards: L17
    let store = Arc::new(MemStore::new());
    let log = open(store.clone());
    let mut expected = numbered(0..3);
    let lsns: Vec<Lsn> = expected.iter().map(|record| log.commit(record).unwrap()).collect();
    // Before the log's own head group, and behind it; the payload starts 68 bytes behind the group.
    for _ in 0..2 {
        let payload = [&[0; 4], &head_group(log.appended_lsn().0 + 72)[..], b"and more"].concat();
        log.commit(&payload).unwrap();
        expected.push(payload);
        log.truncate_before(lsns[1]).unwrap();
        log.commit(b"ordinary").unwrap();
        expected.push(b"ordinary".to_vec());
    }
    let uuid = log.uuid();
    drop(log);
    let (kept, head) = (store.to_bytes(), store.head());
    assert!(head > 4096);
    let log = open(store.clone());
    assert_eq!((log.uuid(), contents(&log).unwrap()), (uuid, (1, expected[1..].to_vec())));
    log.close().unwrap();
    assert_eq!(contents(&open(store)).unwrap(), (1, expected[1..].to_vec()));
    // A torn tail is the log's as well, unless what is torn claims to be another log.
    let torn = [&kept[..], &[0xEE; 100]].concat();
    let log = open(begins_at(head, &torn));
    assert_eq!((log.uuid(), contents(&log).unwrap()), (uuid, (1, expected[1..].to_vec())));
    let end = head + kept.len() as u64 - 4096;
    let claimed = [&kept[..], &head_group(end)].concat();
    let store = begins_at(head, &claimed);
    assert!(matches!(Log::with_store(store.clone(), options()), Err(Error::WrongLog { expected,
            .. }) if expected == uuid));
    assert!(store.to_bytes() == claimed, "a refused store was changed");
}

#[test]
fn a_lost_file_at_the_beginning_of_a_store_is_corruption_not_a_shorter_log() {
    // guards: L10
    let sim = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let log = open(small_files(&fs, Path::new("/log")));
    let lsns: Vec<Lsn> = (0..30u8).map(|n| log.commit(&[n; 9000]).unwrap()).collect();
    log.truncate_before(lsns[8]).unwrap();
    log.close().unwrap();
    let log = open(small_files(&fs, Path::new("/log")));
    assert_eq!(log.next_seq(), Seq(30));
    drop(log);
    let files = sim.files();
    let (oldest, _) = files.iter().find(|(_, len)| *len > 4096).expect("a file with records");
    fs.remove(oldest).unwrap();
    let before = sim.fingerprint();
    match Log::with_store(small_files(&fs, Path::new("/log")), options()) {
        Err(Error::Corrupt(corruption)) => {
            assert_eq!(corruption.lsn, lsns[8]);
            assert!(corruption.resumes.is_some_and(|lsn| lsn > lsns[8]));
        }
        opened => panic!("{opened:?}"),
    }
    assert_eq!(sim.fingerprint(), before);
}

#[test]
fn zeros_are_an_empty_store() {
    // guards: L23
    for len in [0, 1, 4096, 200_000] {
        let log = open(Arc::new(MemStore::from_bytes(vec![0; len])));
        assert!(log.open_report().created);
        log.commit(b"first").unwrap();
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Append(usize),
    Batch(Vec<usize>),
    Sync,
    Flush,
    TruncateBefore(prop::sample::Index),
    TruncateAfter(prop::sample::Index),
    Close,
    Kill,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0..3000usize).prop_map(Operation::Append),
        2 => prop::collection::vec(0..900usize, 1..5).prop_map(Operation::Batch),
        2 => Just(Operation::Sync),
        2 => Just(Operation::Flush),
        2 => any::<prop::sample::Index>().prop_map(Operation::TruncateBefore),
        2 => any::<prop::sample::Index>().prop_map(Operation::TruncateAfter),
        1 => Just(Operation::Close),
        2 => Just(Operation::Kill),
    ]
}

/// A log in memory, and what must be in it.
struct Kept {
    store: Arc<MemStore>,
    log: Option<Log>,
    /// Position, payload, and the number after the last record of its batch; by number, dropped
    /// ones included.
    records: Vec<(Lsn, Vec<u8>, usize)>,
    head: usize,
    /// Records below this number survive the process.
    flushed: usize,
}

impl Kept {
    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn append(&mut self, payloads: &[Vec<u8>]) {
        let range = self.log().append_batch(payloads).unwrap();
        let stop = self.records.len() + payloads.len();
        let mut lsn = range.start().0;
        for payload in payloads {
            self.records.push((Lsn(lsn), payload.clone(), stop));
            lsn = (lsn + 12 + payload.len() as u64).next_multiple_of(8);
        }
        assert_eq!(*range.end(), self.records[stop - 1].0);
    }

    fn reopen(&mut self) {
        let log = open(self.store.clone());
        let end = usize::try_from(log.next_seq().0).unwrap();
        assert!(end >= self.flushed.max(self.head) && end <= self.records.len());
        assert!(end == self.head || end == self.records[end - 1].2, "a batch is cut");
        self.records.truncate(end);
        self.flushed = end;
        self.log = Some(log);
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(len) => self.append(&[vec![self.records.len() as u8; *len]]),
            Operation::Batch(lens) => {
                self.append(&lens.iter().map(|len| vec![*len as u8; *len]).collect::<Vec<_>>());
            }
            Operation::Sync => {
                self.log().sync().unwrap();
                self.flushed = self.records.len();
            }
            Operation::Flush => {
                self.log().flush().unwrap();
                self.flushed = self.records.len();
            }
            Operation::TruncateBefore(at) => {
                let at = self.head + at.index(self.records.len() - self.head + 1);
                let lsn = self.records.get(at).map_or(self.log().appended_lsn(), |r| r.0);
                self.log().truncate_before(lsn).unwrap();
                self.head = at;
                self.flushed = self.records.len();
            }
            Operation::TruncateAfter(at) if self.records.len() > self.head => {
                let at = self.head + at.index(self.records.len() - self.head);
                self.log().truncate_after(self.records[at].0).unwrap();
                self.records.truncate(at + 1);
                self.records.iter_mut().for_each(|r| r.2 = r.2.min(at + 1));
                self.flushed = at + 1;
            }
            Operation::TruncateAfter(_) => {}
            Operation::Close => {
                self.log.take().unwrap().close().unwrap();
                self.flushed = self.records.len();
                self.reopen();
            }
            Operation::Kill => {
                // The copy is what the process left behind; what it does when dropped goes to the
                // old one.
                self.store = Arc::new(MemStore::clone(&self.store));
                self.reopen();
            }
        }
    }

    fn check(&self) {
        let (first, found) = contents(self.log()).unwrap();
        assert_eq!(usize::try_from(first).unwrap(), self.head);
        let expected: Vec<_> = self.records[self.head..].iter().map(|r| r.1.clone()).collect();
        assert!(found == expected, "{} records found, {} expected", found.len(), expected.len());
        if let Some((lsn, payload, _)) = self.records[self.head..].last() {
            let last = self.log().reader(*lsn).unwrap().next().unwrap().unwrap();
            assert_eq!((last.lsn(), last.payload()), (*lsn, payload.as_slice()));
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_operations_on_a_log_in_memory_is_as_the_model_says(
        operations in prop::collection::vec(operation(), 0..40),
    ) {
        let store = Arc::new(MemStore::new());
        let log = Some(open(store.clone()));
        let mut kept = Kept { store, log, records: Vec::new(), head: 0, flushed: 0 };
        for operation in &operations {
            kept.apply(operation);
            kept.check();
            // Reading flushes.
            kept.flushed = kept.records.len();
        }
        kept.store = Arc::new(MemStore::clone(&kept.store));
        kept.reopen();
        kept.check();
    }
}

/// A log in small simulated files, and the promises as they stood after each system call.
struct InFiles {
    sim: SimFs,
    log: Option<Log>,
    model: Model,
    timeline: Timeline,
    lsns: Vec<Lsn>,
}

fn open_in_files(sim: &SimFs) -> Result<Log, String> {
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let files = SegmentedOptions::new().segment_size_bytes(64 << 10);
    let store = files
        .open(fs.clone(), Path::new("/store"))
        .map_err(|e| format!("the store does not open: {e}"))?;
    Log::with_store(Arc::new(store), options().fs(fs))
        .map_err(|e| format!("the log does not open: {}", chain(&e)))
}

impl InFiles {
    fn new(seed: u64) -> Self {
        let sim = SimFs::with_options(SimOptions::new().seed(seed));
        let mut timeline = Timeline::default();
        timeline.note(0, vec![Model::default()]);
        InFiles { sim, log: None, model: Model::default(), timeline, lsns: Vec::new() }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn note(&mut self) {
        self.timeline.note(self.sim.op_count(), vec![self.model.clone()]);
    }

    fn open(&mut self) {
        let log = open_in_files(&self.sim).unwrap();
        let (first, found) = contents(&log).unwrap();
        self.model.accepts(first, &found).unwrap();
        let end = usize::try_from(first).unwrap() + found.len();
        self.model.records.truncate(end);
        self.model.batches.truncate(end);
        self.lsns.truncate(end);
        self.model.acknowledged = end as u64;
        self.log = Some(log);
        self.note();
    }

    /// From now on the records may be found, and what follows says when they must.
    fn append(&mut self, lens: &[usize]) {
        let start = self.model.records.len() as u64;
        let payloads: Vec<Vec<u8>> =
            (start..).zip(lens).map(|(seq, len)| vec![seq as u8 + 1; *len]).collect();
        for payload in &payloads {
            self.model.records.push(Some(payload.as_slice().into()));
            self.model.batches.push((start, start + lens.len() as u64));
        }
        let mut lsn = self.log().append_batch(&payloads).unwrap().start().0;
        for len in lens {
            self.lsns.push(Lsn(lsn));
            lsn = (lsn + 12 + *len as u64).next_multiple_of(8);
        }
        self.note();
    }

    fn sync(&mut self) {
        self.log().sync().unwrap();
        self.model.acknowledged = self.model.records.len() as u64;
        self.note();
    }

    fn truncate_before(&mut self, seq: usize) {
        self.log().truncate_before(self.lsns[seq]).unwrap();
        self.model.head = seq as u64;
        self.model.acknowledged = self.model.records.len() as u64;
        self.note();
    }

    fn truncate_after(&mut self, seq: usize) {
        self.log().truncate_after(self.lsns[seq]).unwrap();
        self.model.records.truncate(seq + 1);
        self.model.batches.truncate(seq + 1);
        self.model.batches.iter_mut().for_each(|(_, stop)| *stop = (*stop).min(seq as u64 + 1));
        self.lsns.truncate(seq + 1);
        self.model.acknowledged = seq as u64 + 1;
        self.note();
    }

    fn die(&mut self) {
        self.sim.kill();
        self.log = None;
        self.sim = self.sim.restart();
        self.open();
    }

    fn check(&self, point: usize, sim: &SimFs, go_on: bool) -> Result<(), String> {
        let log = open_in_files(sim)?;
        let (first, found) = contents(&log)?;
        self.timeline.accepts(point, first, &found)?;
        if !go_on {
            return Ok(());
        }
        log.commit(b"one more").map_err(|e| chain(&e))?;
        drop(log);
        let (first_after, mut after) = contents(&open_in_files(sim)?)?;
        let last = after.pop();
        match (found.is_empty() || first == first_after)
            && after == found
            && last.as_deref() == Some(b"one more")
        {
            true => Ok(()),
            false => {
                Err(format!("{} records and one more became {}", found.len(), after.len() + 1))
            }
        }
    }
}

#[test]
fn no_power_cut_takes_back_what_a_log_in_many_files_acknowledged() {
    let mut run = InFiles::new(1);
    run.open();
    run.append(&[100]);
    run.sync();
    run.append(&[20, 3000, 0]);
    run.append(&[9000]);
    run.sync();
    for _ in 0..5 {
        run.append(&[30_000]);
        run.sync();
    }
    run.append(&[700]);
    run.die();
    run.append(&[500, 600]);
    run.sync();
    run.truncate_before(7);
    run.append(&[40_000]);
    run.log().flush().unwrap();
    run.truncate_after(9);
    run.append(&[50]);
    run.sync();
    run.truncate_before(10);
    run.log.take().unwrap().close().unwrap();
    run.model.acknowledged = run.model.records.len() as u64;
    run.note();
    run.open();
    run.append(&[2000]);
    run.append(&[10]);
    run.die();
    run.append(&[60]);
    run.sync();
    let explorer = CrashExplorer::new(run.sim.trace()).exhaustive_limit(32).samples_per_point(24);
    let (mut nth, mut nested) = (0u64, 0);
    let report = explorer.for_each(|state| {
        nth += 1;
        let sim = state.fs();
        run.check(state.point(), &sim, nth.is_multiple_of(8))?;
        if nth.is_multiple_of(40) {
            let sim = state.fs();
            drop(open_in_files(&sim)?);
            let inner = CrashExplorer::new(sim.trace())
                .label("nested")
                .exhaustive_limit(8)
                .samples_per_point(8);
            let report = inner.for_each(|again| run.check(state.point(), &again.fs(), false));
            nested += report.map_err(|failure| failure.to_string())?.distinct;
        }
        Ok::<(), String>(())
    });
    let report = report.unwrap();
    println!(
        "{} distinct states of {} operations, {nested} after them",
        report.distinct,
        run.sim.op_count()
    );
    assert!(report.distinct > 500);
}

/// In many files: appends records of which two or three fill a file, commits, and drops all but the
/// last few again and again, so that files go; now and then a close, a kill, or a cut.
pub(crate) fn dropping(seed: u64, steps: usize) -> Driver {
    let sim = SimFs::with_options(SimOptions::new().seed(seed));
    let mut driver = Driver::new(sim, options());
    driver.medium = Medium::Files;
    let mut dice = Dice(seed);
    driver.open().unwrap();
    for _ in 0..steps {
        let (head, end) = (driver.model.head, driver.end());
        match dice.below(100) {
            0..25 => driver.append(20_000 + dice.below(20_000)).unwrap(),
            25..45 => driver.append(dice.below(1500)).unwrap(),
            45..50 => driver.batch(&[dice.below(200), dice.below(900), dice.below(100)]).unwrap(),
            50..60 => driver.sync().unwrap(),
            60..75 => driver.flush().unwrap(),
            75..85 if end > head => {
                let kept = 1 + dice.below(2.min((end - head) as usize)) as u64;
                driver.truncate_before(end - kept).unwrap();
            }
            85..90 if end > head => {
                driver.truncate_after(head + dice.below((end - head) as usize) as u64).unwrap()
            }
            90..95 => {
                driver.close().unwrap();
                driver.open().unwrap();
            }
            95..100 => {
                driver.die();
                driver.open().unwrap();
            }
            _ => {}
        }
    }
    driver
}
