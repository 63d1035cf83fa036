//! Real logs to start from, and what must hold of a log that opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{FileStore, Fs};
use cairn_log::{ErrorKind, Inspection, Log, Lsn, Options, Reader};
use cairn_segmented::{SegmentedOptions, SegmentedStore};
use cairn_sim::{Chooser, SimFs, SimOptions};

/// Where the log under test is.
pub const DIR: &str = "/log";
/// What a superblock says; the rest of its block is zeros.
pub const SUPERBLOCK_HEAD: usize = 88;
/// Bytes before a segment's first group.
pub const DATA_OFFSET: usize = 4096;

/// Files of a log by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Options under which a few records fill several segments.
#[must_use]
pub fn tiny(sim: &SimFs) -> Options {
    Log::options().fs(Arc::new(sim.clone())).segment_size(8 << 10).buffer_size(4 << 10)
}

fn script(seed: u64, script: impl FnOnce(&SimFs, &Log) -> cairn_log::Result<()>) -> SimFs {
    let sim = SimFs::with_options(SimOptions::new().seed(seed));
    let log = tiny(&sim).open(DIR).expect("a new log");
    script(&sim, &log).expect("nothing fails here");
    drop(log);
    sim
}

/// The files of some logs: closed, not closed, torn, cut at both ends, several segments, several
/// generations, another log.
#[must_use]
pub fn real() -> Vec<Files> {
    let closed = script(1, |_, log| {
        for len in [0, 5, 100, 1000] {
            log.append(&vec![7; len])?;
        }
        log.append_batch([&b"a"[..], b"bb", b""])?;
        log.sync()
    });
    let log = tiny(&closed).open(DIR).expect("opens");
    log.append(b"more").expect("appends");
    log.close().expect("closes");
    let unclosed = script(2, |_, log| {
        log.commit(b"one")?;
        log.append(b"two")?;
        log.flush()
    });
    let torn = script(3, |_, log| {
        log.commit(&[1; 600])?;
        log.append(&[2; 2000])?;
        log.flush()?;
        log.append(&[3; 700])?;
        log.flush()
    })
    .power_cut(&mut Chooser::seeded(5));
    let long = script(4, |_, log| {
        for i in 0..30u8 {
            log.commit(&vec![i; usize::from(i) * 37])?;
        }
        Ok(())
    });
    let cut = script(5, |_, log| {
        let lsns: Vec<Lsn> =
            (0..24u8).map(|i| log.commit(&vec![i; 900])).collect::<Result<_, _>>()?;
        log.truncate_before(lsns[9])?;
        log.truncate_after(lsns[20])?;
        log.commit(b"after the cut")?;
        Ok(())
    });
    let recovered = script(6, |sim, log| {
        log.commit(b"first life")?;
        log.append(b"in doubt")?;
        log.flush()?;
        let next = sim.restart();
        tiny(&next).open(DIR)?.commit(b"second life").map(drop)
    });
    let single = script(9, |sim, log| {
        for i in 0..6u8 {
            log.commit(&[i; 200])?;
        }
        let fourth = log.reader(cairn_log::Seq(4))?.next().expect("it is there")?.lsn();
        log.truncate_before(fourth)?;
        let next = sim.restart();
        tiny(&next).open(DIR).map(drop)
    });
    let empty = script(7, |_, _| Ok(()));
    let large = script(8, |_, log| {
        log.commit(b"small")?;
        log.commit(&[9; 20_000])?;
        log.commit(b"small again").map(drop)
    });
    [closed, unclosed, torn, long, cut, recovered, single, empty, large].iter().map(files).collect()
}

/// What is done to a log of which these are the positions of the records.
type Script = fn(&Log, &[Lsn]) -> cairn_log::Result<()>;

