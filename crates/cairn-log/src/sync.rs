//! Threads, locks and waiting, in one place, so that a model checker can take them over: loom with `--cfg cairn_loom`, shuttle with
//! `--cfg cairn_shuttle`. Without either, nothing here costs anything.

pub(crate) use std::sync::{Arc, PoisonError};

#[cfg(not(any(cairn_loom, cairn_shuttle)))]
pub(crate) use {
    event_listener::{Event, EventListener, Listener},
    std::sync::{Mutex, MutexGuard},
    std::thread,
};

#[cfg(any(cairn_loom, cairn_shuttle))]
pub(crate) use model::*;

#[cfg(any(cairn_loom, cairn_shuttle))]
mod model {
    //! The same names on a checker's primitives.

    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    #[cfg(cairn_loom)]
    pub(crate) use loom::{
        sync::{Condvar, Mutex, MutexGuard},
        thread,
    };
    #[cfg(all(cairn_shuttle, not(cairn_loom)))]
    pub(crate) use shuttle::{
        sync::{Condvar, Mutex, MutexGuard},
        thread,
    };

    /// What `event_listener::Event` does for us: a listener is woken by the first notification after it began to listen.
    #[derive(Debug)]
    pub(crate) struct Event(Arc<Shared>);

    #[derive(Debug)]
    struct Shared {
        rounds: Mutex<Rounds>,
        ended: Condvar,
    }

    #[derive(Debug)]
    struct Rounds {
        current: u64,
        wakers: Vec<Waker>,
    }

    #[derive(Debug)]
    pub(crate) struct EventListener {
        shared: Arc<Shared>,
        round: u64,
    }

    pub(crate) trait Listener {
        fn wait(self);
    }

    impl Event {
        pub(crate) fn new() -> Self {
            let rounds = Mutex::new(Rounds { current: 0, wakers: Vec::new() });
            Event(Arc::new(Shared { rounds, ended: Condvar::new() }))
        }

        pub(crate) fn listen(&self) -> EventListener {
            EventListener { shared: self.0.clone(), round: self.0.rounds.lock().unwrap().current }
        }

        pub(crate) fn notify(&self, _all: usize) {
            let mut rounds = self.0.rounds.lock().unwrap();
            rounds.current += 1;
            let wakers = std::mem::take(&mut rounds.wakers);
            self.0.ended.notify_all();
            drop(rounds);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    impl Listener for EventListener {
        fn wait(self) {
            let mut rounds = self.shared.rounds.lock().unwrap();
            while rounds.current == self.round {
                rounds = self.shared.ended.wait(rounds).unwrap();
            }
        }
    }

    impl Future for EventListener {
        type Output = ();

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            let mut rounds = self.shared.rounds.lock().unwrap();
            if rounds.current != self.round {
                return Poll::Ready(());
            }
            rounds.wakers.push(context.waker().clone());
            Poll::Pending
        }
    }
}
