//! guards: L09 L66
//!
//! Followers and readers that stay open beside random appends and truncations at both ends,
//! compared with a model after each call: a follower returns one history without a gap or says so,
//! and a reader never mixes two.

use std::collections::{BTreeSet, VecDeque};

use cairn_log::{Dropped, Error, Follower, Log, Lsn, Reader, Record, Seq, Start};
use cairn_sim::SimFs;

use crate::following::{MEDIA, on};
use crate::model::Medium;

/// A record as it was appended: number, position, end, payload.
type Known = (u64, Lsn, Lsn, Vec<u8>);

/// A follower beside what it must be told.
struct Watched {
    follower: Follower,
    /// Number of the record that it returns next.
    next: u64,
    /// Its position, unless it started at a number.
    position: Option<Lsn>,
    /// The lowest cut since its last look: number of the first record cut, position.
    lowest: Option<(u64, Lsn)>,
    ended_by: Option<String>,
    /// The cut of which that error told.
    cut: Option<(u64, Lsn)>,
}

#[derive(Debug)]
enum Expected {
    Record(Known),
    Nothing,
    /// The log was cut here, below its position.
    Cut(Lsn),
    /// The record that comes next was dropped.
    Behind,
    /// The error that ended it.
    Again,
}

impl Watched {
    /// The name of what was found, if that is what was expected.
    fn compare(
        &mut self,
        found: &cairn_log::Result<Option<Record>>,
        expected: &Expected,
    ) -> Option<&'static str> {
        if let (Err(error), None) = (found, &self.ended_by) {
            self.ended_by = Some(error.to_string());
        }
        match (found, expected) {
            (Ok(Some(record)), Expected::Record(expected)) if same(record, expected) => {
                self.next += 1;
                self.position = Some(record.end_lsn());
                let after = self.lowest.is_some();
                Some(if after { "the next record after a cut above" } else { "a record" })
            }
            (Ok(None), Expected::Nothing) => Some("that there is nothing yet"),
            (Err(Error::Truncated { lsn, dropped: Dropped::Returned }), Expected::Cut(cut)) => {
                self.cut = self.lowest;
                (lsn == cut).then_some("of a cut below")
            }
            (Err(Error::Truncated { lsn, dropped: Dropped::Unread }), Expected::Behind) => {
                let here = self.position.is_none_or(|position| position == *lsn);
                here.then_some("that it is behind the head")
            }
            (Err(error), Expected::Again) => {
                let again = self.ended_by.as_ref() == Some(&error.to_string());
                again.then_some("told again")
            }
            _ => None,
        }
    }
}

/// A reader beside what it may return.
struct Kept {
    reader: Reader,
    expected: VecDeque<Known>,
    /// The truncations there were when it was made.
    truncations: usize,
}

/// One thread's random calls, and a model of what followers and readers are told. The model is
/// exact for followers.
struct World {
    log: Log,
    random: u64,
    /// By number, those before the head included.
    records: Vec<Known>,
    head: usize,
    truncations: usize,
    written: u64,
    followers: Vec<Watched>,
    readers: Vec<Kept>,
    /// What followers and readers were told, by name.
    met: BTreeSet<&'static str>,
}

