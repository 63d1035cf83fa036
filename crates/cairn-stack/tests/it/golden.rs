//! guards: L21 L22 L29
//!
//! The format, byte for byte: what was written once is written the same today, and is read for
//! ever. `CAIRN_BLESS=1` writes the fixtures anew; that is right only together with a new format
//! version, or before the first release.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_sim::SimFs;
use cairn_stack::{Error, Inspection, Stack};

use crate::model::PATH;

/// What a fixture is made by, and what is read from it.
struct Scenario {
    name: &'static str,
    about: &'static str,
    write: fn(&Stack),
    closed: bool,
    payload: fn() -> Vec<u8>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "empty",
        about: "created, and nothing else",
        write: |_| {},
        closed: false,
        payload: Vec::new,
    },
    Scenario {
        name: "closed",
        about: "a push, a set, a pop, and a clean close",
        write: |stack| {
            stack.push("hello, world").unwrap();
            stack.set(0, "H").unwrap();
            stack.pop(5).unwrap();
        },
        closed: true,
        payload: || b"Hello, ".to_vec(),
    },
    Scenario {
        name: "transaction",
        about: "a push, then a transaction whose changes in place are still to be written, \
                no close",
        write: |stack| {
            stack.push([b'a'; 40]).unwrap();
            stack
                .transaction(|tx| {
                    tx.set(3, "three")?;
                    tx.zero(16..24)?;
                    tx.discard(4)?;
                    tx.push("ZYXWVUTS")
                })
                .unwrap();
        },
        closed: false,
        payload: || b"aaathreeaaaaaaaa\0\0\0\0\0\0\0\0aaaaaaaaaaaaZYXWVUTS".to_vec(),
    },
    Scenario {
        name: "previous",
        about: "two sets in a row that do not fit in a block together: \
                each goes in place before the next",
        write: |stack| {
            stack.push([b'0'; 6000]).unwrap();
            stack.set(0, [b'1'; 3000]).unwrap();
            stack.set(1500, [b'2'; 3000]).unwrap();
        },
        closed: false,
        payload: || [vec![b'1'; 1500], vec![b'2'; 3000], vec![b'0'; 1500]].concat(),
    },
    Scenario {
        name: "carried",
        about: "small changes in a row, carried from commit to commit, nothing where it belongs",
        write: |stack| {
            stack.push("0123456789").unwrap();
            stack.set(0, "ABC").unwrap();
            stack.set(7, "xyz").unwrap();
            stack.extend(3).unwrap();
            stack.push("!").unwrap();
        },
        closed: false,
        payload: || b"ABC3456xyz\0\0\0!".to_vec(),
    },
    Scenario {
        name: "outside",
        about: "a change in place too large for a slot: its body lies behind the payload, no close",
        write: |stack| {
            stack.push(vec![1; 66_000]).unwrap();
            stack.set(0, vec![2; 65_500]).unwrap();
        },
        closed: false,
        payload: || [vec![2; 65_500], vec![1; 500]].concat(),
    },
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).with_extension("hex")
}

/// Sixteen bytes a line, zeros left out, equal lines counted.
fn hex(about: &str, bytes: &[u8]) -> String {
    let mut text = format!("# {about}\nlength {}\n", bytes.len());
    let mut lines = bytes.chunks(16).enumerate().peekable();
    while let Some((nth, line)) = lines.next() {
        let mut times = 1;
        while lines.next_if(|(_, next)| *next == line).is_some() {
            times += 1;
        }
        if line.iter().any(|b| *b != 0) {
            write!(text, "{:08x}", nth * 16).unwrap();
            line.iter().for_each(|b| write!(text, " {b:02x}").unwrap());
            text.push_str(&if times > 1 { format!(" x{times}\n") } else { "\n".into() });
        }
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(len) = line.strip_prefix("length ") {
            bytes.resize(len.parse().unwrap(), 0);
            continue;
        }
        let mut words = line.split(' ');
        let mut at = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        let (times, row): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with('x'));
        let row: Vec<u8> = row.iter().map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
        for _ in 0..times.first().map_or(1, |times| times[1..].parse().unwrap()) {
            bytes[at..at + row.len()].copy_from_slice(&row);
            at += row.len();
        }
    }
    bytes
}

fn written(scenario: &Scenario) -> Vec<u8> {
    let sim = SimFs::new();
    let stack = Stack::options().reserve(0).fs(Arc::new(sim.clone())).open(PATH).unwrap();
    (scenario.write)(&stack);
    if scenario.closed {
        stack.close().unwrap();
    }
    sim.read_file(PATH).unwrap()
}

fn open(bytes: &[u8]) -> Result<Stack, Error> {
    let sim = SimFs::new();
    sim.write_file(PATH, bytes).unwrap();
    Stack::options().fs(Arc::new(sim)).open(PATH)
}

