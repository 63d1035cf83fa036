//! What callers know of something whose changes take place one after the other.

use std::fmt;

use super::cut::End;
use super::workload::Told;
use crate::schedule::Broken;

/// The states of something that changes serially (a key-value map, a stack, a register), with what
/// its callers were told: a ready-made [`Told`].
///
/// The workload calls [`applied`](Self::applied) with the whole state at the moment of a change, and
/// [`durable`](Self::durable) when the caller is told that the change is durable. After a crash,
/// [`check`](Self::check) compares: what is found must be one of the states, and none before the
/// last one that was said to be durable.
///
/// ```
/// use cairn_sim::{End, History, Told as _};
///
/// let mut history = History::<u32>::default(); // 0, before anything was done
/// let one = history.applied(1, 10); // at operation 10 of the machine
/// let _two = history.applied(2, 20);
/// history.durable(one, 15);
/// let told = history.at(17, End::Power); // the power fails at operation 17
/// assert!(told.check(&1).is_ok()); // 2 had not begun
/// assert!(told.check(&0).is_err()); // 1 was durable
/// ```
#[derive(Clone, Debug)]
pub struct History<S> {
    entries: Vec<Entry<S>>,
    /// At which point that was opened which was found, and what had been told before.
    before: Option<(usize, Box<Self>)>,
}

#[derive(Clone, Debug)]
struct Entry<S> {
    state: S,
    begun: usize,
    written: Option<usize>,
    durable: Option<usize>,
    refused: bool,
}

impl<S: Default> Default for History<S> {
    fn default() -> Self {
        Self { entries: vec![Entry::first(S::default(), 0)], before: None }
    }
}

impl<S> Entry<S> {
    /// A state that is there, durably, since `point`.
    fn first(state: S, point: usize) -> Self {
        Self { state, begun: 0, written: Some(point), durable: Some(point), refused: false }
    }
}

/// Characters of a state that a report shows.
const SHOWN_MAX: usize = 400;

/// The property that [`History::check`] checks.
pub const SERIAL: &str = "what is acknowledged stays, changes take place one after the other";

impl<S: Clone + PartialEq + fmt::Debug> History<S> {
    /// A life opened what it found, at `point`: from here on that is durable.
    pub fn opened(&mut self, found: S, point: usize) {
        let before = self.clone();
        self.entries = vec![Entry::first(found, point)];
        self.before = Some((point, Box::new(before)));
    }

    /// Nothing tells any more of what was acknowledged since the last
    /// [`opened`](History::opened), because of what was done to the files.
    pub fn doubt(&mut self) {
        for entry in self.entries.iter_mut().skip(1) {
            (entry.written, entry.durable) = (None, None);
        }
    }

    /// Every state that was reached since the life began, the one that was found first.
    pub fn states(&self) -> impl Iterator<Item = &S> {
        self.entries.iter().filter(|entry| !entry.refused).map(|entry| &entry.state)
    }

    /// The newest state.
    pub fn newest(&self) -> &S {
        &self.entries[self.last()].state
    }

    /// Number of the newest change that took place; 0 before the first one.
    #[must_use]
    pub fn last(&self) -> usize {
        self.entries.iter().rposition(|entry| !entry.refused).unwrap_or(0)
    }

    /// A caller was shown this state as one that is durable; says whether it ever was reached.
    /// Where it was reached several times, this vouches for the first time only.
    pub fn shown(&mut self, state: &S, point: usize) -> bool {
        let reached = |entry: &Entry<S>| !entry.refused && entry.state == *state;
        let number = self.entries.iter().position(reached);
        if let Some(number) = number {
            self.durable(number, point);
        }
        number.is_some()
    }

    /// A change took place, and led to this state. Returns its number.
    pub fn applied(&mut self, state: S, point: usize) -> usize {
        let entry = Entry { state, begun: point, written: None, durable: None, refused: false };
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// The change with this number did not take place after all.
    pub fn refused(&mut self, number: usize) {
        self.entries[number].refused = true;
    }

    /// The change with this number, and those before it, survive the process.
    pub fn written(&mut self, number: usize, point: usize) {
        self.entries[number].written.get_or_insert(point);
    }

    /// The change with this number, and those before it, survive a power cut.
    pub fn durable(&mut self, number: usize, point: usize) {
        self.written(number, point);
        self.entries[number].durable.get_or_insert(point);
    }

    /// Number of changes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: there is the state in the beginning.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a state was ever reached.
    pub fn knows(&self, state: &S) -> bool {
        self.entries.iter().any(|entry| !entry.refused && entry.state == *state)
    }

    /// Compares what is found after a life ended with what its callers had been told.
    ///
    /// # Errors
    /// [`SERIAL`] when the state never was, or an acknowledged one is gone.
    pub fn check(&self, found: &S) -> Result<(), Broken> {
        let same = |entry: &Entry<S>| !entry.refused && entry.state == *found;
        let at = self.entries.iter().rposition(same);
        let least = self.entries.iter().rposition(|entry| entry.written.is_some()).unwrap_or(0);
        let text = match at {
            Some(at) if at >= least => return Ok(()),
            Some(at) => format!("state {at} is found, state {least} was acknowledged"),
            None => "a state is found that never was".to_owned(),
        };
        let expected = short(&self.entries[least].state);
        let found = short(found);
        Err(Broken::new(SERIAL, format!("{text}\nfound    {found}\nexpected {expected}")))
    }

    fn lose(&mut self, end: End) {
        if end == End::Power {
            self.entries.iter_mut().for_each(|entry| entry.written = entry.durable);
        }
    }
}

/// A state as a report shows it.
fn short(state: &impl fmt::Debug) -> String {
    let mut text = format!("{state:?}");
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

impl<S: Clone + PartialEq + fmt::Debug + Default + 'static> Told for History<S> {
    fn at(&self, point: usize, end: End) -> Self {
        let mut told = match &self.before {
            Some((opened, before)) if point < *opened => return before.at(point, end),
            _ => self.clone(),
        };
        told.before = None;
        told.entries.retain(|entry| entry.begun <= point);
        for entry in &mut told.entries {
            // Before the next life is all that matters there.
            let kept = |moment: Option<usize>| moment.filter(|&at| at <= point).map(|_| 0);
            (entry.begun, entry.written) = (0, kept(entry.written));
            entry.durable = kept(entry.durable);
        }
        told.lose(end);
        told
    }
}
