//! `raft-log`: one writer hands records to a flush thread that batches them and calls back.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use raft_log::api::raft_log_writer::RaftLogWriter as _;
use raft_log::{Config, RaftLog, Types};

use crate::subject::{Pipeline, Seen, Setup, Subject, Writer};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plain;

impl Types for Plain {
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    type Vote = (u64, u64);
    type Callback = SyncSender<io::Result<()>>;
    type UserData = String;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        payload.len() as u64
    }
}

/// Writing takes `&mut self`: a mutex is what threads share it with.
struct Shared {
    state: Mutex<State>,
}

struct State {
    log: RaftLog<Plain>,
    next: u64,
}

/// A wait of 10 µs for a larger batch: with none at all it would not even take what is queued. A
/// small cache of payloads.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, Some(Duration::from_micros(10)))
}

/// Its default wait of 1 ms for a larger batch.
pub(crate) fn open_waiting(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, None)
}

fn open_with(setup: &Setup, wait: Option<Duration>) -> Result<Box<dyn Subject>> {
    let dir = setup.dir.join("log");
    std::fs::create_dir_all(&dir)?;
    let mut config = Config::new(dir.to_str().context("the directory's name is no text")?);
    config.wal.flush_batch_wait = wait;
    config.wal.chunk_max_size = Some(setup.segment_bytes as usize);
    config.log_cache_max_items = Some(1024);
    config.log_cache_capacity = Some(16 << 20);
    let log = RaftLog::<Plain>::open(Arc::new(config))?;
    let next = log.log_state().last().map_or(0, |id| id.1 + 1);
    Ok(Box::new(Shared { state: Mutex::new(State { log, next }) }))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(
        &self,
        payloads: Vec<Vec<u8>>,
        callback: Option<SyncSender<io::Result<()>>>,
    ) -> Result<()> {
        let mut state = self.lock();
        let first = state.next;
        state.next += payloads.len() as u64;
        state.log.append((first..).map(|index| (1, index)).zip(payloads))?;
        let sync = callback.is_some();
        Ok(state.log.flush(sync, callback)?)
    }
}

impl Subject for Shared {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        let (sender, receiver) = sync_channel(1);
        Ok(Box::new(SharedWriter { shared: self, sender, receiver }))
    }

    fn flush(&self) -> Result<()> {
        let (sender, receiver) = sync_channel(1);
        self.lock().log.flush(false, Some(sender))?;
        Ok(receiver.recv().context("the flush thread is gone")??)
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let state = self.lock();
        for entry in state.log.read(0, state.next) {
            seen.record(&entry?.1);
        }
        Ok(())
    }

    fn pipeline(&self) -> Result<Box<dyn Pipeline + '_>> {
        Ok(Box::new(InFlight { shared: self, receivers: VecDeque::new() }))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}

struct SharedWriter<'a> {
    shared: &'a Shared,
    sender: SyncSender<io::Result<()>>,
    receiver: Receiver<io::Result<()>>,
}

impl Writer for SharedWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_many(&[record])
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        let payloads = records.iter().map(|r| r.to_vec()).collect();
        self.shared.append(payloads, Some(self.sender.clone()))?;
        Ok(self.receiver.recv().context("the flush thread is gone")??)
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.shared.append(vec![record.to_vec()], None)
    }
}

struct InFlight<'a> {
    shared: &'a Shared,
    receivers: VecDeque<Receiver<io::Result<()>>>,
}

impl Pipeline for InFlight<'_> {
    fn submit(&mut self, record: &[u8]) -> Result<()> {
        let (sender, receiver) = sync_channel(1);
        self.shared.append(vec![record.to_vec()], Some(sender))?;
        self.receivers.push_back(receiver);
        Ok(())
    }

    fn wait_oldest(&mut self) -> Result<()> {
        let receiver = self.receivers.pop_front().context("nothing in flight")?;
        Ok(receiver.recv().context("the flush thread is gone")??)
    }
}
