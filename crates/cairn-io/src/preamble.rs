//! How a file says what it is: the first bytes that every format of Cairn begins with.
//!
//! ```text
//! 0      8         12                     16               32              LEN
//! +------+---------+----------------------+----------------+---------------+
//! | magic| version | checksum, or a field | id, or fields  | fields        |
//! +------+---------+----------------------+----------------+---------------+
//! ```
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | magic: which format |
//! | 8 to 11 | version of the format, little-endian |
//! | 12 to 15 | CRC-32C of the block, unless it is [at the end](Checksum::AtEnd) |
//! | 16 to 31 | [id]: random, drawn at creation; fields in a format without one |
//! | 32 to LEN − 1 | the format's fields |
//!
//! A later version of a format keeps the magic, the version, the length of the block and the place
//! of the checksum. So every version can be told from damage, and there is one order of judgement:
//!
//! 1. no magic: *foreign*. The bytes were never of this format, or their beginning is gone;
//! 2. the checksum does not match, or the block is cut short: *damaged*;
//! 3. another version: *too new* for this program. It comes after 2: a flipped bit in the version
//!    is damage, and a newer program does not help.
//!
//! This module does no I/O and knows no format. It turns bytes into a verdict.

use std::fmt;

/// Bytes 0 to 15: magic, version, and the checksum or four bytes of the format's own.
pub const HEAD_LEN: usize = 16;
/// Bytes of an id; it is at byte [`HEAD_LEN`].
pub const ID_LEN: usize = 16;

const VERSION_AT: usize = 8;
const CHECKSUM_LEN: usize = 4;

/// Where the checksum is; a property of the format, in all its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// At byte 12. It covers the whole block, with its own four bytes taken as zeros.
    BehindVersion,
    /// In the last four bytes of the block. It covers the bytes before it.
    AtEnd,
}

/// The preamble of one format, in a block of `LEN` bytes.
///
/// # Examples
/// ```
/// use cairn_io::preamble::{Checksum, Preamble, Refusal};
///
/// const PREAMBLE: Preamble<64> = Preamble::new(*b"EXAMPLES", 1, Checksum::BehindVersion);
///
/// let mut block = [0; 64];
/// block[32..37].copy_from_slice(b"field");
/// PREAMBLE.seal(&mut block);
/// assert_eq!(PREAMBLE.judge(&block), Ok(&block));
///
/// let mut damaged = block;
/// damaged[32] ^= 1;
/// assert_eq!(PREAMBLE.judge(&damaged), Err(Refusal::Damaged));
/// assert_eq!(PREAMBLE.judge(b"a text file"), Err(Refusal::Foreign));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Preamble<const LEN: usize> {
    magic: [u8; 8],
    version: u32,
    checksum: Checksum,
}

/// Why bytes are not a block of the format and version asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The magic is not there: not this format at all, or its first bytes are gone.
    Foreign,
    /// The magic is there, and the block is cut short or does not match its checksum.
    Damaged,
    /// The block is whole, and its version is this one, which the program does not know.
    Version(u32),
}

impl<const LEN: usize> Preamble<LEN> {
    /// The preamble of the format `magic`, of which the program writes and reads `version`.
    ///
    /// A block too short for head, id and a checksum at the end does not compile.
    pub const fn new(magic: [u8; 8], version: u32, checksum: Checksum) -> Self {
        const { assert!(LEN >= HEAD_LEN + ID_LEN + CHECKSUM_LEN) };
        Preamble { magic, version, checksum }
    }

    /// The version that the program writes and reads.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Writes magic, version and checksum into a block that holds everything else.
    pub fn seal(&self, block: &mut [u8; LEN]) {
        block[..VERSION_AT].copy_from_slice(&self.magic);
        block[VERSION_AT..VERSION_AT + 4].copy_from_slice(&self.version.to_le_bytes());
        let at = self.checksum_at();
        let crc = self.checksum_of(block);
        block[at..at + CHECKSUM_LEN].copy_from_slice(&crc.to_le_bytes());
    }

