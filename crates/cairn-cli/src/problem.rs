//! What is wrong with a log, for tables and for JSON.

use cairnlog::{CorruptionKind, Error};
use serde::Serialize;

/// One thing that is wrong.
#[derive(Debug, Serialize)]
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
    message: String,
}

impl Problem {
    pub(crate) fn of(error: &Error) -> Self {
        let bare = |kind| Problem {
            kind,
            file: None,
            offset: None,
            lsn: None,
            resumes_lsn: None,
            message: format!("{:#}", anyhow::Error::from(error.clone())),
        };
        let of_file = |kind, path: &std::path::Path| Problem { file: Some(path.display().to_string()), ..bare(kind) };
        match error {
            Error::Corrupt(damage) => Problem {
                lsn: Some(damage.lsn.0),
                offset: Some(damage.offset),
                resumes_lsn: damage.resumes.map(|lsn| lsn.0),
                ..of_file(kind_name(damage.kind), &damage.path)
            },
            Error::Foreign { path } => of_file("foreign", path),
            Error::WrongLog { path, .. } => of_file("wrong-log", path),
            Error::UnsupportedVersion { path, .. } => of_file("unsupported-version", path),
            Error::Io { path, .. } => of_file("io", path),
            _ => bare("other"),
        }
    }

    /// A line for a list of problems.
    pub(crate) fn to_line(&self) -> String {
        let extent = match (self.lsn, self.resumes_lsn) {
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
        CorruptionKind::MissingSegment => "missing-segment",
        CorruptionKind::Misnamed => "misnamed",
        _ => "damage",
    }
}
