//! Any bytes as a superblock: refused for the right reason, or accepted and the same after a round
//! trip.
//!
//! The first byte says whether the checksum is put right; what follows is the block, zeros up to
//! its full length unless it says otherwise.

use cairn_log::fuzzing;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((control, block)) = data.split_first() else {
        return;
    };
    let mut block = block.to_vec();
    if control & 2 == 0 {
        block.resize(4096.max(block.len()), 0);
    }
    if control & 1 == 0 {
        fuzzing::sign_superblock(&mut block);
    }
    if control & 4 != 0 {
        block.truncate(usize::from(*control) << 4);
    }
    fuzzing::superblock(&block);
    fuzzing::name(&String::from_utf8_lossy(data));
}
