//! What must hold, each with a name. Every workload of the log uses these.

use cairn_log::{Error, Inspection, Log, Lsn};
use cairn_sim::{Broken, SimFs};
pub use cairn_trial::properties::{NO_ERROR, TOLD, TRUTH};
pub use cairn_trial::properties::{OPEN_MAX, all_closed, bounded, untouched, usable};

use crate::acts::Harm;
use crate::calls::{Home, Setup};
use crate::life::Hands;
use crate::told::Ledger;

pub const ACKNOWLEDGED: &str = "what is acknowledged stays, in order, once";
pub const NOTHING_ELSE: &str = "nothing is in the log that was not appended, or was dropped";
pub const WHOLE: &str = "a batch is there as a whole or not at all";
pub const NO_HOLE: &str = "nothing unacknowledged is in front of what is missing";
pub const FOLLOWERS: &str = "followers deliver one history without a gap, or say so";
pub const POSITIONS: &str = "positions that are none are refused";
pub const BACKUP: &str = "files that others share are not written on";
pub const ALONE: &str = "one handle has the log";

/// A record as a reader returned it: place, number, bytes.
pub type Found = (u64, u64, Vec<u8>);

/// Reads everything from the head.
pub fn read_all(log: &Log) -> cairn_log::Result<Vec<Found>> {
    let mut found = Vec::new();
    for record in log.reader(log.head_lsn())? {
        let record = record?;
        found.push((record.lsn().0, record.seq().0, record.payload().to_vec()));
    }
    Ok(found)
}

/// Records follow each other: numbers without a gap, rising places.
pub fn in_order(property: &'static str, found: &[Found]) -> Result<(), Broken> {
    for pair in found.windows(2) {
        let ((lsn, seq, _), (next_lsn, next_seq, _)) = (&pair[0], &pair[1]);
        if *next_seq != seq + 1 || next_lsn <= lsn {
            let text = format!("record {next_seq} at {next_lsn} follows record {seq} at {lsn}");
            return Err(Broken::new(property, text));
        }
    }
    Ok(())
}

/// What a log that was just opened holds, compared with what callers had been told before. Returns
/// which records were found, with places and numbers.
pub fn recovered(told: &Ledger, found: &[Found]) -> Result<Vec<(usize, u64, u64)>, Broken> {
    in_order(ACKNOWLEDGED, found)?;
    let mut there = Vec::new();
    for (lsn, seq, bytes) in found {
        let Some(index) = told.find(*lsn, bytes) else {
            let text = format!("record {seq} at {lsn}, {} bytes, was never appended", bytes.len());
            return Err(Broken::new(NOTHING_ELSE, text));
        };
        let record = &told.records[index];
        if record.gone.is_some() || record.refused {
            let text = format!("record {} at {lsn} had been dropped, or refused", record.id);
            return Err(Broken::new(NOTHING_ELSE, text));
        }
        if record.seq.is_some_and(|known| known != *seq) {
            let text = format!("record {} at {lsn} had number {:?}", record.id, record.seq);
            return Err(Broken::new(ACKNOWLEDGED, text));
        }
        there.push((index, *lsn, *seq));
    }
    let is_there = |index: usize| there.iter().any(|(known, ..)| *known == index);
    let last = found.last().map(|(lsn, ..)| *lsn);
    for (index, record) in told.records.iter().enumerate() {
        if is_there(index) || record.maybe_gone.is_some() {
            continue;
        }
        let Some(lsn) = record.lsn else { continue };
        if record.flushed.is_some() {
            let text = format!(
                "record {} at {lsn} was acknowledged and is not there; {} are, up to {last:?}",
                record.id,
                found.len()
            );
            return Err(Broken::new(ACKNOWLEDGED, text));
        }
        // A call that had not returned may not have appended, or later, in another history.
        if record.placed.is_none() {
            continue;
        }
        // Twins of one place: the other one was appended where this one had been dropped.
        let twin = found.iter().any(|(at, ..)| *at == lsn);
        if last.is_some_and(|last| lsn < last) && !twin && !ambiguous(told, lsn) {
            let places: Vec<_> = found.iter().map(|(lsn, _, bytes)| (lsn, bytes.len())).collect();
            let text = format!("{record:?} is missing, {places:?} are there");
            return Err(Broken::new(NO_HOLE, text));
        }
    }
    whole(told, &there)?;
    Ok(there)
}

