//! Any bytes as a group with its frames, an index, a note, a trailer: never a panic, never more
//! than is there, and what is accepted is the same after a round trip.
//!
//! The first 8 bytes say how to sign and where the bytes are to be.

use cairn_log::fuzzing::{self, Signing};

/// The log all groups belong to.
pub const UUID: [u8; 16] = *b"one log for them";

/// How a control byte asks to sign.
#[must_use]
pub fn signing(control: u8, skip: u8) -> Signing {
    let bit = |n: u8| control >> n & 1 == 0;
    Signing {
        skip: if control & 1 == 0 { 0 } else { u32::from(skip) },
        place: bit(1),
        number: bit(2),
        generation: bit(3),
        chain: bit(4),
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<8>() else {
        return;
    };
    let at = u64::from_le_bytes(*control) >> 16;
    // Small positions, large ones, and the last ones there are.
    let lsn = match control[0] >> 6 {
        0 => at & 0xFFFF,
        1 => at << 8,
        2 => at << 20,
        _ => u64::MAX - at,
    };
    let mut signed = bytes.to_vec();
    if control[0] & 0x20 == 0 {
        fuzzing::sign_group(&mut signed, lsn, UUID, signing(control[0], control[1]));
    }
    fuzzing::group(&signed, lsn, UUID);
    fuzzing::index(bytes);
    fuzzing::note(bytes);
    fuzzing::trailer(bytes);
}
