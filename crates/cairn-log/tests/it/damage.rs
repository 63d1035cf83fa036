//! guards: L10 L13 L14 L18 L19 L20
//!
//! Bytes that had been durable change: bits flip, sectors are zeroed, swapped, duplicated, stale,
//! foreign or unreadable, files are cut or grown. Whatever it is, no wrong record is ever returned
//! as good, `verify` finds it, and opening refuses without a change or keeps everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cairn_io::Fs;
use cairn_log::{
    Corruption, CorruptionKind, EndState, Error, ErrorKind, Inspection, Log, Lsn, Options,
};
use cairn_sim::{FaultPlan, SimFs, SimOptions};

use crate::model::DIR;

/// Bytes of a superblock: positions of the log start behind it.
pub(crate) const SUPERBLOCK: u64 = 4096;
const GROUP_HEADER: u64 = 56;
const FRAME_HEADER: u64 = 12;
const SECTOR: u64 = 512;

/// A directory as bytes, and what was appended to it.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    /// Payloads by number.
    pub(crate) records: Vec<Vec<u8>>,
    /// Position of each record.
    pub(crate) lsns: Vec<u64>,
    /// Where the last record ends: what follows is the mark of a clean close and space for what may
    /// come.
    pub(crate) end_lsn: u64,
}

impl Image {
    pub(crate) fn of(sim: &SimFs, records: Vec<Vec<u8>>, lsns: Vec<u64>) -> Self {
        let bytes = |(path, _): (PathBuf, u64)| (path.clone(), sim.read_file(&path).unwrap());
        let files = sim.files().into_iter().map(bytes).collect();
        let end = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap().end_lsn();
        Image { files, records, lsns, end_lsn: end.0 - GROUP_HEADER }
    }

    /// A machine that has exactly these files, durably.
    pub(crate) fn plant(&self) -> SimFs {
        let sim = SimFs::new();
        sim.create_dir(Path::new(DIR)).unwrap();
        for (path, bytes) in &self.files {
            sim.write_file(path, bytes).unwrap();
        }
        sim
    }

    /// The segments in order, as indices into `files`.
    pub(crate) fn segments(&self) -> Vec<usize> {
        let is_segment = |i: &usize| self.files[*i].0.extension().is_some_and(|e| e == "cairn");
        (0..self.files.len()).filter(is_segment).collect()
    }

    pub(crate) fn last_segment(&self) -> usize {
        *self.segments().last().unwrap()
    }

    pub(crate) fn base_lsn(&self, file: usize) -> u64 {
        base_lsn(&self.files[file].0)
    }
}

/// The base position in a segment's name.
pub(crate) fn base_lsn(path: &Path) -> u64 {
    path.file_name().unwrap().to_str().unwrap()[..20].parse().unwrap()
}

pub(crate) fn options_on(sim: &SimFs) -> Options {
    Log::options().segment_size(12_600).buffer_size(4 << 10).fs(Arc::new(sim.clone()))
}

/// A payload that tells which record it belongs to, 0 to 8 bytes long.
fn tiny_payload(seq: u64) -> Vec<u8> {
    let len = (seq % 9) as usize;
    seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[..len].to_vec()
}

/// A cleanly closed log of three segments and 1,000 records.
pub(crate) fn closed_log() -> Image {
    build(1, 1000, tiny_payload)
}

/// Groups of 20 records, some of them batches.
fn build(seed: u64, count: u64, payload: fn(u64) -> Vec<u8>) -> Image {
    let sim = SimFs::with_options(SimOptions::new().seed(seed));
    let log = options_on(&sim).open(DIR).unwrap();
    let records: Vec<_> = (0..count).map(payload).collect();
    for (i, chunk) in records.chunks(20).enumerate() {
        if i % 5 == 0 {
            log.append_batch(chunk).unwrap();
        } else {
            chunk.iter().for_each(|record| {
                log.append(record).unwrap();
            });
        }
        log.sync().unwrap();
    }
    let lsns = log.reader(Lsn::START).unwrap().map(|r| r.unwrap().lsn().0).collect();
    log.close().unwrap();
    Image::of(&sim, records, lsns)
}

