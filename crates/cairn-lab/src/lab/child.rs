//! The library's workload: several threads on one log, in a process of its own. What happens is
//! told on standard output, one event per line.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use cairn_log::{Log, Lsn};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::backend;
use super::history::{Cut, identify, payload};
use crate::cli::{Backend, Child, Control};

const PHASES: usize = 14;

/// What a workload tells the laboratory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The log was opened for the first time, writes this way, and these records, as LSN and id,
    /// are in it.
    Opened { backend: String, first_seq: u64, records: Vec<(u64, u64)> },
    /// Records, as LSN and id, are durable.
    Durable { records: Vec<(u64, u64)>, batch: bool },
    /// A truncation is to begin.
    CutBegins(Cut),
    /// It has returned.
    CutEnds,
}

/// One line of the protocol.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) event: Event,
    /// The workload goes on when it gets a line in return.
    pub(crate) waits: bool,
}

pub(crate) fn run(child: Child) -> Result<()> {
    let mut rng = Rng::with_seed(child.seed);
    let workload = Workload {
        segment_size: [8 << 10, 16 << 10, 64 << 10, 4 << 20][rng.usize(..4)],
        buffer_size: [4 << 10, 64 << 10][rng.usize(..2)],
        dir: child.dir,
        salt: child.salt,
        control: child.control,
        backend: child.backend,
        next_id: AtomicU64::new(child.first_id),
        live: Mutex::default(),
        talk: Mutex::new(Rng::with_seed(child.seed ^ 1)),
    };
    let mut log = workload.open()?;
    workload.tell_opened(&log)?;
    for _ in 0..PHASES {
        workload.write_at_once(&log, &mut rng)?;
        backend::ensure_used(log.backend(), workload.backend)?;
        match rng.u8(..10) {
            0..2 => workload.truncate(&log, &mut rng, Cut::Before)?,
            2..5 => workload.truncate(&log, &mut rng, Cut::After)?,
            5..7 => {
                log.close()?;
                log = workload.open()?;
            }
            7..9 => log = workload.abandon(log, &mut rng)?,
            _ => {}
        }
    }
    if rng.bool() {
        log.close()?;
    }
    Ok(())
}

struct Workload {
    dir: PathBuf,
    salt: u64,
    control: Option<Control>,
    backend: Option<Backend>,
    segment_size: u64,
    buffer_size: usize,
    next_id: AtomicU64,
    /// Positions of the records in the log that were reported.
    live: Mutex<Vec<u64>>,
    /// Held while an event is told, with what decides whether to wait.
    talk: Mutex<Rng>,
}

impl Workload {
    fn open(&self) -> Result<Log> {
        let options = backend::options(self.backend, self.control)?;
        let options = options.segment_size(self.segment_size).buffer_size(self.buffer_size);
        let log = options.open(&self.dir).context("cannot open the log")?;
        backend::ensure_used(log.backend(), self.backend)?;
        Ok(log)
    }

    fn tell_opened(&self, log: &Log) -> Result<()> {
        let records = self.records_from(log, log.head_lsn())?;
        let first_seq = log.next_seq().0 - records.len() as u64;
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(records.iter().map(|(lsn, _)| lsn));
        self.tell(Event::Opened { backend: log.backend().to_string(), first_seq, records }, true)
    }

