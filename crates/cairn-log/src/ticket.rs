//! Tickets: durability that is asked for now and waited for later, or never.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Result;
use crate::place::{Lsn, Seq};
use crate::sync::{Arc, EventListener};
use crate::writer::core::{Appended, Core};

/// A submitted record on its way to durability.
///
/// Made by [`Log::submit`](crate::Log::submit). Dropping a ticket cancels nothing: the log makes
/// the record durable all the same. Wait with [`wait`](Ticket::wait), with `.await` on any runtime,
/// or be called back by [`on_durable`](Ticket::on_durable).
#[derive(Debug)]
#[must_use = "a ticket says nothing about durability until it is waited for"]
pub struct Ticket {
    core: Arc<Core>,
    appended: Appended,
    listener: Option<EventListener>,
}

impl Ticket {
    pub(crate) fn new(core: Arc<Core>, appended: Appended) -> Self {
        Ticket { core, appended, listener: None }
    }

    /// Where the record starts.
    pub fn lsn(&self) -> Lsn {
        self.appended.lsn
    }

    /// Its number.
    pub fn seq(&self) -> Seq {
        self.appended.seq
    }

    /// Blocks until the record, and everything before it, is durable; may lead the flush in the
    /// calling thread.
    ///
    /// # Errors
    /// [`Error::InDoubt`](crate::Error::InDoubt) when a write or barrier failed.
    pub fn wait(self) -> Result<()> {
        self.core.settled(self.appended)
    }

    /// Calls `callback` once, when the record is durable or in doubt: at once and in this thread
    /// when that is known already, in the thread that leads the flush otherwise, with no lock held.
    /// A panic in it is caught and affects nothing else. It may drop or close the log, also when
    /// that is the last handle.
    pub fn on_durable(self, callback: impl FnOnce(Result<()>) + Send + 'static) {
        self.core.on_durable(self.appended, Box::new(callback));
    }
}

impl Future for Ticket {
    type Output = Result<()>;

    /// Ready when the record is durable or in doubt. Never blocks on I/O.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            // Registered before looking: a change between the two is not missed.
            let mut listener = self.listener.take().unwrap_or_else(|| self.core.progress.listen());
            if let Some(outcome) = self.core.outcome(self.appended) {
                return Poll::Ready(outcome);
            }
            if Pin::new(&mut listener).poll(context).is_pending() {
                self.listener = Some(listener);
                return Poll::Pending;
            }
        }
    }
}