/// What was made of a directory.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) problems: Vec<Error>,
    pub(crate) end_state: EndState,
    /// Records that verified, on both sides of the damage.
    pub(crate) verified: u64,
    /// Records that a reader returned, each of them the right one.
    pub(crate) read: u64,
    /// Whether opening succeeded; then it read the same.
    pub(crate) opened: bool,
    /// Number of the next record after opening.
    pub(crate) next_seq: u64,
}

impl Judgement {
    pub(crate) fn corruptions(&self) -> impl Iterator<Item = &Corruption> {
        self.problems.iter().filter_map(|problem| match problem {
            Error::Corrupt(corruption) => Some(corruption),
            _ => None,
        })
    }
}

/// Reads to the end or to the first error; every record returned must be the one that was appended.
fn read_all(
    reader: cairn_log::Result<cairn_log::Reader>,
    records: &[Vec<u8>],
) -> Result<(u64, Option<Error>), String> {
    let mut reader = match reader {
        Ok(reader) => reader,
        Err(error) => return Ok((0, Some(error))),
    };
    let mut next = 0;
    loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                if record.seq().0 != next {
                    return Err(format!("record {} follows {next} records", record.seq()));
                }
                if records.get(next as usize).map(Vec::as_slice) != Some(record.payload()) {
                    return Err(format!("record {next} is wrong and was returned as good"));
                }
                next += 1;
            }
            Ok(None) => return Ok((next, None)),
            Err(error) => return Ok((next, Some(error))),
        }
    }
}

/// Looks at a directory in every way there is, and demands what holds for any damage.
pub(crate) fn judge(sim: &SimFs, records: &[Vec<u8>]) -> Result<Judgement, String> {
    judge_as(sim, records, Thoroughness::Full)
}

/// All files but the state, which says after each opening that there was one.
fn segments_of(sim: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let files = sim.files().into_iter().map(|(path, _)| path);
    let kept = files.filter(|path| !path.ends_with("STATE"));
    kept.map(|path| (path.clone(), sim.read_file(&path).unwrap())).collect()
}

/// How much of the log is read to judge damage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thoroughness {
    Full,
    /// A log that opens in spite of damage is not read once more through its own handle, which runs
    /// the same code.
    Fast,
    /// Records are not read at all: what is damaged is found without them.
    Look,
}

