//! What is wrong with a log, for tables and for JSON.

use cairnlog::{CorruptionKind, Error};
use serde::Serialize;

use crate::text::one_line;

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem {
    kind: &'static str,
    /// File it is in, or before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// First damaged position.
    #[serde(skip_serializing_if = "Option::is_none")]
    lsn: Option<u64>,
    /// Where records verify again.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumes_lsn: Option<u64>,
    /// One past the last damaged position.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_lsn: Option<u64>,
    /// Records that are lost with it, if that can be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    records_lost: Option<u64>,
    /// Number of the first of them, if that can be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seq_lost: Option<u64>,
    pub(crate) message: String,
}

impl Problem {
    /// Any error of a command; `kind` if the log has no word for it.
    pub(crate) fn of_any(error: &anyhow::Error, kind: &'static str) -> Self {
        let log_error = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
        let mut problem = log_error.map_or_else(|| Self::bare(kind, String::new()), Self::of);
        if problem.kind == "other" {
            problem.kind = kind;
        }
        problem.message = one_line(&format!("{error:#}"));
        problem
    }

    /// Arguments that make no sense.
    pub(crate) fn of_usage(message: String) -> Self {
        Self::bare("usage", message)
    }

    /// What keeps a file from being looked at.
    pub(crate) fn corrupt(message: String) -> Self {
        Self::bare("corrupt", message)
    }

    fn bare(kind: &'static str, message: String) -> Self {
        Problem {
            kind,
            file: None,
            offset: None,
            lsn: None,
            resumes_lsn: None,
            end_lsn: None,
            records_lost: None,
            first_seq_lost: None,
            message,
        }
    }

    pub(crate) fn of(error: &Error) -> Self {
        let bare = |kind| Self::bare(kind, format!("{:#}", anyhow::Error::from(error.clone())));
        let of_file = |kind, path: &std::path::Path| Problem {
            file: Some(path.display().to_string()),
            ..bare(kind)
        };
        match error {
            Error::Corrupt(damage) => Problem {
                lsn: Some(damage.lsn.0),
                offset: Some(damage.offset),
                resumes_lsn: damage.resumes.map(|lsn| lsn.0),
                end_lsn: damage.lost.map(|lost| lost.to.0),
                records_lost: damage.lost.and_then(|lost| lost.records),
                first_seq_lost: damage
                    .lost
                    .filter(|lost| lost.records != Some(0))
                    .and_then(|lost| lost.first_seq)
                    .map(|seq| seq.0),
                ..of_file(kind_name(damage.kind), &damage.path)
            },
            Error::Foreign { path } => of_file("foreign", path),
            Error::WrongLog { path, .. } => of_file("wrong-log", path),
            Error::OtherHistory { path, lsn, .. } => {
                Problem { lsn: Some(lsn.0), ..of_file("other-history", path) }
            }
            Error::UnsupportedVersion { path, .. } => of_file("unsupported-version", path),
            Error::Io { path, .. } => of_file("io", path),
            _ => bare("other"),
        }
    }

    /// A line for a list of problems.
    pub(crate) fn to_line(&self) -> String {
        let extent = match (self.lsn, self.end_lsn.or(self.resumes_lsn)) {
            (Some(from), Some(to)) => format!("LSN {from}..{to}"),
            (Some(from), None) => format!("LSN {from}.."),
            (None, _) => "-".to_owned(),
        };
        format!("  {extent}  {}: {}\n", self.kind, self.message)
    }
}

fn kind_name(kind: CorruptionKind) -> &'static str {
    match kind {
        CorruptionKind::Superblock => "superblock",
        CorruptionKind::Group => "group",
        CorruptionKind::Record => "record",
        CorruptionKind::Index => "index",
        CorruptionKind::Unreadable => "unreadable",
        CorruptionKind::Padding => "padding",
        CorruptionKind::Note => "note",
        CorruptionKind::History => "other-history",
        CorruptionKind::End => "cut-short",
        CorruptionKind::State => "state",
        CorruptionKind::MissingSegment => "missing-segment",
        CorruptionKind::ShortSegment => "short-segment",
        CorruptionKind::Misnamed => "misnamed",
        _ => "damage",
    }
}