/// Logs in stores that can drop no prefix, each with the position of its head: cut at both ends,
/// recovered, closed, ending in a head group.
#[must_use]
pub fn stores() -> Vec<(Vec<u8>, u64)> {
    let before: Script = |log, lsns| log.truncate_before(lsns[5]);
    let again: Script = |log, lsns| {
        log.truncate_before(lsns[2])?;
        log.commit(b"between")?;
        log.truncate_before(lsns[6])?;
        log.commit(b"behind").map(drop)
    };
    let both: Script = |log, lsns| {
        log.truncate_after(lsns[4])?;
        let lsn = log.commit(b"behind the cut")?;
        log.append(b"in doubt")?;
        log.truncate_before(lsn)
    };
    let script = |(seed, script): (u64, Script)| {
        let sim = SimFs::with_options(SimOptions::new().seed(seed));
        let open = || {
            let store = FileStore::open(&sim, STORE.as_ref()).expect("a file");
            Log::with_store(Arc::new(store), tiny(&sim)).expect("opens")
        };
        let image = || trimmed(sim.read_file(STORE).expect("it is there"));
        let log = open();
        let lsns: Vec<Lsn> = (0..8u8).map(|i| log.commit(&[i; 150]).expect("commits")).collect();
        script(&log, &lsns).expect("nothing fails here");
        let head = log.head_lsn().0;
        drop(log);
        let unclosed = image();
        open().close().expect("closes");
        [(unclosed, head), (image(), head)]
    };
    [(1, before), (2, again), (3, both)].into_iter().flat_map(script).collect()
}

/// Where a store in one simulated file is.
const STORE: &str = "/store";

/// The segments of a log, reserved space trimmed.
fn files(sim: &SimFs) -> Files {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let one = |(path, _): (PathBuf, u64)| Some((name(&path)?, trimmed(sim.read_file(&path).ok()?)));
    sim.files().into_iter().filter(|(path, _)| path.starts_with(DIR)).filter_map(one).collect()
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| (last + 1).next_multiple_of(8));
    bytes.truncate(used.max(DATA_OFFSET.min(bytes.len())));
    bytes
}

/// A segment without the zeros of its superblock: what inputs hold.
#[must_use]
pub fn packed(segment: &[u8]) -> Vec<u8> {
    let head = segment.get(..SUPERBLOCK_HEAD).unwrap_or(segment);
    [head, segment.get(DATA_OFFSET..).unwrap_or(&[])].concat()
}

/// The opposite of [`packed`].
#[must_use]
pub fn unpacked(packed: &[u8]) -> Vec<u8> {
    let (head, groups) = packed.split_at(SUPERBLOCK_HEAD.min(packed.len()));
    let mut segment = head.to_vec();
    segment.resize(DATA_OFFSET, 0);
    segment.extend_from_slice(groups);
    segment
}

/// All records, or those before the first error.
pub fn read_all(
    reader: cairn_log::Result<Reader>,
) -> (Vec<(u64, Vec<u8>)>, Option<cairn_log::Error>) {
    read_some(reader, true)
}

fn read_some(
    reader: cairn_log::Result<Reader>,
    strict: bool,
) -> (Vec<(u64, Vec<u8>)>, Option<cairn_log::Error>) {
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut reader = match reader {
        Ok(reader) => reader,
        Err(error) => return (found, Some(error)),
    };
    let mut last = None;
    loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                let (lsn, seq) = (record.lsn(), record.seq().0);
                assert!(!strict || last.is_none_or(|last| last < lsn), "positions rise");
                assert!(record.end_lsn() > lsn);
                assert!(
                    !strict || found.last().is_none_or(|(before, _)| before + 1 == seq),
                    "numbers are dense"
                );
                found.push((seq, record.payload().to_vec()));
                last = Some(lsn);
            }
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

/// A way to open the same log again and again, with nobody else around.
pub type Open<'a> = &'a dyn Fn() -> cairn_log::Result<Log>;

/// What may be asked of a log that opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trust {
    /// Everything: no look at it has found any damage.
    Whole,
    /// Everything but reading what is damaged.
    Damaged,
    /// That it ends: somebody lied under right checksums, which are no signatures.
    Forged,
}