fn judge_as(
    sim: &SimFs,
    records: &[Vec<u8>],
    thoroughness: Thoroughness,
) -> Result<Judgement, String> {
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    // No operation, no change; that is cheaper than to look at every byte.
    let full = thoroughness == Thoroughness::Full;
    let before = (sim.op_count(), full.then(|| segments_of(sim)));
    let mut judgement = match Inspection::open_on(fs, DIR) {
        Err(error) => {
            let end_state = EndState::Unclosed;
            Judgement {
                problems: vec![error],
                end_state,
                verified: 0,
                read: 0,
                opened: false,
                next_seq: 0,
            }
        }
        Ok(inspection) if thoroughness == Thoroughness::Look => {
            let (problems, end_state) = (inspection.problems().to_vec(), inspection.end_state());
            Judgement { problems, end_state, verified: 0, read: 0, opened: false, next_seq: 0 }
        }
        Ok(inspection) => {
            let found = inspection.verify(|_| ()).map_err(|e| format!("verify: {e}"))?;
            let (read, error) = read_all(inspection.reader(Lsn::START), records)?;
            if error.is_some() && found.problems.is_empty() {
                return Err(format!("reading finds {error:?}, verify nothing"));
            }
            if found.records > records.len() as u64 {
                return Err(format!(
                    "{} records verify, {} were appended",
                    found.records,
                    records.len()
                ));
            }
            let (problems, end_state) = (found.problems, found.end_state);
            Judgement {
                problems,
                end_state,
                verified: found.records,
                read,
                opened: false,
                next_seq: 0,
            }
        }
    };
    for corruption in judgement.corruptions() {
        if corruption.resumes.is_some_and(|resumes| resumes <= corruption.lsn) {
            return Err(format!("goes on at or before the damage: {corruption}"));
        }
    }
    match options_on(sim).open(DIR) {
        Ok(log) => {
            judgement.opened = true;
            judgement.next_seq = log.next_seq().0;
            if thoroughness == Thoroughness::Fast && !judgement.problems.is_empty() {
                return Ok(judgement);
            }
            let (read, error) = read_all(log.reader(Lsn::START), records)?;
            if read != judgement.read {
                return Err(format!(
                    "{} records read before opening, {read} after",
                    judgement.read
                ));
            }
            if error.is_none() && read != log.next_seq().0 {
                return Err(format!("read {read} records of {}", log.next_seq()));
            }
        }
        Err(error) if judgement.problems.is_empty() => {
            return Err(format!("open refuses what verify likes: {error}"));
        }
        Err(error) if !matches!(error.kind(), ErrorKind::Repair | ErrorKind::System) => {
            return Err(format!("refused with {error:?}"));
        }
        Err(_) => {}
    }
    // What segments have behind the place where their successors begin is given back.
    let kept = |before: &[(PathBuf, Vec<u8>)]| {
        let now = segments_of(sim);
        let mut both = before.iter().zip(&now);
        before.len() == now.len()
            && both.all(|(then, now)| then.0 == now.0 && then.1.starts_with(&now.1))
    };
    let changed = before.1.is_some_and(|before| !kept(&before));
    if changed && (!judgement.opened || judgement.end_state == EndState::Closed) {
        return Err("files were changed".into());
    }
    if !judgement.opened && sim.op_count() != before.0 {
        return Err("refused, and did something".into());
    }
    Ok(judgement)
}

fn class(judgement: &Judgement) -> String {
    let problem = judgement.problems.first().map(|problem| match problem {
        Error::Corrupt(corruption) => format!("{:?}", corruption.kind),
        other => format!("{:?}", other.kind()),
    });
    let opened = if judgement.opened { "opens with everything" } else { "refuses to open" };
    match (problem, judgement.end_state) {
        (Some(kind), _) => format!("{kind}, {opened}"),
        (None, EndState::Torn { .. }) => format!("torn tail, {opened}"),
        (None, state) => format!("{state:?}, {opened}"),
    }
}

