//! guards: L15 L16 L21 L29
//!
//! The format, byte for byte: what was written once is written the same today, and is read for
//! ever. `CAIRN_BLESS=1` writes the fixtures anew; that is right only together with a new format
//! version, or before the first release.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Fs, MemStore, Store};
use cairn_log::{EndCase, EndState, Error, Inspection, Log, Lsn, Options, Retention};
use cairn_sim::{SimFs, SimOptions};

use crate::hostile::crc32c_append;
use crate::model::DIR;

/// What a fixture is made by, and what is read from it.
struct Scenario {
    name: &'static str,
    about: &'static str,
    write: fn() -> Vec<(String, Vec<u8>)>,
    end_state: EndState,
    /// Number and payload of each record; payloads without the zeros at their end.
    records: &'static [(u64, &'static str)],
    segments: usize,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "closed",
        about: "three records, each with a barrier of its own, and a clean close",
        write: || {
            written(|sim| {
                let log = open(sim);
                ["one", "two", "three"].iter().for_each(|r| {
                    log.commit(r.as_bytes()).unwrap();
                });
                log.close().unwrap();
            })
        },
        end_state: EndState::Closed,
        records: &[(0, "one"), (1, "two"), (2, "three")],
        segments: 1,
    },
    Scenario {
        name: "empty",
        about: "a log that was created and closed, nothing else",
        write: || written(|sim| open(sim).close().unwrap()),
        end_state: EndState::Closed,
        records: &[],
        segments: 1,
    },
    Scenario {
        name: "batch",
        about: "a record, a batch of three with an empty one, and a clean close",
        write: || {
            written(|sim| {
                let log = open(sim);
                log.commit(b"alone").unwrap();
                log.append_batch([&b"first"[..], b"", b"third"]).unwrap();
                log.sync().unwrap();
                log.close().unwrap();
            })
        },
        end_state: EndState::Closed,
        records: &[(0, "alone"), (1, "first"), (2, ""), (3, "third")],
        segments: 1,
    },
    Scenario {
        name: "rotated",
        about: "five records of 1,500 bytes in segments of 8 KiB: two sealed segments and the \
             active one, each made ahead but the first, closed",
        write: || {
            written(|sim| {
                let log = open(sim);
                (0..5).for_each(|n| {
                    log.commit(&long(n)).unwrap();
                });
                log.close().unwrap();
            })
        },
        end_state: EndState::Closed,
        records: &[(0, "long 0"), (1, "long 1"), (2, "long 2"), (3, "long 3"), (4, "long 4")],
        segments: 3,
    },
    Scenario {
        name: "ahead",
        about: "as rotated with four records, and no close: the last segment has its name, and \
             nothing in it yet",
        write: || {
            written(|sim| {
                let log = open(sim);
                (0..4).for_each(|n| {
                    log.commit(&long(n)).unwrap();
                });
                sim.kill();
            })
        },
        end_state: EndState::Unclosed,
        records: &[(0, "long 0"), (1, "long 1"), (2, "long 2"), (3, "long 3")],
        segments: 2,
    },
    Scenario {
        name: "truncated",
        about: "as rotated, then everything before record 1 and everything after record 3 \
             dropped, one more record, closed",
        write: || {
            written(|sim| {
                let log = open(sim);
                let lsns: Vec<Lsn> = (0..5).map(|n| log.commit(&long(n)).unwrap()).collect();
                log.truncate_before(lsns[1]).unwrap();
                log.truncate_after(lsns[3]).unwrap();
                log.commit(b"after the cut").unwrap();
                log.close().unwrap();
            })
        },
        end_state: EndState::Closed,
        records: &[(1, "long 1"), (2, "long 2"), (3, "long 3"), (4, "after the cut")],
        segments: 2,
    },
    Scenario {
        name: "torn",
        about: "a record with a barrier, two groups without one of which the second is torn, and \
             no close",
        write: || written(torn),
        end_state: EndState::Torn { bytes: 76 },
        records: &[(0, "durable"), (1, "written")],
        segments: 1,
    },
    Scenario {
        name: "half",
        about: "a group of a record and a batch of two, of which the second one is torn, and no \
             close",
        write: || written(half),
        end_state: EndState::Torn { bytes: 32 },
        records: &[(0, "kept")],
        segments: 1,
    },
    Scenario {
        name: "recovered",
        about: "as torn, opened again: generation 2 carries what verified; one more record, closed",
        write: || {
            written(|sim| {
                torn(sim);
                let sim = sim.restart();
                let log = open(&sim);
                log.commit(b"recovered").unwrap();
                log.close().unwrap();
            })
        },
        end_state: EndState::Closed,
        records: &[(0, "durable"), (1, "written"), (2, "recovered")],
        segments: 1,
    },
    Scenario {
        name: "recycled",
        about: "long records, all but the newest segment dropped again and again, until one is \
             begun in a dropped one's file; one more record, and no close",
        write: || {
            written(|sim| {
                let log =
                    options().segment_size(16 << 10).fs(Arc::new(sim.clone())).open(DIR).unwrap();
                for n in 1.. {
                    let lsn = log.commit(&long(n)).unwrap();
                    log.retain(Retention::From(lsn)).unwrap();
                    if log.stats().recycled > 0 {
                        break;
                    }
                }
                log.commit(b"in a used file").unwrap();
                sim.kill();
            })
        },
        end_state: EndState::Unclosed,
        records: &[(14, "long 15"), (15, "in a used file")],
        segments: 1,
    },
    Scenario {
        name: "store",
        about: "the log in one store: three records, the first dropped, the last cut off, one \
             more, not closed; opened again and closed",
        write: || {
            let (sim, store) =
                (SimFs::with_options(SimOptions::new().seed(1)), Arc::new(MemStore::new()));
            let options = || Log::options().fs(Arc::new(sim.clone()));
            let log = Log::with_store(store.clone(), options()).unwrap();
            let lsns: Vec<Lsn> =
                ["one", "two", "three"].iter().map(|r| log.commit(r.as_bytes()).unwrap()).collect();
            log.truncate_before(lsns[1]).unwrap();
            log.truncate_after(lsns[1]).unwrap();
            log.commit(b"four").unwrap();
            drop(log);
            Log::with_store(store.clone(), options()).unwrap().close().unwrap();
            let mut bytes = vec![0; usize::try_from(store.len().unwrap()).unwrap()];
            let head = store.head();
            let from = usize::try_from(head).unwrap();
            store.read_at(head, &mut bytes[from..]).unwrap();
            vec![(format!("store-from-{head}"), bytes)]
        },
        end_state: EndState::Closed,
        records: &[(1, "two"), (2, "four")],
        segments: 1,
    },
];

