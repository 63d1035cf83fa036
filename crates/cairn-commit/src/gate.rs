//! The commit gate: which thread leads the next flush, and which threads wait for which.
//!
//! Work that needs a barrier is gathered in *rounds*, numbered by their owner from 0. Everything in
//! round *n* becomes durable with one flush, and rounds are *covered* in order. One thread at a
//! time *leads*: it decides what is flushed, and does the I/O in its own thread for all that wait.
//! The others sleep on one word of their round. They are woken once, all together, when the round
//! is covered. When a leader is done, exactly one thread that waits for a later round is woken to
//! lead next. No thread takes a lock on the way out, so a record costs its thread one sleep.
//!
//! A leader that has decided which rounds it flushes may *pass on* the lead before its I/O. Those
//! rounds are then *taken*: a thread that waits for one of them sleeps until it is covered. A
//! thread that waits for a later round may lead, and flush, at the same time.
//!
//! Invariants:
//! 1. Only a thread that leads or has led covers a round, and only after the barrier of that round
//!    and of all rounds before it has returned. The number of covered rounds never falls. One
//!    thread covers at a time: threads that pass on the lead see to that with a lock of their own.
//! 2. A thread increments `waiting` *before* it checks for a leader. A leader clears `led` *before*
//!    it checks for waiters. With a full fence between the two on both sides, one of them sees the
//!    other: no thread sleeps without a leader awake, unless its round is taken. The same holds of
//!    the round: a thread that is about to sleep checks once more whether its round is covered, for
//!    only the thread that covers it wakes all its sleepers. A taken round is covered, or the gate
//!    is ended.
//! 3. A word changes before its sleepers are woken, so a thread that read the old word does not
//!    fall asleep afterwards.
//!
//! Group commit with a leader is as old as DeWitt et al., "Implementation techniques for main
//! memory database systems", SIGMOD 1984. One word for each round and a direct hand-over are what
//! is left when every other wake-up is taken away.

use std::cell::Cell;
use std::time::Duration;

use cairn_io::stop::{Latch, Stop};
use cairn_io::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use cairn_io::sync::{Stopwatch, Word};

/// Rounds that have a word of their own at one time. If threads wait for more rounds than that,
/// some are woken for nothing and sleep again.
const WORDS: usize = 8;

/// The commit gate of one file; see the [module](self).
#[derive(Debug)]
pub struct Gate {
    /// Rounds below this are covered.
    covered: AtomicU64,
    /// Rounds below this are covered, or will be without another leader. Changes only while a
    /// thread leads.
    taken: AtomicU64,
    led: AtomicBool,
    ended: AtomicBool,
    /// Threads that want to lead whatever the round. They go first, or many writers would starve
    /// them.
    claims: Waiters,
    rounds: [Waiters; WORDS],
    /// Threads that are expected in the next flush.
    expected: AtomicU32,
    /// Smoothed duration of a flush, in nanoseconds; 0 before the first one.
    flush_ns: AtomicU64,
}

#[derive(Debug)]
struct Waiters {
    word: Word,
    waiting: AtomicU32,
}

/// What a thread that waits for a round does next.
#[derive(Debug)]
pub enum Turn<'a> {
    /// Nothing: the round is covered, and durable.
    Covered,
    /// Lead. Another leader may have covered the round in the meantime, so look first, and call
    /// [`Gate::wait`] again afterwards.
    Lead(Lead<'a>),
    /// Find out why: the gate was ended, and the round is not covered.
    Ended,
}