/// What one flipped bit may be taken for.
fn check_flip(
    image: &Image,
    file: usize,
    offset: u64,
    judgement: &Judgement,
) -> Result<(), String> {
    let (path, bytes) = &image.files[file];
    let total = image.records.len() as u64;
    let lsn = (image.base_lsn(file) + offset).saturating_sub(SUPERBLOCK);
    if judgement.opened && judgement.next_seq != total {
        return Err(format!("opened with {} records", judgement.next_seq));
    }
    if file == image.last_segment() && offset >= SUPERBLOCK && lsn >= image.end_lsn {
        let most = image.base_lsn(file) + bytes.len() as u64 - SUPERBLOCK - image.end_lsn;
        let torn = matches!(judgement.end_state, EndState::Torn { bytes } if bytes <= most);
        let kept = judgement.opened && judgement.read == total && judgement.verified == total;
        return if torn && kept {
            Ok(())
        } else {
            Err("no record is here: it is no more than a torn tail".into())
        };
    }
    if judgement.problems.is_empty() || matches!(judgement.end_state, EndState::Torn { .. }) {
        return Err(format!(
            "acknowledged bytes changed and are taken for {:?}",
            judgement.end_state
        ));
    }
    if offset < SUPERBLOCK {
        return match &judgement.problems[..] {
            _ if judgement.opened => Err("opened without a superblock".into()),
            // A magic that is damaged is none.
            [Error::Foreign { path: found }, ..] if found == path && offset < 8 => Ok(()),
            problems
                if problems.iter().any(|p| matches!(p, Error::Corrupt(c) if c.path == *path)) =>
            {
                Ok(())
            }
            _ => Err("the damaged superblock is not named".into()),
        };
    }
    let [Error::Corrupt(corruption)] = &judgement.problems[..] else {
        return Err("one flip is one problem".into());
    };
    let resumes = corruption.resumes.map_or(u64::MAX, |lsn| lsn.0);
    if corruption.path != *path || corruption.lsn.0 > lsn || resumes <= lsn {
        return Err(format!("the flip at LSN {lsn} is not in the damaged range"));
    }
    if corruption.offset != SUPERBLOCK + corruption.lsn.0 - image.base_lsn(file) {
        return Err("offset and LSN of the damage differ".into());
    }
    // Only the record that was hit is lost.
    let ends =
        image.lsns.iter().zip(image.records.iter()).map(|(at, payload)| {
            (*at, at + (FRAME_HEADER + payload.len() as u64).next_multiple_of(8))
        });
    let hit = ends.enumerate().find(|(_, (from, to))| (*from..*to).contains(&lsn));
    let lost = corruption.lost.ok_or("nobody looked for what is lost")?;
    let exact = match hit {
        Some((seq, (from, to))) => {
            (lost.from.0, lost.to.0, lost.records) == (from, to, Some(1))
                && lost.first_seq.is_some_and(|first| first.0 == seq as u64)
        }
        None => lost.records == Some(0) && (lost.from.0..lost.to.0).contains(&lsn),
    };
    if !exact || judgement.verified != total - u64::from(hit.is_some()) {
        return Err(format!("LSN {lsn} costs {hit:?}; {} of {total} verify", judgement.verified));
    }
    Ok(())
}

#[test]
fn every_single_bit_flip_is_found_and_no_wrong_record_is_returned() {
    let image = closed_log();
    let segments = image.segments();
    assert_eq!(
        segments.len(),
        3,
        "{:?}",
        image.files.iter().map(|f| f.1.len()).collect::<Vec<_>>()
    );
    let started = Instant::now();
    let places: Vec<(usize, u64)> = segments
        .iter()
        .flat_map(|i| (0..image.files[*i].1.len() as u64).map(|at| (*i, at)))
        .collect();
    let flips = |half: usize| {
        let mut classes = BTreeMap::<String, u64>::new();
        let mut sim = image.plant();
        for (nth, &(file, offset)) in places.iter().skip(half).step_by(2).enumerate() {
            if nth % 256 == 0 {
                // The machine remembers everything that was done to it.
                sim = image.plant();
            }
            for bit in 0..8 {
                let path = &image.files[file].0;
                sim.flip_bit(path, offset, bit).unwrap();
                // Each byte of a superblock in full once, its other bits only as far as opening
                // looks.
                let thoroughness = match bit {
                    0 => Thoroughness::Full,
                    _ if offset < SUPERBLOCK => Thoroughness::Look,
                    _ => Thoroughness::Fast,
                };
                let verdict = judge_as(&sim, &image.records, thoroughness).and_then(|judgement| {
                    check_flip(&image, file, offset, &judgement)
                        .map_err(|why| format!("{why}: {judgement:?}"))?;
                    Ok(judgement)
                });
                let judgement = verdict
                    .unwrap_or_else(|why| panic!("{}:{offset} bit {bit}: {why}", path.display()));
                let lsn = (image.base_lsn(file) + offset).saturating_sub(SUPERBLOCK);
                let region = match offset {
                    ..SUPERBLOCK => "superblock",
                    _ if lsn < image.end_lsn => "acknowledged",
                    _ => "behind the last record",
                };
                *classes.entry(format!("{region}: {}", class(&judgement))).or_default() += 1;
                if judgement.opened && judgement.problems.is_empty() {
                    sim = image.plant();
                } else {
                    sim.flip_bit(path, offset, bit).unwrap();
                }
            }
        }
        classes
    };
    let (mut classes, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| flips(1));
        (flips(0), other.join().unwrap())
    });
    other.into_iter().for_each(|(class, count)| *classes.entry(class).or_default() += count);
    println!(
        "{} flips in {} bytes of {} records, {:.1} s",
        classes.values().sum::<u64>(),
        places.len(),
        image.records.len(),
        started.elapsed().as_secs_f64()
    );
    classes.iter().for_each(|(class, count)| println!("{count:8} {class}"));
    assert_eq!(classes.values().sum::<u64>(), 8 * places.len() as u64);
}