fn options() -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10)
}

fn open(sim: &SimFs) -> Log {
    options().fs(Arc::new(sim.clone())).open(DIR).unwrap()
}

fn long(n: u8) -> Vec<u8> {
    let mut payload = format!("long {n}").into_bytes();
    payload.resize(1500, 0);
    payload
}

fn torn(sim: &SimFs) {
    let log = open(sim);
    log.commit(b"durable").unwrap();
    log.append(b"written").unwrap();
    log.flush().unwrap();
    let lsn = log.append(b"torn off").unwrap();
    log.flush().unwrap();
    sim.kill();
    drop(log);
    let path = Path::new(DIR).join("00000000000000000000-0000000001.cairn");
    sim.flip_bit(path, 4096 + lsn.0 + 14, 5).unwrap();
}

fn half(sim: &SimFs) {
    let log = open(sim);
    log.append(b"kept").unwrap();
    let batch = log.append_batch([&b"half"[..], b"way"]).unwrap();
    log.flush().unwrap();
    sim.kill();
    drop(log);
    let path = Path::new(DIR).join("00000000000000000000-0000000001.cairn");
    sim.flip_bit(path, 4096 + batch.end().0 + 13, 5).unwrap();
}

fn written(write: impl FnOnce(&SimFs)) -> Vec<(String, Vec<u8>)> {
    let sim = SimFs::with_options(SimOptions::new().seed(1));
    write(&sim);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    sim.files().into_iter().map(|(path, _)| (name(&path), sim.read_file(&path).unwrap())).collect()
}

fn fixture(name: &str) -> PathBuf {
    of_version(2, name)
}

fn of_version(version: u32, name: &str) -> PathBuf {
    let folder = format!("tests/fixtures/log-v{version}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("{name}.hex"))
}

/// Files as text: name and length, then every line of 16 bytes that is not all zeros, with its
/// offset.
fn to_text(about: &str, files: &[(String, Vec<u8>)]) -> String {
    let mut text = format!("# {about}\n");
    for (name, bytes) in files {
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        for (line, chunk) in
            bytes.chunks(16).enumerate().filter(|(_, chunk)| chunk.iter().any(|b| *b != 0))
        {
            let hex: Vec<String> = chunk.iter().map(|b| format!("{b:02x}")).collect();
            writeln!(text, "{:08x}  {}", line * 16, hex.join(" ")).unwrap();
        }
    }
    text
}

fn from_text(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "file" {
            files.push((words[1].to_owned(), vec![0; words[2].parse().unwrap()]));
            continue;
        }
        let bytes = &mut files.last_mut().unwrap().1;
        let at = usize::from_str_radix(words[0], 16).unwrap();
        for (i, hex) in words[1..].iter().enumerate() {
            bytes[at + i] = u8::from_str_radix(hex, 16).unwrap();
        }
    }
    files
}

