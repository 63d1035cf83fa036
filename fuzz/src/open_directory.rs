//! A directory with any files: real segments, damaged, mixed, renamed, forged with right checksums,
//! and whatever else.
//!
//! Looking never panics or changes anything. If the log opens, it can be read and written and
//! opened again, also after a power cut; reading fails only where damage was to be seen, or where
//! somebody lies under right checksums. If it is refused, nothing has changed.

use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use cairn_io::Fs;
use cairn_log::fuzzing::{self, Signing};
use cairn_log::{Error, ErrorKind, Lsn};
use cairn_sim::{Chooser, SimFs};

use crate::logs::{self, DIR, Files, Trust, exercise, inspect, read_all, tiny};

#[derive(Arbitrary, Debug)]
struct Input {
    /// Which real log is there to begin with.
    log: u8,
    changes: Vec<Change>,
    power_cut: u64,
}

/// Files are picked by number, bytes by position; both wrap around.
#[derive(Arbitrary, Debug)]
enum Change {
    Flip {
        file: u8,
        at: u16,
        bit: u8,
    },
    Fill {
        file: u8,
        at: u16,
        len: u16,
        byte: u8,
    },
    Truncate {
        file: u8,
        at: u16,
    },
    Extend {
        file: u8,
        len: u16,
    },
    Remove {
        file: u8,
    },
    /// Bytes of one file over those of another.
    Copy {
        from: u8,
        from_at: u16,
        to: u8,
        to_at: u16,
        sectors: u8,
    },
    Duplicate {
        file: u8,
        name: Name,
    },
    /// A file of another real log.
    Import {
        log: u8,
        file: u8,
    },
    Create {
        name: Name,
        bytes: Vec<u8>,
    },
    Patch {
        file: u8,
        at: u16,
        bytes: [u8; 8],
    },
    /// Puts checksums right, after the superblock was changed or not, and names the file as it then
    /// wants to be named.
    Sign {
        file: u8,
        field: u8,
        value: u64,
        how: u8,
        skip: u8,
        rename: bool,
    },
}

#[derive(Arbitrary, Debug)]
enum Name {
    Segment { base_lsn: u16, generation: u8 },
    FarSegment { base_lsn: u64, generation: u32 },
    Lock,
    Temporary,
    Other(String),
}

impl Name {
    fn text(&self) -> String {
        match self {
            Name::Segment { base_lsn, generation } => {
                name(u64::from(*base_lsn) * 8, u32::from(*generation))
            }
            Name::FarSegment { base_lsn, generation } => name(*base_lsn, *generation),
            Name::Lock => "LOCK".into(),
            Name::Temporary => "next.tmp".into(),
            Name::Other(text) => {
                let text: String =
                    text.chars().filter(|c| *c != '/' && *c != '\0').take(100).collect();
                if matches!(text.as_str(), "" | "." | "..") { "stray".into() } else { text }
            }
        }
    }
}

fn name(base_lsn: u64, generation: u32) -> String {
    format!("{base_lsn:020}-{generation:010}.cairn")
}

fn real() -> &'static [Files] {
    static REAL: OnceLock<Vec<Files>> = OnceLock::new();
    REAL.get_or_init(logs::real)
}

/// No file is larger.
const FILE_MAX: usize = 96 << 10;

fn pick(files: &mut Files, file: u8) -> Option<(&String, &mut Vec<u8>)> {
    let count = files.len().max(1);
    files.iter_mut().nth(usize::from(file) % count)
}

fn range(bytes: &[u8], at: u16, len: usize) -> std::ops::Range<usize> {
    let at = usize::from(at) % (bytes.len() + 1);
    at..at.saturating_add(len).min(bytes.len())
}

impl Change {
    fn apply(&self, files: &mut Files) {
        match self {
            Change::Flip { file, at, bit } => {
                if let Some((_, bytes)) = pick(files, *file) {
                    let range = range(bytes, *at, 1);
                    bytes[range].iter_mut().for_each(|byte| *byte ^= 1 << (bit % 8));
                }
            }
            Change::Fill { file, at, len, byte } => {
                if let Some((_, bytes)) = pick(files, *file) {
                    let range = range(bytes, *at, usize::from(*len));
                    bytes[range].fill(*byte);
                }
            }
            Change::Truncate { file, at } => {
                if let Some((_, bytes)) = pick(files, *file) {
                    bytes.truncate(range(bytes, *at, 0).start);
                }
            }
            Change::Extend { file, len } => {
                if let Some((_, bytes)) = pick(files, *file) {
                    bytes.resize(
                        (bytes.len() + usize::from(*len)).min(FILE_MAX.max(bytes.len())),
                        0,
                    );
                }
            }
            Change::Remove { file } => {
                if let Some(name) = pick(files, *file).map(|(name, _)| name.clone()) {
                    files.remove(&name);
                }
            }
            Change::Copy { from, from_at, to, to_at, sectors } => {
                let Some((_, bytes)) = pick(files, *from) else { return };
                let piece = bytes[range(bytes, *from_at, usize::from(*sectors) * 512 + 8)].to_vec();
                let Some((_, bytes)) = pick(files, *to) else { return };
                let range = range(bytes, *to_at, piece.len());
                let len = range.len();
                bytes[range].copy_from_slice(&piece[..len]);
            }
            Change::Duplicate { file, name } => {
                if let Some(bytes) = pick(files, *file).map(|(_, bytes)| bytes.clone()) {
                    files.insert(name.text(), bytes);
                }
            }
            Change::Import { log, file } => {
                let mut other = real()[usize::from(*log) % real().len()].clone();
                if let Some((name, bytes)) = pick(&mut other, *file) {
                    files.insert(name.clone(), bytes.clone());
                }
            }
            Change::Create { name, bytes } => {
                files.insert(name.text(), bytes.clone());
            }
            Change::Patch { file, at, bytes: patch } => {
                if let Some((_, bytes)) = pick(files, *file) {
                    let range = range(bytes, *at, patch.len());
                    let len = range.len();
                    bytes[range].copy_from_slice(&patch[..len]);
                }
            }
            Change::Sign { file, field, value, how, skip, rename } => {
                sign(files, *file, (*field, *value), *how, *skip, *rename)
            }
        }
    }
}