/// Damages a closed log in one way after another; whatever is lost must be told.
fn check_damages(
    image: &Image,
    damages: impl Iterator<Item = (String, Vec<(PathBuf, Vec<u8>)>)>,
) -> BTreeMap<String, u64> {
    let mut classes = BTreeMap::<String, u64>::new();
    for (name, files) in damages {
        if files == image.files {
            continue;
        }
        let sim = Image { files, ..image.clone() }.plant();
        let judgement = judge(&sim, &image.records).unwrap_or_else(|why| panic!("{name}: {why}"));
        let total = image.records.len() as u64;
        let lost = judgement.read < total;
        if judgement.problems.is_empty() && lost {
            // Only the loss of a whole end leaves nothing that contradicts it, and then the log
            // does not look closed.
            assert_ne!(judgement.end_state, EndState::Closed, "{name}: {judgement:?}");
        }
        let cut = judgement.opened && judgement.next_seq < total;
        let lost = if cut { ", an end is gone without a trace" } else { "" };
        *classes.entry(format!("{}{lost}", class(&judgement))).or_default() += 1;
    }
    classes.iter().for_each(|(class, count)| println!("{count:8} {class}"));
    classes
}

fn sectors(image: &Image) -> Vec<(usize, usize)> {
    let starts =
        |i: usize| (0..image.files[i].1.len()).step_by(SECTOR as usize).map(move |at| (i, at));
    image.segments().into_iter().flat_map(starts).collect()
}

fn sector(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at..bytes.len().min(at + SECTOR as usize)]
}

/// The end of a closed log: what a loss of everything from here on leaves is a log that ended
/// earlier.
fn is_before_last_group(image: &Image, file: usize, at: usize) -> bool {
    let last_group = *image.lsns.last().unwrap() - GROUP_HEADER;
    file != image.last_segment()
        || ((at as u64) + SECTOR) < SUPERBLOCK + last_group - image.base_lsn(file)
}

#[test]
fn zeroed_sectors_are_damage_and_never_padding() {
    let image = closed_log();
    for len in [SECTOR as usize, 4096] {
        let damages = sectors(&image)
            .into_iter()
            .filter(|(file, at)| is_before_last_group(&image, *file, at + len))
            .map(|(file, at)| {
                let mut files = image.files.clone();
                let end = files[file].1.len().min(at + len);
                files[file].1[at..end].fill(0);
                (format!("{len} zeros at {at} of {}", files[file].0.display()), files)
            });
        let classes = check_damages(&image, damages);
        assert!(
            classes.keys().all(|class| !class.contains("torn") && !class.contains("trace")),
            "{classes:?}"
        );
    }
}

