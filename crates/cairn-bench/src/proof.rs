//! What is known of a subject: whether a barrier covers each of its acknowledgements.

use serde::{Deserialize, Serialize};

/// What was found out about one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// The answer.
    pub(crate) verdict: Verdict,
    /// Commits looked at.
    pub(crate) commits: usize,
    /// Commits before whose acknowledgement a covering barrier was seen.
    pub(crate) covered: usize,
    /// Commits before whose acknowledgement any barrier was seen since the one before.
    pub(crate) preceded: usize,
    /// Barriers by system call; `dsync write` for writes that are barriers themselves, `sync write`
    /// for those that sync the inode's times as well.
    pub(crate) barriers: Vec<(String, usize)>,
    /// Whether a barrier on the directory of the data was seen, after its file had got its name and
    /// before the first acknowledgement.
    pub(crate) directory_synced: Option<bool>,
    /// Flushes the device completed, for everybody, per commit.
    pub(crate) device_flushes: f64,
    /// Why there is no answer.
    pub(crate) why: Option<String>,
}

/// Whether there is a covering barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Before every acknowledgement.
    Covering,
    /// A barrier before every acknowledgement; what it covers was written in a way that the tracer
    /// does not see.
    BarrierEach,
    /// As many flushes of the device as commits; there was nothing better to go by.
    FlushEach,
    /// Some acknowledgement had no barrier before it.
    No,
    /// It was not looked, or could not be.
    Unknown,
}

impl Proof {
    /// Nobody looked.
    pub(crate) fn not_looked() -> Self {
        Self::unknown(None)
    }

    pub(crate) fn unknown(why: Option<String>) -> Self {
        Proof {
            verdict: Verdict::Unknown,
            commits: 0,
            covered: 0,
            preceded: 0,
            barriers: Vec::new(),
            directory_synced: None,
            device_flushes: 0.0,
            why,
        }
    }

    /// For a column.
    pub(crate) fn short(&self) -> String {
        match self.verdict {
            Verdict::Covering => "yes".to_owned(),
            Verdict::BarrierEach => "yes (writes not seen by the tracer)".to_owned(),
            Verdict::FlushEach => "yes (by the device's flush counter)".to_owned(),
            Verdict::No => {
                format!("**no** ({} of {})", self.covered.max(self.preceded), self.commits)
            }
            Verdict::Unknown => {
                self.why.as_ref().map_or("–".to_owned(), |why| format!("? ({why})"))
            }
        }
    }

    /// Whether its durable figures may be compared: it syncs, or nobody looked.
    pub(crate) fn syncs_or_unknown(&self) -> bool {
        self.verdict != Verdict::No
    }
}
