//! What must be in the log, and whether it is.
//!
//! Nothing here asks the log what it thinks: the ledger is kept from what the child said, and
//! compared with what the files hold. After each kill what was found becomes what must be there at
//! the next one, so the ledger is never larger than the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::record::{Id, Said};

/// The log as its files show it after a kill.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) head_seq: u64,
    pub(crate) next_seq: u64,
    pub(crate) records: Vec<FoundRecord>,
}

impl Found {
    /// Whether torture wrote all of it.
    pub(crate) fn is_ours(&self) -> bool {
        self.records.iter().all(|record| record.id.is_some())
    }
}

/// One record in the files.
#[derive(Clone, Debug)]
pub(crate) struct FoundRecord {
    lsn: u64,
    seq: u64,
    /// `None` when the bytes are not those of any record that torture writes.
    id: Option<Id>,
}

impl FoundRecord {
    pub(crate) fn new(lsn: u64, seq: u64, payload: &[u8]) -> Self {
        FoundRecord { lsn, seq, id: Id::of(payload) }
    }
}

/// Something that must not be: what the log acknowledged, and what is there instead.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Finding {
    pub(crate) acknowledged: String,
    pub(crate) found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acknowledged: {}; found: {}", self.acknowledged, self.found)
    }
}

/// Counts of what one child was told, and what became of it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Tally {
    pub(crate) acknowledged_records: u64,
    pub(crate) acknowledged_bytes: u64,
    /// Records that were found after the kill without having been acknowledged.
    pub(crate) unacknowledged_records: u64,
    /// Acknowledged truncations.
    pub(crate) truncations: u64,
    /// Truncations under way when the kill came.
    pub(crate) truncations_interrupted: u64,
}

/// What is known of a record that the log acknowledged.
#[derive(Clone, Copy, Debug)]
struct Promise {
    /// Its position; inside a batch, that of the batch's first record, which decides as well on
    /// which side of a cut it is.
    lsn: u64,
    is_exact: bool,
    seq: Option<u64>,
    /// The last epoch of the child in which it was certainly there.
    epoch: u64,
}

/// The promises that have to be kept.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    promises: BTreeMap<Id, Promise>,
    head_seq: u64,
}

impl Ledger {
    /// A ledger for a log that other children left.
    pub(crate) fn of(found: &Found) -> Self {
        let promise =
            |r: &FoundRecord| Promise { lsn: r.lsn, is_exact: true, seq: Some(r.seq), epoch: 0 };
        let promises = found.records.iter().filter_map(|r| Some((r.id?, promise(r)))).collect();
        Ledger { promises, head_seq: found.head_seq }
    }

    /// The highest kill among the records.
    pub(crate) fn last_kill(&self) -> Option<u64> {
        self.promises.keys().map(|id| id.kill).max()
    }

    /// Compares what the child of `kill` said with what it left, and takes that over.
    pub(crate) fn settle(
        &mut self,
        kill: u64,
        said: &[Said],
        found: &Found,
    ) -> Result<Tally, Vec<Finding>> {
        let mut audit = Audit::default();
        audit.check_structure(found);
        let (cuts, mut tally) = self.take_down(said, &mut audit);
        let cut = audit.check_head(self.head_seq, &cuts, found);
        let places = audit.index(found);
        audit.check_promises(&self.promises, &cuts, cut, &places);
        for (id, (lsn, _)) in &places {
            if id.kill != kill && !self.promises.contains_key(id) {
                audit.add(format!("nothing of a record {id}"), format!("it at LSN {lsn}"));
            }
        }
        if !audit.findings.is_empty() {
            return Err(audit.findings);
        }
        let new = |id: &&Id| !self.promises.contains_key(id);
        tally.unacknowledged_records = places.keys().filter(new).count() as u64;
        *self = Ledger::of(found);
        Ok(tally)
    }