#[test]
fn misdirected_and_duplicated_and_stale_sectors_do_not_verify() {
    let image = closed_log();
    let all = sectors(&image);
    let swaps =
        all.iter().enumerate().flat_map(|(i, a)| all[i + 1..].iter().map(move |b| (*a, *b)));
    // A stale sector is what the same place held before the log was written: see the recycled
    // segments below.
    let damages = swaps.flat_map(|(a, b)| {
        let (in_a, in_b) = (sector(&image.files[a.0].1, a.1), sector(&image.files[b.0].1, b.1));
        let len = in_a.len().min(in_b.len());
        let mut swapped = image.files.clone();
        swapped[a.0].1[a.1..a.1 + len].copy_from_slice(&in_b[..len]);
        let mut duplicated = swapped.clone();
        swapped[b.0].1[b.1..b.1 + len].copy_from_slice(&in_a[..len]);
        std::mem::swap(&mut duplicated, &mut swapped);
        [
            (format!("{a:?} and {b:?} swapped"), duplicated),
            (format!("{b:?} also at {a:?}"), swapped),
        ]
    });
    let classes = check_damages(&image, damages.step_by(3));
    // Only where the last group and the mark behind it share a sector that is gone.
    let untold: u64 =
        classes.iter().filter(|(class, _)| class.contains("trace")).map(|(_, count)| count).sum();
    assert!(untold <= all.len() as u64 * 2, "{classes:?}");
}

#[test]
fn a_cut_or_grown_segment_is_told() {
    let image = closed_log();
    let last = image.last_segment();
    let cuts = image.segments().into_iter().flat_map(|file| {
        let len = image.files[file].1.len();
        (0..len).step_by(37).map(move |at| (file, at))
    });
    let damages = cuts.map(|(file, at)| {
        let mut files = image.files.clone();
        files[file].1.truncate(at);
        (format!("{} cut at {at}", files[file].0.display()), files)
    });
    let classes = check_damages(&image, damages);
    // Of the last segment, everything behind a group may go without a trace, and nothing else.
    let cut_in_last = image.files[last].1.len().div_ceil(37) as u64;
    let untold: u64 =
        classes.iter().filter(|(class, _)| class.contains("trace")).map(|(_, count)| count).sum();
    assert!(untold <= cut_in_last, "{classes:?}");

    for grown in [1, 40, 512, 100_000] {
        for fill in [0u8, 0xff] {
            for file in image.segments() {
                let mut files = image.files.clone();
                let len = files[file].1.len();
                files[file].1.resize(len + grown, fill);
                let judgement =
                    judge(&Image { files, ..image.clone() }.plant(), &image.records).unwrap();
                assert!(
                    judgement.opened && judgement.read == 1000 && judgement.problems.is_empty(),
                    "{judgement:?}"
                );
                let torn = matches!(judgement.end_state, EndState::Torn { .. });
                assert_eq!(torn, file == last && fill != 0, "{judgement:?}");
            }
        }
    }
}

/// A log with other payloads of the same lengths: every group and every frame is where the other
/// log has one.
fn other_log() -> Image {
    build(2, 1000, |seq| tiny_payload(seq).into_iter().map(|b| !b).collect())
}

#[test]
fn segments_and_sectors_of_another_log_do_not_verify() {
    let (image, other) = (closed_log(), other_log());
    assert_eq!(image.segments(), other.segments());
    for file in image.segments() {
        let mut files = image.files.clone();
        files[file].1 = other.files[file].1.clone();
        let sim = Image { files, ..image.clone() }.plant();
        let before = sim.fingerprint();
        assert!(matches!(options_on(&sim).open(DIR), Err(Error::WrongLog { .. })));
        assert_eq!(sim.fingerprint(), before);
        let inspection = Inspection::open_on(Arc::new(sim), DIR).unwrap();
        assert!(
            inspection
                .verify(|_| ())
                .unwrap()
                .problems
                .iter()
                .any(|p| matches!(p, Error::WrongLog { .. }))
        );
        // What is shown is all of one log, never a mixture.
        let shown = if file == image.segments()[0] { &other } else { &image };
        read_all(inspection.reader(Lsn::START), &shown.records).unwrap();
    }
    let parts = sectors(&image).into_iter().map(|(file, at)| {
        let mut files = image.files.clone();
        let foreign = sector(&other.files[file].1, at).to_vec();
        files[file].1[at..at + foreign.len()].copy_from_slice(&foreign);
        (format!("sector {at} of segment {file} is another log's"), files)
    });
    let recycled = image.segments().into_iter().map(|file| {
        let mut files = image.files.clone();
        files[file].1.truncate(SUPERBLOCK as usize);
        files[file].1.extend_from_slice(&other.files[file].1[SUPERBLOCK as usize..]);
        (format!("segment {file} was recycled from another log"), files)
    });
    let classes = check_damages(&image, parts.chain(recycled));
    assert!(classes.len() > 1);
}

