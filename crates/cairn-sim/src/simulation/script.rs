//! What the threads of a life do, as data.

/// What the threads of one life do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script<C> {
    /// One part for each thread, in the order in which they begin.
    pub parts: Vec<Part<C>>,
}

/// What one thread does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<C> {
    /// Name of the thread, one word.
    pub name: String,
    /// Its calls, in order.
    pub calls: Vec<C>,
}

impl<C> Script<C> {
    /// No threads.
    #[must_use]
    pub fn new() -> Self {
        Self { parts: Vec::new() }
    }

    /// One more thread.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>, calls: Vec<C>) -> Self {
        self.parts.push(Part { name: name.into(), calls });
        self
    }

    /// The calls of the part with this name; none when there is no such part.
    pub fn calls(&self, name: &str) -> &[C] {
        let part = self.parts.iter().find(|part| part.name == name);
        part.map_or(&[], |part| &part.calls)
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.calls.len()).sum()
    }
}

impl<C> Default for Script<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clone> Script<C> {
    /// Without the calls `from..to`, counted over all parts; parts without calls stay.
    pub(super) fn without(&self, from: usize, to: usize) -> Self {
        let mut number = 0;
        let parts = self.parts.iter().map(|part| {
            let calls = part.calls.iter().filter(|_| {
                number += 1;
                !(from..to).contains(&(number - 1))
            });
            Part { name: part.name.clone(), calls: calls.cloned().collect() }
        });
        Self { parts: parts.collect() }
    }
}