/// What every log that opened can do: be read, take records durably, be closed, be opened again
/// with all of it. Returns what was in it.
pub fn exercise(log: Log, open: Open<'_>, trust: Trust) -> Vec<(u64, Vec<u8>)> {
    if trust == Trust::Forged {
        let (before, _) = read_some(log.reader(Lsn::START), false);
        let _ = log.append(b"appended").and_then(|lsn| log.sync_to(lsn));
        let _ = log
            .append_batch([&b"b1"[..], &[8; 3000], b""])
            .map(|range| read_some(log.reader(*range.start()), false));
        let _ = log.truncate_before(log.durable_lsn());
        let _ = log.truncate_after(log.head_lsn());
        let _ = log.commit(&[5; 9000]);
        let _ = log.close();
        let _ = open().map(|log| read_some(log.reader(Lsn::START), false));
        return before;
    }
    let whole = trust == Trust::Whole;
    let (before, error) = read_all(log.reader(Lsn::START));
    assert!(!whole || error.is_none(), "a log without damage is read to its end: {error:?}");
    if let Some(error) = &error {
        assert_eq!(
            error.kind(),
            ErrorKind::Repair,
            "damage is the only reason not to be read: {error:?}"
        );
    }
    let next = log.next_seq();
    assert!(
        error.is_some() || before.last().is_none_or(|(seq, _)| seq + 1 == next.0),
        "{:?} before {next:?}",
        before.last().map(|(seq, _)| seq)
    );
    let first = log.append(b"appended").expect("takes a record");
    let range = log.append_batch([&b"b1"[..], &[8; 3000], b""]).expect("takes a batch");
    log.sync_to(*range.end()).expect("makes it durable");
    let (new, failed) = read_all(log.reader(first));
    assert!(failed.is_none(), "new records are read: {failed:?}");
    let texts: Vec<&[u8]> = new.iter().map(|(_, payload)| payload.as_slice()).collect();
    assert_eq!(texts, [&b"appended"[..], b"b1", &[8; 3000], b""]);
    assert_eq!(new[0].0, next.0);
    log.commit(&[5; 9000]).expect("takes a large record");
    log.close().expect("closes");
    let log = open().expect("opens again");
    let (after, error_after) = read_all(log.reader(Lsn::START));
    assert_eq!(error.is_some(), error_after.is_some(), "{error:?} before, {error_after:?} after");
    if error.is_none() {
        assert_eq!(after[..before.len()], before, "what was there is still there");
        assert_eq!(after[before.len()..before.len() + 4], new);
        assert_eq!(after.len(), before.len() + 5);
    }
    let (last, failed) = read_all(log.reader(first));
    assert!(failed.is_none() && last.len() == 5, "{failed:?}");
    drop(log);
    before
}

/// Looks at a directory in every read-only way. Returns what may be asked of it, and its records.
pub fn inspect(sim: &SimFs, forged: bool) -> (Trust, Vec<(u64, Vec<u8>)>) {
    let before = sim.fingerprint();
    let found = Inspection::open_on(Arc::new(sim.clone()), DIR);
    let (whole, records) = match &found {
        Err(_) => (false, Vec::new()),
        Ok(inspection) => {
            let mut progress = 0;
            let verified = inspection.verify(|n| progress += n);
            let whole = verified.as_ref().is_ok_and(|v| v.problems.is_empty());
            let (records, error) = read_some(inspection.reader(Lsn::START), !forged);
            assert!(
                forged || !whole || error.is_none(),
                "verified whole, and not readable: {error:?}"
            );
            let segments = inspection.segments();
            assert!(segments.is_sorted_by(|a, b| a.base_lsn < b.base_lsn));
            for segment in &segments {
                let _ = read_some(inspection.reader(segment.base_lsn), !forged);
                let _ = read_some(inspection.reader(segment.base_seq), !forged);
            }
            let _ = (
                inspection.end_state(),
                inspection.durable_lsn(),
                inspection.obsolete(),
                inspection.strays(),
            );
            (whole, records)
        }
    };
    assert_eq!(sim.fingerprint(), before, "looking changes nothing");
    let trust = match (forged, whole) {
        (true, _) => Trust::Forged,
        (false, true) => Trust::Whole,
        (false, false) => Trust::Damaged,
    };
    (trust, records)
}

/// A store of small files in the simulated directory `/store`.
pub fn segmented(sim: &SimFs) -> Result<Arc<SegmentedStore>, cairn_segmented::Error> {
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    SegmentedOptions::new().segment_size_bytes(64 << 10).open(fs, Path::new("/store")).map(Arc::new)
}