/// The right to do the I/O. Handed over when it is dropped, or before, by
/// [`pass_on`](Self::pass_on). A leader that panics hands over, too, and covers nothing: the next
/// leader must not take its rounds for written.
#[derive(Debug)]
#[must_use = "leading ends when this is dropped"]
pub struct Lead<'a> {
    gate: &'a Gate,
    passed_on: Cell<bool>,
    /// What was covered when leading began.
    covered: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A gate with no round covered and no leader. Rounds start at 0.
    pub fn new() -> Self {
        let waiters = || Waiters { word: Word::default(), waiting: AtomicU32::new(0) };
        Gate {
            covered: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            led: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            claims: waiters(),
            rounds: std::array::from_fn(|_| waiters()),
            expected: AtomicU32::new(0),
            flush_ns: AtomicU64::new(0),
        }
    }

    /// Rounds below this are covered.
    pub fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// Whether a thread leads, at this moment.
    pub fn is_led(&self) -> bool {
        self.led.load(Ordering::Acquire)
    }

    fn waiters(&self, round: u64) -> &Waiters {
        &self.rounds[usize::try_from(round % WORDS as u64).expect("less than the number of words")]
    }

    /// Threads that wait for rounds from `covered` on: for the open one, as a rule.
    fn waiting_from(&self, covered: u64) -> u32 {
        let rounds = covered..covered + 2;
        rounds.map(|round| self.waiters(round).waiting.load(Ordering::Relaxed)).sum()
    }

    /// Waits until `round` is covered, or until it is this thread's turn to lead.
    ///
    /// Does not wait for a round that is covered, and not for a barrier if no thread leads. The
    /// caller has published what it put in the round: a leader may flush it at once.
    pub fn wait(&self, round: u64) -> Turn<'_> {
        let waiters = self.waiters(round);
        loop {
            let seen = waiters.word.load();
            if self.covered() > round {
                return Turn::Covered;
            }
            if self.ended.load(Ordering::Acquire) {
                return Turn::Ended;
            }
            if self.claims.waiting.load(Ordering::Relaxed) == 0
                && !self.is_taken(round)
                && let Some(lead) = self.try_lead()
            {
                return Turn::Lead(lead);
            }
            waiters.sleep(seen, || {
                let led = self.led.load(Ordering::Acquire)
                    || self.claims.waiting.load(Ordering::Acquire) > 0;
                // The present leader may have begun after the round was covered. It would not wake
                // the threads that wait for this round.
                (led || self.is_taken(round))
                    && self.covered() <= round
                    && !self.ended.load(Ordering::Acquire)
            });
        }
    }

    /// Waits until no thread leads, and leads, ahead of the threads that wait for a round. Also
    /// after the [end](Self::end). For work that belongs to no round: rotating, cutting, closing.
    pub fn claim(&self) -> Lead<'_> {
        loop {
            let seen = self.claims.word.load();
            if let Some(lead) = self.try_lead() {
                return lead;
            }
            self.claims.sleep(seen, || self.led.load(Ordering::Acquire));
        }
    }

    /// Leads if no thread does. Never waits.
    pub fn try_lead(&self) -> Option<Lead<'_>> {
        let led = self.led.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
        led.is_ok().then(|| Lead {
            gate: self,
            passed_on: Cell::new(false),
            covered: self.covered(),
        })
    }

    fn is_taken(&self, round: u64) -> bool {
        self.taken.load(Ordering::Acquire) > round
    }

    /// Gives up leading, and wakes the thread that leads next: the first that waits. If no thread
    /// waits for a later round, the scan ends at the word of the last covered round and wakes one
    /// of its waiters. Without that wake-up nothing was faster, and 64 threads were slower
    /// (decision 8).
    fn hand_over(&self, covered: u64) {
        self.led.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        let next = covered.max(self.taken.load(Ordering::Relaxed));
        if !self.claims.wake_one() && !self.ended.load(Ordering::Acquire) {
            let _ =
                (next..next + WORDS as u64).map(|round| self.waiters(round)).any(Waiters::wake_one);
        }
    }

    /// Stops the writer behind this gate after a failure: [latches](Latch::fail) the cause, then
    /// [ends](Self::end) the gate. Rounds below `syncable` may still become durable; pass
    /// [`covered`](Self::covered) if no other can. Returns the stop, with the first cause.
    ///
    /// The order matters: a thread that gets [`Turn::Ended`] looks for the cause at once.
    pub fn stop<'a, F>(&self, latch: &'a Latch<F>, failure: F, syncable: u64) -> &'a Stop<F> {
        let stop = latch.fail(failure, syncable);
        self.end();
        stop
    }

    /// Ends waiting, for good: a thread whose round is not covered gets [`Turn::Ended`]. A thread
    /// may still lead, and cover rounds.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        for waiters in &self.rounds {
            waiters.wake_all();
        }
    }
}

