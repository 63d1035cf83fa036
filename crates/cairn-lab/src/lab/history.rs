//! What a workload did and was promised, and whether what was found after a power cut keeps the
//! promise.
//!
//! A *stamp* counts block operations recorded when something was heard of. An acknowledgement is
//! heard of after it was given, so a cut at or after its stamp must find the record; a cut before
//! it may. A truncation is heard of before it begins (the workload waits for leave), and again
//! after its end; a cut in between may find the log before or after, nothing else.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Never acknowledged, or never ended.
const NEVER: usize = usize::MAX;

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) lsn: u64,
    pub(crate) seq: u64,
    /// `None`: the payload is not one of ours, or not whole.
    pub(crate) id: Option<u64>,
}

/// A truncation, as the log's API has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cut {
    /// The first position that stays.
    Before(u64),
    /// The last record that stays.
    After(u64),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Entry {
    lsn: u64,
    id: u64,
    stamp: usize,
    /// In one batch with the record before it.
    joined: bool,
}

/// The log between two truncations.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Epoch {
    begun: usize,
    settled: usize,
    first_seq: u64,
    /// In the order of the log once the epoch is over.
    entries: Vec<Entry>,
}

/// What a log found when it was opened that an earlier power cut had left.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Inherited {
    history: Box<History>,
    cut_at: usize,
    /// From this stamp on the log is open, and what it had found then is durable. Before, anything
    /// goes that the earlier cut may leave.
    until: usize,
}

/// Everything a workload did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct History {
    salt: u64,
    inherited: Option<Inherited>,
    epochs: Vec<Epoch>,
}

impl History {
    /// Of a log that is to be created. Payloads carry `salt`, so that those of another workload are
    /// foreign.
    pub(crate) fn new(salt: u64) -> Self {
        let epoch = Epoch { begun: 0, settled: 0, first_seq: 0, entries: Vec::new() };
        History { salt, inherited: None, epochs: vec![epoch] }
    }

    /// Of a log that power was cut from, after `cut_at` operations of `history`.
    pub(crate) fn after(history: History, cut_at: usize) -> Self {
        let epoch = Epoch { begun: NEVER, settled: NEVER, first_seq: 0, entries: Vec::new() };
        let salt = history.salt;
        let inherited = Inherited { history: Box::new(history), cut_at, until: NEVER };
        History { salt, inherited: Some(inherited), epochs: vec![epoch] }
    }

    /// The log is open for the first time; nothing was appended yet.
    pub(crate) fn opened(
        &mut self,
        stamp: usize,
        first_seq: u64,
        records: &[(u64, u64)],
    ) -> Result<(), String> {
        let numbered = records.iter().zip(first_seq..);
        let found: Vec<_> =
            numbered.map(|(&(lsn, id), seq)| Found { lsn, seq, id: Some(id) }).collect();
        self.check(stamp, &found)?;
        if let Some(inherited) = &mut self.inherited {
            inherited.until = stamp;
            let entries =
                records.iter().map(|&(lsn, id)| Entry { lsn, id, stamp, joined: false }).collect();
            self.epochs = vec![Epoch { begun: stamp, settled: stamp, first_seq, entries }];
        }
        Ok(())
    }

    /// An id well above all that were ever in the log.
    pub(crate) fn next_id(&self) -> u64 {
        let own = self
            .epochs
            .iter()
            .flat_map(|epoch| &epoch.entries)
            .map(|entry| entry.id)
            .max()
            .unwrap_or(0);
        let inherited = self.inherited.as_ref().map_or(0, |inherited| inherited.history.next_id());
        inherited.max(own + 1000)
    }

    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    /// Records, as LSN and id, were acknowledged; as one batch, if so.
    pub(crate) fn durable(&mut self, stamp: usize, records: &[(u64, u64)], batch: bool) {
        let entries = &mut self.current().entries;
        for (i, &(lsn, id)) in records.iter().enumerate() {
            entries.push(Entry { lsn, id, stamp, joined: batch && i > 0 });
        }
    }

    /// Records were seen in the log: they need not be durable, but they are next.
    pub(crate) fn written(&mut self, records: &[(u64, u64)]) {
        for &(lsn, id) in records {
            if !self.current().entries.iter().any(|entry| entry.lsn == lsn) {
                self.durable(NEVER, &[(lsn, id)], false);
            }
        }
    }

