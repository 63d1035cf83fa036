//! What the file beside the segments says of the log: whose opening is the newest, and how far the
//! log is known to reach.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ALIGN, is_place};
use crate::place::{Chain, Epoch, Lsn, Seq};

/// Bytes of one record of the state, and of the file with two of them. Each is in a block of its
/// own: whatever tears one of them while it is written leaves the other one.
pub(crate) const SLOT_LEN: usize = 4096;
pub(crate) const STATE_LEN: usize = 2 * SLOT_LEN;

const MAGIC: [u8; 8] = *b"CAIRNEPO";
const CRC_AT: usize = 12;
const OPEN: u32 = 1;
const CLOSED: u32 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    uuid: [u8; 16],
    number: U64,
    epoch: U64,
    phase: U32,
    generation: U32,
    durable_lsn: U64,
    lsn: U64,
    seq: U64,
    previous: U32,
    reserved: U32,
    cutters: [U64; 2],
}

const RAW_LEN: usize = size_of::<Raw>();
// One sector: what a disk writes whole.
const _: () = assert!(RAW_LEN <= super::SECTOR_LEN);

/// What was true when an opening began to write, or when it closed the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateRecord {
    pub(crate) uuid: Uuid,
    /// Rises by one with each record; its lowest bit is the slot.
    pub(crate) number: u64,
    /// The newest opening that writes; 0 when the log is being created.
    pub(crate) epoch: Epoch,
    /// Whether it closed the log. Then nothing at or behind `lsn` is the log's.
    pub(crate) closed: bool,
    /// The generation in which it began, or closed.
    pub(crate) generation: u32,
    /// Everything below this was durable.
    pub(crate) durable_lsn: Lsn,
    /// Where the first group of this opening stands, or behind the last one. Every group at or
    /// behind this is the opening's.
    pub(crate) lsn: Lsn,
    /// Number of the first record there.
    pub(crate) seq: Seq,
    /// Names the group that ends at `lsn`.
    pub(crate) previous: Chain,
    /// Openings that may have cut the end of the log since, 0 for none: one whose cut is there, and
    /// one that was about to make one. A cut of any other is a copy's.
    pub(crate) cutters: [Epoch; 2],
}

impl StateRecord {
    /// Where in the file this record goes.
    pub(crate) fn offset(&self) -> u64 {
        (self.number & 1) * SLOT_LEN as u64
    }

