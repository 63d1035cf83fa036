//! The process that is killed: several threads use everything a log can do, and tell what was
//! acknowledged.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cairnlog::{EndState, Error, Follower, Log, Lsn, Record, Seq};

use super::record::{Dice, Id, Said};
use crate::report::{self, Outcome, Status};

/// The process that `torture` starts to kill it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    dir: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    kill: u64,
    #[arg(long)]
    writers: u64,
    #[arg(long)]
    segment_size: u64,
    /// Microseconds after which the log is closed and opened again; 0 for never
    #[arg(long)]
    session_us: u64,
}

/// More records than this are cut down to half of it or less: memory and disk stay bounded however
/// long it runs.
const RECORDS_MAX: u64 = 2000;
/// At most so many records are taken back by one `truncate_after`.
const TAKEN_BACK_MAX: u64 = 60;

pub(crate) fn run(args: &Args) -> Outcome {
    // Nobody writes to it: its end is the parent's. A child never outlives that, not even one that
    // hangs.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
    let teller = Arc::new(Teller::default());
    let mut dice = Dice::of(&[args.seed, args.kill]);
    let (mut calls, mut closing_calls) = (vec![0; usize::try_from(args.writers)?], 0);
    loop {
        if let Err(error) = session(args, &teller, &mut dice, &mut calls, &mut closing_calls) {
            let error = anyhow::Error::from(error);
            teller.say(&Said::Failed { code: report::code(&error), error: format!("{error:#}") });
            return Ok(Status::Done);
        }
    }
}