    /// Nothing else goes on, and a truncation waits for leave to begin.
    pub(crate) fn cut_begins(&mut self, stamp: usize, cut: Cut) {
        self.finish();
        let last = self.current();
        let stays = |entry: &&Entry| match cut {
            Cut::Before(lsn) => entry.lsn >= lsn,
            Cut::After(lsn) => entry.lsn <= lsn,
        };
        let entries: Vec<_> =
            last.entries.iter().filter(stays).map(|entry| Entry { stamp: 0, ..*entry }).collect();
        let dropped_first = match cut {
            Cut::Before(_) => (last.entries.len() - entries.len()) as u64,
            Cut::After(_) => 0,
        };
        let first_seq = last.first_seq + dropped_first;
        self.epochs.push(Epoch { begun: stamp, settled: NEVER, first_seq, entries });
    }

    /// The truncation that began last has returned.
    pub(crate) fn cut_ends(&mut self, stamp: usize) {
        self.current().settled = stamp;
    }

    /// Puts the records in order.
    pub(crate) fn finish(&mut self) {
        self.current().entries.sort_by_key(|entry| entry.lsn);
    }

    /// Positions of the records in the log now.
    pub(crate) fn positions(&mut self) -> Vec<u64> {
        self.finish();
        self.current().entries.iter().map(|entry| entry.lsn).collect()
    }

    /// Records that had been acknowledged when `cut_at` operations were recorded.
    pub(crate) fn acknowledged(&self, cut_at: usize) -> usize {
        let now = self.epochs.iter().rfind(|epoch| epoch.settled <= cut_at);
        now.map_or(0, |epoch| epoch.entries.iter().filter(|entry| entry.stamp <= cut_at).count())
    }

    /// Whether `found`, in this order, is what a cut after `cut_at` operations may leave: in one of
    /// the epochs of that moment, the log up to some record, with everything acknowledged in it.
    pub(crate) fn check(&self, cut_at: usize, found: &[Found]) -> Result<(), String> {
        let mut complaints = String::new();
        if let Some(inherited) =
            self.inherited.as_ref().filter(|inherited| cut_at < inherited.until)
        {
            match inherited.history.check(inherited.cut_at, found) {
                Ok(()) => return Ok(()),
                Err(complaint) => complaints = format!("of the earlier cut: {complaint}"),
            }
        }
        for (i, epoch) in self.epochs.iter().enumerate() {
            let over = self.epochs.get(i + 1).is_some_and(|next| next.settled <= cut_at);
            if epoch.begun > cut_at || over {
                continue;
            }
            match epoch.check(cut_at, found) {
                Ok(()) => return Ok(()),
                Err(complaint) => {
                    let _ = write!(
                        complaints,
                        "{}{complaint}",
                        if complaints.is_empty() { "" } else { "; or: " }
                    );
                }
            }
        }
        Err(complaints)
    }

    fn current(&mut self) -> &mut Epoch {
        let last = self.epochs.len() - 1;
        &mut self.epochs[last]
    }
}

impl Epoch {
    fn check(&self, cut_at: usize, found: &[Found]) -> Result<(), String> {
        let required =
            self.entries.iter().rposition(|entry| entry.stamp <= cut_at).map_or(0, |i| i + 1);
        for (i, record) in found.iter().enumerate() {
            let Some(entry) = self.entries.get(i) else {
                return Err(format!("record {i} at LSN {} was never appended here", record.lsn));
            };
            if record.id != Some(entry.id) || record.lsn != entry.lsn {
                return Err(format!(
                    "record {i} is {record:?}, expected id {} at LSN {}",
                    entry.id, entry.lsn
                ));
            }
            if record.seq != self.first_seq + i as u64 {
                return Err(format!(
                    "record {i} has number {}, expected {}",
                    record.seq,
                    self.first_seq + i as u64
                ));
            }
        }
        if found.len() < required {
            let lost = required - found.len();
            let first = self.entries[found.len()];
            return Err(format!(
                "{} records found, {required} required: {lost} acknowledged ones lost, from id {} \
                 at LSN {}, acknowledged at operation {} or before, cut at {cut_at}",
                found.len(),
                first.id,
                first.lsn,
                self.entries[required - 1].stamp,
            ));
        }
        match self.entries.get(found.len()) {
            Some(next) if next.joined => {
                Err(format!("{} records found: a batch is torn", found.len()))
            }
            _ => Ok(()),
        }
    }
}