    /// Judges the first bytes of a file, in the order that is given [above](self). `bytes` may be
    /// shorter than a block, or longer.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub fn judge<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8; LEN], Refusal> {
        if !bytes.starts_with(&self.magic) {
            return Err(Refusal::Foreign);
        }
        let Some(block) = bytes.first_chunk::<LEN>() else {
            return Err(Refusal::Damaged);
        };
        if u32_at(block, self.checksum_at()) != self.checksum_of(block) {
            return Err(Refusal::Damaged);
        }
        match u32_at(block, VERSION_AT) {
            version if version == self.version => Ok(block),
            version => Err(Refusal::Version(version)),
        }
    }

    const fn checksum_at(&self) -> usize {
        match self.checksum {
            Checksum::BehindVersion => HEAD_LEN - CHECKSUM_LEN,
            Checksum::AtEnd => LEN - CHECKSUM_LEN,
        }
    }

    fn checksum_of(&self, block: &[u8; LEN]) -> u32 {
        let at = self.checksum_at();
        let crc = crc32c::crc32c(&block[..at]);
        match self.checksum {
            Checksum::BehindVersion => {
                let crc = crc32c::crc32c_append(crc, &[0; CHECKSUM_LEN]);
                crc32c::crc32c_append(crc, &block[at + CHECKSUM_LEN..])
            }
            Checksum::AtEnd => crc,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Foreign => f.write_str("the bytes are of another format"),
            Refusal::Damaged => f.write_str("the block does not match its checksum"),
            Refusal::Version(found) => write!(f, "the format version {found} is not known"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The id in a block, for formats that have one.
pub fn id<const LEN: usize>(block: &[u8; LEN]) -> [u8; ID_LEN] {
    const { assert!(LEN >= HEAD_LEN + ID_LEN) };
    std::array::from_fn(|at| block[HEAD_LEN + at])
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| block[at + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 48;
    const MAGIC: [u8; 8] = *b"SOMETHIN";

    fn sealed(version: u32, checksum: Checksum) -> [u8; LEN] {
        let mut block = std::array::from_fn(|at| 100 + u8::try_from(at).unwrap());
        Preamble::new(MAGIC, version, checksum).seal(&mut block);
        block
    }

    #[test]
    fn a_preamble_is_laid_out_as_documented() {
        let block = sealed(0x0102_0304, Checksum::BehindVersion);
        assert_eq!(block[..12], *b"SOMETHIN\x04\x03\x02\x01");
        let mut blank = block;
        blank[12..16].fill(0);
        assert_eq!(block[12..16], crc32c::crc32c(&blank).to_le_bytes());
        assert_eq!(id(&block), std::array::from_fn(|at| 116 + u8::try_from(at).unwrap()));
        assert_eq!(block[16..].to_vec(), (116..148).collect::<Vec<u8>>());

        let block = sealed(1, Checksum::AtEnd);
        assert_eq!(block[12..44].to_vec(), (112..144).collect::<Vec<u8>>());
        assert_eq!(block[44..], crc32c::crc32c(&block[..44]).to_le_bytes());
    }

    /// Every combination of what can be wrong, and the one order in which it is told.
    #[test]
    fn foreign_goes_before_damaged_and_damaged_before_too_new() {
        for checksum in [Checksum::BehindVersion, Checksum::AtEnd] {
            let known = Preamble::<LEN>::new(MAGIC, 1, checksum);
            for (foreign, damaged, newer) in (0..8).map(|n| (n & 4 > 0, n & 2 > 0, n & 1 > 0)) {
                let mut block = sealed(1 + u32::from(newer), checksum);
                block[20] ^= u8::from(damaged);
                block[0] ^= u8::from(foreign);
                let verdict = match (foreign, damaged, newer) {
                    (true, ..) => Err(Refusal::Foreign),
                    (false, true, _) => Err(Refusal::Damaged),
                    (false, false, true) => Err(Refusal::Version(2)),
                    (false, false, false) => Ok(&block),
                };
                assert_eq!(known.judge(&block), verdict);
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        for checksum in [Checksum::BehindVersion, Checksum::AtEnd] {
            let (known, good) = (Preamble::<LEN>::new(MAGIC, 1, checksum), sealed(1, checksum));
            let expected = |at| if at < 8 { Refusal::Foreign } else { Refusal::Damaged };
            for bit in 0..LEN * 8 {
                let mut block = good;
                block[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(known.judge(&block), Err(expected(bit / 8)), "bit {bit}");
            }
            for len in 0..LEN {
                assert_eq!(known.judge(&good[..len]), Err(expected(len)), "{len} bytes");
            }
            let longer = [&good[..], b"payload"].concat();
            assert_eq!(known.judge(&longer), Ok(&good));
        }
    }
}