impl World {
    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % end.max(1) as u64) as usize
    }

    fn append(&mut self) {
        for _ in 0..1 + self.below(5) {
            self.written += 1;
            let mut payload = self.written.to_le_bytes().to_vec();
            let max = if self.below(8) == 0 { 6000 } else { 700 };
            payload.resize(8 + self.below(max), self.written as u8);
            let lsn = self.log.append(&payload).unwrap();
            let end = Lsn((lsn.0 + 12 + payload.len() as u64).next_multiple_of(8));
            self.records.push((self.records.len() as u64, lsn, end, payload));
        }
        if self.below(4) > 0 {
            self.log.sync().unwrap();
        }
    }

    /// Number of the first record that is not durable. Also a rotation makes records durable.
    fn durable(&self) -> u64 {
        let end = self.log.durable_lsn();
        self.records.partition_point(|record| record.2 <= end) as u64
    }

    /// A record that is still there, near the end most of the time.
    fn any_record(&mut self) -> Option<usize> {
        let there = self.records.len() - self.head;
        let near = if self.below(4) == 0 { there } else { there.min(12) };
        (there > 0).then(|| self.records.len() - 1 - self.below(near))
    }

    fn cut(&mut self) {
        let Some(last) = self.any_record() else { return };
        self.log.truncate_after(self.records[last].1).unwrap();
        let cut = (last as u64 + 1, self.records[last].2);
        if last + 1 < self.records.len() {
            for watched in &mut self.followers {
                watched.lowest = watched.lowest.map_or(Some(cut), |lowest| Some(lowest.min(cut)));
            }
            self.truncations += 1;
        }
        self.records.truncate(last + 1);
    }

    fn drop_beginning(&mut self) {
        let Some(first) = self.any_record() else { return };
        self.log.truncate_before(self.records[first].1).unwrap();
        self.truncations += usize::from(first > self.head);
        self.head = first;
    }

    fn start_follower(&mut self) {
        let Some(at) = self.any_record() else { return };
        let (start, position) = match self.below(3) {
            0 => (Start::Seq(Seq(at as u64)), None),
            1 => (Start::Lsn(self.records[at].1), Some(self.records[at].1)),
            _ => (Start::Lsn(self.records[at].2), Some(self.records[at].2)),
        };
        let next = if position == Some(self.records[at].2) { at as u64 + 1 } else { at as u64 };
        let follower = self.log.follow(start).unwrap();
        self.followers.push(Watched {
            follower,
            next,
            position,
            lowest: None,
            ended_by: None,
            cut: None,
        });
    }

    fn start_reader(&mut self) {
        let expected = self.records[self.head..].to_vec();
        let reader = self.log.reader(Lsn::START).unwrap();
        let truncations = self.truncations;
        self.readers.push(Kept { reader, expected: expected.into(), truncations });
    }

    /// What a follower returns if it looks now.
    fn expected(&self, watched: &Watched) -> Expected {
        let next = watched.next;
        match watched.lowest {
            _ if watched.ended_by.is_some() => Expected::Again,
            Some((seq, lsn)) if seq < next => Expected::Cut(lsn),
            _ if (self.head as u64) > next => Expected::Behind,
            _ if next >= self.durable() => Expected::Nothing,
            _ => Expected::Record(self.records[next as usize].clone()),
        }
    }

    /// Some follower looks a few times.
    fn look(&mut self) -> Result<(), String> {
        if self.followers.is_empty() {
            return Ok(());
        }
        let (at, times) = (self.below(self.followers.len()), 1 + self.below(12));
        for _ in 0..times {
            let expected = self.expected(&self.followers[at]);
            let watched = &mut self.followers[at];
            let found = watched.follower.try_next().map(|r| r.map(|r| r.to_record()));
            let met = watched.compare(&found, &expected).ok_or_else(|| {
                let (found, next) = (short(&found), watched.next);
                format!("{found} instead of {expected:?} at {next}, {:?}", watched.lowest)
            })?;
            if !matches!(expected, Expected::Again) {
                // One that has ended does not look.
                watched.lowest = None;
            }
            self.met.insert(met);
        }
        Ok(())
    }

    /// A follower that has ended is resumed, which a cut alone allows.
    fn resume(&mut self) -> Result<(), String> {
        for watched in &mut self.followers {
            let Some(error) = watched.ended_by.take() else { continue };
            match (watched.follower.resume(), watched.cut) {
                (Ok(()), Some((seq, lsn))) => {
                    (watched.next, watched.position) = (seq, Some(lsn));
                    (watched.cut, watched.ended_by) = (None, None);
                    self.met.insert("resumed");
                }
                (Err(again), None) if again.to_string() == error => watched.ended_by = Some(error),
                (resumed, cut) => return Err(format!("resume: {resumed:?} after {cut:?}")),
            }
        }
        Ok(())
    }

    /// Some reader goes on.
    fn read(&mut self) -> Result<(), String> {
        if self.readers.is_empty() {
            return Ok(());
        }
        let (at, times) = (self.below(self.readers.len()), 1 + self.below(12));
        let mut kept = self.readers.swap_remove(at);
        let changed = kept.truncations != self.truncations;
        for _ in 0..times {
            let found = kept.reader.next_record().map(|record| record.map(|r| r.to_record()));
            let expected = kept.expected.pop_front();
            match (&found, &expected) {
                (Ok(Some(record)), Some(expected)) if same(record, expected) => {
                    let there = self.records.get(expected.0 as usize) == Some(expected);
                    self.met.insert(match there {
                        true => "read",
                        false => "read a record that is gone",
                    });
                }
                (Ok(None), None) => return Ok(()),
                (Err(Error::Truncated { dropped: Dropped::Unread, .. }), Some(_)) if changed => {
                    self.met.insert("read up to what is gone");
                    return match kept.reader.next_record() {
                        Ok(None) => Ok(()),
                        other => Err(format!("a reader that failed goes on: {other:?}")),
                    };
                }
                _ => {
                    let expected = expected.map(|expected| expected.0);
                    return Err(format!("a reader: {} instead of {expected:?}", short(&found)));
                }
            }
        }
        self.readers.push(kept);
        Ok(())
    }
}

/// Without payloads.
fn short(found: &cairn_log::Result<Option<Record>>) -> String {
    format!("{:?}", found.as_ref().map(|record| record.as_ref().map(|r| (r.seq(), r.lsn()))))
}

fn same(record: &Record, expected: &Known) -> bool {
    (record.seq().0, record.lsn(), record.end_lsn()) == (expected.0, expected.1, expected.2)
        && record.payload() == expected.3
}

/// Random calls from this seed.
pub(crate) fn followed(medium: Medium, seed: u64) -> Result<BTreeSet<&'static str>, String> {
    let log = on(medium, &SimFs::new());
    let mut world = World {
        log,
        random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        records: Vec::new(),
        head: 0,
        truncations: 0,
        written: 0,
        followers: Vec::new(),
        readers: Vec::new(),
        met: BTreeSet::new(),
    };
    for step in 0..120 {
        let at = |error: String| format!("{medium:?}, seed {seed}, step {step}: {error}");
        match world.below(16) {
            0..5 => world.append(),
            5..7 => world.cut(),
            7 => world.drop_beginning(),
            8..10 if world.followers.len() < 8 => world.start_follower(),
            10 if world.readers.len() < 8 => world.start_reader(),
            11 => world.resume().map_err(at)?,
            12 => world.read().map_err(at)?,
            _ => world.look().map_err(at)?,
        }
    }
    Ok(world.met)
}

#[test]
fn followers_and_readers_are_told_what_happened() {
    let mut met = BTreeSet::new();
    for medium in MEDIA {
        for seed in 0..150 {
            met.extend(followed(medium, seed).unwrap());
        }
    }
    let all = [
        "a record",
        "of a cut below",
        "read",
        "read a record that is gone",
        "read up to what is gone",
        "resumed",
        "that it is behind the head",
        "that there is nothing yet",
        "the next record after a cut above",
        "told again",
    ];
    assert_eq!(met, BTreeSet::from(all));
}
