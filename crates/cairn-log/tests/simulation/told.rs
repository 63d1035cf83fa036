//! What the log's callers were told, with the moments: what must be there after the log ended at
//! any of them.
//!
//! Moments are counted twice. A *point* is the number of operations that the machine had done: a
//! power cut happens at a point. An *event* counts everything that callers do: between two
//! operations of the machine there can be many, and which of two calls returned before the other
//! began is a matter of events.

use std::path::PathBuf;

use cairn_sim::{End, Told};

use crate::acts::Harm;

/// A call under way, or over.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The point at which it began.
    pub from: usize,
    /// The event with which it began.
    began: u64,
    /// The event with which it returned.
    ended: Option<u64>,
}

/// A record that somebody appended.
#[derive(Clone, Debug)]
pub struct Rec {
    pub id: u64,
    pub len: usize,
    /// Id of the first record, and how many there are, of the batch it belongs to.
    pub batch: (u64, usize),
    pub call: Span,
    /// Where it is; `None` while, or because, nobody was told.
    pub lsn: Option<u64>,
    pub seq: Option<u64>,
    /// Since which point its caller knows that.
    pub placed: Option<usize>,
    /// The call said that nothing was appended.
    pub refused: bool,
    /// Since which point it is known to be with the operating system, and to be durable.
    pub flushed: Option<usize>,
    pub durable: Option<usize>,
    /// Since which point a truncation may have dropped it, and since which it has.
    pub maybe_gone: Option<usize>,
    pub gone: Option<usize>,
    /// The event at which a truncation returned that took it back from the end.
    pub withdrawn: Option<u64>,
}

/// A truncation: of the records before `lsn`, or of those after.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub before: bool,
    /// `u64::MAX` where it is not known how far it went.
    pub lsn: u64,
    call: Span,
    /// Since which point it is known to be durable.
    done: Option<usize>,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub records: Vec<Rec>,
    pub cuts: Vec<Cut>,
    next_id: u64,
    event: u64,
    /// Largest durable watermark seen since the last cut of the end, and where it was seen.
    watermark: (u64, usize),
    /// Whether the log was known to be there.
    pub exists: bool,
    pub uuid: Option<u128>,
    /// Bytes of the largest segment that any life asked for.
    pub segment: u64,
    /// Where the log lives, once that is decided.
    pub home: Option<crate::calls::Home>,
    /// Whether system calls failed in this life.
    pub calls_failed: bool,
    /// What operators did to files, each with the point at which that began (`None`: in a life
    /// before), and the one at which it was undone.
    pub harms: Vec<(Option<usize>, usize, Harm)>,
    /// Ids of records that a copy of the log was given.
    pub strangers: Vec<u64>,
    /// Files that symbolic links lead to, and their bytes.
    pub elsewhere: Vec<(PathBuf, Vec<u8>)>,
    /// Between these points the directory was being moved: each of its names survives on its own.
    pub moves: Vec<(usize, usize)>,
    /// How far the log reached when it was last opened.
    pub sure: u64,
    /// At which point it was closed.
    pub closed: Option<usize>,
    /// At which point the log was opened in this life, and what had been told before.
    before: Option<(usize, Box<Ledger>)>,
}