fn sign(files: &mut Files, file: u8, (field, value): (u8, u64), how: u8, skip: u8, rename: bool) {
    let Some((old, bytes)) = pick(files, file) else { return };
    if bytes.len() < 4096 {
        return;
    }
    let old = old.clone();
    // Version, generation, base and head positions and numbers; or none of them.
    if let Some(at) = [8, 32, 40, 48, 56, 64].get(usize::from(field)) {
        let len = if *at < 40 { 4 } else { 8 };
        bytes[*at..*at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }
    let bit = |n: u8| how >> n & 1 != 0;
    fuzzing::sign_superblock(bytes);
    if bit(3) {
        let how = Signing {
            skip: u32::from(skip),
            place: bit(0),
            number: bit(1),
            generation: bit(2),
            chain: bit(4),
        };
        fuzzing::sign_segment(bytes, how);
    }
    // A state that says nothing believes what was signed.
    let silent = bit(5);
    if rename {
        let generation = u32::from_le_bytes(bytes[32..36].try_into().expect("four bytes"));
        let base_lsn = u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes"));
        let bytes = bytes.clone();
        files.remove(&old);
        files.insert(name(base_lsn, generation), bytes);
    }
    if silent {
        files.insert("STATE".into(), Vec::new());
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    crate::trace(&input);
    let mut files = real()[usize::from(input.log) % real().len()].clone();
    input.changes.iter().take(24).for_each(|change| change.apply(&mut files));
    let sim = SimFs::new();
    sim.create_dir(DIR.as_ref()).expect("a directory");
    sim.sync_dir("/".as_ref()).expect("its name is durable");
    for (name, bytes) in files.iter().take(16) {
        crate::trace(&(name, bytes.len()));
        sim.write_file(format!("{DIR}/{name}"), bytes).expect("a file");
    }
    let forged = input.changes.iter().any(|change| matches!(change, Change::Sign { .. }));
    check(&sim, input.power_cut, forged);
}

fn check(sim: &SimFs, seed: u64, forged: bool) {
    let before = sim.fingerprint();
    let files = sim.files();
    let (trust, records) = inspect(sim, forged);
    let open = || tiny(sim).open(DIR);
    let log = match open() {
        Ok(log) => log,
        Err(error) => {
            match error.kind() {
                ErrorKind::Repair | ErrorKind::Busy => {
                    assert_eq!(before, sim.fingerprint(), "refused, and changed: {error:?}");
                }
                // Generations and positions have an end; nothing but the lock file is new.
                _ if matches!(error, Error::Exhausted { .. }) => {
                    let kept = |sim: &SimFs| {
                        sim.files()
                            .into_iter()
                            .filter(|(path, _)| !path.ends_with("LOCK"))
                            .collect::<Vec<_>>()
                    };
                    assert_eq!(
                        kept(sim),
                        files
                            .iter()
                            .filter(|(path, _)| !path.ends_with("LOCK"))
                            .cloned()
                            .collect::<Vec<_>>()
                    );
                }
                _ => panic!("no reason to refuse: {error:?}"),
            }
            return;
        }
    };
    if forged {
        exercise(log, &open, trust);
        return;
    }
    // What is read after opening is durable: a power cut takes nothing of it, whatever else it
    // does.
    let (seen, error) = read_all(log.reader(Lsn::START));
    if log.open_report().created {
        assert!(seen.is_empty());
    } else if trust == Trust::Whole {
        assert_eq!(seen, records, "opening shows what looking did");
    }
    drop(log);
    let after = sim.power_cut(&mut Chooser::seeded(seed));
    let reopen = || tiny(&after).open(DIR);
    let log = reopen().expect("opens after a power cut");
    let (again, error_again) = read_all(log.reader(Lsn::START));
    assert_eq!(
        error.is_some(),
        error_again.is_some(),
        "{error:?} before the power cut, {error_again:?} after"
    );
    assert_eq!(again, seen, "a power cut took what was durable");
    exercise(log, &reopen, if error.is_none() { Trust::Whole } else { Trust::Damaged });
}
