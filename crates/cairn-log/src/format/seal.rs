//! What the bookkeeping frames hold: the sparse index and trailer of a sealed segment, and the
//! positions that cuts name.

use super::{FRAME_HEADER_LEN, GROUP_HEADER_LEN, frame_len, is_place};
use crate::place::{IndexEntry, Lsn, Seq};

/// Bytes of the trailer that ends a sealed segment's file.
pub(crate) const TRAILER_LEN: usize = 16;

const TRAILER_MAGIC: [u8; 8] = *b"CAIRNEND";
/// The number of entries, and the length of the application's blob.
const COUNT_LEN: usize = 16;
const ENTRY_LEN: usize = 16;

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The payload of the index frame in a seal group of `seal_len` bytes, of which the entries leave
/// some: those are zeros.
pub(crate) fn encode_index(entries: &[IndexEntry], seal_len: usize) -> Vec<u8> {
    let words = entries.iter().flat_map(|e| [e.first_seq.0, e.lsn.0]);
    // No application has a blob yet.
    let words = [entries.len() as u64, 0].into_iter().chain(words);
    let mut payload: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let len = seal_len - GROUP_HEADER_LEN - FRAME_HEADER_LEN - TRAILER_LEN;
    assert!(payload.len() <= len, "a seal has room for its entries");
    payload.resize(len, 0);
    payload
}

/// The entries, or `None` when the lengths are wrong, they do not rise, or what follows them and
/// the blob is not zero.
pub(crate) fn decode_index(payload: &[u8]) -> Option<Vec<IndexEntry>> {
    let len = usize::try_from(u64_at(payload, 0)?).ok()?.checked_mul(ENTRY_LEN)?;
    let blob_len = usize::try_from(u64_at(payload, 8)?).ok()?;
    let (list, rest) = payload[COUNT_LEN..].split_at_checked(len)?;
    let (_, fill) = rest.split_at_checked(blob_len)?;
    let entry = |at| {
        Some(IndexEntry { first_seq: Seq(u64_at(list, at)?), lsn: Lsn(u64_at(list, at + 8)?) })
    };
    let entries: Vec<IndexEntry> = (0..len).step_by(ENTRY_LEN).map(entry).collect::<Option<_>>()?;
    let rises = entries.is_sorted_by(|a, b| a.lsn < b.lsn && a.first_seq <= b.first_seq);
    (rises && fill.iter().all(|b| *b == 0)).then_some(entries)
}

/// Bytes of the shortest seal group with this many index entries: header, index frame, trailer. It
/// may be longer, by a multiple of 8.
pub(crate) fn seal_len(entries: usize) -> usize {
    GROUP_HEADER_LEN + frame_len(COUNT_LEN + entries * ENTRY_LEN) + TRAILER_LEN
}
const _: () = assert!(TRAILER_LEN.is_multiple_of(super::ALIGN_LEN));

/// The last bytes of a sealed file: how long the seal group is, so that it is found from the end.
pub(crate) fn encode_trailer(seal_len: u32) -> [u8; TRAILER_LEN] {
    let mut bytes = [0; TRAILER_LEN];
    bytes[..8].copy_from_slice(&TRAILER_MAGIC);
    bytes[8..12].copy_from_slice(&seal_len.to_le_bytes());
    bytes[12..].copy_from_slice(&(!seal_len).to_le_bytes());
    bytes
}

/// Length of the seal group that ends with this trailer.
pub(crate) fn decode_trailer(bytes: &[u8; TRAILER_LEN]) -> Option<u32> {
    let len = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
    (*bytes == encode_trailer(len)).then_some(len)
}

/// A position with its record number: the payload of a head or cut frame, followed by the log's
/// identity, so that a store whose beginning was dropped still tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadMark {
    pub(crate) lsn: Lsn,
    pub(crate) seq: Seq,
    pub(crate) uuid: [u8; 16],
}

