//! Which of the possible states a power cut leaves: the rules, and who decides.

use crate::choice::Choices;
use crate::model::{CrashModel, MetadataOrder, Torn};
use crate::rng::Rng;

/// Decides which of the possible states a power cut leaves.
#[derive(Clone, Debug)]
pub struct Chooser {
    pub(crate) model: CrashModel,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Nothing,
    Everything,
    Random(Rng),
}

impl Chooser {
    /// Nothing survives that no barrier covered: the least the disk may hold.
    #[must_use]
    pub fn nothing() -> Self {
        Self { model: CrashModel::default(), kind: Kind::Nothing }
    }

    /// Everything survives: as if the machine had been stopped in good order.
    #[must_use]
    pub fn everything() -> Self {
        Self { model: CrashModel::default(), kind: Kind::Everything }
    }

    /// States drawn from a seed; every use gives another one.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { model: CrashModel::default(), kind: Kind::Random(Rng::new(seed)) }
    }

    /// What in-flight sectors can hold.
    #[must_use]
    pub fn torn(mut self, torn: Torn) -> Self {
        self.model.torn = torn;
        self
    }

    /// How names survive.
    #[must_use]
    pub fn metadata_order(mut self, order: MetadataOrder) -> Self {
        self.model.order = order;
        self
    }

    /// Picks and the salt for garbage bytes.
    pub(crate) fn pick(&mut self, choices: &Choices, point: u64) -> (Vec<u32>, u64) {
        match &mut self.kind {
            Kind::Nothing => (choices.nothing(), point),
            Kind::Everything => (choices.everything(), point),
            Kind::Random(rng) => {
                let picks = choices.random(rng);
                (picks, rng.next())
            }
        }
    }
}