/// Opens the log, works on it, and closes or drops it.
fn session(
    args: &Args,
    teller: &Arc<Teller>,
    dice: &mut Dice,
    calls: &mut [u64],
    closing_calls: &mut u64,
) -> cairnlog::Result<()> {
    let log = Log::options().segment_size(args.segment_size).open(&args.dir)?;
    teller.say(&Said::Opened { recovered: log.open_report().end_state != EndState::Closed });
    let stop = AtomicBool::new(false);
    let by = |writer| Worker {
        log: &log,
        teller,
        stop: &stop,
        seed: args.seed,
        kill: args.kill,
        writer,
    };
    let mut follower = std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for (writer, calls) in (0..).zip(calls.iter_mut()) {
            let (worker, dice) = (by(writer), Dice(dice.next()));
            workers.push(scope.spawn(move || worker.end_all_on_error(worker.write(dice, calls))));
        }
        let (cutter, cutting_dice) = (by(args.writers), Dice(dice.next()));
        workers.push(scope.spawn(move || cutter.end_all_on_error(cutter.cut(cutting_dice))));
        let reader = by(args.writers);
        let following = scope.spawn(move || reader.end_all_on_error(reader.follow()));
        if args.session_us > 0 {
            std::thread::sleep(Duration::from_micros(args.session_us));
            stop.store(true, Ordering::SeqCst);
        }
        for worker in workers {
            let _ = worker.join();
        }
        // The follower waits for one more record, and ends with it.
        let last = by(args.writers);
        last.end_all_on_error(last.commit(last.id(closing_calls, 0, 1)));
        following.join()
    });
    if dice.roll(4) == 0 {
        // What is buffered goes to the operating system as well as that goes; nothing is promised.
        drop(log);
    } else {
        let next_seq = log.next_seq().0;
        teller.say(&Said::Closing);
        log.close()?;
        teller.say(&Said::Closed { next_seq });
    }
    // A follower of a log that was closed returns what is left, and ends.
    let Ok(follower) = &mut follower else { return Ok(()) };
    loop {
        match follower.next_blocking() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) if was_cut(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Tells the parent what happened.
#[derive(Debug, Default)]
struct Teller {
    /// As described at [`Said`].
    epoch: AtomicU64,
}

impl Teller {
    /// Says one thing with one write, so that a kill tears no line but the last. Nobody to say it
    /// to is the end.
    fn say(&self, said: &Said) {
        let line = serde_json::to_string(said).unwrap_or_default() + "\n";
        if io::stdout().lock().write_all(line.as_bytes()).is_err() {
            std::process::exit(1);
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Whether what began in `epoch` ended in it, with no cut under way.
    fn is_still(&self, epoch: u64) -> bool {
        epoch.is_multiple_of(2) && self.epoch() == epoch
    }

    fn acknowledge(&self, epoch: u64, lsn: Lsn, id: Id) {
        if self.is_still(epoch) {
            self.say(&Said::Record { epoch, lsn: lsn.0, id });
        }
    }
}

/// One thread's view.
#[derive(Clone, Copy)]
struct Worker<'a> {
    log: &'a Log,
    teller: &'a Arc<Teller>,
    stop: &'a AtomicBool,
    seed: u64,
    kill: u64,
    writer: u64,
}

impl Worker<'_> {
    /// An error of one thread ends the process: the parent wants to know.
    fn end_all_on_error<T>(&self, result: cairnlog::Result<T>) -> T {
        result.unwrap_or_else(|error| {
            let error = anyhow::Error::from(error);
            self.teller
                .say(&Said::Failed { code: report::code(&error), error: format!("{error:#}") });
            std::process::exit(1);
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn id(&self, calls: &mut u64, index: u64, count: u64) -> Id {
        let n = *calls;
        *calls += u64::from(index + 1 == count);
        Id { seed: self.seed, kill: self.kill, writer: self.writer, n, index, count }
    }

    /// Appends in every way there is.
    fn write(&self, mut dice: Dice, calls: &mut u64) -> cairnlog::Result<()> {
        while !self.stopped() {
            let epoch = self.teller.epoch();
            match self.write_once(epoch, &mut dice, calls) {
                // The record was taken back before it could be waited for.
                Err(error) if was_cut(&error) && !self.teller.is_still(epoch) => {}
                written => written?,
            }
        }
        Ok(())
    }

    fn write_once(&self, epoch: u64, dice: &mut Dice, calls: &mut u64) -> cairnlog::Result<()> {
        let (log, teller) = (self.log, self.teller);
        match dice.roll(8) {
            0 | 1 => self.commit(self.id(calls, 0, 1))?,
            2 => {
                let mut appended = Vec::new();
                for _ in 0..=dice.roll(4) {
                    let id = self.id(calls, 0, 1);
                    appended.push((log.append(&id.payload())?, id));
                }
                if let Some((last, _)) = appended.last() {
                    log.sync_to(*last)?;
                }
                appended.into_iter().for_each(|(lsn, id)| teller.acknowledge(epoch, lsn, id));
            }
            3 => {
                let count = 2 + dice.roll(5);
                let ids: Vec<_> = (0..count).map(|index| self.id(calls, index, count)).collect();
                let range = log.append_batch(ids.iter().map(Id::payload))?;
                log.sync()?;
                if teller.is_still(epoch) {
                    teller.say(&Said::Batch {
                        epoch,
                        first: range.start().0,
                        last: range.end().0,
                        id: ids[0],
                    });
                }
            }
            4 => {
                let mut tickets = Vec::new();
                for _ in 0..=dice.roll(8) {
                    let id = self.id(calls, 0, 1);
                    tickets.push((log.submit(&id.payload())?, id));
                }
                for (ticket, id) in tickets {
                    let lsn = ticket.lsn();
                    ticket.wait()?;
                    teller.acknowledge(epoch, lsn, id);
                }
            }
            5 => {
                let id = self.id(calls, 0, 1);
                let ticket = log.submit(&id.payload())?;
                let (lsn, teller) = (ticket.lsn(), teller.clone());
                ticket.on_durable(move |durable| {
                    if durable.is_ok() {
                        teller.acknowledge(epoch, lsn, id);
                    }
                });
            }
            6 => {
                // With the operating system is all that a kill asks for.
                let id = self.id(calls, 0, 1);
                let lsn = log.append(&id.payload())?;
                log.flush()?;
                teller.acknowledge(epoch, lsn, id);
            }
            _ => {
                log.append(&self.id(calls, 0, 1).payload())?;
            }
        }
        Ok(())
    }

    fn commit(&self, id: Id) -> cairnlog::Result<()> {
        let epoch = self.teller.epoch();
        let lsn = self.log.commit(&id.payload())?;
        self.teller.acknowledge(epoch, lsn, id);
        Ok(())
    }

    /// Drops records at both ends while others append: the only thread that does.
    fn cut(&self, mut dice: Dice) -> cairnlog::Result<()> {
        while !self.stopped() {
            std::thread::sleep(Duration::from_micros(dice.roll(5000)));
            let Some(first) = self.log.reader(Lsn::START)?.next().transpose()? else { continue };
            let next_seq = self.log.next_seq().0;
            let records = next_seq - first.seq().0;
            let too_many = records > RECORDS_MAX;
            if too_many || dice.roll(8) == 0 {
                let kept = dice.roll(records.min(RECORDS_MAX / 2));
                if let Some(record) = self.find(next_seq - 1 - kept, Id::is_first)? {
                    self.teller
                        .say(&Said::CuttingBefore { lsn: record.lsn().0, seq: record.seq().0 });
                    self.log.truncate_before(record.lsn())?;
                    self.teller.say(&Said::Cut);
                }
            } else if dice.roll(3) == 0 {
                let taken = dice.roll(records.min(TAKEN_BACK_MAX));
                if let Some(record) = self.find(next_seq - 1 - taken, Id::is_last)? {
                    let epoch = self.teller.epoch.fetch_add(1, Ordering::SeqCst) + 1;
                    self.teller.say(&Said::CuttingAfter { epoch, lsn: record.lsn().0 });
                    self.log.truncate_after(record.lsn())?;
                    self.teller.say(&Said::Cut);
                    self.teller.epoch.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        Ok(())
    }

    /// The first record at or after a number at which the log may be cut without breaking a batch:
    /// whole batches are checked for.
    fn find(&self, seq: u64, suits: impl Fn(&Id) -> bool) -> cairnlog::Result<Option<Record>> {
        for record in self.log.reader(Seq(seq))? {
            let record = record?;
            match Id::of(record.payload()) {
                Some(id) if suits(&id) => return Ok(Some(record)),
                Some(_) => {}
                None => self
                    .teller
                    .say(&Said::Wrong { what: format!("a reader got {}", describe(&record)) }),
            }
        }
        Ok(None)
    }

    /// Follows the log; what a follower returns is durable. Returns the follower once it saw a
    /// record after the writers stopped.
    fn follow(&self) -> cairnlog::Result<Follower> {
        let mut follower = None;
        let mut last: Option<Record> = None;
        loop {
            let following = match &mut follower {
                Some(following) => following,
                None => match self.log.follow(self.log.next_seq()) {
                    Ok(new) if self.stopped() => return Ok(new),
                    Ok(new) => follower.insert(new),
                    Err(error) if was_cut(&error) => continue,
                    Err(error) => return Err(error),
                },
            };
            let epoch = self.teller.epoch();
            match following.next_blocking() {
                Ok(Some(record)) => {
                    let id = Id::of(record.payload());
                    let in_order = last.is_none_or(|last| {
                        record.seq().0 == last.seq().0 + 1 && record.lsn() > last.lsn()
                    });
                    match id {
                        Some(id) if in_order => self.teller.acknowledge(epoch, record.lsn(), id),
                        _ => self.teller.say(&Said::Wrong {
                            what: format!("a follower got {}", describe(&record)),
                        }),
                    }
                    last = Some(record);
                }
                Ok(None) => self
                    .teller
                    .say(&Said::Wrong { what: "a follower ended before its log".to_owned() }),
                // It had returned what was taken back, or stood before the new beginning.
                Err(error) if was_cut(&error) => (follower, last) = (None, None),
                Err(error) => return Err(error),
            }
            if self.stopped()
                && let Some(follower) = follower.take()
            {
                return Ok(follower);
            }
        }
    }
}

/// Whether an error may be the consequence of a truncation by another thread.
fn was_cut(error: &Error) -> bool {
    use Error::{NotARecord, OutOfRange, SeqOutOfRange, Truncated};
    matches!(error, OutOfRange { .. } | SeqOutOfRange { .. } | NotARecord { .. } | Truncated { .. })
}

fn describe(record: &Record) -> String {
    let payload = record.payload();
    let beginning = String::from_utf8_lossy(&payload[..payload.len().min(60)]);
    format!(
        "{} bytes at LSN {}, seq {}: {beginning:?}, out of order or altered",
        payload.len(),
        record.lsn(),
        record.seq()
    )
}