/// The bytes of a record: they say which it is.
pub fn payload(id: u64, len: usize) -> Vec<u8> {
    let mut x = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = id.to_le_bytes().to_vec();
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend(x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Rec {
    fn new(id: u64, len: usize, batch: (u64, usize), call: Span) -> Self {
        Self {
            id,
            len,
            batch,
            call,
            lsn: None,
            seq: None,
            placed: None,
            refused: false,
            flushed: None,
            durable: None,
            maybe_gone: None,
            gone: None,
            withdrawn: None,
        }
    }

    fn told(&mut self, durable: bool, point: usize) {
        self.flushed.get_or_insert(point);
        if durable {
            self.durable.get_or_insert(point);
        }
    }
}

impl Ledger {
    fn tick(&mut self) -> u64 {
        self.event += 1;
        self.event
    }

    /// The number of this moment among all calls.
    pub fn now(&mut self) -> u64 {
        self.tick()
    }

    /// Appends that are about to be made. Returns where they are listed, and their bytes.
    pub fn begin(&mut self, lens: &[usize], point: usize) -> (usize, Vec<Vec<u8>>) {
        let call = Span { from: point, began: self.tick(), ended: None };
        let (first, first_id) = (self.records.len(), self.next_id);
        let mut bytes = Vec::new();
        for &len in lens {
            let id = self.next_id;
            self.next_id += 1;
            bytes.push(payload(id, len));
            self.records.push(Rec::new(id, len, (first_id, lens.len()), call));
        }
        (first, bytes)
    }

    /// A record that a copy of the log is given.
    pub fn stranger(&mut self, len: usize) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 1;
        self.strangers.push(id);
        payload(id, len)
    }

    /// What a harm may have brought back is no surprise, and not missed if it is not there. A store
    /// that was cut short may hold what was dropped from the beginning of the log long ago. A
    /// directory never holds what a copy went on with.
    pub fn remember(&mut self, found: &[(u64, u64, Vec<u8>)]) {
        let call = Span { from: 0, began: 0, ended: Some(0) };
        let any: Vec<u64> = match self.home {
            Some(crate::calls::Home::Directory) => Vec::new(),
            _ => (0..self.next_id).collect(),
        };
        for (lsn, _, bytes) in found {
            // An empty record is like one that was refused.
            if self.find(*lsn, bytes).is_none_or(|index| self.records[index].refused)
                && let Some(&id) = any.iter().find(|&&id| payload(id, bytes.len()) == *bytes)
            {
                self.records.push(Rec::new(id, bytes.len(), (id, 1), call));
            }
        }
    }

    /// An append returned: the record has this place.
    pub fn placed(&mut self, index: usize, lsn: u64, point: usize) {
        let ended = self.tick();
        let watermark = self.watermark;
        let record = &mut self.records[index];
        record.lsn = Some(lsn);
        record.placed = Some(point);
        record.call.ended = Some(ended);
        if watermark.0 > lsn {
            record.durable = Some(point.max(watermark.1));
        }
        for i in 0..self.cuts.len() {
            let cut = self.cuts[i];
            self.apply(index, cut);
        }
    }

    /// An append was refused: nothing of it is in the log.
    pub fn refused(&mut self, first: usize, count: usize) {
        self.records[first..first + count].iter_mut().for_each(|record| record.refused = true);
    }

    /// Whether a cut of the end was under way at some moment since `since`.
    fn cut_since(&self, since: u64) -> bool {
        let meanwhile = |cut: &Cut| cut.call.ended.is_none_or(|ended| ended >= since);
        self.cuts.iter().any(|cut| !cut.before && meanwhile(cut))
    }

    /// A call that began at event `since` said that everything below `lsn` is flushed, or durable.
    pub fn acknowledged(&mut self, since: u64, lsn: u64, durable: bool, point: usize) {
        if self.cut_since(since) {
            return;
        }
        if durable && lsn > self.watermark.0 {
            self.watermark = (lsn, point);
        }
        let below = |record: &&mut Rec| record.call.ended.is_some() && record.lsn < Some(lsn);
        self.records.iter_mut().filter(below).for_each(|record| record.told(durable, point));
    }

    /// A call that began at event `since` said that everything appended before is flushed, or
    /// durable.
    pub fn synced(&mut self, since: u64, durable: bool, point: usize) {
        let before = |record: &&mut Rec| record.call.ended.is_some_and(|ended| ended < since);
        self.records.iter_mut().filter(before).for_each(|record| record.told(durable, point));
    }

    /// A record was said to be durable. A truncation that was under way may have dropped it since.
    pub fn durable(&mut self, index: usize, point: usize) {
        self.records[index].told(true, point);
    }

    /// A truncation begins.
    pub fn begin_cut(&mut self, before: bool, lsn: u64, point: usize) -> usize {
        let call = Span { from: point, began: self.tick(), ended: None };
        if !before {
            self.watermark = (0, 0);
        }
        self.cuts.push(Cut { before, lsn, call, done: None });
        self.weigh();
        self.cuts.len() - 1
    }

    /// It returned; `lsn` is how far it went, if that is known better now. One that failed may have
    /// been carried out all the same.
    pub fn end_cut(&mut self, index: usize, lsn: Option<u64>, done: bool, point: usize) {
        let ended = self.tick();
        let cut = &mut self.cuts[index];
        cut.call.ended = Some(ended);
        cut.done = done.then_some(point);
        cut.lsn = lsn.unwrap_or(cut.lsn);
        if !cut.before {
            self.watermark = (0, 0);
        }
        self.weigh();
    }

    /// It said that it changed nothing.
    pub fn cut_refused(&mut self, index: usize) {
        let ended = self.tick();
        let cut = &mut self.cuts[index];
        cut.call.ended = Some(ended);
        cut.lsn = if cut.before { 0 } else { u64::MAX };
        self.weigh();
    }

    /// Finds out anew what all cuts mean for all records.
    fn weigh(&mut self) {
        for index in 0..self.records.len() {
            let record = &mut self.records[index];
            (record.maybe_gone, record.gone, record.withdrawn) = (None, None, None);
            for i in 0..self.cuts.len() {
                let cut = self.cuts[i];
                self.apply(index, cut);
            }
        }
    }

    /// What `cut` means for a record.
    fn apply(&mut self, index: usize, cut: Cut) {
        let record = &mut self.records[index];
        let Some(lsn) = record.lsn else { return };
        let concerned = if cut.before { lsn < cut.lsn } else { lsn > cut.lsn };
        // A record that was appended after the cut had returned is not concerned.
        if !concerned || cut.call.ended.is_some_and(|ended| record.call.began > ended) {
            return;
        }
        let from = cut.call.from;
        record.maybe_gone = Some(record.maybe_gone.map_or(from, |known| known.min(from)));
        let was_there = record.call.ended.is_some_and(|ended| ended < cut.call.began);
        if let Some(done) = cut.done
            && was_there
        {
            record.gone = Some(record.gone.map_or(done, |known| known.min(done)));
            if !cut.before {
                record.withdrawn = cut.call.ended;
            }
        }
    }

    /// What is only with the operating system survives the process, not the power. Nor does it
    /// survive a barrier that failed: the system may let go of the page, and read an older one.
    fn lose(&mut self, end: End) {
        if end == End::Power || self.calls_failed {
            self.calls_failed = false;
            self.records.iter_mut().for_each(|record| record.flushed = record.durable);
        }
    }

    /// Records that may be truncated to: known to be durable and not dropped.
    pub fn standing(&self) -> Vec<u64> {
        let standing = self.records.iter().filter(|record| {
            record.durable.is_some() && record.maybe_gone.is_none() && !record.refused
        });
        let mut lsns: Vec<u64> = standing.filter_map(|record| record.lsn).collect();
        lsns.sort_unstable();
        lsns
    }

    /// Records that a reader made at event `since` must return, if it reads to the end.
    pub fn readable_since(&self, since: u64) -> Vec<&Rec> {
        let before = |record: &&Rec| record.call.ended.is_some_and(|ended| ended < since);
        self.records.iter().filter(before).filter(|record| record.maybe_gone.is_none()).collect()
    }

    /// Finds the record that these bytes at this place are.
    pub fn find(&self, lsn: u64, bytes: &[u8]) -> Option<usize> {
        // Small records can be equal: prefer one that is known to be there, and then one that may
        // be. A place is given again when what was there was dropped.
        let candidates = || self.fitting(lsn, bytes);
        let may_be = |&i: &usize| self.records[i].gone.is_none() && !self.records[i].refused;
        let standing = || candidates().filter(may_be);
        let known = standing().find(|&i| self.records[i].lsn.is_some());
        known.or_else(|| standing().next()).or_else(|| candidates().next())
    }

    /// Whether no two records could be these bytes at this place.
    pub fn is_certain(&self, lsn: u64, bytes: &[u8]) -> bool {
        self.fitting(lsn, bytes).nth(1).is_none()
    }

    fn fitting(&self, lsn: u64, bytes: &[u8]) -> impl Iterator<Item = usize> {
        let fits = move |record: &Rec| {
            record.len == bytes.len()
                && record.lsn.is_none_or(|at| at == lsn)
                && payload(record.id, record.len) == bytes
        };
        (0..self.records.len()).filter(move |&i| fits(&self.records[i]))
    }

    /// The log is open, since `point`: what was found is durable, and everything else is forgotten.
    pub fn opened(&mut self, found: &[(usize, u64, u64)], uuid: u128, point: usize) {
        let mut before = self.clone();
        before.before = None;
        self.before = Some((point, Box::new(before)));
        let mut records = Vec::new();
        for &(index, lsn, seq) in found {
            let mut record = self.records[index].clone();
            record.call = Span { from: 0, began: 0, ended: Some(0) };
            (record.lsn, record.seq) = (Some(lsn), Some(seq));
            record.placed = Some(point);
            (record.flushed, record.durable) = (Some(point), Some(point));
            (record.maybe_gone, record.gone, record.withdrawn) = (None, None, None);
            records.push(record);
        }
        self.records = records;
        self.cuts.clear();
        self.event = 1;
        self.watermark = (0, 0);
        self.exists = true;
        self.uuid = Some(uuid);
        self.harms.clear();
        self.moves.clear();
        self.closed = None;
    }

    /// A harm may have taken the end of the log, where nothing tells of it: records behind the
    /// last one that was found are given up, and so are truncations. In a directory those alone
    /// that were made since the last opening, if the log was not closed. A file of a store that was
    /// `brought` back may hold what a recovery cut off, in the place of what followed.
    pub fn give_up(&mut self, last: Option<u64>, brought: bool) {
        let sure = match self.home {
            Some(crate::calls::Home::Directory) if self.closed.is_some() => u64::MAX,
            Some(crate::calls::Home::Directory) => self.sure,
            _ => 0,
        };
        // With the file that cut the end, what it cut may be back in the place of what followed.
        let cuts = self.cuts.iter().filter(|cut| !cut.before);
        let is_store = self.home != Some(crate::calls::Home::Directory);
        let cut = cuts.clone().count() > 0 || brought && is_store;
        let sure = match sure {
            u64::MAX => sure,
            // Every truncation that is known was made since the last opening.
            sure => {
                self.records.iter_mut().for_each(|record| record.gone = None);
                cuts.map(|cut| cut.lsn.saturating_add(1)).fold(sure, u64::min)
            }
        };
        let lost = |record: &&mut Rec| {
            let behind = |lsn| cut || last.is_none_or(|last| lsn > last);
            record.lsn.is_some_and(|lsn| lsn >= sure && behind(lsn))
        };
        self.records.iter_mut().filter(lost).for_each(|record| record.maybe_gone = Some(0));
    }

    /// The harm that is not undone yet.
    pub fn harmed(&self) -> Option<Harm> {
        let (_, _, harm) = self.harms.iter().find(|(_, until, _)| *until == usize::MAX)?;
        Some(harm.clone())
    }

    /// It is undone by now.
    pub fn undone(&mut self, point: usize) {
        let open = self.harms.iter_mut().filter(|(_, until, _)| *until == usize::MAX);
        open.for_each(|(_, until, _)| *until = point);
    }

    /// The log was given up, at this point; another one may be begun.
    pub fn given_up(&mut self, point: usize) {
        let Self { next_id, segment, home, .. } = *self;
        let old = std::mem::take(self);
        let before = Some((point, Box::new(old)));
        *self = Self { next_id, segment, home, before, ..Self::default() };
    }

    /// What others had done to the files by `point`.
    fn surroundings(&mut self, point: usize) {
        self.harms.retain(|(from, until, _)| from.is_none_or(|at| at < point) && point < *until);
        self.harms.iter_mut().for_each(|(from, until, _)| (*from, *until) = (None, usize::MAX));
        self.moves.retain(|(from, until)| (*from..=*until).contains(&point));
        self.moves.iter_mut().for_each(|span| *span = (0, usize::MAX));
        self.closed = self.closed.filter(|&at| at <= point).map(|_| 0);
    }
}

impl Told for Ledger {
    fn at(&self, point: usize, end: End) -> Self {
        if let Some((opened, before)) = &self.before
            && point < *opened
        {
            // The next life numbers its records as if this one's had been made.
            let mut told =
                Self { next_id: self.next_id, segment: self.segment, ..(**before).clone() };
            told.surroundings(point);
            told.lose(end);
            return told;
        }
        let mut told = self.clone();
        told.before = None;
        told.records.retain(|record| record.call.from <= point);
        for record in &mut told.records {
            // Before the next life is all that matters there.
            let kept = |moment: Option<usize>| moment.filter(|&at| at <= point).map(|_| 0);
            record.placed = kept(record.placed);
            record.durable = kept(record.durable);
            record.flushed = kept(record.flushed);
            record.maybe_gone = kept(record.maybe_gone);
            record.gone = kept(record.gone);
        }
        told.surroundings(point);
        told.lose(end);
        told
    }
}