/// A batch is there as a whole or not at all, but for what truncations took of it.
fn whole(told: &Ledger, there: &[(usize, u64, u64)]) -> Result<(), Broken> {
    for &(index, lsn, _) in there {
        let (first, count) = told.records[index].batch;
        let of_batch =
            || told.records.iter().enumerate().filter(|(_, other)| other.batch.0 == first);
        let cut = of_batch().any(|(_, other)| other.maybe_gone.is_some());
        let found = of_batch().filter(|(i, _)| there.iter().any(|(known, ..)| known == i)).count();
        if !cut && of_batch().count() == count && found != count {
            let text = format!("{found} of {count} records of the batch at about {lsn} are there");
            return Err(Broken::new(WHOLE, text));
        }
    }
    Ok(())
}

/// Whether a cut that may or may not have happened decides if this place was used.
fn ambiguous(told: &Ledger, lsn: u64) -> bool {
    told.records.iter().any(|other| {
        other.maybe_gone.is_some() && other.gone.is_none() && other.lsn.is_some_and(|at| at <= lsn)
    })
}

/// A reader made while the log was open returned what was there when it was made.
pub fn read_back(told: &Ledger, since: u64, found: &[Found], failing: bool) -> Result<(), Broken> {
    in_order(ACKNOWLEDGED, found)?;
    known(told, found)?;
    // A log that cannot write returns what it had written.
    if failing {
        return Ok(());
    }
    for record in told.readable_since(since) {
        if !found.iter().any(|(lsn, _, bytes)| {
            record.lsn == Some(*lsn) && crate::told::payload(record.id, record.len) == *bytes
        }) {
            let text = format!(
                "record {} at {:?} was appended before the reader was made, and is not returned",
                record.id, record.lsn
            );
            return Err(Broken::new(ACKNOWLEDGED, text));
        }
    }
    Ok(())
}

/// Everything that was read was appended by somebody.
pub fn known(told: &Ledger, found: &[Found]) -> Result<(), Broken> {
    for (lsn, seq, bytes) in found {
        if told.find(*lsn, bytes).is_none() {
            let text = format!("record {seq} at {lsn}, {} bytes, was never appended", bytes.len());
            return Err(Broken::new(NOTHING_ELSE, text));
        }
    }
    Ok(())
}

/// A process without the lock looks at the files: no damage, and not a byte changed.
pub fn inspected(fs: &SimFs, dir: &str) -> Result<Option<Seen>, Broken> {
    let look = match untouched(fs, || Inspection::open_on(std::sync::Arc::new(fs.clone()), dir))? {
        Ok(look) => look,
        // There is nothing yet.
        Err(Error::Io { .. }) => return Ok(None),
        Err(other) => return Err(Broken::new(TRUTH, format!("cannot be looked at: {other}"))),
    };
    if !look.problems().is_empty() {
        return Err(Broken::new(TRUTH, format!("problems: {:?}", look.problems())));
    }
    let mut found = Vec::new();
    let untrue = |error: Error| Broken::new(TRUTH, format!("cannot be read: {error}"));
    for record in look.reader(look.head_lsn()).map_err(untrue)? {
        let record = record.map_err(untrue)?;
        found.push((record.lsn().0, record.seq().0, record.payload().to_vec()));
    }
    Ok(Some(Seen { uuid: look.uuid().as_u128(), head: look.head_lsn(), found }))
}

/// What a look at the files saw.
#[derive(Debug)]
pub struct Seen {
    uuid: u128,
    head: Lsn,
    found: Vec<Found>,
}

/// What a look at the files said before the log was opened is what the log holds then.
pub fn was_true(seen: &Seen, log: &Log, found: &[Found]) -> Result<(), Broken> {
    let same = seen.uuid == log.uuid().as_u128() && seen.head == log.head_lsn();
    if !same || seen.found != found {
        let text = format!(
            "seen: {} records from {}; opened: {} records from {}",
            seen.found.len(),
            seen.head,
            found.len(),
            log.head_lsn()
        );
        return Err(Broken::new(TRUTH, text));
    }
    Ok(())
}

/// `verify` says that something is wrong.
pub fn verify_says_so(fs: &SimFs, dir: &str, harm: &Harm) -> Result<(), Broken> {
    let verify = || {
        let look = Inspection::open_on(std::sync::Arc::new(fs.second_process()), dir);
        look.and_then(|look| look.verify(|_| ()))
    };
    match untouched(fs, verify)? {
        Ok(verified) if verified.problems.is_empty() => {
            Err(Broken::new(TRUTH, format!("verify finds nothing after {harm:?}")))
        }
        _ => Ok(()),
    }
}

