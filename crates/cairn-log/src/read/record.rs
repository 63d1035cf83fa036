//! A record as readers hand it out.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::place::{Lsn, Seq};

/// A record, with a payload of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(super) lsn: Lsn,
    pub(super) seq: Seq,
    pub(super) end_lsn: Lsn,
    pub(super) payload: Bytes,
}

impl Record {
    /// Where the record starts.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Its number.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Where it ends, exclusive: a reader or follower that starts here starts with the next record.
    pub fn end_lsn(&self) -> Lsn {
        self.end_lsn
    }

    /// What was appended.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What was appended, by value.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }
}

/// A record whose payload lies in the reader's buffer, until the next one is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    pub(super) lsn: Lsn,
    pub(super) seq: Seq,
    pub(super) end_lsn: Lsn,
    pub(super) payload: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Where the record starts.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Its number.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Where it ends, exclusive: a reader or follower that starts here starts with the next record.
    pub fn end_lsn(&self) -> Lsn {
        self.end_lsn
    }

    /// What was appended.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// A copy that outlives the reader's buffer. Aborts, as a `Vec` does, if there is no memory for
    /// it.
    pub fn to_record(&self) -> Record {
        self.copied(Bytes::copy_from_slice(self.payload))
    }

    /// The same with an error where there is no memory.
    pub(crate) fn try_to_record(&self) -> Result<Record> {
        let mut copy = Vec::new();
        let refused = |_| Error::NoMemoryToRead { lsn: self.lsn, bytes: self.payload.len() as u64 };
        copy.try_reserve_exact(self.payload.len()).map_err(refused)?;
        copy.extend_from_slice(self.payload);
        Ok(self.copied(copy.into()))
    }

    fn copied(&self, payload: Bytes) -> Record {
        Record { lsn: self.lsn, seq: self.seq, end_lsn: self.end_lsn, payload }
    }
}