#[test]
fn what_is_written_is_what_was_written_and_is_read_for_ever() {
    for scenario in SCENARIOS {
        let path = fixture(&format!("stack-v2/{}", scenario.name));
        let bytes = written(scenario);
        let text = hex(scenario.about, &bytes);
        assert!(unhex(&text) == bytes);
        if std::env::var_os("CAIRN_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept == text, "{} is written otherwise:\n{text}", scenario.name);
        assert!(
            open(&unhex(&kept)).unwrap().peek(0).unwrap() == (scenario.payload)(),
            "{}",
            scenario.name
        );
        assert_eq!(
            read_as_documented(&unhex(&kept)).unwrap(),
            (scenario.payload)(),
            "{}",
            scenario.name
        );
    }
}

/// Nothing was released with version 1, and nothing reads it.
#[test]
fn a_stack_of_version_1_is_refused_by_its_version_and_stays_as_it_is() {
    let kept = unhex(&std::fs::read_to_string(fixture("stack-v1/closed")).unwrap());
    let sim = SimFs::new();
    sim.write_file(PATH, &kept).unwrap();
    let looked = Inspection::open_on(&sim, PATH).map(drop);
    let opened = Stack::options().fs(Arc::new(sim.clone())).open(PATH).map(drop);
    for refused in [looked, opened] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Error::UnsupportedVersion { found: 1, supported: 2, .. }),
            "{error}"
        );
    }
    assert!(sim.read_file(PATH).unwrap() == kept);
}

/// Every bit of a header that is flipped is noticed: the stack is what it was one commit earlier,
/// or does not open.
#[test]
fn every_flipped_bit_of_the_newest_header_is_found() {
    let good = written(&SCENARIOS[2]);
    let before = vec![b'a'; 40];
    let newest = (0..2).max_by_key(|slot| long(&good, slot * 65536 + 32)).unwrap() * 65536;
    for bit in (0..4096 * 8).filter(|bit| *bit < 400 * 8 || bit % 97 == 0) {
        let mut bad = good.clone();
        bad[newest + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&bad).unwrap().peek(0).unwrap(), before, "bit {bit}");
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !parts
        .concat()
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A reader written from `docs/format/stack.md` alone; `None` is "corrupt".
fn read_as_documented(file: &[u8]) -> Option<Vec<u8>> {
    type Entry<'a> = (u32, u32, usize, usize, &'a [u8]);
    struct Commit<'a> {
        sequence: u64,
        name: (u64, u32),
        previous: (u64, u32),
        base_len: usize,
        len: usize,
        entries: Option<Vec<Entry<'a>>>,
    }
    let commit = |slot: usize| -> Option<Commit<'_>> {
        let at = slot * 65536;
        let block = &file[at..at + 4096];
        let crc = crc32c(&[&block[..12], &[0; 4], &block[16..]]);
        if &block[..8] != b"CAIRNSTK" || word(block, 8) != 2 || word(block, 12) != crc {
            return None;
        }
        let sequence = long(block, 32);
        let (base_len, len) = (long(block, 40) as usize, long(block, 48) as usize);
        let (start, body_len) = (long(block, 56) as usize, long(block, 64) as usize);
        assert!(sequence % 2 == slot as u64 && block[108..128] == [0; 20]);
        assert!(start == at + 128 || start >= 131_072 + base_len.max(len));
        let body = &file[start..start + body_len];
        let sound =
            word(block, 72) == crc32c(&[&block[16..32], &block[88..96], &block[32..40], body]);
        let mut entries = Vec::new();
        let mut rest = body;
        while sound && !rest.is_empty() {
            let (offset, len) = (long(rest, 8) as usize, long(rest, 16) as usize);
            let data = if word(rest, 0) == 1 { &rest[24..24 + len] } else { &[] };
            entries.push((word(rest, 0), word(rest, 4), offset, len, data));
            rest = &rest[24 + data.len().next_multiple_of(8)..];
        }
        let (name, previous) = ((long(block, 88), crc), (long(block, 96), word(block, 104)));
        let entries = sound.then_some(entries);
        Some(Commit { sequence, name, previous, base_len, len, entries })
    };
    let payload = |offset: usize| 131_072 + offset;
    let proven = |commit: &Commit<'_>| {
        let holds = |(kind, crc, offset, len, _): &Entry<'_>| {
            *kind != 3 || crc32c(&[&file[payload(*offset)..payload(offset + len)]]) == *crc
        };
        commit.entries.as_ref().is_some_and(|entries| entries.iter().all(holds))
    };
    let mut commits: Vec<_> = [commit(0), commit(1)].into_iter().flatten().collect();
    commits.sort_by_key(|commit| commit.sequence);
    if let [older, newer] = &commits[..] {
        assert!(older.sequence + 1 == newer.sequence && older.len == newer.base_len);
        assert!(newer.previous == older.name);
    }
    if !proven(commits.last()?) {
        commits.pop();
    }
    let newest = commits.last().filter(|commit| proven(commit))?;
    let mut bytes = file[131_072..].to_vec();
    bytes.resize(bytes.len().max(newest.len), 0);
    for commit in &commits {
        for (kind, _, offset, len, data) in commit.entries.iter().flatten() {
            match kind {
                1 => bytes[*offset..offset + len].copy_from_slice(data),
                2 => bytes[*offset..offset + len].fill(0),
                _ => {}
            }
        }
    }
    bytes.truncate(newest.len);
    Some(bytes)
}