#[test]
fn what_is_written_today_is_what_was_written_then() {
    for scenario in SCENARIOS {
        let path = fixture(scenario.name);
        let today = to_text(scenario.about, &(scenario.write)());
        if std::env::var_os("CAIRN_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &today).unwrap();
        }
        let then = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        let line = today.lines().zip(then.lines()).find(|(today, then)| today != then);
        assert!(
            today == then,
            "{}: the format changed, first at {line:?}; see CAIRN_BLESS above",
            scenario.name
        );
    }
}

fn records(reader: cairn_log::Result<cairn_log::Reader>) -> Vec<(u64, String)> {
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim_end_matches('\0').to_owned();
    reader.unwrap().map(|r| r.map(|r| (r.seq().0, text(r.payload()))).unwrap()).collect()
}

fn expected(scenario: &Scenario) -> Vec<(u64, String)> {
    scenario.records.iter().map(|(seq, payload)| (*seq, (*payload).to_owned())).collect()
}

#[test]
fn what_was_written_then_is_read_today() {
    for scenario in SCENARIOS {
        let files = from_text(&std::fs::read_to_string(fixture(scenario.name)).unwrap());
        if scenario.name == "store" {
            let store = MemStore::from_bytes(files[0].1.clone());
            store
                .truncate_before(files[0].0.strip_prefix("store-from-").unwrap().parse().unwrap())
                .unwrap();
            let log = Log::with_store(Arc::new(store), Log::options()).unwrap();
            assert_eq!(log.open_report().end_state, scenario.end_state);
            assert_eq!(records(log.reader(Lsn::START)), expected(scenario));
            continue;
        }
        let sim = SimFs::new();
        sim.create_dir(Path::new(DIR)).unwrap();
        files
            .iter()
            .for_each(|(name, bytes)| sim.write_file(Path::new(DIR).join(name), bytes).unwrap());
        let inspection = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
        let verified = inspection.verify(|_| ()).unwrap();
        assert!(verified.problems.is_empty(), "{}: {:?}", scenario.name, verified.problems);
        assert_eq!(verified.end_state, scenario.end_state, "{}", scenario.name);
        assert_eq!(inspection.segments().len(), scenario.segments, "{}", scenario.name);
        assert_eq!(records(inspection.reader(Lsn::START)), expected(scenario), "{}", scenario.name);
        let log = open(&sim);
        assert_eq!(log.open_report().end_state, scenario.end_state);
        assert_eq!(records(log.reader(Lsn::START)), expected(scenario), "{}", scenario.name);
        log.commit(b"goes on").unwrap();
        log.close().unwrap();
    }
}

/// Nothing was ever released with version 1: its files are refused by their version, and stay as
/// they are.
#[test]
fn version_1_is_refused_by_its_version_and_kept() {
    let files = from_text(&std::fs::read_to_string(of_version(1, "closed")).unwrap());
    let sim = SimFs::new();
    sim.create_dir(Path::new(DIR)).unwrap();
    files
        .iter()
        .for_each(|(name, bytes)| sim.write_file(Path::new(DIR).join(name), bytes).unwrap());
    let before = sim.fingerprint();
    let is_refused = |error: &Error| {
        let name = "00000000000000000000-0000000001.cairn";
        matches!(error, Error::UnsupportedVersion { path, found: 1, supported: 2 }
            if path.ends_with(name))
    };
    let error = options().fs(Arc::new(sim.clone())).open(DIR).unwrap_err();
    assert!(is_refused(&error), "{error}");
    let error = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap_err();
    assert!(is_refused(&error), "{error}");
    assert_eq!(sim.fingerprint(), before);
    let store = Arc::new(MemStore::from_bytes(files[0].1.clone()));
    let kept = store.to_bytes();
    let error = Log::with_store(store.clone(), Log::options()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { found: 1, supported: 2, .. }), "{error}");
    assert_eq!(store.to_bytes(), kept);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The state beside the segments, made from the same page.