impl Lead<'_> {
    /// Says that all rounds below `rounds` are durable. Call it only after their barrier, and the
    /// barriers of all rounds before, returned `Ok`. Threads that wait for them are told when the
    /// lead is dropped.
    ///
    /// # Panics
    /// In debug builds, if `rounds` is below the number of covered rounds.
    pub fn cover(&self, rounds: u64) {
        debug_assert!(rounds >= self.gate.covered());
        self.gate.covered.store(rounds, Ordering::Release);
    }

    /// Takes all rounds below `rounds`: this thread covers them later, and another thread leads
    /// meanwhile. If this thread cannot cover them it must [end](Gate::end) the gate; otherwise the
    /// threads that wait for them sleep for ever.
    ///
    /// # Panics
    /// In debug builds, if the lead was passed on before, or `rounds` is below a number passed on
    /// before.
    pub fn pass_on(&self, rounds: u64) {
        debug_assert!(!self.passed_on.get() && rounds >= self.gate.taken.load(Ordering::Relaxed));
        self.gate.taken.store(rounds, Ordering::Release);
        self.passed_on.set(true);
        self.gate.hand_over(self.gate.covered());
    }

    /// Waits for the threads that the previous flush woke, so that their next records join this
    /// flush. Returns when `arrived()`, the number of threads with a record in the open round,
    /// reaches the expected number, or after half the average flush time. Without this wait those
    /// threads arrive just after the flush began and wait for two flushes.
    pub fn gather(&self, arrived: impl Fn() -> u64) {
        let expected = u64::from(self.gate.expected.load(Ordering::Relaxed));
        if expected < 2 || arrived() >= expected {
            return;
        }
        let limit = Duration::from_nanos(self.gate.flush_ns.load(Ordering::Relaxed) / 2);
        let watch = Stopwatch::start();
        while watch.elapsed() < limit && arrived() < expected {
            cairn_io::sync::thread::yield_now();
        }
    }

    /// Records how long the write and the barrier of a flush took, for [`gather`](Self::gather).
    pub fn took(&self, flush: Duration) {
        let ns = u64::try_from(flush.as_nanos()).unwrap_or(u64::MAX);
        let known = self.gate.flush_ns.load(Ordering::Relaxed);
        let smooth = if known == 0 { ns } else { known - known / 8 + ns / 8 };
        self.gate.flush_ns.store(smooth, Ordering::Relaxed);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let gate = self.gate;
        let covered = gate.covered();
        let leads = !self.passed_on.get();
        let early: u32 =
            if leads && covered > self.covered { gate.waiting_from(covered) } else { 0 };
        if leads {
            // The next leader is woken first: it gathers while this thread wakes the others.
            gate.hand_over(covered);
        } else {
            fence(Ordering::SeqCst);
        }
        let done = self.covered..covered.min(self.covered + WORDS as u64);
        let woken: u32 = done.map(|round| gate.waiters(round).wake_all()).sum();
        if leads && covered > self.covered {
            // The leader itself comes back, too, and `early` threads are here already.
            gate.expected.store(woken + 1 + early, Ordering::Relaxed);
        }
    }
}