    fn write_at_once(&self, log: &Log, rng: &mut Rng) -> Result<()> {
        let seeds: Vec<u64> = (0..rng.usize(1..=4)).map(|_| rng.u64(..)).collect();
        thread::scope(|scope| {
            let start = |seed| scope.spawn(move || self.write(log, &mut Rng::with_seed(seed)));
            let writers: Vec<_> = seeds.into_iter().map(start).collect();
            for writer in writers {
                match writer.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("a writer panicked"),
                }
            }
            Ok(())
        })
    }

    /// One writer. Everything it appends is durable, and told, when it returns.
    fn write(&self, log: &Log, rng: &mut Rng) -> Result<()> {
        for _ in 0..rng.usize(2..7) {
            match rng.u8(..8) {
                0..4 => {
                    let (id, payload) = self.next_record();
                    let lsn = log.commit(&payload)?;
                    self.tell_durable(vec![(lsn.0, id)], false)?;
                }
                4 => {
                    let (id, payload) = self.next_record();
                    let ticket = log.submit(&payload)?;
                    let lsn = ticket.lsn();
                    ticket.wait()?;
                    self.tell_durable(vec![(lsn.0, id)], false)?;
                }
                5 => {
                    let mut records = Vec::new();
                    for _ in 0..rng.usize(1..6) {
                        let (id, payload) = self.next_record();
                        records.push((log.append(&payload)?.0, id));
                        if rng.u8(..4) == 0 {
                            log.flush()?;
                        }
                    }
                    log.sync()?;
                    self.tell_durable(records, false)?;
                }
                _ => self.write_batch(log, rng)?,
            }
        }
        Ok(())
    }

    fn write_batch(&self, log: &Log, rng: &mut Rng) -> Result<()> {
        let (ids, payloads): (Vec<_>, Vec<_>) =
            (0..rng.usize(2..6)).map(|_| self.next_record()).unzip();
        let range = log.append_batch(&payloads)?;
        log.sync_to(*range.end())?;
        // Only the ends of a batch are told; the records in between lie next to each other.
        let mut reader = log.reader(*range.start())?;
        let mut records = Vec::new();
        for id in ids {
            let record = reader.next_record()?.context("a batch is shorter than it was")?;
            records.push((record.lsn().0, id));
        }
        self.tell_durable(records, true)
    }

    fn truncate(&self, log: &Log, rng: &mut Rng, cut: fn(u64) -> Cut) -> Result<()> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.sort_unstable();
        if live.is_empty() {
            return Ok(());
        }
        let at = live[rng.usize(..live.len())];
        let cut = cut(at);
        self.tell(Event::CutBegins(cut), true)?;
        match cut {
            Cut::Before(lsn) => log.truncate_before(Lsn(lsn))?,
            Cut::After(lsn) => log.truncate_after(Lsn(lsn))?,
        }
        live.retain(|lsn| match cut {
            Cut::Before(first) => *lsn >= first,
            Cut::After(last) => *lsn <= last,
        });
        self.tell(Event::CutEnds, true)
    }

    /// Ends without closing, as a killed process does, and opens again. What can be read then is
    /// durable.
    fn abandon(&self, log: Log, rng: &mut Rng) -> Result<Log> {
        let end = log.appended_lsn();
        for _ in 0..rng.usize(..5) {
            log.append(&self.next_record().1)?;
        }
        drop(log);
        let log = self.open()?;
        self.tell_durable(self.records_from(&log, end)?, false)?;
        Ok(log)
    }

    fn records_from(&self, log: &Log, lsn: Lsn) -> Result<Vec<(u64, u64)>> {
        let mut records = Vec::new();
        let mut reader = log.reader(lsn)?;
        while let Some(record) = reader.next_record()? {
            let id = identify(self.salt, record.payload())
                .context("a record is not what was appended")?;
            records.push((record.lsn().0, id));
        }
        Ok(records)
    }

    fn next_record(&self) -> (u64, Vec<u8>) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        (id, payload(self.salt, id))
    }

    fn tell_durable(&self, records: Vec<(u64, u64)>, batch: bool) -> Result<()> {
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(records.iter().map(|(lsn, _)| lsn));
        self.tell(Event::Durable { records, batch }, false)
    }

    /// Tells an event; waits for an answer if it must, and sometimes if it need not, so that the
    /// stamp of the event is exact.
    fn tell(&self, event: Event, must_wait: bool) -> Result<()> {
        let mut rng = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = must_wait || rng.bool();
        let mut line = serde_json::to_string(&Message { event, waits })?;
        line.push('\n');
        io::stdout().lock().write_all(line.as_bytes()).context("nobody listens")?;
        if waits && io::stdin().read_line(&mut String::new())? == 0 {
            bail!("nobody answers");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fails_where_the_log_falls_back() {
        // A file system in memory, which has no direct writes.
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("SKIPPED: no /dev/shm");
            return;
        };
        let (dir, backend) = (dir.path().join("log"), Some(Backend::Direct));
        let error =
            run(Child { dir, seed: 1, salt: 1, first_id: 0, control: None, backend }).unwrap_err();
        assert_eq!(error.to_string(), "the log was to write direct, and writes buffered");
    }
}
