//! Looking at a file for a repair: what each of its headers proves, whatever the verdict.

use std::ops::Range;

use super::cases::{Link, Look, Verdict, classify};
use super::survey::{Named, Sight};
use crate::error::{Error, Result};
use crate::format::{EntryKind, FileOffset};
use crate::medium::Medium;

/// What a file holds that may be damaged.
#[derive(Debug)]
pub(crate) struct Assessment {
    /// The row that describes the file.
    pub(crate) found: &'static str,
    /// Whether the row leads to a state: the stack opens.
    pub(crate) opens: bool,
    /// Whether the headers are of different stacks or histories.
    pub(crate) apart: bool,
    /// The valid headers, the newer one first.
    pub(crate) headers: Vec<Proven>,
    pub(crate) file_end: FileOffset,
    /// Why the file is refused.
    pub(crate) refused: Option<Error>,
}

/// A valid header, and what there is of its commit.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) named: Named,
    /// Whether its body verifies.
    pub(crate) has_body: bool,
    /// Ranges of appended bytes that do not verify.
    pub(crate) unproven: Vec<Range<u64>>,
}

/// Looks at the file; changes nothing.
pub(crate) fn assess(medium: &Medium) -> Result<Assessment> {
    let mut sight = Sight::of(medium)?;
    let case = classify(&mut sight)?;
    let link = sight.link();
    let (slots, file_end) = (sight.slots, sight.file_end);
    let mut headers = Vec::new();
    for (nth, slot) in slots.iter().enumerate() {
        if let Ok(named) = slot {
            headers.push(sight.proven(nth, *named)?);
        }
    }
    Ok(Assessment {
        found: case.label,
        opens: matches!(case.verdict, Verdict::Newer(_) | Verdict::Older),
        apart: matches!(link, Link::Apart | Link::OtherHistory),
        headers,
        file_end,
        refused: sight.conclude(case).err(),
    })
}

impl Sight<'_> {
    fn proven(&self, slot: usize, named: Named) -> Result<Proven> {
        let Some(commit) = self.commit(slot)? else {
            return Ok(Proven { named, has_body: false, unproven: Vec::new() });
        };
        let mut unproven = Vec::new();
        for entry in &commit.entries {
            if let EntryKind::Proof { crc } = entry.kind
                && !self.holds(entry, crc)?
            {
                unproven.push(entry.start.0..entry.end().0);
            }
        }
        Ok(Proven { named, has_body: true, unproven })
    }
}
