//! The one number of a run.

use std::fmt;
use std::str::FromStr;

use crate::dice::Dice;

/// What decides a run: the first number the scripts, both together the schedules, faults and cuts.
/// As text `17` or, for another schedule of the same scripts, `17.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed {
    script: u64,
    variation: u32,
}

impl Seed {
    /// The seed with this number.
    #[must_use]
    pub fn new(script: u64) -> Self {
        Self { script, variation: 0 }
    }

    /// The same scripts with other schedules, faults and cuts.
    #[must_use]
    pub fn variation(self, number: u32) -> Self {
        Self { variation: number, ..self }
    }

    pub(crate) fn script(self, part: u64) -> Dice {
        Dice::part(self.script, part)
    }

    pub(crate) fn dice(self, part: u64) -> Dice {
        Dice::part(self.script ^ (u64::from(self.variation) << 40), part ^ 0x5eed)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variation {
            0 => write!(f, "{}", self.script),
            variation => write!(f, "{}.{variation}", self.script),
        }
    }
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (script, variation) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        match (script.parse(), variation.parse()) {
            (Ok(script), Ok(variation)) => Ok(Self { script, variation }),
            _ => Err(format!("{text:?} is no seed: 17 or 17.3 are")),
        }
    }
}