impl Waiters {
    /// Sleeps, unless the word has changed since it was `seen`, or no thread will wake this one.
    fn sleep(&self, seen: u32, will_be_woken: impl Fn() -> bool) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if will_be_woken() {
            self.word.wait(seen);
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a thread was there to wake.
    fn wake_one(&self) -> bool {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.word.bump();
        self.word.wake_one();
        true
    }

    /// The number of threads that were there to wake.
    fn wake_all(&self) -> u32 {
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting > 0 {
            self.word.bump();
            self.word.wake_all();
        }
        waiting
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn until(done: impl Fn() -> bool) {
        while !done() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_claim_goes_before_those_who_wait() {
        let gate = Gate::new();
        let lead = gate.try_lead().unwrap();
        thread::scope(|scope| {
            let (led, order) = mpsc::channel();
            for _ in 0..3 {
                let (gate, led) = (&gate, led.clone());
                scope.spawn(move || {
                    if let Turn::Lead(lead) = gate.wait(0) {
                        led.send("waited").unwrap();
                        lead.cover(1);
                    }
                });
            }
            until(|| gate.rounds[0].waiting.load(Ordering::Relaxed) == 3);
            let gate = &gate;
            scope.spawn(move || {
                let lead = gate.claim();
                led.send("claimed").unwrap();
                drop(lead);
            });
            until(|| gate.claims.waiting.load(Ordering::Relaxed) == 1);
            // A thread that comes now does not pass the claim by, either.
            drop(lead);
            assert_eq!([order.recv().unwrap(), order.recv().unwrap()], ["claimed", "waited"]);
        });
        assert_eq!(gate.covered(), 1);
        assert!(!gate.is_led());
        assert_eq!(gate.rounds[0].waiting.load(Ordering::Relaxed), 0);
    }

    /// Each thread alone makes the next one lead: no other thread makes up for a lost wake-up.
    #[test]
    fn many_threads_lead_and_wait_in_turn() {
        let (gate, next) = (Gate::new(), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let round = next.load(Ordering::Relaxed).max(gate.covered());
                        while let Turn::Lead(lead) = gate.wait(round) {
                            if gate.covered() <= round {
                                let covered = gate.covered() + 1;
                                next.store(covered, Ordering::Relaxed);
                                lead.cover(covered);
                            }
                        }
                        assert!(gate.covered() > round);
                    }
                });
            }
            scope.spawn(|| (0..500).for_each(|_| drop(gate.claim())));
        });
        assert!(!gate.is_led());
    }

    /// guards: L02 L37
    ///
    /// The leader's barrier fails while seven threads wait for the round, and for the one after
    /// it: every thread is told, and of the same cause.
    #[test]
    fn a_failure_reaches_every_waiter_with_its_cause() {
        let (gate, latch) = (Gate::new(), Latch::new());
        let lead = gate.try_lead().unwrap();
        thread::scope(|scope| {
            let waiters = [0, 0, 0, 0, 1, 1, 1].map(|round| {
                let (gate, latch) = (&gate, &latch);
                scope.spawn(move || {
                    assert!(matches!(gate.wait(round), Turn::Ended));
                    let stop: &Stop<&str> = latch.stop().expect("the cause is there before");
                    assert!(stop.puts_in_doubt(round));
                    stop.cause().clone()
                })
            });
            let waiting = |round: usize| gate.rounds[round].waiting.load(Ordering::Relaxed);
            until(|| (waiting(0), waiting(1)) == (4, 3));
            let first = gate.stop(&latch, "the barrier", gate.covered()).cause().clone();
            drop(lead);
            assert_eq!(*first, "the barrier");
            for waiter in waiters {
                assert!(std::sync::Arc::ptr_eq(&waiter.join().unwrap(), &first));
            }
        });
        assert_eq!(**gate.stop(&latch, "a later write", 0).cause(), "the barrier");
    }

    #[test]
    fn the_end_is_no_obstacle_to_leading() {
        let gate = Gate::new();
        gate.try_lead().unwrap().cover(2);
        gate.end();
        assert!(matches!(gate.wait(1), Turn::Covered));
        assert!(matches!(gate.wait(2), Turn::Ended));
        let lead = gate.claim();
        assert!(gate.try_lead().is_none());
        lead.cover(3);
        drop(lead);
        assert!(matches!(gate.wait(2), Turn::Covered));
    }
}