    /// Takes down what the child said.
    fn take_down(&mut self, said: &[Said], audit: &mut Audit) -> (Cuts, Tally) {
        let (mut cuts, mut tally) = (Cuts::default(), Tally::default());
        for said in said {
            match said {
                Said::Record { epoch, lsn, id } => {
                    self.promise(*id, *lsn, true, *epoch, &mut tally, audit)
                }
                Said::Batch { epoch, first, last, id } => {
                    for index in 0..id.count {
                        let id = Id { index, ..*id };
                        let lsn = if id.is_last() { *last } else { *first };
                        self.promise(
                            id,
                            lsn,
                            id.is_first() || id.is_last(),
                            *epoch,
                            &mut tally,
                            audit,
                        );
                    }
                }
                Said::CuttingBefore { .. } | Said::CuttingAfter { .. } => {
                    cuts.announced = Some(said.clone());
                    if let Said::CuttingAfter { .. } = said {
                        cuts.closed_seq = None;
                    }
                }
                Said::Cut => {
                    match cuts.announced.take() {
                        Some(Said::CuttingBefore { lsn, seq }) => cuts.head = Some((lsn, seq)),
                        Some(Said::CuttingAfter { epoch, lsn }) => cuts.after.push((epoch, lsn)),
                        _ => {}
                    }
                    tally.truncations += 1;
                }
                Said::Closed { next_seq } => cuts.closed_seq = Some(*next_seq),
                Said::Wrong { what } => audit.add("records in order, with their bytes", what),
                Said::Opened { .. } | Said::Closing | Said::Failed { .. } => {}
            }
        }
        tally.truncations_interrupted = u64::from(cuts.announced.is_some());
        (cuts, tally)
    }

    fn promise(
        &mut self,
        id: Id,
        lsn: u64,
        is_exact: bool,
        epoch: u64,
        tally: &mut Tally,
        audit: &mut Audit,
    ) {
        let promise = self.promises.entry(id).or_insert_with(|| {
            tally.acknowledged_records += 1;
            tally.acknowledged_bytes += id.len();
            Promise { lsn, is_exact, seq: None, epoch }
        });
        promise.epoch = promise.epoch.max(epoch);
        if is_exact && promise.is_exact && promise.lsn != lsn {
            audit.add(
                format!("record {id} at LSN {}", promise.lsn),
                format!("it acknowledged at LSN {lsn}, too"),
            );
        } else if is_exact {
            (promise.lsn, promise.is_exact) = (lsn, true);
        }
    }
}

/// The truncations of one child.
#[derive(Debug, Default)]
struct Cuts {
    /// Position and number of the first record, after the last acknowledged `truncate_before`.
    head: Option<(u64, u64)>,
    /// Epoch and position of every acknowledged `truncate_after`.
    after: Vec<(u64, u64)>,
    /// The one that was under way when the kill came.
    announced: Option<Said>,
    /// A close was acknowledged at this number, and nothing was taken back since.
    closed_seq: Option<u64>,
}

impl Cuts {
    /// Whether an acknowledged cut at the end dropped a promise.
    fn dropped(&self, promise: &Promise) -> bool {
        self.after.iter().any(|(epoch, lsn)| promise.epoch < *epoch && promise.lsn > *lsn)
    }

    /// Whether the cut that was under way drops it.
    fn may_drop(&self, promise: &Promise) -> bool {
        let Some(Said::CuttingAfter { epoch, lsn }) = self.announced else { return false };
        promise.epoch < epoch && promise.lsn > lsn
    }
}

type Places = BTreeMap<Id, (u64, u64)>;

/// Collects what is wrong.
#[derive(Debug, Default)]
struct Audit {
    findings: Vec<Finding>,
}

impl Audit {
    fn add(&mut self, acknowledged: impl Into<String>, found: impl Into<String>) {
        self.findings.push(Finding { acknowledged: acknowledged.into(), found: found.into() });
    }

