//! Following a log: its records as they become durable.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use crate::Lsn;
use crate::commit::Core;
use crate::error::{Error, Result};
use crate::mutation::{self, Mutation};
use crate::reader::{Reader, Record, RecordRef};
use crate::sync::{Arc, EventListener, Listener};

/// Returns the records of a log one after the other, waiting for new ones to become durable.
///
/// Only durable records are returned, so that nothing is applied elsewhere that a crash can still take back (L09). Ends with `None`
/// when the log was closed or dropped and everything durable was returned. Made by [`Log::follow`](crate::Log::follow).
#[derive(Debug)]
pub struct Follower {
    core: Arc<Core>,
    reader: Reader,
    cut_count: u64,
}

impl Follower {
    pub(crate) fn new(core: Arc<Core>, reader: Reader, cut_count: u64) -> Self {
        Follower { core, reader: reader.in_place(), cut_count }
    }

    /// Returns the next record if it is durable already; `None` when there is none yet, or none any more.
    ///
    /// # Errors
    /// As [`Reader::next_record`]; [`Error::Truncated`] when a `truncate_after` took back records that this follower had returned.
    pub fn try_next(&mut self) -> Result<Option<RecordRef<'_>>> {
        self.catch_up()?;
        self.reader.next_record()
    }

    /// Blocks until the next record is durable and returns it; `None` once the log is closed.
    ///
    /// # Errors
    /// As [`try_next`](Follower::try_next); [`Error::Poisoned`] when the writer stopped after a failure and everything durable was returned.
    pub fn next_blocking(&mut self) -> Result<Option<Record>> {
        loop {
            let listener = self.core.progress.listen();
            if let Some(record) = self.try_next()? {
                return Ok(Some(record.to_record()));
            }
            if self.is_over()? {
                return Ok(None);
            }
            listener.wait();
        }
    }

    /// Waits, on any async runtime, until the next record is durable and returns it; `None` once the log is closed.
    /// Cancelling loses nothing. Reading the record itself blocks as file reads do.
    ///
    /// # Errors
    /// As [`next_blocking`](Follower::next_blocking).
    pub async fn next_record(&mut self) -> Result<Option<Record>> {
        let mut listener: Option<EventListener> = None;
        poll_fn(|context| {
            loop {
                let mut registered = listener.take().unwrap_or_else(|| self.core.progress.listen());
                if let Some(record) = self.try_next()? {
                    return Poll::Ready(Ok(Some(record.to_record())));
                }
                if self.is_over()? {
                    return Poll::Ready(Ok(None));
                }
                if Pin::new(&mut registered).poll(context).is_pending() {
                    listener = Some(registered);
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Takes over what became durable since the last look.
    fn catch_up(&mut self) -> Result<()> {
        let guard = self.core.lock();
        let at = self.reader.place();
        if guard.cut_count != self.cut_count {
            self.cut_count = guard.cut_count;
            if at.lsn > guard.cut_lsn {
                return Err(Error::Truncated { lsn: Lsn(guard.cut_lsn) });
            }
            // What lay ahead is another segment now.
            let mut reader = self.core.reader_of(&guard).durable().in_place();
            drop(guard);
            reader.seek(crate::Start::Lsn(Lsn(at.lsn)))?;
            self.reader = reader;
            return Ok(());
        }
        let flushed = mutation::is(Mutation::FollowFlushed);
        if guard.durable > self.reader.end_lsn() || flushed {
            let later = self.core.reader_of(&guard).in_place();
            let later = if flushed { later } else { later.durable() };
            drop(guard);
            self.reader.extend(later)?;
        }
        Ok(())
    }

    fn is_over(&self) -> Result<bool> {
        let guard = self.core.lock();
        if guard.durable > self.reader.end_lsn() || self.core.gate.is_led() || guard.in_air() > 0 {
            return Ok(false);
        }
        match &guard.stopped {
            Some(stop) => Err(Error::Poisoned { cause: stop.cause.clone() }),
            None => Ok(guard.ended),
        }
    }
}