    pub(crate) fn encode(&self) -> Box<[u8; SLOT_LEN]> {
        let raw = Raw {
            magic: MAGIC,
            version: U32::new(super::FORMAT_VERSION),
            crc: U32::new(0),
            uuid: *self.uuid.as_bytes(),
            number: U64::new(self.number),
            epoch: U64::new(self.epoch.0),
            phase: U32::new(if self.closed { CLOSED } else { OPEN }),
            generation: U32::new(self.generation),
            durable_lsn: U64::new(self.durable_lsn.0),
            lsn: U64::new(self.lsn.0),
            seq: U64::new(self.seq.0),
            previous: U32::new(self.previous.0),
            reserved: U32::new(0),
            cutters: self.cutters.map(|epoch| U64::new(epoch.0)),
        };
        let mut slot = Box::new([0; SLOT_LEN]);
        slot[..RAW_LEN].copy_from_slice(raw.as_bytes());
        let crc = crc32c::crc32c(&slot[..]);
        slot[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    /// The record in a slot, if it verifies.
    pub(crate) fn decode(slot: &[u8]) -> Option<Self> {
        let slot = slot.first_chunk::<SLOT_LEN>()?;
        let (raw, _) = Raw::read_from_prefix(&slot[..]).ok()?;
        let ours = raw.magic == MAGIC && raw.version.get() == super::FORMAT_VERSION;
        let mut blank = Box::new(*slot);
        blank[CRC_AT..CRC_AT + 4].fill(0);
        if !ours || raw.crc.get() != crc32c::crc32c(&blank[..]) {
            return None;
        }
        let record = StateRecord {
            uuid: Uuid::from_bytes(raw.uuid),
            number: raw.number.get(),
            epoch: Epoch(raw.epoch.get()),
            closed: raw.phase.get() == CLOSED,
            generation: raw.generation.get(),
            durable_lsn: Lsn(raw.durable_lsn.get()),
            lsn: Lsn(raw.lsn.get()),
            seq: Seq(raw.seq.get()),
            previous: Chain(raw.previous.get()),
            cutters: raw.cutters.map(|epoch| Epoch(epoch.get())),
        };
        let sane = matches!(raw.phase.get(), OPEN | CLOSED)
            && record.durable_lsn <= record.lsn
            && record.lsn.0.is_multiple_of(ALIGN)
            && is_place(record.lsn, record.seq);
        sane.then_some(record)
    }
}

/// The newest record in the bytes of a state file. `Ok(None)` when the log was being created, and
/// when nothing was ever written to it; `Err` when something was, and none verifies.
pub(crate) fn newest_state(bytes: &[u8]) -> Result<Option<StateRecord>, ()> {
    let slots = bytes.chunks(SLOT_LEN).take(2).enumerate();
    let records = slots.filter_map(|(at, slot)| {
        StateRecord::decode(slot).filter(|record| record.offset() == (at * SLOT_LEN) as u64)
    });
    match records.max_by_key(|record| record.number) {
        Some(newest) => Ok(Some(newest).filter(|newest| newest.epoch != Epoch::default())),
        None if bytes.iter().all(|b| *b == 0) => Ok(None),
        None => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> StateRecord {
        StateRecord {
            uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            number: 6,
            epoch: Epoch(0x1112_1314_1516_1718),
            closed: true,
            generation: 3,
            durable_lsn: Lsn(4000),
            lsn: Lsn(4056),
            seq: Seq(17),
            previous: Chain(0x2122_2324),
            cutters: [Epoch(0x3132_3334_3536_3738), Epoch(0x4142_4344_4546_4748)],
        }
    }

    #[test]
    fn a_state_is_laid_out_as_documented() {
        let slot = record().encode();
        assert_eq!(slot[..12], *b"CAIRNEPO\x02\0\0\0");
        assert_eq!(slot[16..32], 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10u128.to_be_bytes());
        let words = [6u64, 0x1112_1314_1516_1718];
        assert_eq!(slot[32..48], *words.map(u64::to_le_bytes).concat());
        assert_eq!(slot[48..56], [2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(slot[56..80], *[4000u64, 4056, 17].map(u64::to_le_bytes).concat());
        assert_eq!(slot[80..84], 0x2122_2324u32.to_le_bytes());
        assert_eq!(slot[84..88], [0; 4]);
        let cutters = [0x3132_3334_3536_3738u64, 0x4142_4344_4546_4748];
        assert_eq!(slot[88..104], *cutters.map(u64::to_le_bytes).concat());
        assert!(slot[104..].iter().all(|b| *b == 0));
    }

    #[test]
    fn every_flipped_bit_is_found_and_the_other_slot_is_taken() {
        let older = StateRecord { number: 5, closed: false, ..record() };
        let mut file = [record().encode().to_vec(), older.encode().to_vec()].concat();
        assert_eq!(newest_state(&file), Ok(Some(record())));
        for bit in 0..SLOT_LEN * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StateRecord::decode(&file), None, "bit {bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        file[40] ^= 1;
        assert_eq!(newest_state(&file), Ok(Some(older)));
        file[SLOT_LEN + 40] ^= 1;
        assert_eq!(newest_state(&file), Err(()));
        // A record in the other one's slot is a copy of something.
        let swapped = [older.encode().to_vec(), record().encode().to_vec()].concat();
        assert_eq!(newest_state(&swapped), Err(()));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for len in [0, 1, SLOT_LEN, STATE_LEN] {
            assert_eq!(newest_state(&vec![0; len]), Ok(None));
        }
        assert_eq!(newest_state(&StateRecord::default().encode()[..]), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            uuid: u128, number: u64, epoch: u64, closed: bool, generation: u32,
            lsn in 0..1u64 << 59, back: u64, seq: u64, previous: u32, cutters: [u64; 2],
        ) {
            let lsn = lsn * 8;
            let record = StateRecord {
                uuid: Uuid::from_u128(uuid),
                number,
                epoch: Epoch(epoch),
                closed,
                generation,
                durable_lsn: Lsn(lsn.saturating_sub(back)),
                lsn: Lsn(lsn),
                seq: Seq(seq.min(lsn)),
                previous: Chain(previous),
                cutters: cutters.map(Epoch),
            };
            prop_assert_eq!(StateRecord::decode(&record.encode()[..]), Some(record));
        }

        #[test]
        fn arbitrary_bytes_are_no_state(bytes: Vec<u8>) {
            prop_assert_eq!(StateRecord::decode(&bytes), None);
        }
    }
}