#[test]
fn what_a_truncation_dropped_does_not_come_back_in_the_place_it_had() {
    let old = closed_log();
    let sim = old.plant();
    let log = options_on(&sim).open(DIR).unwrap();
    let kept = 990;
    log.truncate_after(Lsn(old.lsns[kept - 1])).unwrap();
    let mut records = old.records[..kept].to_vec();
    for n in 0..10u8 {
        records.push(old.records[kept + usize::from(n)].iter().map(|b| !b).collect());
        log.append(records.last().unwrap()).unwrap();
    }
    log.sync().unwrap();
    let lsns = log.reader(Lsn::START).unwrap().map(|r| r.unwrap().lsn().0).collect();
    log.close().unwrap();
    let new = Image::of(&sim, records, lsns);
    let (from, to) = (old.last_segment(), new.last_segment());
    assert_eq!(old.base_lsn(from), new.base_lsn(to));
    assert_ne!(old.files[from].0, new.files[to].0);
    let stale = (0..new.files[to].1.len()).step_by(SECTOR as usize).flat_map(|at| {
        // One stale sector, and everything from there on.
        [at + SECTOR as usize, usize::MAX].map(|end| {
            let mut files = new.files.clone();
            let end = end.min(files[to].1.len()).min(old.files[from].1.len());
            let at = at.min(end);
            files[to].1[at..end].copy_from_slice(&old.files[from].1[at..end]);
            (format!("stale from {at} to {end}"), files)
        })
    });
    check_damages(&new, stale);
    // The superseded file itself comes back: an unlink that came undone.
    let mut files = new.files.clone();
    files.push(old.files[from].clone());
    let judgement = judge_obsolete(&Image { files, ..new.clone() });
    assert_eq!(judgement, 1000);
}

fn judge_obsolete(image: &Image) -> u64 {
    let sim = image.plant();
    let inspection = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
    assert_eq!(inspection.obsolete().len(), 1);
    assert!(inspection.problems().is_empty());
    let log = options_on(&sim).open(DIR).unwrap();
    assert_eq!(log.open_report().removed.len(), 1);
    read_all(log.reader(Lsn::START), &image.records).unwrap().0
}

#[test]
fn a_record_that_holds_a_copy_of_the_log_is_never_walked_into() {
    let sim = SimFs::new();
    let options = || options_on(&sim).segment_size(1 << 20);
    let log = options().open(DIR).unwrap();
    let mut records: Vec<Vec<u8>> = (0..50).map(tiny_payload).collect();
    records.iter().for_each(|record| {
        log.append(record).unwrap();
    });
    log.sync().unwrap();
    let file = sim
        .files()
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "cairn"))
        .unwrap()
        .0;
    let bytes = sim.read_file(&file).unwrap();
    let end = (SUPERBLOCK + log.appended_lsn().0) as usize;
    // The whole segment, its groups alone, and its groups at each alignment a payload can have.
    let copies = [&bytes[..end], &bytes[4096..end]];
    for shift in 0..8 {
        for copy in copies {
            let mut record = vec![0; shift];
            record.extend_from_slice(copy);
            log.append(&record).unwrap();
            records.push(record);
            log.sync().unwrap();
        }
    }
    let lsns: Vec<u64> = log.reader(Lsn::START).unwrap().map(|r| r.unwrap().lsn().0).collect();
    log.close().unwrap();
    let image = Image::of(&sim, records, lsns);
    let last = image.last_segment();
    // Damage to the header of each record that holds a copy, and to the header of its group.
    for (n, lsn) in image.lsns.iter().enumerate().skip(50) {
        for offset in [SUPERBLOCK + lsn, SUPERBLOCK + lsn + 4, SUPERBLOCK + lsn - GROUP_HEADER] {
            let sim = image.plant();
            sim.flip_bit(&image.files[last].0, offset, 0).unwrap();
            let judgement = judge(&sim, &image.records).unwrap();
            assert_eq!((judgement.opened, judgement.read), (false, n as u64));
            let hit = u64::from(offset >= SUPERBLOCK + lsn);
            assert_eq!(
                judgement.verified,
                image.records.len() as u64 - hit,
                "only the damaged record is lost, and none with a header: {judgement:?}"
            );
        }
    }
}