    /// Rising positions, dense numbers, known bytes, each writer's records in the order of its
    /// calls, batches whole.
    fn check_structure(&mut self, found: &Found) {
        let mut last_of_writer = BTreeMap::new();
        let mut previous: Option<&FoundRecord> = None;
        for (record, seq) in found.records.iter().zip(found.head_seq..) {
            let at = format!("LSN {}, seq {}", record.lsn, record.seq);
            if record.seq != seq || previous.is_some_and(|p| p.lsn >= record.lsn) {
                self.add(
                    format!("a record with the number {seq}"),
                    format!("another order at {at}"),
                );
            }
            let before = previous.and_then(|p| p.id);
            previous = Some(record);
            let Some(id) = record.id else {
                self.add(
                    "records that can be derived from their names",
                    format!("other bytes at {at}"),
                );
                continue;
            };
            let call = (id.n, id.index);
            if let Some(last) = last_of_writer.insert((id.seed, id.kill, id.writer), call)
                && last >= call
            {
                self.add(
                    format!("record {id} before call {}", last.0),
                    format!("it after that, at {at}"),
                );
            }
            let follows = match before {
                Some(before) if !before.is_last() => id == Id { index: before.index + 1, ..before },
                _ => id.is_first(),
            };
            if !follows {
                self.add(
                    "batches, each as a whole",
                    format!("{id} at {at} after {}", or_nothing(before)),
                );
            }
        }
        if let Some(id) = previous.and_then(|p| p.id).filter(|id| !id.is_last()) {
            self.add(
                format!("{} records in the batch of {id}", id.count),
                "an end of the log inside of it",
            );
        }
        if found.head_seq + found.records.len() as u64 != found.next_seq {
            let read = format!("{} of them", found.records.len());
            self.add(format!("records {}..{}", found.head_seq, found.next_seq), read);
        }
    }

    /// The log begins where the last `truncate_before` put it, or where one that was under way
    /// would. Returns the position it was cut at.
    fn check_head(&mut self, head_seq: u64, cuts: &Cuts, found: &Found) -> u64 {
        let (lsn, seq) = cuts.head.unwrap_or((0, head_seq));
        if let Some(closed_seq) = cuts.closed_seq.filter(|seq| *seq > found.next_seq) {
            self.add(
                format!("a close after record {closed_seq}"),
                format!("records up to {}", found.next_seq),
            );
        }
        match cuts.announced {
            Some(Said::CuttingBefore { lsn, seq }) if found.head_seq == seq => lsn,
            _ if found.head_seq == seq => lsn,
            _ => {
                self.add(
                    format!("a log that begins with record {seq}"),
                    format!("record {} first", found.head_seq),
                );
                lsn
            }
        }
    }

    /// Where each record is; none is there twice.
    fn index(&mut self, found: &Found) -> Places {
        let mut places = Places::new();
        for record in &found.records {
            if let Some(id) = record.id
                && let Some((lsn, _)) = places.insert(id, (record.lsn, record.seq))
            {
                self.add(
                    format!("record {id} once"),
                    format!("it at LSN {lsn} and {}", record.lsn),
                );
            }
        }
        places
    }