fn state_by_the_book(
    files: &[(String, Vec<u8>)],
    segments: &[&(String, Vec<u8>)],
    last: u32,
    end_state: EndState,
) {
    let (_, state) = files.iter().find(|(name, _)| name == "STATE").expect("each log has a state");
    assert_eq!(state.len(), 8192);
    let verifies = |slot: &&[u8]| {
        let mut blank = slot.to_vec();
        blank[12..16].fill(0);
        slot[..12] == *b"CAIRNEPO\x02\0\0\0" && u32_at(slot, 12) == crc32c_append(0, &blank)
    };
    let newest = state.chunks(4096).filter(verifies).max_by_key(|slot| u64_at(slot, 32)).unwrap();
    let (_, active) = segments.last().unwrap();
    assert_eq!(newest[16..32], active[16..32], "of this log");
    assert_eq!(newest[52..56], active[32..36], "of this generation");
    if end_state == EndState::Closed {
        // It names the mark, and where that ends.
        assert_eq!((u32_at(newest, 48), u32_at(newest, 80)), (2, last));
        let at = (4096 + u64_at(newest, 64) - u64_at(active, 40)) as usize;
        assert_eq!((u32_at(active, at - 56), active[at - 51]), (last, 2));
        assert!(active[at..].iter().all(|b| *b == 0));
    } else {
        assert_eq!(u32_at(newest, 48), 1);
    }
}

/// The number of a segment's first record, made from the same page: `before` is the segment before,
/// if there is one.
fn number_by_the_book(file: &[u8], before: Option<&Vec<u8>>) -> u64 {
    let in_superblock = u64_at(file, 48);
    if in_superblock != u64::MAX {
        return in_superblock;
    }
    let log = crc32c_append(0, &file[16..32]);
    let header = |file: &[u8], at: usize, lsn: u64| {
        let group = &file[at..at + 56];
        assert_eq!(
            (u32_at(group, 0), group[4], u64_at(group, 16)),
            (crc32c_append(log, &group[4..]), 0xc7, lsn)
        );
        assert_eq!(group[12..16], file[32..36]);
        (group[5], u64_at(group, 32))
    };
    let base_lsn = u64_at(file, 40);
    let (_, first_seq) = header(file, 4096, base_lsn);
    if let Some(before) = before {
        // The segment before ends here, with a seal that tells the same.
        let end = (4096 + base_lsn - u64_at(before, 40)) as usize;
        let (magic, len) = (&before[end - 16..end - 8], u32_at(before, end - 8));
        assert_eq!((magic, u32_at(before, end - 4)), (&b"CAIRNEND"[..], !len));
        assert_eq!(header(before, end - len as usize, base_lsn - u64::from(len)), (3, first_seq));
    }
    first_seq
}

/// The rows by which opening decides are those that the page prints, in the same order.
#[test]
fn the_specification_has_the_rows_by_which_opening_decides() {
    let page = include_str!("../../../../docs/format/log.md");
    let table = page.split("### Rows").nth(1).expect("the page has a section with the rows");
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let rows = table.lines().take_while(|line| !line.starts_with('#')).filter_map(name);
    let labels = EndCase::all().map(|case| case.label().to_owned());
    assert_eq!(rows.collect::<Vec<_>>(), labels.collect::<Vec<_>>());
}

