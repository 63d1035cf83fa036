//! The bytes of the heap's header: see `docs/format/heap.md`.

use cairn_io::preamble::{Checksum, Preamble, Refusal};

use crate::block::start_of;
use crate::error::{Error, Result};
use crate::identity::PolicyId;
use crate::layout::{ARENA, Geometry, LISTS, RUN_HEADER_LEN, u32_at, u64_at};

/// The fixed part of the header. It never changes after creation.
const FIXED: Preamble<FIXED_LEN> = Preamble::new(*b"CAIRNHEP", 1, Checksum::BehindVersion);

/// Number of roots of a heap. They are numbered from 0.
pub const ROOTS: usize = 32;
/// Length in bytes of the area that is reserved for the user.
pub const USER_AREA_LEN: usize = 64;

const FIXED_LEN: usize = 64;
pub(crate) const NEXT_TAG: usize = 64;
pub(crate) const LAST_LEN: usize = 72;
pub(crate) const LIVE_BLOCKS: usize = 80;
pub(crate) const LIVE_BYTES: usize = 88;
pub(crate) const FREE_RUNS: usize = 96;
pub(crate) const FREE_BYTES: usize = 104;
const CRC: usize = 112;
const USER_AREA: usize = 128;
const BITMAP: usize = USER_AREA + USER_AREA_LEN;
pub(crate) const ROOT_TABLE: usize = 256;
pub(crate) const HEADS: usize = ROOT_TABLE + 16 * ROOTS;
const HEADER_LEN: usize = HEADS + 8 * LISTS;

const _: () = assert!(BITMAP + LISTS / 8 <= ROOT_TABLE && HEADER_LEN as u64 == ARENA);

pub(crate) const ENDS_IN_HEADER: &str = "the stack ends within the heap's header";

/// The whole header of a heap.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) bytes: Box<[u8; HEADER_LEN]>,
}

macro_rules! fields {
    ($($get:ident $set:ident $at:expr;)*) => {
        $(pub(crate) fn $get(&self) -> u64 {
            u64_at(&self.bytes[..], $at)
        }
        pub(crate) fn $set(&mut self, value: u64) {
            self.bytes[$at..$at + 8].copy_from_slice(&value.to_le_bytes());
        })*
    };
}

impl Header {
    /// An empty header, to read the bytes into.
    pub(crate) fn blank() -> Self {
        Header { bytes: Box::new([0; HEADER_LEN]) }
    }

    pub(crate) fn new(policy: PolicyId, key: u64) -> Self {
        let mut header = Header::blank();
        let (number, parameter) = policy.encode();
        header.bytes[16..20].copy_from_slice(&number.to_le_bytes());
        header.bytes[24..32].copy_from_slice(&parameter.to_le_bytes());
        header.bytes[32..40].copy_from_slice(&key.to_le_bytes());
        FIXED.seal(header.bytes.first_chunk_mut().expect("a header is longer"));
        header.set_next_tag(key);
        header.seal();
        header
    }

