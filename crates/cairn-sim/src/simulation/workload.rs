//! What users write: a program under test, and what its callers were told.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::cut::End;
use super::script::Script;
use crate::dice::Dice;
use crate::schedule::Broken;
use crate::world::World;

/// A program under test: what its threads do, as data, and what must hold.
///
/// One life of the program is: it opens what it finds on the machine, compares that with what
/// callers had been told in earlier lives, and then does what the script says, with a thread for
/// each part. A [`Simulation`](crate::Simulation) draws scripts, runs lives, cuts the power at
/// moments of them, and runs further lives on what is left.
///
/// See [the guide](crate::guide) for worked examples.
pub trait Workload: 'static {
    /// One call of a thread. As text it fits one line.
    type Call: Clone + fmt::Debug + fmt::Display + FromStr + 'static;
    /// What callers were told, and when.
    type Told: Told;

    /// A name for reports.
    fn name(&self) -> String;

    /// Draws what the threads do in the life with this number, 0 for the first.
    fn script(&self, dice: &mut Dice, life: usize) -> Script<Self::Call>;

    /// Runs one life, as the first thread of a world: opens, checks what is there against `told`,
    /// does what the script says, ends. Returns what callers were told by then, with the moments of
    /// this life as [`SimFs::op_count`](crate::SimFs::op_count) shows them.
    ///
    /// # Errors
    /// A property that does not hold.
    fn live(
        &self,
        world: &World,
        script: &Script<Self::Call>,
        told: Self::Told,
    ) -> Result<Self::Told, Broken>;

    /// Everything that a run can meet ([`met`](crate::met)): what it never met is reported.
    fn can_meet(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What callers were told in a life.
pub trait Told: Clone + Default + 'static {
    /// What had been told when the life ended at `point` of its trace: everything later is
    /// forgotten. What is said to be durable holds after any [`End`], what is merely written after
    /// [`End::Process`].
    #[must_use]
    fn at(&self, point: usize, end: End) -> Self;
}

/// What is known of each of several things.
impl<K: Ord + Clone + 'static, T: Told> Told for BTreeMap<K, T> {
    fn at(&self, point: usize, end: End) -> Self {
        self.iter().map(|(key, told)| (key.clone(), told.at(point, end))).collect()
    }
}