/// A reader of one undamaged segment, made from `docs/format/log.md` alone: nothing of the library
/// is in it.
fn read_by_the_book(
    file: &[u8],
    before: Option<&Vec<u8>>,
    end_lsn: Option<u64>,
    previous: &mut (u32, u64),
) -> Vec<(u64, String)> {
    assert_eq!((&file[..8], u32_at(file, 8)), (&b"CAIRNLOG"[..], 2));
    let mut blank = file[..4096].to_vec();
    blank[12..16].fill(0);
    assert_eq!(u32_at(file, 12), crc32c_append(0, &blank));
    let (log, generation) = (crc32c_append(0, &file[16..32]), &file[32..36]);
    let (base_lsn, mut seq) = (u64_at(file, 40), number_by_the_book(file, before));
    let recycled = u64_at(file, 88) > 0;
    let mut records = Vec::new();
    let mut lsn = base_lsn;
    while end_lsn.is_none_or(|end| lsn < end) {
        let at = (4096 + lsn - base_lsn) as usize;
        let group = &file[at..];
        // What follows in a recycled file is the dropped segment's, but for the rest of the sector.
        let rest = if recycled { &group[..at.next_multiple_of(512) - at] } else { group };
        if end_lsn.is_none() && !(recycled && rest.is_empty()) && rest.iter().all(|b| *b == 0) {
            assert!(!recycled || group.iter().any(|b| *b != 0), "the fixture has such bytes");
            return records;
        }
        assert_eq!(u32_at(group, 0), crc32c_append(log, &group[4..56]));
        // It names the group before it, and is of its opening unless that one is a mark.
        assert_eq!(u32_at(group, 48), previous.0);
        assert!(u64_at(group, 40) == previous.1 || previous.1 == 0);
        assert_eq!(group[52..56], [0; 4], "neither compressed nor encrypted");
        *previous = (u32_at(group, 0), if group[5] == 2 { 0 } else { u64_at(group, 40) });
        let frames = crc32c_append(crc32c_append(log, generation), &group[40..48]);
        assert_eq!((group[4], &group[12..16], u64_at(group, 16)), (0xc7, generation, lsn));
        assert_eq!(u64_at(group, 32), seq);
        let (kind, len) = (group[5], u32_at(group, 8) as usize);
        let (mut next, mut goes_on) = (56, false);
        while kind == 1 && next < len {
            let frame = &group[next..];
            let payload_len = u32_at(frame, 4) as usize;
            let frame_len = (12 + payload_len).next_multiple_of(8);
            let place = (lsn + next as u64) / 8;
            let place = (place as u32).wrapping_mul(0x9E37_79B9)
                ^ ((place >> 32) as u32).wrapping_mul(0x85EB_CA77);
            assert_eq!(u32_at(frame, 0), crc32c_append(frames ^ place, &frame[4..frame_len]));
            // The last record of a group is the last one of its batch.
            goes_on = frame[9] == 2;
            assert!(frame[8] == 1 && (goes_on || frame[9] == 0) && frame[10..12] == [0, 0]);
            let payload = String::from_utf8(frame[12..12 + payload_len].to_vec()).unwrap();
            records.push((seq, payload.trim_end_matches('\0').to_owned()));
            seq += 1;
            next += frame_len;
        }
        assert!(!goes_on);
        let padding = u16::from_le_bytes([group[6], group[7]]) as usize * 8;
        assert!(group[len..len + padding].iter().all(|b| *b == 0));
        lsn += (len + padding) as u64;
    }
    assert_eq!(Some(lsn), end_lsn);
    records
}

#[test]
fn the_specification_is_enough_to_read_a_log() {
    let mut open = 0;
    for name in ["closed", "batch", "rotated", "ahead", "recovered", "recycled"] {
        let scenario = SCENARIOS.iter().find(|s| s.name == name).unwrap();
        let files = from_text(&std::fs::read_to_string(fixture(name)).unwrap());
        let mut segments: Vec<_> =
            files.iter().filter(|(name, _)| name.ends_with(".cairn")).collect();
        if name == "recycled" {
            // What lies before the head is not the log any more.
            segments.drain(..segments.len() - 1);
        }
        if name == "ahead" {
            // The last one has no group, only zeros: it was made ahead.
            let (_, last) = segments.pop().unwrap();
            assert!(u64_at(last, 48) == u64::MAX && last[4096..].iter().all(|b| *b == 0));
            let (_, active) = segments.last().unwrap();
            assert_eq!(
                u64_at(active, 40) + u64_at(active, 72) - 4096,
                u64_at(last, 40),
                "where the active one is full"
            );
        }
        let bases =
            segments.iter().map(|(_, bytes)| u64_at(bytes, 40)).skip(1).map(Some).chain([None]);
        let mut found = Vec::new();
        let mut before = None;
        // What precedes the oldest segment is not there: then its first group says what it was.
        let mut previous = (u32_at(&segments[0].1, 4096 + 48), 0);
        for ((_, bytes), next) in segments.iter().zip(bases) {
            found.extend(read_by_the_book(bytes, before, next, &mut previous));
            before = Some(bytes);
            open += u32::from(u64_at(bytes, 48) == u64::MAX);
        }
        assert_eq!(found, expected(scenario), "{name}");
        state_by_the_book(&files, &segments, previous.0, scenario.end_state);
    }
    assert!(open > 2, "segments that were made ahead are among them");
}

#[test]
fn the_example_in_the_specification_is_the_fixture() {
    let page = include_str!("../../../../docs/format/log.md");
    let text = std::fs::read_to_string(fixture("closed")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("0000")).collect();
    assert!(lines.len() > 15);
    for line in lines {
        assert!(page.lines().any(|of_page| of_page.starts_with(line)), "{line}");
    }
}
