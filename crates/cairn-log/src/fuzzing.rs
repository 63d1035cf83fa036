//! Entry points for the fuzz targets in `fuzz/`: the pure decoders with what must hold of whatever
//! they accept, and a signer, because bytes with wrong checksums are refused before anything
//! interesting looks at them.

use uuid::Uuid;

use crate::format::{
    FRAME_HEADER_LEN, FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeadMark, OPEN_SEQ,
    SUPERBLOCK_LEN, Seed, SegmentName, Superblock, SuperblockError, TRAILER_LEN, decode_index,
    decode_trailer, encode_index, encode_trailer, frame_len, is_place, peek_frame_len, push_frame,
    push_record, read_frame, restamp_frame,
};
use crate::place::{Chain, Lsn, Seq};

const CRC_AT: usize = 12;
const GROUP_MAGIC: u8 = 0xC7;

/// Decodes a superblock; whatever is accepted is encoded to what decodes to the same again. Returns
/// whether it was accepted.
pub fn superblock(bytes: &[u8]) -> bool {
    match Superblock::decode(bytes) {
        Ok(found) => {
            assert_eq!(Superblock::decode(&found.encode()[..]), Ok(found));
            assert_eq!(SegmentName::parse(&found.name().to_string()), Some(found.name()));
            assert!(found.base_lsn < Lsn(1 << 63) && found.head_seq.0 <= found.head_lsn.0);
            assert!(found.base_seq.0 <= found.base_lsn.0 || found.base_seq == OPEN_SEQ);
            true
        }
        Err(SuperblockError::Foreign) => {
            assert!(!bytes.starts_with(b"CAIRNLOG"));
            false
        }
        Err(SuperblockError::Damaged | SuperblockError::Version(_)) => {
            assert!(bytes.starts_with(b"CAIRNLOG"));
            false
        }
    }
}

/// Parses a file name; what is accepted is the only name of that segment.
pub fn name(text: &str) -> bool {
    let parsed = SegmentName::parse(text);
    if let Some(name) = parsed {
        assert_eq!(name.to_string(), text);
    }
    parsed.is_some()
}

/// Decodes the group that is to start at `lsn` and its frames, as a reader does; returns how many
/// frames verified.
pub fn group(bytes: &[u8], lsn: u64, uuid: [u8; 16]) -> usize {
    let uuid = Uuid::from_bytes(uuid);
    let log = Seed::of_log(uuid);
    let lsn = Lsn(lsn);
    let Some(header) = GroupHeader::decode(bytes, lsn, log) else {
        return 0;
    };
    assert_eq!(GroupHeader::decode(&header.encode(log), lsn, log), Some(header));
    assert!(
        header.lsn == lsn && header.durable_lsn <= lsn && header.next_lsn() >= header.frames_end()
    );
    let seed = Seed::of_frames(uuid, header.generation, header.epoch);
    let (mut at, mut frames) = (GROUP_HEADER_LEN, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let room = u64::from(header.len).saturating_sub(at as u64);
        let Some(len) = frame(rest, Lsn(lsn.0.wrapping_add(at as u64)), room, seed) else {
            break;
        };
        at += len;
        frames += 1;
    }
    frames
}

/// Decodes one frame; returns its length.
fn frame(bytes: &[u8], lsn: Lsn, room: u64, seed: Seed) -> Option<usize> {
    let len = peek_frame_len(bytes, room)?;
    assert!(len as u64 <= room && len >= FRAME_HEADER_LEN);
    let found = read_frame(bytes.get(..len)?, lsn, seed)?;
    assert_eq!(frame_len(found.payload.len()), len);
    let mut again = Vec::new();
    match found.kind {
        FrameKind::Record => push_record(&mut again, found.batch, found.payload, lsn, seed),
        kind => push_frame(&mut again, kind, found.payload, lsn, seed),
    }
    let decoded = read_frame(&again, lsn, seed).expect("what was encoded is decoded");
    let same = decoded.kind == found.kind && decoded.batch == found.batch;
    assert!(same && decoded.payload == found.payload && again.len() == len);
    match found.kind {
        FrameKind::Record => {}
        FrameKind::Index => index(found.payload),
        FrameKind::Head | FrameKind::Cut => note(found.payload),
    }
    Some(len)
}

/// Decodes what an index frame holds.
pub fn index(payload: &[u8]) {
    let Some(entries) = decode_index(payload) else { return };
    let seal_len = GROUP_HEADER_LEN + FRAME_HEADER_LEN + payload.len() + TRAILER_LEN;
    let again = encode_index(&entries, seal_len);
    assert_eq!(decode_index(&again), Some(entries));
    // An application's blob is passed over, and not written yet.
    if payload[8..16] == [0; 8] {
        assert_eq!(again, payload);
    }
}

/// Decodes what a head or cut frame holds.
pub fn note(payload: &[u8]) {
    if let Some(mark) = HeadMark::decode(payload) {
        assert_eq!(mark.encode(), payload);
    }
}

