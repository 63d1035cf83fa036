//! The threads of an exploration, and what each of them is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, RwLock};
use std::thread;
use std::time::Duration;

use cairn_log::{Dropped, Error, Follower, Log, Lsn, Reader, Retention};

use super::{Random, mix};
use crate::model::chain;

/// A record that says what it is.
fn record(id: u64, len: u64) -> Vec<u8> {
    let rest = (0..len).map(|i| mix(id ^ i) as u8);
    id.to_le_bytes().into_iter().chain(rest).collect()
}

pub(super) fn id_of(payload: &[u8]) -> Result<u64, String> {
    let id = payload.first_chunk().map(|id| u64::from_le_bytes(*id)).ok_or("a short record")?;
    match record(id, payload.len() as u64 - 8) == payload {
        true => Ok(id),
        false => Err(format!("a record that no thread wrote: {id:x}")),
    }
}

/// A truncation that is under way: before the position, or after it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Truncating {
    Before(Lsn),
    After(Lsn),
}

/// What callers know of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) acknowledged: BTreeMap<Lsn, u64>,
    /// With those that are not known to be durable.
    pub(super) appended: BTreeMap<Lsn, u64>,
    pub(super) truncating: Option<Truncating>,
    pub(super) head: Lsn,
}

/// What the threads of one epoch share.
pub(super) struct World<'a> {
    pub(super) log: &'a Log,
    /// Held for reading while a record is under way, and for writing by a cut: which records a cut
    /// takes is known then.
    pub(super) appends: RwLock<()>,
    pub(super) known: Mutex<Known>,
    pub(super) next_id: &'a AtomicU64,
    /// Odd while a truncation is under way.
    pub(super) truncations: AtomicU64,
    pub(super) over: AtomicBool,
    /// The power is about to go: every call may fail.
    pub(super) dead: AtomicBool,
    pub(super) violations: Mutex<Vec<String>>,
    pub(super) longest: u64,
    /// One truncation in so many is a cut at the end.
    pub(super) cut_odds: u64,
}

impl World<'_> {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    fn is_over(&self) -> bool {
        self.over.load(SeqCst) || self.dead.load(SeqCst)
    }

    fn violated(&self, what: String) {
        if !self.dead.load(SeqCst) {
            self.violations.lock().unwrap().push(what);
        }
    }

    /// A call failed, which only the end of the power explains.
    pub(super) fn failed(&self, call: &str, error: &Error) {
        if !self.dead.load(SeqCst) {
            // The thread that cuts the power says so first.
            thread::sleep(Duration::from_millis(3));
        }
        self.violated(format!("{call}: {}", chain(error)));
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, SeqCst)
    }
}

/// A record that was appended, and what of it was told.
struct Appended {
    lsn: Lsn,
    id: u64,
    acknowledged: bool,
}

/// A thread that writes.
pub(super) struct Writer<'a, 'b> {
    pub(super) world: &'a World<'b>,
    pub(super) random: Random,
    pub(super) tickets: Vec<(Lsn, u64, cairn_log::Ticket)>,
}

impl Writer<'_, '_> {
    /// One call of some kind.
    fn append(&mut self) -> Result<Vec<Appended>, Error> {
        let log = self.world.log;
        let longest = if self.random.below(12) == 0 { self.world.longest } else { 900 };
        let id = self.world.next_id();
        let payload = record(id, self.random.below(longest));
        let one = |lsn, acknowledged| vec![Appended { lsn, id, acknowledged }];
        match self.random.below(6) {
            0 => Ok(one(log.append(&payload)?, false)),
            1 => Ok(one(log.commit(&payload)?, true)),
            2 => {
                let ticket = log.submit(&payload)?;
                let lsn = ticket.lsn();
                ticket.wait()?;
                Ok(one(lsn, true))
            }
            3 => {
                let ticket = log.submit(&payload)?;
                let lsn = ticket.lsn();
                self.tickets.push((lsn, id, ticket));
                Ok(one(lsn, false))
            }
            4 => {
                let count = 2 + self.random.below(3);
                let ids: Vec<u64> = (0..count).map(|_| self.world.next_id()).collect();
                let range = log.append_batch(ids.iter().map(|id| record(*id, 200)))?;
                log.sync_to(*range.end())?;
                let ends = [(*range.start(), ids[0]), (*range.end(), ids[ids.len() - 1])];
                let told = |(lsn, id)| Appended { lsn, id, acknowledged: true };
                Ok(ends.map(told).into())
            }
            _ => match log.try_append(&payload) {
                Err(Error::WouldBlock) => Ok(Vec::new()),
                appended => Ok(one(appended?, false)),
            },
        }
    }

