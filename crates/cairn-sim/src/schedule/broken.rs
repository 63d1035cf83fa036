//! What a run reports when something is wrong.

use std::fmt;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// Its name; the same name means the same property in every run.
    pub property: &'static str,
    /// What was found, and what was expected.
    pub text: String,
}

impl Broken {
    /// `property` does not hold, as `text` says.
    #[must_use]
    pub fn new(property: &'static str, text: impl Into<String>) -> Self {
        Self { property, text: text.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}\n{}", self.property, self.text)
    }
}

impl std::error::Error for Broken {}