/// The bytes of record `id`: one line of text, of a length that follows from the id.
pub(crate) fn payload(salt: u64, id: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(salt ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let len = match rng.u8(..16) {
        0 => 0,
        1..=11 => rng.usize(..250),
        12..=14 => rng.usize(250..1500),
        _ => rng.usize(1500..6000),
    };
    let mut payload = format!("{salt:016x}.{id}.").into_bytes();
    payload.extend(std::iter::repeat_with(|| rng.alphanumeric() as u8).take(len));
    payload
}

/// The id of a payload, if it is whole and ours.
pub(crate) fn identify(salt: u64, bytes: &[u8]) -> Option<u64> {
    let id = std::str::from_utf8(bytes).ok()?.split('.').nth(1)?.parse().ok()?;
    (payload(salt, id) == bytes).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(records: &[(u64, u64)], first_seq: u64) -> Vec<Found> {
        let number = |(i, &(lsn, id))| Found { lsn, seq: first_seq + i as u64, id: Some(id) };
        records.iter().enumerate().map(number).collect()
    }

    #[test]
    fn a_record_is_required_from_its_acknowledgement_on() {
        let mut history = History::new(1);
        history.durable(20, &[(50, 1)], false);
        history.durable(10, &[(0, 0)], false);
        history.finish();
        assert!(history.check(9, &[]).is_ok());
        assert!(history.check(10, &[]).is_err());
        assert!(history.check(10, &found(&[(0, 0)], 0)).is_ok());
        assert!(history.check(10, &found(&[(0, 0), (50, 1)], 0)).is_ok());
        assert!(history.check(20, &found(&[(0, 0)], 0)).is_err());
        for wrong in [
            found(&[(0, 1)], 0),
            found(&[(1, 0)], 0),
            found(&[(0, 0)], 1),
            found(&[(0, 0), (50, 1), (99, 2)], 0),
        ] {
            assert!(history.check(10, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn batches_are_whole() {
        let mut history = History::new(1);
        history.durable(10, &[(0, 0), (50, 1), (90, 2)], true);
        assert!(history.check(5, &[]).is_ok());
        assert!(history.check(5, &found(&[(0, 0), (50, 1)], 0)).is_err());
        assert!(history.check(5, &found(&[(0, 0), (50, 1), (90, 2)], 0)).is_ok());
    }

    #[test]
    fn truncations_happen_as_a_whole_between_leave_and_return() {
        let mut history = History::new(1);
        history.durable(10, &[(0, 0), (50, 1), (90, 2)], false);
        history.cut_begins(20, Cut::After(50));
        history.cut_ends(30);
        history.durable(40, &[(90, 3)], false);
        history.cut_begins(50, Cut::Before(50));
        history.cut_ends(60);
        history.finish();
        let whole = found(&[(0, 0), (50, 1), (90, 2)], 0);
        let cut = found(&[(0, 0), (50, 1)], 0);
        assert!(history.check(19, &whole).is_ok() && history.check(19, &cut).is_err());
        assert!(history.check(25, &whole).is_ok() && history.check(25, &cut).is_ok());
        assert!(history.check(30, &whole).is_err() && history.check(30, &cut).is_ok());
        let after = found(&[(50, 1), (90, 3)], 1);
        assert!(history.check(60, &after).is_ok());
        assert!(history.check(49, &after).is_err());
        assert!(history.check(60, &cut).is_err());
    }

    #[test]
    fn a_cut_during_recovery_may_leave_what_the_first_one_may() {
        let mut first = History::new(1);
        first.durable(10, &[(0, 0)], false);
        first.durable(20, &[(50, 1)], false);
        let mut history = History::after(first, 15);
        assert!(history.check(0, &[]).is_err());
        assert!(history.check(7, &found(&[(0, 0)], 0)).is_ok());
        assert!(history.check(7, &found(&[(0, 0), (50, 1)], 0)).is_ok());
        assert!(history.clone().opened(8, 0, &[]).is_err());
        history.opened(8, 0, &[(0, 0), (50, 1)]).unwrap();
        assert!(history.check(7, &found(&[(0, 0)], 0)).is_ok());
        assert!(history.check(8, &found(&[(0, 0)], 0)).is_err());
        assert!(history.check(8, &found(&[(0, 0), (50, 1)], 0)).is_ok());
        history.durable(9, &[(90, 2000)], false);
        assert!(history.check(9, &found(&[(0, 0), (50, 1), (90, 2000)], 0)).is_ok());
    }

    #[test]
    fn payloads_are_recognised_only_whole() {
        for id in 0..200 {
            let bytes = payload(7, id);
            assert_eq!(identify(7, &bytes), Some(id));
            assert_eq!(identify(8, &bytes), None);
            assert_eq!(identify(7, &bytes[..bytes.len() - 1]), None);
            assert!(!bytes.contains(&b'\n'));
        }
    }
}
