//! What torture writes: records that can be derived from their names, and lines that tell the
//! parent what the log acknowledged.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// One whose rolls depend on all of `parts`.
    pub(crate) fn of(parts: &[u64]) -> Self {
        parts.iter().fold(Dice(0), |mut dice, part| Dice(dice.next() ^ *part))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `below`, which is not 0.
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.next() % below
    }
}

/// The name of a record: which call of which thread wrote it. No two records have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Id {
    pub(crate) seed: u64,
    /// The child that was to be killed as this one.
    pub(crate) kill: u64,
    pub(crate) writer: u64,
    /// Counts the writer's calls.
    pub(crate) n: u64,
    /// Place in its batch.
    pub(crate) index: u64,
    /// Records in its batch; 1 for a record of its own.
    pub(crate) count: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Id { seed, kill, writer, n, index, count } = self;
        write!(f, "{seed}.{kill}.{writer}.{n}.{index}/{count}")
    }
}

impl Id {
    /// The record's bytes: its name, and letters that follow from it.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut dice = self.dice();
        let filler_len = Self::filler_len(&mut dice);
        let mut payload = format!("{self} ").into_bytes();
        let len = payload.len() + filler_len;
        while payload.len() < len {
            payload.extend(dice.next().to_le_bytes().map(|byte| b'a' + byte % 26));
        }
        payload.truncate(len);
        payload
    }

    /// Length of the payload.
    pub(crate) fn len(&self) -> u64 {
        (self.to_string().len() + 1 + Self::filler_len(&mut self.dice())) as u64
    }

    /// The name in a payload, when the whole payload is what follows from that name.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let name_len = memchr::memchr(b' ', payload)?;
        let name = std::str::from_utf8(&payload[..name_len]).ok()?;
        let mut numbers = name.split(['.', '/']).map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten();
        let id = Id {
            seed: number()?,
            kill: number()?,
            writer: number()?,
            n: number()?,
            index: number()?,
            count: number()?,
        };
        (payload == id.payload()).then_some(id)
    }

    pub(crate) fn is_first(&self) -> bool {
        self.index == 0
    }

    pub(crate) fn is_last(&self) -> bool {
        self.index + 1 == self.count
    }

    fn dice(&self) -> Dice {
        Dice::of(&[self.seed, self.kill, self.writer, self.n, self.index, self.count])
    }

    /// Mostly short, sometimes a few blocks, now and then larger than a small segment.
    fn filler_len(dice: &mut Dice) -> usize {
        let below = match dice.roll(64) {
            0 => 100_000,
            1..4 => 5_000,
            _ => 200,
        };
        // Less than 100,000.
        usize::try_from(dice.roll(below)).unwrap_or_default()
    }
}

/// A line from the child. Everything that is acknowledged is said after the log returned `Ok`; a
/// truncation is announced before, too.
///
/// Epochs tell records from before a cut from those after it: odd while a `truncate_after` is under
/// way, even otherwise. What carries an epoch was in the log, durable, at some moment of it; calls
/// that overlap a cut acknowledge nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The log opened; whether it had not been closed.
    Opened { recovered: bool },
    /// The record `id` is at `lsn`.
    Record { epoch: u64, lsn: u64, id: Id },
    /// The batch that begins with `id` is there, from `first` to `last`.
    Batch { epoch: u64, first: u64, last: u64, id: Id },
    /// `truncate_before` is called: the record at `lsn` with the number `seq` is to be the first.
    CuttingBefore { lsn: u64, seq: u64 },
    /// `truncate_after` is called, in this odd epoch: the record at `lsn` is to be the last.
    CuttingAfter { epoch: u64, lsn: u64 },
    /// The truncation that was announced returned.
    Cut,
    /// `close` is called.
    Closing,
    /// It returned: all records with lower numbers are durable.
    Closed { next_seq: u64 },
    /// The child itself read something that cannot be.
    Wrong { what: String },
    /// The log refused something; the child ends.
    Failed { code: u8, error: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_told_from_every_altered_one() {
        for n in 0..300 {
            let id = Id { seed: u64::MAX, kill: 3, writer: 2, n, index: 0, count: 1 };
            let payload = id.payload();
            assert_eq!(payload.len() as u64, id.len());
            assert_eq!(Id::of(&payload), Some(id));
            for at in (0..payload.len()).step_by(1 + payload.len() / 50) {
                let mut altered = payload.clone();
                altered[at] ^= 1;
                assert_eq!(Id::of(&altered), None, "{n}, {at}");
            }
            assert_eq!(Id::of(&payload[..payload.len() - 1]), None);
            assert_eq!(Id::of(&[&payload[..], b"a"].concat()), None);
        }
        assert_eq!(Id::of(b""), None);
    }
}
