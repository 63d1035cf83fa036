//! One life of a program that uses the log.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cairn_io::sync::thread;
use cairn_io::{DirectStore, FileStore, Store};
use cairn_log::{
    Error, ErrorKind, Floor, Follower, Inspection, Log, Lsn, Options, Reader, Retention, Ticket,
};
use cairn_segmented::SegmentedOptions;
use cairn_sim::{Broken, Script, SimFs, World, call, fail, met, say};

use crate::acts::{self, Act, Harm};
use crate::calls::{Call, Home, Setup};
use crate::properties::{self as must, Found};
use crate::told::Ledger;

pub const DIR: &str = "/log";
const STORE: &str = "/store";

/// Names of files, with what was in them.
type Backups = Vec<(PathBuf, Vec<u8>)>;

/// What all threads of a life share.
#[derive(Clone)]
pub struct Hands {
    pub log: Arc<Log>,
    pub told: Arc<Mutex<Ledger>>,
    pub fs: SimFs,
    pub setup: Setup,
    /// Calls may fail because of what an operator did.
    pub excused: Arc<AtomicBool>,
    /// One at a time is at the log's files from outside.
    pub street: Arc<cairn_sim::sync::Mutex<()>>,
    /// Second names of the log's files, with what was in them.
    pub backups: Arc<Mutex<Backups>>,
}

impl Hands {
    pub fn failing(&self) -> bool {
        self.fs.counters().faults > 0 || self.excused.load(Ordering::SeqCst)
    }
}

/// Where the log is.
pub fn place(home: Home) -> &'static str {
    if home == Home::Directory { DIR } else { STORE }
}

fn options(setup: Setup, fs: &SimFs) -> Options {
    let options = Log::options().segment_size(setup.segment).buffer_size(setup.buffer);
    let options = options.buffers(setup.buffers).flushes_in_flight(setup.flights);
    let fs = if setup.inline { fs.inline() } else { fs.clone() };
    options.direct_io(setup.direct).fs(Arc::new(fs))
}

fn open(setup: Setup, fs: &SimFs) -> cairn_log::Result<Log> {
    let io = |e| Error::Io { op: "open", path: STORE.into(), source: Arc::new(e) };
    match setup.home {
        Home::Directory => open_at(setup, fs, DIR),
        Home::Store | Home::Segmented => {
            let path = STORE.as_ref();
            let store: Arc<dyn Store> = match setup.direct {
                _ if setup.home == Home::Segmented => segmented(fs)?,
                true => Arc::new(DirectStore::open(fs, path).map_err(io)?),
                false => Arc::new(FileStore::open(fs, path).map_err(io)?),
            };
            Log::with_store(store, options(setup, fs))
        }
    }
}

/// Opens a log in this directory.
pub fn open_at(setup: Setup, fs: &SimFs, path: &str) -> cairn_log::Result<Log> {
    options(setup, fs).open(path)
}

fn segmented(fs: &SimFs) -> cairn_log::Result<Arc<dyn Store>> {
    let options = SegmentedOptions::new().segment_size_bytes(16 << 10);
    let opened = options.open(Arc::new(fs.clone()), STORE.as_ref());
    let opened = opened.map_err(|e| Error::Io {
        op: "open",
        path: STORE.into(),
        source: Arc::new(std::io::Error::other(e)),
    })?;
    Ok(Arc::new(opened))
}

