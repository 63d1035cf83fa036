//! What `event_listener::Event` does for us: a listener is woken by the first notification after it
//! began to listen.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use event_listener::Listener as _;

use super::place;
use crate::sync::seam::simulation;

/// Something that happens; threads and tasks wait for it.
#[derive(Debug, Default)]
pub struct Event {
    native: event_listener::Event,
    shared: Arc<Shared>,
}

/// The listeners that began to listen in a simulation.
#[derive(Debug, Default)]
struct Shared {
    /// Notifications so far.
    round: AtomicU64,
    wakers: Mutex<Vec<Waker>>,
}

/// Ends with the first notification after it was made.
#[derive(Debug)]
pub struct EventListener(Kind);

#[derive(Debug)]
enum Kind {
    Native(event_listener::EventListener),
    Simulated { shared: Arc<Shared>, round: u64 },
}

pub trait Listener {
    fn wait(self);
}

impl Event {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn listen(&self) -> EventListener {
        EventListener(match simulation() {
            None => Kind::Native(self.native.listen()),
            Some(simulation) => {
                simulation.step("listen");
                let round = self.shared.round.load(Ordering::SeqCst);
                Kind::Simulated { shared: self.shared.clone(), round }
            }
        })
    }

    pub fn notify(&self, count: usize) {
        self.native.notify(count);
        if let Some(simulation) = simulation() {
            simulation.step("notify");
        }
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        let wakers = {
            let mut wakers = self.shared.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        if let Some(simulation) = simulation() {
            simulation.wake(place(&*self.shared), usize::MAX);
        }
    }
}

impl Listener for EventListener {
    fn wait(self) {
        match (self.0, simulation()) {
            (Kind::Native(listener), _) => listener.wait(),
            (Kind::Simulated { shared, round }, Some(simulation)) => {
                while shared.round.load(Ordering::SeqCst) == round {
                    simulation.wait(place(&*shared), "an event", None);
                }
            }
            (Kind::Simulated { .. }, None) => {}
        }
    }
}

impl Future for EventListener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::Native(listener) => Pin::new(listener).poll(context),
            Kind::Simulated { shared, round } => {
                if shared.round.load(Ordering::SeqCst) != *round {
                    return Poll::Ready(());
                }
                let mut wakers = shared.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                wakers.push(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