#[test]
fn dropped_records_inside_a_payload_are_not_taken_for_the_log_behind_damage() {
    // The old bytes stand in the payload at the very positions they once had.
    let sim = SimFs::new();
    let options = || options_on(&sim).segment_size(1 << 20);
    let log = options().open(DIR).unwrap();
    let first = log.commit(b"first").unwrap();
    for n in 0..100 {
        log.commit(&tiny_payload(n)).unwrap();
    }
    let old_file = sim
        .files()
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "cairn"))
        .unwrap()
        .0;
    let old = sim.read_file(&old_file).unwrap();
    let old_end = log.appended_lsn().0;
    log.truncate_after(first).unwrap();
    // Mark, group header and frame header lie between the cut and the payload.
    let payload_lsn = log.appended_lsn().0 + GROUP_HEADER + 12;
    let record = old[(SUPERBLOCK + payload_lsn) as usize..(SUPERBLOCK + old_end) as usize].to_vec();
    let lsn = log.append(&record).unwrap();
    assert_eq!(lsn.0 + 12, payload_lsn);
    log.append(b"last").unwrap();
    log.sync().unwrap();
    log.commit(b"after").unwrap();
    log.close().unwrap();
    let records = vec![b"first".to_vec(), record, b"last".to_vec(), b"after".to_vec()];
    let image = Image::of(&sim, records, Vec::new());
    let last = image.last_segment();
    for (offset, left) in [(SUPERBLOCK + lsn.0, 3), (SUPERBLOCK + lsn.0 - GROUP_HEADER, 4)] {
        let sim = image.plant();
        sim.flip_bit(&image.files[last].0, offset, 5).unwrap();
        let judgement = judge(&sim, &image.records).unwrap();
        assert!(!judgement.opened, "{judgement:?}");
        assert_eq!((judgement.read, judgement.verified), (1, left), "{judgement:?}");
    }
}

#[test]
fn an_unreadable_sector_is_damage_there_and_never_the_end() {
    let image = closed_log();
    let total = image.records.len() as u64;
    for (file, at) in sectors(&image) {
        let sim = image.plant();
        let path = &image.files[file].0;
        let at = at as u64;
        sim.set_faults(FaultPlan::new().unreadable(path, at..at + SECTOR));
        let judgement = judge(&sim, &image.records)
            .unwrap_or_else(|why| panic!("{}:{at}: {why}", path.display()));
        assert!(!judgement.problems.is_empty(), "{}:{at}: {judgement:?}", path.display());
        if at < SUPERBLOCK {
            assert!(!judgement.opened);
            continue;
        }
        let base = image.base_lsn(file) + at - SUPERBLOCK;
        let [Error::Corrupt(corruption)] = &judgement.problems[..] else {
            panic!("{}:{at}: {judgement:?}", path.display());
        };
        assert_eq!(corruption.kind, CorruptionKind::Unreadable);
        assert!(
            corruption.lsn.0 < base + SECTOR && corruption.resumes.is_none_or(|lsn| lsn.0 > base)
        );
        let behind = file == image.last_segment() && base >= image.end_lsn;
        assert!(
            (judgement.read < total) != behind && judgement.verified >= total - 60,
            "{}:{at}: {judgement:?}",
            path.display()
        );
        assert_eq!(judgement.opened, file != image.last_segment());
    }
}