impl HeadMark {
    pub(crate) const LEN: usize = 32;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.uuid);
        bytes
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let uuid = payload.get(16..Self::LEN)?.try_into().ok()?;
        (payload.len() == Self::LEN).then_some(())?;
        let mark = HeadMark { lsn: Lsn(u64_at(payload, 0)?), seq: Seq(u64_at(payload, 8)?), uuid };
        is_place(mark.lsn, mark.seq).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_trailer_is_found_only_whole() {
        let good = encode_trailer(0x0001_0203);
        assert_eq!(good, *b"CAIRNEND\x03\x02\x01\x00\xfc\xfd\xfe\xff");
        assert_eq!(decode_trailer(&good), Some(0x0001_0203));
        for bit in 0..TRAILER_LEN * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_trailer(&bytes), None, "bit {bit}");
        }
        assert_eq!(decode_trailer(&[0; TRAILER_LEN]), None);
    }

    #[test]
    fn an_index_rises() {
        let entry = |seq, lsn| IndexEntry { first_seq: Seq(seq), lsn: Lsn(lsn) };
        let good = [entry(0, 0), entry(5, 70_000), entry(5, 140_000), entry(9, 210_000)];
        let shortest = |entries: &[IndexEntry]| encode_index(entries, seal_len(entries.len()));
        assert_eq!(decode_index(&shortest(&good)).unwrap(), good);
        assert_eq!(decode_index(&shortest(&[])).unwrap(), []);
        assert!(decode_index(&[]).is_none());
        for bad in
            [[entry(0, 8), entry(1, 8)], [entry(0, 8), entry(1, 0)], [entry(2, 0), entry(1, 8)]]
        {
            assert!(decode_index(&shortest(&bad)).is_none(), "{bad:?}");
        }
        for len in 0..COUNT_LEN + good.len() * ENTRY_LEN {
            assert!(decode_index(&shortest(&good)[..len]).is_none(), "{len} bytes");
        }
    }

    #[test]
    fn a_seal_is_as_long_as_it_is_to_be_and_its_fill_is_zero() {
        let entries = [
            IndexEntry { first_seq: Seq(3), lsn: Lsn(8) },
            IndexEntry { first_seq: Seq(4), lsn: Lsn(80_000) },
        ];
        for more in (0..100).step_by(8) {
            let mut payload = encode_index(&entries, seal_len(2) + more);
            assert_eq!(
                GROUP_HEADER_LEN + frame_len(payload.len()) + TRAILER_LEN,
                seal_len(2) + more
            );
            assert_eq!(decode_index(&payload).unwrap(), entries);
            for at in COUNT_LEN + 2 * ENTRY_LEN..payload.len() {
                payload[at] = 1;
                assert!(decode_index(&payload).is_none(), "byte {at}");
                payload[at] = 0;
            }
        }
        let mut payload = encode_index(&entries, seal_len(2));
        for count in [3, u64::MAX / 16, u64::MAX] {
            payload[..8].copy_from_slice(&count.to_le_bytes());
            assert!(decode_index(&payload).is_none(), "{count} entries");
        }
    }

    #[test]
    fn a_mark_names_a_possible_place() {
        let good = HeadMark { lsn: Lsn(4000), seq: Seq(17), uuid: [9; 16] };
        let bytes = good.encode();
        assert_eq!(bytes, *[&4000u64.to_le_bytes()[..], &17u64.to_le_bytes(), &[9; 16]].concat());
        assert_eq!(HeadMark::decode(&bytes), Some(good));
        for len in 0..HeadMark::LEN {
            assert_eq!(HeadMark::decode(&bytes[..len]), None);
        }
        assert_eq!(HeadMark::decode(&[&bytes[..], &[0]].concat()), None);
        for (lsn, seq) in [(8, 9), (0, 1), (1 << 63, 0), (u64::MAX, u64::MAX)] {
            assert_eq!(
                HeadMark::decode(&HeadMark { lsn: Lsn(lsn), seq: Seq(seq), ..good }.encode()),
                None,
                "{lsn} {seq}"
            );
        }
    }

    proptest! {
        #[test]
        fn trailers_and_marks_round_trip(len: u32, lsn in 0..1u64 << 63, seq: u64, uuid: [u8; 16]) {
            prop_assert_eq!(decode_trailer(&encode_trailer(len)), Some(len));
            let mark = HeadMark { lsn: Lsn(lsn), seq: Seq(seq.min(lsn)), uuid };
            prop_assert_eq!(HeadMark::decode(&mark.encode()), Some(mark));
        }

        #[test]
        fn arbitrary_bytes_decode_within_bounds(bytes: Vec<u8>, trailer: [u8; TRAILER_LEN]) {
            if let Some(entries) = decode_index(&bytes) {
                prop_assert!(COUNT_LEN + entries.len() * ENTRY_LEN <= bytes.len());
            }
            prop_assert_eq!(decode_trailer(&trailer), None);
            HeadMark::decode(&bytes);
        }
    }
}