/// Opens, compares, does what the script says, ends.
pub fn live(world: &World, script: &Script<Call>, mut told: Ledger) -> Result<Ledger, Broken> {
    let fs = world.fs();
    let asked = script.calls("log").iter().find_map(|call| match call {
        Call::Open(setup) => Some(*setup),
        _ => None,
    });
    let mut setup = asked.unwrap_or(Setup {
        home: Home::Directory,
        segment: 8 << 10,
        buffer: 4 << 10,
        buffers: 2,
        flights: 2,
        direct: false,
        inline: false,
    });
    told.segment = told.segment.max(setup.segment);
    setup.home = *told.home.get_or_insert(setup.home);
    acts::put_back(&fs, setup.home, &mut told);
    if acts::is_gone(&fs, setup.home) && !told.moves.is_empty() {
        told.given_up(fs.op_count());
    }
    let log = match after_harm(&fs, setup, &mut told, script.calls("before"))? {
        After::Open(log) => Some(log),
        After::Undone => begin(&fs, setup, &mut told)?,
        After::GivenUp => return Ok(told),
    };
    let Some(log) = log else { return Ok(told) };
    let hands = Hands {
        log: Arc::new(log),
        told: Arc::new(Mutex::new(told)),
        fs: fs.clone(),
        setup,
        excused: Arc::default(),
        street: Arc::default(),
        backups: Arc::default(),
    };
    let mut threads = Vec::new();
    let mut last = Vec::new();
    for part in
        script.parts.iter().filter(|part| !["log", "main", "before"].contains(&part.name.as_str()))
    {
        let (hands, calls) = (hands.clone(), part.calls.clone());
        match calls.first() {
            Some(&Call::FollowToTheEnd(task)) => {
                last.push(world.spawn(part.name.clone(), move || follow_to_the_end(hands, task)))
            }
            _ => {
                threads.push(world.spawn(part.name.clone(), move || Actor::new(hands).run(&calls)))
            }
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
    let told = hands.told.clone();
    end(hands, script.calls("main").first().copied())?;
    for thread in last {
        let _ = thread.join();
    }
    must::all_closed(&fs)?;
    let mut told = lock(&told).clone();
    told.calls_failed = fs.counters().faults > 0;
    Ok(told)
}

/// Opens the log and compares it with what callers were told. `None` when it cannot be opened
/// because calls fail.
fn begin(fs: &SimFs, setup: Setup, told: &mut Ledger) -> Result<Option<Log>, Broken> {
    let look = match setup.home {
        Home::Directory if !acts::files(fs, setup.home).is_empty() => must::inspected(fs, DIR)?,
        _ => None,
    };
    let opened = call("open", || format!("open {setup:?}"), || open(setup, fs));
    let found = opened.and_then(|log| Ok((must::read_all(&log)?, log)));
    let Some((found, log)) = must::usable(fs, found)? else { return Ok(None) };
    let there = must::recovered(told, &found)?;
    let report = log.open_report();
    if told.exists && (report.created || told.uuid != Some(log.uuid().as_u128())) {
        return Err(Broken::new(must::ACKNOWLEDGED, "the log is gone, another one is there"));
    }
    if let Some(look) = look.filter(|_| !report.created) {
        must::was_true(&look, &log, &found)?;
    }
    match report.created {
        true => met("recovery: created"),
        false => met(format!("recovery: {}", report.end_case.label())),
    }
    if report.bytes_carried > 0 {
        met("recovery: carried over");
    }
    if !report.removed.is_empty() {
        met("recovery: removed files");
    }
    if report.segments > 1 {
        met("recovery: several segments");
    }
    say(|| format!("found {:?}", there.iter().map(|(_, lsn, _)| *lsn).collect::<Vec<_>>()));
    told.opened(&there, log.uuid().as_u128(), fs.op_count());
    told.sure = log.appended_lsn().0;
    Ok(Some(log))
}

/// What came of a harm.
enum After {
    /// The log is open, and holds everything that it must.
    Open(Log),
    /// There is none, or no more.
    Undone,
    /// The log could not be saved: another one may be begun.
    GivenUp,
}

/// Deals with what an operator did while the log was open, and does what the script says before it
/// is opened. Both times the log tells, or holds everything.
fn after_harm(fs: &SimFs, setup: Setup, told: &mut Ledger, acts: &[Call]) -> Result<After, Broken> {
    if let Some(harm) = told.harmed() {
        for undo in [false, true] {
            if undo {
                harm.undo(fs);
            }
            if let Some(log) = harmed(fs, setup, told, &harm)? {
                return Ok(After::Open(log));
            }
        }
        told.moves.push((fs.op_count(), usize::MAX));
        acts::give_up(fs, setup.home);
        met("harm: given up");
        told.given_up(fs.op_count());
        return Ok(After::GivenUp);
    }
    let Some(&Call::Act(act)) = acts.first() else { return Ok(After::Undone) };
    let from = fs.op_count();
    if !acts::harm(fs, setup.home, act, |harm| {
        told.harms.push((Some(from), usize::MAX, harm.clone()))
    }) {
        told.undone(fs.op_count());
        return Ok(After::Undone);
    }
    let Some(harm) = told.harmed() else { return Ok(After::Undone) };
    if let Some(log) = harmed(fs, setup, told, &harm)? {
        told.elsewhere.extend(harm.elsewhere(fs));
        return Ok(After::Open(log));
    }
    harm.undo(fs);
    told.undone(fs.op_count());
    met("harm: undone");
    Ok(After::Undone)
}

/// Opens a log of which a file is not as it was. It is refused with an error that says so, and
/// nothing is changed; or it opens, and everything is there, but for what nothing tells of.
fn harmed(fs: &SimFs, setup: Setup, told: &mut Ledger, harm: &Harm) -> Result<Option<Log>, Broken> {
    let before = fs.fingerprint();
    let opened = call("open harmed", || format!("open after {:?}", harm.act), || open(setup, fs));
    let says_so = |error: &Error| {
        let Error::Io { source, .. } = error else { return error.kind() == ErrorKind::Repair };
        let link = format!("{source:?}").contains("symbolic link");
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref());
        let store = inner.is_some_and(|e| !matches!(e, cairn_segmented::Error::Io { .. }));
        store || (link && matches!(harm.act, Act::Elsewhere(_)))
    };
    let log = match opened {
        Ok(log) => log,
        Err(error) if !says_so(&error) => {
            return Err(Broken::new(must::TOLD, format!("{harm:?}: {error:?}")));
        }
        // One that the system refuses to write to may have been recovered in part.
        Err(error) if error.kind() == ErrorKind::Repair && fs.fingerprint() != before => {
            return Err(Broken::new(must::TOLD, format!("{harm:?}: refused, and changed")));
        }
        Err(error) => {
            if setup.home == Home::Directory && error.kind() == ErrorKind::Repair {
                must::verify_says_so(fs, DIR, harm)?;
            }
            met("harm: refused");
            return Ok(None);
        }
    };
    match must::read_all(&log) {
        Ok(found) => {
            if harm.last || matches!(harm.act, Act::BringBack(_)) {
                told.remember(&found);
            }
            if harm.last {
                let brought = matches!(harm.act, Act::BringBack(_));
                told.give_up(found.last().map(|(lsn, ..)| *lsn), brought);
            }
            let there = must::recovered(told, &found)
                .map_err(|broken| Broken::new(must::TOLD, format!("{harm:?}: {broken}")))?;
            met("harm: nothing lost");
            told.opened(&there, log.uuid().as_u128(), fs.op_count());
            told.sure = log.appended_lsn().0;
            Ok(Some(log))
        }
        Err(error) if says_so(&error) => {
            if setup.home == Home::Directory {
                must::verify_says_so(fs, DIR, harm)?;
            }
            met("harm: told by a reader");
            drop(log);
            Ok(None)
        }
        Err(error) => Err(Broken::new(must::TOLD, format!("{harm:?}: read: {error:?}"))),
    }
}

/// Closes or drops the log, as soon as nobody else holds it.
fn end(hands: Hands, how: Option<Call>) -> Result<(), Broken> {
    must::backups_stay(&hands)?;
    let excused = hands.failing();
    if !excused {
        must::log_bounded(&hands)?;
    }
    let Hands { mut log, told, fs, .. } = hands;
    // A callback may be running yet.
    let log = loop {
        match Arc::try_unwrap(log) {
            Ok(log) => break log,
            Err(shared) => log = shared,
        }
        thread::sleep(Duration::from_micros(100));
    };
    let failing = || fs.counters().faults > 0 || excused;
    let since = lock(&told).now();
    if how != Some(Call::Close) {
        call("drop", || "drop".to_owned(), || drop(log));
        return Ok(());
    }
    match call("close", || "close".to_owned(), || log.close()) {
        Ok(()) => {
            let mut told = lock(&told);
            told.synced(since, true, fs.op_count());
            told.closed = Some(fs.op_count());
            Ok(())
        }
        Err(_) if failing() => Ok(()),
        Err(error) => Err(Broken::new(must::NO_ERROR, format!("close: {error:?}"))),
    }
}

pub fn lock(told: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A reader that is kept, the event at which it was made, and what it returned.
struct Kept {
    reader: Reader,
    since: u64,
    found: Vec<Found>,
}

/// One thread of a life.
struct Actor {
    hands: Hands,
    tickets: Vec<(usize, Ticket)>,
    readers: Vec<Kept>,
    /// With the record that was delivered last: where it is listed, and its number.
    follower: Option<(Follower, Option<(u64, u64)>)>,
    /// The record appended last.
    last: Option<(usize, Lsn)>,
}

type Done = Result<(), Error>;

impl Actor {
    fn new(hands: Hands) -> Self {
        Self { hands, tickets: Vec::new(), readers: Vec::new(), follower: None, last: None }
    }

    fn told(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.hands.told)
    }

    fn point(&self) -> usize {
        self.hands.fs.op_count()
    }

    fn now(&self) -> u64 {
        self.told().now()
    }

    fn run(mut self, calls: &[Call]) {
        let calls = calls.iter().copied().chain([Call::Wait]);
        for what in calls {
            let done = call(what.kind(), || what.to_string(), || self.act(what));
            match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    if self.is_over(what, &error) {
                        return;
                    }
                }
                Err(broken) => {
                    fail(broken);
                    return;
                }
            }
        }
    }

    /// Whether the thread has nothing more to do after this error.
    fn is_over(&self, what: Call, error: &Error) -> bool {
        let told = self.told();
        // Retention names no position, so none of its own is ever out of range.
        let cuts = !told.cuts.is_empty() && !matches!(what, Call::Retain(_) | Call::RetainAge(..));
        if !self.failing() && !must::is_excused(error, cuts) {
            drop(told);
            fail(Broken::new(must::NO_ERROR, format!("{what}: {error:?}")));
            return true;
        }
        matches!(error, Error::Poisoned { .. } | Error::InDoubt { .. } | Error::Closed)
    }

    fn act(&mut self, what: Call) -> Result<Done, Broken> {
        Ok(match what {
            Call::Append(_) | Call::TryAppend(_) | Call::Commit(_) | Call::Batch(..) => {
                self.append(what)?
            }
            Call::Submit(len) | Call::Await(len) | Call::Callback(len) => self.submit(what, len),
            Call::Wait => self.wait(),
            Call::Sync | Call::Flush => {
                must::memory_bounded(&self.hands)?;
                self.sync(what == Call::Sync)
            }
            Call::SyncTo => self.sync_to(),
            Call::Before(_) | Call::After(_) | Call::Retain(_) | Call::RetainAge(..) => {
                self.cut(what)
            }
            Call::Rotate => self.hands.log.rotate(),
            Call::Act(act) => acts::operate(&self.hands, act).map(Ok)?,
            Call::Misplace => self.misplace()?,
            Call::Read => self.read()?,
            Call::OpenReader => self.open_reader(),
            Call::ReadOn(count) => self.read_on(count)?,
            Call::Follow(count) => self.follow(count)?,
            Call::Inspect => self.inspect()?,
            Call::Intrude => self.intrude()?,
            Call::Pause(micros) => {
                thread::sleep(Duration::from_micros(micros));
                Ok(())
            }
            Call::FollowToTheEnd(_) | Call::Open(_) | Call::Close | Call::Drop => Ok(()),
        })
    }

    /// Appends as `what` says, and takes note of what is told.
    fn append(&mut self, what: Call) -> Result<Done, Broken> {
        let lens = match what {
            Call::Append(len) | Call::TryAppend(len) | Call::Commit(len) => vec![len],
            Call::Batch(count, len) => vec![len; count.max(1)],
            _ => return Ok(Ok(())),
        };
        let (first, bytes) = self.told().begin(&lens, self.point());
        let log = self.hands.log.clone();
        let placed = match what {
            Call::Append(_) => log.append(&bytes[0]).map(|lsn| vec![lsn]),
            Call::TryAppend(_) => log.try_append(&bytes[0]).map(|lsn| vec![lsn]),
            Call::Commit(_) => log.commit(&bytes[0]).map(|lsn| vec![lsn]),
            _ => log.append_batch(&bytes).map(|range| {
                // Records of a batch follow each other: 12 bytes, the payload, up to a multiple
                // of 8.
                let frame = |bytes: &Vec<u8>| (12 + bytes.len() as u64).next_multiple_of(8);
                let mut at = range.start().0;
                let mut lsns: Vec<Lsn> = Vec::new();
                for bytes in &bytes {
                    lsns.push(Lsn(at));
                    at += frame(bytes);
                }
                assert_eq!(lsns.last(), Some(range.end()), "records of a batch are neighbours");
                lsns
            }),
        };
        let point = self.point();
        let mut told = lock(&self.hands.told);
        let lsns = match placed {
            Ok(lsns) => lsns,
            Err(error) => {
                if refuses(&error) {
                    told.refused(first, lens.len());
                }
                return Ok(Err(error));
            }
        };
        for (i, lsn) in lsns.iter().enumerate() {
            told.placed(first + i, lsn.0, point);
            if matches!(what, Call::Commit(_)) {
                told.durable(first + i, point);
            }
        }
        drop(told);
        self.last = lsns.last().map(|lsn| (first + lsns.len() - 1, *lsn));
        self.watch();
        Ok(Ok(()))
    }

    /// Takes note of the durable watermark.
    fn watch(&self) {
        let since = self.now();
        let durable = self.hands.log.durable_lsn();
        self.told().acknowledged(since, durable.0, true, self.point());
    }

    fn submit(&mut self, what: Call, len: usize) -> Done {
        let (index, bytes) = self.told().begin(&[len], self.point());
        let ticket = match self.hands.log.submit(&bytes[0]) {
            Ok(ticket) => ticket,
            Err(error) => {
                if refuses(&error) {
                    self.told().refused(index, 1);
                }
                return Err(error);
            }
        };
        let lsn = ticket.lsn();
        self.told().placed(index, lsn.0, self.point());
        self.last = Some((index, lsn));
        match what {
            Call::Await(_) => {
                cairn_sim::block_on(ticket)?;
                self.told().durable(index, self.point());
            }
            Call::Callback(len) => {
                let (told, fs) = (self.hands.told.clone(), self.hands.fs.clone());
                let log = Arc::downgrade(&self.hands.log);
                ticket.on_durable(move |outcome| {
                    if outcome.is_ok() {
                        lock(&told).durable(index, fs.op_count());
                        call_back(&log, &told, &fs, len / 2);
                    }
                });
            }
            _ => self.tickets.push((index, ticket)),
        }
        Ok(())
    }

    fn wait(&mut self) -> Done {
        for (index, ticket) in std::mem::take(&mut self.tickets) {
            ticket.wait()?;
            self.told().durable(index, self.point());
        }
        Ok(())
    }

    fn sync(&self, durable: bool) -> Done {
        let since = self.now();
        if durable {
            self.hands.log.sync()?
        } else {
            self.hands.log.flush()?
        }
        self.told().synced(since, durable, self.point());
        Ok(())
    }

    fn sync_to(&self) -> Done {
        let Some((index, lsn)) = self.last else { return Ok(()) };
        let since = self.now();
        self.hands.log.sync_to(lsn)?;
        let point = self.point();
        let mut told = self.told();
        told.durable(index, point);
        told.acknowledged(since, lsn.0 + 1, true, point);
        Ok(())
    }

    fn cut(&self, what: Call) -> Done {
        let target = match what {
            Call::Before(nth) | Call::After(nth) => must::position(&self.told(), nth),
            _ => Some(Lsn(u64::MAX)),
        };
        let Some(target) = target else { return Ok(()) };
        let before = !matches!(what, Call::After(_));
        let cut = self.told().begin_cut(before, target.0, self.point());
        let log = &self.hands.log;
        let done = match what {
            Call::Before(_) => log.truncate_before(target).map(|()| None),
            Call::After(_) => log.truncate_after(target).map(|()| None),
            Call::Retain(bytes) => log.retain(Retention::Bytes(bytes)).map(Some),
            Call::RetainAge(minutes, floor) => {
                let age = Duration::from_secs(60 * minutes);
                log.retain(Retention::AgeAbove { age, floor: Floor::Records(floor) }).map(Some)
            }
            _ => Ok(None),
        };
        let point = self.point();
        let mut told = self.told();
        match done {
            Ok(head) => told.end_cut(cut, head.map(|lsn| lsn.0), true, point),
            Err(Error::OutOfRange { .. } | Error::NotARecord { .. } | Error::Closed) => {
                told.cut_refused(cut);
            }
            Err(_) => told.end_cut(cut, None, false, point),
        }
        done.map(drop)
    }

    /// Positions that are none are refused, and nothing changes.
    fn misplace(&self) -> Result<Done, Broken> {
        let Some((_, lsn)) = self.last else { return Ok(Ok(())) };
        let log = &self.hands.log;
        let refused = |done: &Done| {
            let (failing, over) = (self.failing(), matches!(done, Err(Error::Closed)));
            let named = matches!(
                done,
                Err(Error::OutOfRange { .. } | Error::NotARecord { .. } | Error::Poisoned { .. })
            );
            named || over || (failing && done.is_err())
        };
        let beyond = Lsn(log.appended_lsn().0 + (1 << 30));
        let calls = [
            ("sync_to beyond the end", log.sync_to(beyond)),
            ("truncate_before beyond the end", log.truncate_before(beyond)),
            ("truncate_before inside of a record", log.truncate_before(Lsn(lsn.0 + 1))),
            ("truncate_after inside of a record", log.truncate_after(Lsn(lsn.0 + 1))),
        ];
        match calls.iter().find(|(_, done)| !refused(done)) {
            None => Ok(Ok(())),
            Some((name, done)) => Err(Broken::new(must::POSITIONS, format!("{name}: {done:?}"))),
        }
    }

    fn read(&mut self) -> Result<Done, Broken> {
        let since = self.now();
        match must::read_all(&self.hands.log) {
            Ok(found) => must::read_back(&self.told(), since, &found, self.failing()).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    fn open_reader(&mut self) -> Done {
        let since = self.now();
        let reader = self.hands.log.reader(self.hands.log.head_lsn())?;
        self.readers.push(Kept { reader, since, found: Vec::new() });
        Ok(())
    }

    fn read_on(&mut self, count: usize) -> Result<Done, Broken> {
        let Some(mut kept) = self.readers.pop() else { return Ok(Ok(())) };
        for _ in 0..count {
            match kept.reader.next_record() {
                Err(error) => return Ok(Err(error)),
                Ok(None) => {
                    let (told, failing) = (self.told(), self.failing());
                    return must::read_back(&told, kept.since, &kept.found, failing).map(Ok);
                }
                Ok(Some(record)) => {
                    kept.found.push((record.lsn().0, record.seq().0, record.payload().to_vec()));
                }
            }
        }
        must::known(&self.told(), &kept.found)?;
        must::in_order(must::ACKNOWLEDGED, &kept.found)?;
        self.readers.insert(0, kept);
        Ok(Ok(()))
    }

    fn follow(&mut self, count: usize) -> Result<Done, Broken> {
        if self.follower.is_none() {
            match self.hands.log.follow(self.hands.log.head_lsn()) {
                Ok(follower) => self.follower = Some((follower, None)),
                Err(error) => return Ok(Err(error)),
            }
        }
        let Some((mut follower, mut last)) = self.follower.take() else { return Ok(Ok(())) };
        for _ in 0..count {
            let since = self.now();
            let found = match follower.try_next() {
                // It has said that something is not as it was. Another one begins anew.
                Err(error) => return Ok(Err(error)),
                Ok(None) => break,
                Ok(Some(record)) => (record.lsn().0, record.seq().0, record.payload().to_vec()),
            };
            last = Some(delivered(&self.hands.told, &self.hands.fs, since, last, &found)?);
        }
        self.follower = Some((follower, last));
        Ok(Ok(()))
    }

    /// A second process looks at the log while it is written.
    fn inspect(&self) -> Result<Done, Broken> {
        if self.hands.setup.home != Home::Directory || self.failing() {
            return Ok(Ok(()));
        }
        let _street = self.hands.street.lock();
        let other = self.hands.fs.second_process();
        let look = Inspection::open_on(Arc::new(other), DIR);
        if self.failing() {
            return Ok(Ok(()));
        }
        match look {
            Ok(look) if look.problems().is_empty() => Ok(Ok(())),
            Ok(look) => Err(Broken::new(must::TRUTH, format!("{:?}", look.problems()))),
            Err(error) => Err(Broken::new(must::TRUTH, format!("{error:?}"))),
        }
    }

    /// A second process tries to open the log.
    fn intrude(&self) -> Result<Done, Broken> {
        if self.hands.setup.home != Home::Directory {
            return Ok(Ok(()));
        }
        let _street = self.hands.street.lock();
        let other = self.hands.fs.second_process();
        match open(self.hands.setup, &other) {
            Err(Error::Locked { .. }) => Ok(Ok(())),
            Err(_) if self.failing() => Ok(Ok(())),
            Err(error) => Err(Broken::new(must::ALONE, format!("{error:?}"))),
            Ok(_) => Err(Broken::new(must::ALONE, "a second process opened the log")),
        }
    }

    fn failing(&self) -> bool {
        self.hands.failing()
    }
}

/// Whether this error says that nothing was appended.
fn refuses(error: &Error) -> bool {
    matches!(error, Error::WouldBlock | Error::Full { .. } | Error::TooLarge { .. } | Error::Closed)
}

/// What a callback does with the log that called it.
fn call_back(log: &Weak<Log>, told: &Mutex<Ledger>, fs: &SimFs, len: usize) {
    let Some(log) = log.upgrade() else { return };
    let (index, bytes) = lock(told).begin(&[len], fs.op_count());
    match log.try_append(&bytes[0]) {
        Ok(lsn) => lock(told).placed(index, lsn.0, fs.op_count()),
        Err(error) if refuses(&error) => lock(told).refused(index, 1),
        Err(_) => {}
    }
}

/// Follows until the log is closed; lets go of the log itself, so that it can be.
fn follow_to_the_end(hands: Hands, task: bool) {
    let Hands { log, told, fs, excused, .. } = hands;
    let follower = call("follow", || "follow".to_owned(), || log.follow(log.head_lsn()));
    drop(log);
    // Not there: the log was truncated in between, or fails.
    let Ok(mut follower) = follower else { return };
    let mut last = None;
    loop {
        let since = lock(&told).now();
        let next = call(
            "next",
            || "next".to_owned(),
            || match task {
                true => cairn_sim::block_on(follower.next_record()),
                false => follower.next_blocking(),
            },
        );
        let found = match next {
            Ok(Some(record)) => (record.lsn().0, record.seq().0, record.payload().to_vec()),
            Ok(None) => return,
            Err(error) => {
                let cuts = !lock(&told).cuts.is_empty();
                let failing = fs.counters().faults > 0 || excused.load(Ordering::SeqCst);
                if !failing && !must::is_excused(&error, cuts) {
                    fail(Broken::new(must::NO_ERROR, format!("follow: {error:?}")));
                }
                return;
            }
        };
        match delivered(&told, &fs, since, last, &found) {
            Ok(record) => last = Some(record),
            Err(broken) => {
                fail(broken);
                return;
            }
        }
    }
}

/// A follower delivered this record, in a call that began at event `since`, right after `last`: its
/// id and number.
fn delivered(
    told: &Mutex<Ledger>,
    fs: &SimFs,
    since: u64,
    last: Option<(u64, u64)>,
    found: &Found,
) -> Result<(u64, u64), Broken> {
    let (lsn, seq, bytes) = found;
    let mut told = lock(told);
    // A file that was written over while the log is open is that for the writer, too: no reader
    // knows that its groups are of another opening.
    let written_over = |harm: acts::Harm| matches!(harm.act, Act::BringBack(_));
    let Some(index) = told.find(*lsn, bytes) else {
        if told.harmed().is_some_and(written_over) {
            return Ok((last.map_or(u64::MAX, |(id, _)| id), *seq));
        }
        let text = format!("record {seq} at {lsn} was never appended");
        return Err(Broken::new(must::FOLLOWERS, text));
    };
    if let Some((id, number)) = last {
        let before = told.records.iter().find(|record| record.id == id);
        let withdrawn = before.and_then(|record| record.withdrawn);
        if withdrawn.is_some_and(|when| when < since) {
            let text = format!(
                "record {seq} at {lsn} is delivered after record {number}, which was taken back"
            );
            return Err(Broken::new(must::FOLLOWERS, text));
        }
        if *seq != number + 1 {
            let text = format!("record {seq} at {lsn} is delivered after record {number}");
            return Err(Broken::new(must::FOLLOWERS, text));
        }
    }
    // What is delivered is durable: another program may act upon it.
    if told.is_certain(*lsn, bytes) {
        told.durable(index, fs.op_count());
    }
    Ok((told.records[index].id, *seq))
}