/// Decodes a trailer.
pub fn trailer(bytes: &[u8]) {
    if let Some(bytes) = bytes.first_chunk::<TRAILER_LEN>()
        && let Some(len) = decode_trailer(bytes)
    {
        assert_eq!(encode_trailer(len), *bytes);
    }
}

/// Gives a superblock the checksum it should have.
pub fn sign_superblock(block: &mut [u8]) {
    if let Some(block) = block.get_mut(..SUPERBLOCK_LEN) {
        block[CRC_AT..CRC_AT + 4].fill(0);
        let crc = crc32c::crc32c(block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What [`sign_segment`] mends besides checksums, and what it leaves alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signing {
    /// Bit `i` leaves the `i`-th group and its frames as they are.
    pub skip: u32,
    /// Whether groups get the magic byte and the position they must have.
    pub place: bool,
    /// Whether groups get the record number they must have.
    pub number: bool,
    /// Whether groups get their superblock's generation.
    pub generation: bool,
    /// Whether groups get their superblock's epoch, and name the group before them.
    pub chain: bool,
}

/// Gives a segment's superblock, groups and frames the checksums they should have, so that what
/// they say is believed. Groups are found where the ones before them say.
pub fn sign_segment(bytes: &mut [u8], how: Signing) {
    sign_superblock(bytes);
    let Ok(superblock) = Superblock::decode(bytes) else {
        return;
    };
    let Superblock { uuid, generation, base_lsn, base_seq, epoch, .. } = superblock;
    if let Some(groups) = bytes.get_mut(SUPERBLOCK_LEN..) {
        // Where the superblock leaves it open, the first group has the number it must have.
        let first = groups
            .get(32..40)
            .and_then(|field| field.try_into().ok())
            .map(u64::from_le_bytes)
            .map(Seq);
        let seq = if base_seq == OPEN_SEQ { first } else { Some(base_seq) };
        let seq = seq.filter(|seq| is_place(base_lsn, *seq)).unwrap_or_default();
        sign_groups(groups, Whose { uuid, generation, epoch: epoch.0, lsn: base_lsn, seq }, how);
    }
}

/// The same for groups alone, the first of which is to start at `lsn`.
pub fn sign_group(bytes: &mut [u8], lsn: u64, uuid: [u8; 16], how: Signing) {
    sign_groups(
        bytes,
        Whose { uuid: Uuid::from_bytes(uuid), generation: 1, epoch: 0, lsn: Lsn(lsn), seq: Seq(0) },
        how,
    );
}

/// Where groups are, and whose.
#[derive(Clone, Copy)]
struct Whose {
    uuid: Uuid,
    generation: u32,
    epoch: u64,
    lsn: Lsn,
    seq: Seq,
}

fn sign_groups(bytes: &mut [u8], whose: Whose, how: Signing) {
    let log = Seed::of_log(whose.uuid);
    let lsn_at = |at: usize| Lsn(whose.lsn.0.wrapping_add(at as u64));
    let (mut at, mut next_seq, mut previous) = (0usize, whose.seq, None);
    for nth in 0..u32::BITS {
        let lsn = lsn_at(at);
        let Some(header) = bytes.get_mut(at..at.saturating_add(GROUP_HEADER_LEN)) else {
            return;
        };
        let skip = how.skip >> nth & 1 != 0;
        if !skip {
            if how.place {
                header[4] = GROUP_MAGIC;
                header[16..24].copy_from_slice(&lsn.0.to_le_bytes());
            }
            if how.generation {
                header[12..16].copy_from_slice(&whose.generation.to_le_bytes());
            }
            if how.number {
                header[32..40].copy_from_slice(&next_seq.0.to_le_bytes());
            }
            if how.chain {
                header[40..48].copy_from_slice(&whose.epoch.to_le_bytes());
                if let Some(Chain(previous)) = previous {
                    header[48..52].copy_from_slice(&u32::to_le_bytes(previous));
                }
            }
            let crc = crc32c::crc32c_append(crc32c::crc32c(whose.uuid.as_bytes()), &header[4..]);
            header[..4].copy_from_slice(&crc.to_le_bytes());
        }
        let Some(header) = GroupHeader::decode(header, lsn, log) else {
            return;
        };
        previous = Some(header.chain(log));
        let seed = Seed::of_frames(whose.uuid, header.generation, header.epoch);
        let trailer = if header.kind == GroupKind::Seal { TRAILER_LEN } else { 0 };
        let end = at.saturating_add(header.len as usize).saturating_sub(trailer).min(bytes.len());
        let mut frame_at = at + GROUP_HEADER_LEN;
        while frame_at < end {
            let room = &mut bytes[frame_at..end];
            let len = match skip {
                true => peek_frame_len(room, room.len() as u64),
                false => restamp_frame(room, lsn_at(frame_at), seed),
            };
            let Some(len) = len else { break };
            next_seq += u64::from(header.kind == GroupKind::Records);
            frame_at += len;
        }
        at = at.saturating_add(header.len as usize).saturating_add(header.padding as usize);
    }
}
