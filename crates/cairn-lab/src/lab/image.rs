//! The content of a block device, in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

pub(crate) const BLOCK_LEN: usize = 4096;

type Block = [u8; BLOCK_LEN];

/// Bytes of a block device. Blocks of zeros take no space, and copies share what they have in
/// common.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    blocks: Vec<Option<Arc<Block>>>,
}

impl Image {
    /// A device of zeros; `len` is a multiple of the block length.
    pub(crate) fn zeroed(len: u64) -> Self {
        Image { blocks: vec![None; usize::try_from(len).unwrap_or(usize::MAX) / BLOCK_LEN] }
    }

    pub(crate) fn len(&self) -> u64 {
        (self.blocks.len() * BLOCK_LEN) as u64
    }

    /// What a file holds.
    pub(crate) fn from_file(file: &File) -> io::Result<Self> {
        let mut image = Image::zeroed(file.metadata()?.len());
        let mut buffer = vec![0; 64 * BLOCK_LEN];
        for extent in data_extents(file, image.len())? {
            let mut at = extent.start;
            while at < extent.end {
                let wanted = buffer.len().min((extent.end - at) as usize);
                file.read_exact_at(&mut buffer[..wanted], at)?;
                image.write(at, &buffer[..wanted]);
                at += wanted as u64;
            }
        }
        Ok(image)
    }

    /// Writes everything that is not zero to a file of zeros.
    pub(crate) fn save(&self, file: &File) -> io::Result<()> {
        file.set_len(self.len())?;
        for (i, block) in self.blocks.iter().enumerate() {
            if let Some(block) = block {
                file.write_all_at(&block[..], (i * BLOCK_LEN) as u64)?;
            }
        }
        Ok(())
    }

    /// Reads from `offset`; beyond the end there are zeros.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) {
        buf.fill(0);
        for (i, within, part) in pieces(offset, buf.len()) {
            if let Some(Some(block)) = self.blocks.get(i) {
                let len = part.len();
                buf[part].copy_from_slice(&block[within..within + len]);
            }
        }
    }

    /// Writes at `offset`; what lies beyond the end is left out.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (i, within, part) in pieces(offset, bytes.len()) {
            let Some(slot) = self.blocks.get_mut(i) else { return };
            let bytes = &bytes[part];
            if slot.is_none() && is_zero(bytes) {
                continue;
            }
            let block = Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; BLOCK_LEN])));
            block[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Makes a file equal to this image again. Only what differs is written; the cost is that of
    /// reading what the file holds.
    pub(crate) fn restore(&self, file: &File) -> io::Result<()> {
        let mut buffer = vec![0; 64 * BLOCK_LEN];
        let mut at = 0;
        for extent in data_extents(file, self.len())? {
            self.restore_hole(file, at..extent.start)?;
            at = extent.start;
            while at < extent.end {
                let wanted = buffer.len().min((extent.end - at) as usize);
                file.read_exact_at(&mut buffer[..wanted], at)?;
                for (i, found) in buffer[..wanted].chunks(BLOCK_LEN).enumerate() {
                    self.restore_block(file, at + (i * BLOCK_LEN) as u64, found)?;
                }
                at += wanted as u64;
            }
        }
        self.restore_hole(file, at..self.len())
    }

    fn restore_block(&self, file: &File, at: u64, found: &[u8]) -> io::Result<()> {
        match &self.blocks[(at / BLOCK_LEN as u64) as usize] {
            Some(block) if block[..] != *found => file.write_all_at(&block[..], at),
            None if !is_zero(found) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(fallocate(file, flags, at, BLOCK_LEN as u64)?)
            }
            _ => Ok(()),
        }
    }

    fn restore_hole(&self, file: &File, hole: Range<u64>) -> io::Result<()> {
        let blocks =
            (hole.start / BLOCK_LEN as u64) as usize..(hole.end / BLOCK_LEN as u64) as usize;
        for i in blocks {
            if let Some(block) = &self.blocks[i] {
                file.write_all_at(&block[..], (i * BLOCK_LEN) as u64)?;
            }
        }
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// Cuts `len` bytes from `offset` at block boundaries: block, position in it, range of the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let (block, within) = ((at / BLOCK_LEN as u64) as usize, (at % BLOCK_LEN as u64) as usize);
        let end = len.min(done + BLOCK_LEN - within);
        let part = done..end;
        done = end;
        Some((block, within, part))
    })
}

/// Where a file has data, in blocks; the rest are holes.
fn data_extents(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    let block = BLOCK_LEN as u64;
    let mut extents: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < len => start / block * block,
            Ok(_) | Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start.max(at)))?.next_multiple_of(block).min(len);
        extents.push(start.max(at)..end);
        at = end;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written_across_blocks() {
        let mut image = Image::zeroed(4 * BLOCK_LEN as u64);
        let before = image.clone();
        image.write(4000, &[7; 5000]);
        let mut buf = [1; 6000];
        image.read(3500, &mut buf);
        assert!(buf[..500].iter().all(|b| *b == 0));
        assert!(buf[500..5500].iter().all(|b| *b == 7));
        assert!(buf[5500..].iter().all(|b| *b == 0));
        before.read(3500, &mut buf);
        assert!(is_zero(&buf), "a copy does not change");
    }

    #[test]
    fn restores_a_file_in_which_anything_changed() {
        let mut image = Image::zeroed(8 * BLOCK_LEN as u64);
        image.write(BLOCK_LEN as u64, &[1; BLOCK_LEN]);
        image.write(5 * BLOCK_LEN as u64 + 100, &[2; 200]);
        let file = tempfile::tempfile().unwrap();
        image.save(&file).unwrap();
        file.write_all_at(&[9; 3000], 0).unwrap();
        file.write_all_at(&[0; BLOCK_LEN], BLOCK_LEN as u64).unwrap();
        file.write_all_at(&[9; 1], 5 * BLOCK_LEN as u64 + 150).unwrap();
        file.write_all_at(&[9; 1], 7 * BLOCK_LEN as u64).unwrap();
        image.restore(&file).unwrap();
        let (mut wanted, mut found) = (vec![0; 8 * BLOCK_LEN], vec![0; 8 * BLOCK_LEN]);
        image.read(0, &mut wanted);
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, wanted);
        let mut again = vec![0; 8 * BLOCK_LEN];
        Image::from_file(&file).unwrap().read(0, &mut again);
        assert_eq!(again, wanted);
    }
}