    /// What was acknowledged and not dropped is there; what was dropped is not; a cut under way
    /// happened as a whole or not at all.
    fn check_promises(
        &mut self,
        promises: &BTreeMap<Id, Promise>,
        cuts: &Cuts,
        head_lsn: u64,
        places: &Places,
    ) {
        let (mut kept, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for (id, promise) in promises {
            let Promise { lsn, is_exact, seq, epoch } = *promise;
            let at = format!("record {id} at LSN {lsn}{}", if is_exact { "" } else { " or later" });
            match places.get(id) {
                Some((found, _)) if cuts.dropped(promise) || lsn < head_lsn => {
                    self.add(
                        format!("a truncation that drops {at} (epoch {epoch})"),
                        format!("it at LSN {found}"),
                    );
                }
                Some(place) => {
                    if (is_exact && place.0 != lsn) || seq.is_some_and(|seq| place.1 != seq) {
                        self.add(
                            format!("{at}{}", numbered(seq)),
                            format!("it at LSN {}, seq {}", place.0, place.1),
                        );
                    }
                    if cuts.may_drop(promise) {
                        kept.insert(lsn);
                    }
                }
                None if cuts.dropped(promise) || lsn < head_lsn => {}
                None if cuts.may_drop(promise) => {
                    taken.insert(lsn);
                }
                None => self.add(format!("{at}{} (epoch {epoch})", numbered(seq)), "nothing of it"),
            }
        }
        if let (Some(kept), Some(taken)) = (kept.first(), taken.first()) {
            let announced = cuts.announced.clone();
            self.add(
                format!("nothing yet of {announced:?}, which may be there as a whole"),
                format!("the record at LSN {kept}, not the one at LSN {taken}"),
            );
        }
    }
}

fn numbered(seq: Option<u64>) -> String {
    seq.map_or_else(String::new, |seq| format!(", seq {seq}"))
}

fn or_nothing(id: Option<Id>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Id {
        Id { seed: 1, kill: 1, writer: 0, n, index: 0, count: 1 }
    }

    /// A log with these records, 100 bytes each, the first one with the number `head_seq`.
    fn log(head_seq: u64, ids: &[Id]) -> Found {
        let record = |(seq, id): (u64, &Id)| FoundRecord::new(100 * seq, seq, &id.payload());
        let records: Vec<_> = (head_seq..).zip(ids).map(record).collect();
        Found { head_seq, next_seq: head_seq + records.len() as u64, records }
    }

    fn record(epoch: u64, seq: u64, n: u64) -> Said {
        Said::Record { epoch, lsn: 100 * seq, id: id(n) }
    }

    /// What the check says; `None` when nothing is wrong.
    #[track_caller]
    fn check(said: &[Said], found: &Found, expected: Option<&str>) {
        let before = log(0, &[id(0), id(1)]);
        let outcome = Ledger::of(&before).settle(1, said, found);
        let text = outcome
            .as_ref()
            .err()
            .map(|findings| findings.iter().map(|f| format!("{f}\n")).collect::<String>());
        match (&text, expected) {
            (None, None) => {}
            (Some(text), Some(words)) => assert!(text.contains(words), "{text}"),
            _ => panic!("{outcome:?}, but expected {expected:?}"),
        }
    }

    #[test]
    fn a_log_with_everything_acknowledged_is_accepted() {
        let found = log(0, &[id(0), id(1), id(2), id(3)]);
        check(&[record(0, 2, 2)], &found, None);
        check(&[record(0, 2, 2), record(2, 2, 2), record(0, 3, 3)], &found, None);
        let mut ledger = Ledger::of(&log(0, &[id(0), id(1)]));
        let tally = ledger.settle(1, &[record(0, 2, 2)], &found).unwrap();
        assert_eq!((tally.acknowledged_records, tally.unacknowledged_records), (1, 1));
        assert_eq!(tally.acknowledged_bytes, id(2).payload().len() as u64);
        // What was found stays, acknowledged or not.
        assert!(ledger.settle(2, &[], &log(0, &[id(0), id(1), id(2)])).is_err());
    }

    #[test]
    fn a_missing_record_is_caught() {
        check(&[record(0, 2, 2)], &log(0, &[id(0), id(1)]), Some("nothing of it"));
        check(&[], &log(0, &[id(0)]), Some("nothing of it"));
        check(&[], &Found::default(), Some("nothing of it"));
        let mut hole = log(0, &[id(0), id(1), id(2)]);
        hole.records.remove(1);
        check(&[], &hole, Some("another order"));
        let mut short = log(0, &[id(0), id(1), id(2)]);
        short.records.pop();
        check(&[], &short, Some("2 of them"));
    }

    #[test]
    fn an_altered_record_is_caught() {
        let mut found = log(0, &[id(0), id(1), id(2)]);
        let mut payload = id(1).payload();
        *payload.last_mut().unwrap() ^= 1;
        found.records[1] = FoundRecord::new(100, 1, &payload);
        check(&[], &found, Some("other bytes at LSN 100"));
        // Whole, but another one.
        found.records[1] = FoundRecord::new(100, 1, &id(7).payload());
        check(&[], &found, Some("nothing of it"));
    }

    #[test]
    fn a_record_that_is_there_twice_or_elsewhere_is_caught() {
        check(&[record(0, 2, 2)], &log(0, &[id(0), id(1), id(2), id(2)]), Some("once"));
        check(&[record(0, 2, 2)], &log(0, &[id(0), id(1), id(3), id(2)]), Some("after that"));
        check(
            &[record(0, 2, 2)],
            &log(0, &[id(0), id(1), Id { writer: 2, ..id(0) }, id(2)]),
            Some("it at LSN 300"),
        );
        check(&[record(0, 2, 2), record(0, 3, 2)], &log(0, &[id(0), id(1), id(2)]), Some("too"));
    }

    #[test]
    fn a_record_that_nobody_wrote_is_caught() {
        check(&[], &log(0, &[id(0), id(1), Id { kill: 0, ..id(9) }]), Some("nothing of a record"));
    }

    #[test]
    fn half_a_batch_is_caught() {
        let batch = |index| Id { index, count: 3, ..id(2) };
        let said = [Said::Batch { epoch: 0, first: 200, last: 400, id: batch(0) }];
        let whole = [id(0), id(1), batch(0), batch(1), batch(2)];
        check(&said, &log(0, &whole), None);
        check(&[], &log(0, &whole[..4]), Some("inside of it"));
        check(&[], &log(0, &[id(0), id(1), batch(1), batch(2)]), Some("each as a whole"));
        check(&[], &log(0, &[id(0), id(1), batch(0), batch(2)]), Some("each as a whole"));
        check(&said, &log(0, &whole[..2]), Some("nothing of it"));
    }

    #[test]
    fn a_truncation_at_the_beginning_holds_once_acknowledged() {
        let cut = [Said::CuttingBefore { lsn: 100, seq: 1 }, Said::Cut];
        let (before, after) = (log(0, &[id(0), id(1)]), log(1, &[id(1)]));
        check(&cut, &after, None);
        check(&cut, &before, Some("begins with record 1"));
        check(&cut[..1], &after, None);
        check(&cut[..1], &before, None);
        check(&[], &after, Some("begins with record 0"));
        check(&cut[..1], &log(2, &[]), Some("begins with record 0"));
    }

    #[test]
    fn a_truncation_at_the_end_holds_once_acknowledged() {
        let said = [
            record(0, 2, 2),
            record(0, 3, 3),
            Said::CuttingAfter { epoch: 1, lsn: 100 },
            Said::Cut,
        ];
        let (before, after) = (log(0, &[id(0), id(1), id(2), id(3)]), log(0, &[id(0), id(1)]));
        check(&said, &after, None);
        check(&said, &before, Some("a truncation that drops"));
        check(&said[..3], &after, None);
        check(&said[..3], &before, None);
        check(
            &said[..3],
            &log(0, &[id(0), id(1), id(2)]),
            Some("the record at LSN 200, not the one at LSN 300"),
        );
        check(&said[..2], &after, Some("nothing of it"));
        // Positions are used again; what was written after the cut is not dropped by it.
        let again = [&said[..], &[record(2, 2, 4)]].concat();
        check(&again, &log(0, &[id(0), id(1), id(4)]), None);
        check(&again, &after, Some("nothing of it"));
        check(&again, &log(0, &[id(0), id(1), id(2)]), Some("nothing of it"));
        // It kept what it was to keep.
        check(&said, &log(0, &[id(0)]), Some("nothing of it"));
    }

    #[test]
    fn a_close_keeps_what_was_not_acknowledged_one_by_one() {
        let closed = [Said::Closing, Said::Closed { next_seq: 3 }];
        check(&closed, &log(0, &[id(0), id(1), id(2)]), None);
        check(&closed, &log(0, &[id(0), id(1)]), Some("a close after record 3"));
        check(&closed[..1], &log(0, &[id(0), id(1)]), None);
    }

    #[test]
    fn what_the_child_saw_counts() {
        check(
            &[Said::Wrong { what: "nonsense".to_owned() }],
            &log(0, &[id(0), id(1)]),
            Some("nonsense"),
        );
    }
}