    fn changing_crc(&self) -> u32 {
        let crc = crc32c::crc32c(&self.bytes[32..40]);
        let crc = crc32c::crc32c_append(crc, &self.bytes[FIXED_LEN..CRC]);
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &[0; 4]), &self.bytes[CRC + 4..])
    }

    /// Writes the checksum of the changing part.
    pub(crate) fn seal(&mut self) {
        let crc = self.changing_crc();
        self.bytes[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Verifies the fixed part, and returns what it says. If the stack is shorter than a header,
    /// the caller has read as many bytes as there are.
    pub(crate) fn identify(&self, stack_len: u64) -> Result<(PolicyId, Geometry)> {
        let judged = FIXED.judge(&self.bytes[..]);
        if judged == Err(Refusal::Foreign) {
            return Err(Error::NotAHeap { len: stack_len });
        }
        if stack_len < ARENA {
            return Err(Error::Corrupt { offset: stack_len, what: ENDS_IN_HEADER });
        }
        match judged {
            Ok(_) => {}
            Err(Refusal::Version(found)) => {
                return Err(Error::UnsupportedVersion { found, supported: FIXED.version() });
            }
            Err(_) => {
                let what = "the fixed part of the heap's header does not match its checksum";
                return Err(Error::Corrupt { offset: 0, what });
            }
        }
        PolicyId::decode(u32_at(&self.bytes[..], 16), u64_at(&self.bytes[..], 24))
            .and_then(|policy| Some((policy, Geometry::of(policy, self.key()).ok()?)))
            .ok_or(Error::Corrupt { offset: 16, what: "there is no such policy" })
    }

    /// Verifies the changing part.
    pub(crate) fn verify(&self) -> Result<()> {
        let corrupt = |offset: usize, what| Err(Error::Corrupt { offset: offset as u64, what });
        if u32_at(&self.bytes[..], CRC) != self.changing_crc() {
            return corrupt(FIXED_LEN, "the heap's header does not match its checksum");
        }
        if self.next_tag() < self.key() {
            return corrupt(NEXT_TAG, "the next tag is below the first one");
        }
        Ok(())
    }

    pub(crate) fn key(&self) -> u64 {
        u64_at(&self.bytes[..], 32)
    }

    fields! {
        next_tag set_next_tag NEXT_TAG;
        last_len set_last_len LAST_LEN;
        live_blocks set_live_blocks LIVE_BLOCKS;
        live_bytes set_live_bytes LIVE_BYTES;
        free_runs set_free_runs FREE_RUNS;
        free_bytes set_free_bytes FREE_BYTES;
    }

    pub(crate) fn user_area(&self) -> &[u8; USER_AREA_LEN] {
        self.bytes[USER_AREA..BITMAP].try_into().expect("as long as the area")
    }

    pub(crate) fn user_area_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[USER_AREA..BITMAP]
    }

    /// The stored handle in a root; 0 is none.
    pub(crate) fn root(&self, slot: usize) -> u128 {
        let at = ROOT_TABLE + 16 * slot;
        u128::from_le_bytes(self.bytes[at..at + 16].try_into().expect("sixteen bytes"))
    }

    pub(crate) fn set_root(&mut self, slot: usize, raw: u128) {
        let at = ROOT_TABLE + 16 * slot;
        self.bytes[at..at + 16].copy_from_slice(&raw.to_le_bytes());
    }

    /// Offset of the first run of a list; 0 if the list is empty.
    pub(crate) fn head(&self, list: usize) -> u64 {
        u64_at(&self.bytes[..], HEADS + 8 * list)
    }

    pub(crate) fn set_head(&mut self, list: usize, at: u64) {
        let head = HEADS + 8 * list;
        self.bytes[head..head + 8].copy_from_slice(&at.to_le_bytes());
        let bit = 1 << (list % 8);
        let byte = &mut self.bytes[BITMAP + list / 8];
        *byte = if at == 0 { *byte & !bit } else { *byte | bit };
    }

    /// Lower bound of the arena's length: the bytes that the header counts, and the headers of live
    /// runs.
    pub(crate) fn least_len(&self) -> u128 {
        let headers = u128::from(self.live_blocks()) * u128::from(RUN_HEADER_LEN);
        headers + u128::from(self.live_bytes()) + u128::from(self.free_bytes())
    }

    /// Highest offset that a root or a list names. The arena reaches beyond it.
    pub(crate) fn reach(&self) -> u64 {
        let roots = (0..ROOTS).map(|slot| start_of(self.root(slot)));
        roots.chain((0..LISTS).map(|list| self.head(list))).max().unwrap_or(0)
    }

    /// Whether the list is not empty, according to the bitmap.
    pub(crate) fn has(&self, list: usize) -> bool {
        self.bytes[BITMAP + list / 8] & 1 << (list % 8) != 0
    }

    /// The first list at or after `list` that is not empty, according to the bitmap.
    pub(crate) fn first_list(&self, list: usize) -> Option<usize> {
        (list..LISTS).find(|list| self.has(*list))
    }

    /// The ranges in which two headers differ. Ranges at most 24 bytes apart are merged.
    pub(crate) fn differences(&self, before: &Header) -> Vec<std::ops::Range<usize>> {
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        for at in (0..HEADER_LEN)
            .step_by(8)
            .filter(|at| self.bytes[*at..at + 8] != before.bytes[*at..at + 8])
        {
            match ranges.last_mut() {
                Some(last) if at - last.end <= 24 => last.end = at + 8,
                _ => ranges.push(at..at + 8),
            }
        }
        ranges
    }
}

/// Refuses a root number that is too high.
pub(crate) fn check_slot(slot: usize) -> Result<()> {
    if slot < ROOTS { Ok(()) } else { Err(Error::NoRoot { slot, count: ROOTS }) }
}
