//! Linux: handles whose writes go past the page cache and are durable when they return.
//!
//! `O_DIRECT` alone promises nothing: the device's cache may hold the bytes, and the length may not
//! be on the disk. `O_DSYNC` makes the write return after a flush, or sends it with FUA, as the
//! device can.
//!
//! Refused is what would not be direct. Some file systems take `O_DIRECT` and write through the
//! page cache (btrfs with checksums, ext4 with a data journal); an error of the write-back is then
//! reported once for the descriptor, and of two writes at the same time the wrong one may hear of
//! it ([`DirectStore`](crate::DirectStore) relies on that not being so). `STATX_DIOALIGN` tells;
//! where the kernel is too old for it (before 6.1), two file systems are known to write directly.
//!
//! A write over dirty pages of the cache writes these back first, and drops the pages when it is
//! done, so that the cache does not show what was there before. For a system call, ext4 and XFS
//! hold the file's lock meanwhile, which buffered writes take, too; for a request of an io_uring
//! they let go of it.

use std::io::{self, IoSlice};
#[cfg(feature = "io-uring")]
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FsWord, StatxFlags, fstatfs, statx};

use super::file::NativeFile;
#[cfg(feature = "io-uring")]
use super::rings::Rings;
use crate::backend::Backend;
use crate::dir::Stat;
use crate::fs::File;

/// `EXT4_SUPER_MAGIC` (ext2 and ext3, too) and `XFS_SUPER_MAGIC`.
const KNOWN_TO_BE_DIRECT: [FsWord; 2] = [0xEF53, 0x5846_5342];

/// Every device's blocks divide it, as far as Linux runs on it without larger ones being reported.
const LARGEST_USUAL_BLOCK: u32 = 4096;

#[derive(Debug)]
pub(super) struct DirectFile {
    file: NativeFile,
    block_size: usize,
    #[cfg(feature = "io-uring")]
    rings: Option<Rings>,
}

impl DirectFile {
    /// A file that was opened with `O_DIRECT` and `O_DSYNC`, if its writes are direct.
    pub(super) fn new(file: NativeFile) -> io::Result<Self> {
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        let block = match statx(&file.0, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
            Ok(stat) if stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
                // Zero says that there is no direct I/O.
                if stat.stx_dio_offset_align == 0 {
                    return Err(unsupported());
                }
                stat.stx_dio_offset_align.max(stat.stx_dio_mem_align)
            }
            Ok(_) | Err(_) if KNOWN_TO_BE_DIRECT.contains(&fstatfs(&file.0)?.f_type) => {
                LARGEST_USUAL_BLOCK
            }
            Ok(_) | Err(_) => return Err(unsupported()),
        };
        let block_size = usize::try_from(block)
            .ok()
            .filter(|block| block.is_power_of_two())
            .ok_or_else(unsupported)?;
        Ok(Self {
            file,
            block_size,
            #[cfg(feature = "io-uring")]
            rings: None,
        })
    }

    #[cfg(feature = "io-uring")]
    pub(super) fn with_rings(self, rings: Option<Rings>) -> Self {
        Self { rings, ..self }
    }
}

impl File for DirectFile {
    /// Fails: the handle is not open for reading.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        #[cfg(feature = "io-uring")]
        if let Some(rings) = &self.rings {
            return rings
                .write(self.file.0.as_fd(), offset, slices, || self.file.write_at(offset, slices));
        }
        self.file.write_at(offset, slices)
    }

    fn block_size(&self) -> usize {
        self.block_size
    }

    fn backend(&self) -> Backend {
        #[cfg(feature = "io-uring")]
        if self.rings.as_ref().is_some_and(Rings::in_use) {
            return Backend::Uring;
        }
        Backend::Direct
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.file.stat()
    }
}