    /// Notes what a call said, before a cut can take it.
    fn append_and_note(&mut self) -> Result<(), Error> {
        let _under_way = self.world.appends.read().unwrap();
        let told = self.append()?;
        let mut known = self.world.known();
        for Appended { lsn, id, acknowledged } in told {
            // A truncation at the beginning does not wait for appends.
            if lsn < known.head {
                continue;
            }
            known.appended.insert(lsn, id);
            if acknowledged {
                known.acknowledged.insert(lsn, id);
            }
        }
        Ok(())
    }

    fn settle_tickets(&mut self) -> Result<(), Error> {
        for (lsn, id, ticket) in self.tickets.drain(..) {
            ticket.wait()?;
            let mut known = self.world.known();
            if known.appended.get(&lsn) == Some(&id) {
                known.acknowledged.insert(lsn, id);
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Error> {
        self.random.pause();
        self.append_and_note()?;
        if self.random.below(7) == 0 {
            self.settle_tickets()?;
        }
        if self.random.below(15) == 0 {
            self.world.log.flush()?;
        }
        if self.random.below(15) == 0 {
            self.world.log.sync()?;
        }
        Ok(())
    }

    pub(super) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            if self.world.is_over() {
                return;
            }
            if let Err(error) = self.step() {
                return self.world.failed("a write", &error);
            }
        }
    }

    /// Drops records at one end, up to one of the newest ones that were acknowledged.
    fn truncate(&mut self) -> Result<(), Error> {
        let (world, log) = (self.world, self.world.log);
        let after = self.random.below(world.cut_odds) == 0;
        let at = {
            let known = world.known();
            let newest = if after { 6 } else { 8 };
            let back = self.random.below((known.acknowledged.len() as u64).clamp(1, newest));
            let enough = known.acknowledged.len() >= 4;
            match known.acknowledged.keys().rev().nth(back as usize).filter(|_| enough) {
                Some(at) => *at,
                None => return Ok(()),
            }
        };
        if after {
            let _no_append = world.appends.write().unwrap();
            world.known().truncating = Some(Truncating::After(at));
            log.truncate_after(at)?;
            let mut known = world.known();
            known.acknowledged.retain(|lsn, _| *lsn <= at);
            known.appended.retain(|lsn, _| *lsn <= at);
            known.truncating = None;
            return Ok(());
        }
        world.known().truncating = Some(Truncating::Before(at));
        if self.random.below(8) == 0 {
            let head = log.retain(Retention::From(at))?;
            if head > at {
                world.violated(format!("retain from {at} went to {head}"));
            }
        } else {
            log.truncate_before(at)?;
        }
        let head = log.head_lsn();
        let mut known = world.known();
        known.acknowledged.retain(|lsn, _| *lsn >= head);
        known.appended.retain(|lsn, _| *lsn >= head);
        (known.head, known.truncating) = (head, None);
        Ok(())
    }

    pub(super) fn run_and_truncate(&mut self, steps: u64) {
        for _ in 0..steps {
            let writes = 1 + self.random.below(4);
            self.run(writes);
            if self.world.is_over() {
                return;
            }
            self.world.truncations.fetch_add(1, SeqCst);
            let truncated = self.truncate();
            self.world.truncations.fetch_add(1, SeqCst);
            if let Err(error) = truncated {
                return self.world.failed("a truncation", &error);
            }
        }
    }
}

/// A reader that stays open while the log is truncated.
struct Kept {
    reader: Reader,
    truncations: u64,
    /// Records with this id or a higher one are younger than the reader.
    ids_end: u64,
    next_seq: Option<u64>,
}

impl Kept {
    /// Reads on; whether the reader is over.
    fn read(&mut self, world: &World<'_>, records: u64) -> Result<bool, String> {
        for _ in 0..records {
            match self.reader.next_record() {
                Ok(Some(record)) => {
                    let (id, seq) = (id_of(record.payload())?, record.seq().0);
                    if id >= self.ids_end || self.next_seq.is_some_and(|next| next != seq) {
                        return Err(format!("number {seq} after {:?}: {id}", self.next_seq));
                    }
                    self.next_seq = Some(seq + 1);
                }
                Ok(None) => return Ok(true),
                Err(Error::Truncated { dropped: Dropped::Unread, .. })
                    if self.truncations % 2 == 1
                        || world.truncations.load(SeqCst) != self.truncations =>
                {
                    return Ok(true);
                }
                Err(error) => {
                    world.failed("a reader", &error);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

pub(super) fn read(world: &World<'_>, mut random: Random) {
    let mut kept: Vec<Kept> = Vec::new();
    while !world.is_over() {
        random.pause();
        if kept.len() > 2 || random.below(2) == 0 && !kept.is_empty() {
            let at = random.below(kept.len() as u64) as usize;
            match kept[at].read(world, random.below(40)) {
                Ok(false) => {}
                Ok(true) => drop(kept.swap_remove(at)),
                Err(violation) => return world.violated(format!("a reader: {violation}")),
            }
            continue;
        }
        let truncations = world.truncations.load(SeqCst);
        match world.log.reader(Lsn::START) {
            Ok(reader) => {
                let ids_end = world.next_id.load(SeqCst);
                kept.push(Kept { reader, truncations, ids_end, next_seq: None });
            }
            Err(error) => return world.failed("a new reader", &error),
        }
    }
}

/// A copy of the log that a follower feeds.
pub(super) struct Copy {
    follower: Follower,
    /// Where it stands.
    position: Lsn,
    /// By number: position, end and id.
    records: BTreeMap<u64, (Lsn, u64)>,
    /// Number of the next record, once there was one.
    next_seq: Option<u64>,
}

impl Copy {
    pub(super) fn start(world: &World<'_>) -> Result<Self, Error> {
        loop {
            let head = world.log.head_lsn();
            match world.log.follow(head) {
                Ok(follower) => {
                    let records = BTreeMap::new();
                    return Ok(Copy { follower, position: head, records, next_seq: None });
                }
                // It was moved meanwhile.
                Err(Error::OutOfRange { .. }) if world.log.head_lsn() != head => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies a record, or undoes what was withdrawn; `None` if there is nothing yet.
    fn step(&mut self, world: &World<'_>) -> Result<Option<()>, String> {
        let lost = match self.follower.try_next() {
            Ok(None) => return Ok(None),
            Ok(Some(record)) => {
                let (id, seq, lsn) = (id_of(record.payload())?, record.seq().0, record.lsn());
                if lsn < self.position || self.next_seq.is_some_and(|next| next != seq) {
                    return Err(format!("{seq} at {lsn} after {:?}", self.next_seq));
                }
                (self.position, self.next_seq) = (record.end_lsn(), Some(seq + 1));
                self.records.insert(seq, (lsn, id));
                return Ok(Some(()));
            }
            Err(error) => error,
        };
        match lost {
            Error::Truncated { lsn, dropped: Dropped::Returned } if lsn <= self.position => {
                self.records.retain(|_, (at, _)| *at < lsn);
                self.position = lsn;
                let last = self.records.last_key_value();
                self.next_seq = last.map(|(seq, _)| seq + 1);
                self.follower.resume().map_err(|e| format!("resume: {e}"))?;
            }
            Error::Truncated { lsn, dropped: Dropped::Unread }
                if lsn == self.position
                    && world.log.head_lsn() >= lsn
                    && world.truncations.load(SeqCst) > 0 =>
            {
                match Copy::start(world) {
                    Ok(copy) => *self = copy,
                    Err(error) => world.failed("follow", &error),
                }
            }
            error => {
                world.failed("a follower", &error);
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Copies, with pauses in which the log may be cut several times.
    pub(super) fn run(mut self, world: &World<'_>, mut random: Random) -> Option<Self> {
        while !world.is_over() {
            if random.below(50) == 0 {
                thread::sleep(Duration::from_micros(random.below(10_000)));
            }
            match self.step(world) {
                Ok(Some(())) => {}
                Ok(None) => thread::yield_now(),
                Err(violation) => {
                    world.violated(format!("a follower: {violation}"));
                    return None;
                }
            }
        }
        Some(self)
    }

    /// After the threads have ended: the copy is the log, from where it begins.
    pub(super) fn check(mut self, world: &World<'_>) -> Result<(), String> {
        world.log.sync().map_err(|e| chain(&e))?;
        while self.step(world)?.is_some() {}
        let mut log = BTreeMap::new();
        for record in world.log.reader(world.log.head_lsn()).map_err(|e| chain(&e))? {
            let record = record.map_err(|e| chain(&e))?;
            log.insert(record.seq().0, (record.lsn(), id_of(record.payload())?));
        }
        let first = log.first_key_value().map_or(u64::MAX, |(seq, _)| *seq);
        let begins = self.records.first_key_value().map_or(u64::MAX, |(seq, _)| *seq).max(first);
        if self.records.range(begins..).eq(log.range(begins..)) {
            return Ok(());
        }
        Err(format!("a copy has {} records, the log {}", self.records.len(), log.len()))
    }
}