/// What a second name of a file led to, it leads to still: such a file is written on at its end
/// alone, while it is the log's. What a symbolic link leads to is not written at all.
pub fn backups_stay(hands: &Hands) -> Result<(), Broken> {
    let told = crate::life::lock(&hands.told);
    let harmed = told.harmed().is_some();
    let backups = hands.backups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (path, old) in backups.iter().filter(|_| !harmed) {
        let now = hands.fs.read_file(path).unwrap_or_default();
        let kept = |(at, byte): (usize, &u8)| *byte == 0 || now.get(at) == Some(byte);
        // A link to a spare file may be made behind the look that finds it: it holds no record, and
        // no backup looks for that name.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_segment = name.ends_with(".cairn") || name.ends_with(".seg");
        if is_segment && !old.iter().enumerate().all(kept) {
            return Err(Broken::new(BACKUP, format!("{} is another file", path.display())));
        }
    }
    for (path, old) in told.elsewhere.iter().filter(|_| !harmed) {
        if hands.fs.read_file(path).ok().as_ref() != Some(old) {
            return Err(Broken::new(BACKUP, format!("{} was written on", path.display())));
        }
    }
    Ok(())
}

/// How many bytes a log of `live` bytes in segments of `segment` may take.
fn space(live: u64, segment: u64, records: usize) -> u64 {
    // A small segment may hold one group, which may be one record. A power cut may have brought the
    // space back that was reserved behind it.
    let groups = if segment <= 16 << 10 { (4096 + segment) * records as u64 } else { 0 };
    let segment = segment.max(16 << 10);
    // Four files that are kept to be written on, the active one, the next one, one being made; and
    // what blocks and superblocks of each segment add.
    2 * live + 10 * segment + 4096 * (live / segment + 1) + 600 * records as u64 + groups
}

/// Files are no longer than the log needs, and no more waits in memory than its buffers hold, or
/// one group that is larger than a buffer.
pub fn log_bounded(hands: &Hands) -> Result<(), Broken> {
    let Hands { fs, log, setup, .. } = hands;
    // Not held during calls of the log: its own threads would wait for it outside of the world.
    let (segment, records) = {
        let told = crate::life::lock(&hands.told);
        (told.segment, told.records.len())
    };
    let live = log.appended_lsn().0 - log.head_lsn().0;
    let space = space(live, segment, records);
    let place = crate::life::place(setup.home);
    // One store keeps what is behind its dropped beginning.
    let space = if setup.home == Home::Directory { space } else { u64::MAX };
    let held = (log.stats().buffered_bytes, buffers(setup));
    bounded(fs, place, space, held, open_max(hands))
}

/// A store of several files has all of them open, wherever they are.
fn open_max(Hands { fs, setup, .. }: &Hands) -> u64 {
    let files = crate::acts::files_anywhere(fs, setup.home).len() as u64;
    OPEN_MAX + if setup.home == Home::Segmented { files } else { 0 }
}

/// No more waits in memory than the buffers hold.
pub fn memory_bounded(hands: &Hands) -> Result<(), Broken> {
    let Hands { fs, log, setup, .. } = hands;
    let place = crate::life::place(setup.home);
    let held = (log.stats().buffered_bytes, buffers(setup));
    bounded(fs, place, u64::MAX, held, open_max(hands))
}

/// How many bytes the buffers hold. One that a large group went through stays that large.
fn buffers(setup: &Setup) -> u64 {
    setup.buffers as u64 * LARGEST.max(setup.buffer as u64)
}

/// Bytes of the largest group that any script makes.
const LARGEST: u64 = 16 << 10;

/// An error that a call may return although nothing failed: another caller moved the ends.
pub fn is_excused(error: &Error, cuts: bool) -> bool {
    match error {
        Error::OutOfRange { .. } | Error::NotARecord { .. } | Error::Truncated { .. } => cuts,
        Error::WouldBlock => true,
        _ => false,
    }
}

/// The positions that a truncation may name.
pub fn position(told: &Ledger, nth: usize) -> Option<Lsn> {
    let standing = told.standing();
    let index = standing.len().checked_sub(nth + 1)?;
    Some(Lsn(standing[index]))
}
