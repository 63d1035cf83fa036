//! Which records of a log a command is about.

use cairnlog::{Inspection, Lsn, RecordRef, Seq, Start};

/// Where the records begin and end.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Range {
    /// Start at this LSN, where a record must start or end
    #[arg(long, value_name = "LSN", conflicts_with = "from_seq")]
    from: Option<u64>,
    /// Start at the record with this number; the first one ever has 0
    #[arg(long, value_name = "N")]
    from_seq: Option<u64>,
    /// End before this LSN: records that start there or behind are left out
    #[arg(long, value_name = "LSN", conflicts_with = "to_seq")]
    to: Option<u64>,
    /// End before the record with this number
    #[arg(long, value_name = "N")]
    to_seq: Option<u64>,
}

impl Range {
    pub(crate) fn start(&self) -> Start {
        match (self.from, self.from_seq) {
            (Some(lsn), _) => Start::Lsn(Lsn(lsn)),
            (None, Some(seq)) => Start::Seq(Seq(seq)),
            (None, None) => Start::Lsn(Lsn::START),
        }
    }

    /// The same, or the first of the last `count` records, if so many are asked for.
    pub(crate) fn start_of_last(&self, count: Option<u64>, log: &Inspection) -> Start {
        let first = |count| log.next_seq().0.saturating_sub(count).max(log.head_seq().0);
        count.map_or_else(|| self.start(), |count| Start::Seq(Seq(first(count))))
    }

    /// Whether the range ends before this record.
    pub(crate) fn ends_before(&self, record: &RecordRef<'_>) -> bool {
        self.to.is_some_and(|to| record.lsn().0 >= to)
            || self.to_seq.is_some_and(|to| record.seq().0 >= to)
    }
}
