//! A file of the operating system, through the page cache or however it was opened.

use std::fs::TryLockError;
use std::io::{self, IoSlice};

use crate::dir::Stat;
use crate::fs::File;

#[derive(Debug)]
pub(super) struct NativeFile(pub(super) std::fs::File);

/// No file reaches further: offsets are signed in every system call, and the largest are refused,
/// not taken for the end.
const OFFSET_MAX: u64 = i64::MAX as u64;

impl File for NativeFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // A range that ends beyond is refused as a whole, although its beginning may hold bytes, or
        // simply the end.
        let room = OFFSET_MAX.saturating_sub(offset);
        let wanted = buf.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let buf = &mut buf[..wanted];
        if buf.is_empty() {
            return Ok(0);
        }
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.0, buf, offset);
        #[cfg(windows)]
        match std::os::windows::fs::FileExt::seek_read(&self.0, buf, offset) {
            // ERROR_HANDLE_EOF
            Err(e) if e.raw_os_error() == Some(38) => Ok(0),
            result => result,
        }
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if offset > OFFSET_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        #[cfg(unix)]
        {
            // The smallest IOV_MAX in use; more slices would be EINVAL, fewer are a short write.
            const SLICES_MAX: usize = 1024;
            let slices = &slices[..slices.len().min(SLICES_MAX)];
            rustix::io::pwritev(&self.0, slices, offset).map_err(io::Error::from)
        }
        #[cfg(windows)]
        {
            let first = slices.iter().find(|slice| !slice.is_empty());
            first.map_or(Ok(0), |slice| {
                std::os::windows::fs::FileExt::seek_write(&self.0, slice, offset)
            })
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// Elsewhere than on Linux there is no call that both reserves and reads as zeros: glibc's
    /// `posix_fallocate` falls back to writing, Apple's `F_PREALLOCATE` reserves from the end only,
    /// Windows loses the reservation on close.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        if len == 0 {
            return Ok(()); // the system call refuses it
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// `std` already picks the call that reaches the medium: `fdatasync` (which includes the
    /// length), `F_FULLFSYNC` on Apple, where `fsync` stops at the drive's cache, and
    /// `FlushFileBuffers`.
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }

    #[cfg(unix)]
    fn stat(&self) -> io::Result<Stat> {
        Ok(super::stat::stat_of(&rustix::fs::fstat(&self.0)?))
    }

    #[cfg(not(unix))]
    fn stat(&self) -> io::Result<Stat> {
        super::stat::stat_of(&self.0)
    }

    /// A hole is found without being read. Where there is no such call, nothing is known.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        use rustix::io::Errno;
        let len = self.len()?;
        if offset >= len {
            return Ok(len);
        }
        // Moves the file position, which nothing uses.
        match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(data.min(len)),
            Err(Errno::NXIO) => Ok(len),
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(offset),
            Err(e) => Err(e.into()),
        }
    }
}
