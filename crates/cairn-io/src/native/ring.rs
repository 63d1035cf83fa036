//! An io_uring with one registered buffer, for one write at a time.
//!
//! Invariants:
//! 1. `buffer` is at one address, and registered with the ring, from `new` on until the ring is
//!    gone.
//! 2. `in_flight` is set before the kernel can learn of a request, and cleared when its completion
//!    was seen, or when it is known that the kernel never took it. While it is set nothing is
//!    written to `buffer`, and neither `buffer` nor `ring` is freed: a `Ring` that is dropped like
//!    this is leaked.
//! 3. One request is in flight at most. Its completion is known by its number, which no other
//!    request of this ring had.
//!
//! Why 2: otherwise (1) waiting fails, or panics, with the request in flight; (2) the buffer is
//! filled with the next write's bytes, or freed and used by another thread; (3) the device reads
//! *those* bytes and puts them into the file, at a place that was already acknowledged.
#![allow(unsafe_code, reason = "the kernel reads memory while no Rust code is looking")]

use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use io_uring::{IoUring, Probe, opcode, types};

/// Memory comes in these, so that it is aligned for any device.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; Self::LEN]);

impl Page {
    const LEN: usize = 4096;
}

pub(super) struct Ring {
    ring: ManuallyDrop<IoUring>,
    /// From a `Box<[Page]>`.
    buffer: NonNull<[Page]>,
    in_flight: Option<u64>,
    /// Requests so far.
    requests: u64,
}

// SAFETY: `buffer` is owned and plain bytes, and `IoUring` is `Send`.
unsafe impl Send for Ring {}

/// What became of a write.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As a system call that writes.
    Returned(io::Result<usize>),
    /// The kernel did not take the request, and nothing was written. The ring is of no further use.
    NotTaken,
    /// The kernel took it and does not say what became of it. The ring is of no further use.
    Lost(io::Error),
}

impl Ring {
    /// A ring for writes of up to `pages` pages of 4096 bytes.
    ///
    /// # Errors
    /// When the kernel, a filter of system calls, or a limit does not allow for it.
    pub(super) fn new(pages: usize) -> io::Result<Self> {
        let ring = IoUring::new(2)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::WriteFixed::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let memory = Box::into_raw(vec![Page([0; Page::LEN]); pages].into_boxed_slice());
        let buffer = NonNull::new(memory).expect("a box is not null");
        // From here on dropping it frees the memory.
        let ring = Self { ring: ManuallyDrop::new(ring), buffer, in_flight: None, requests: 0 };
        let whole =
            libc::iovec { iov_base: ring.start().as_ptr().cast(), iov_len: ring.capacity() };
        // SAFETY: the memory is valid until `drop` frees it, which destroys the ring before.
        unsafe { ring.ring.submitter().register_buffers(&[whole]) }?;
        Ok(ring)
    }

    fn start(&self) -> NonNull<u8> {
        self.buffer.cast()
    }

    /// How many bytes one write can have.
    pub(super) fn capacity(&self) -> usize {
        self.buffer.len() * Page::LEN
    }

    /// Writes the slices one after the other from `offset`, durably (`RWF_DSYNC`), and waits until
    /// the kernel says what became of it. What it says may be that fewer bytes were written.
    ///
    /// # Panics
    /// When they are more than [`capacity`](Self::capacity), or the ring is of no further use.
    pub(super) fn write(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        slices: &[IoSlice<'_>],
    ) -> Outcome {
        assert!(self.in_flight.is_none(), "the ring has lost a request");
        // The kernel takes -1 for "where the last write ended".
        if i64::try_from(offset).is_err() {
            return Outcome::Returned(Err(io::ErrorKind::InvalidInput.into()));
        }
        let len = self.fill(slices);
        let Ok(request_len) = u32::try_from(len) else { return Outcome::NotTaken };
        self.requests += 1;
        let number = self.requests;
        // By descriptor, which `file` keeps open until we return: no slot of the ring that could
        // come to mean another file.
        let request = opcode::WriteFixed::new(
            types::Fd(file.as_raw_fd()),
            self.start().as_ptr(),
            request_len,
            0,
        )
        .offset(offset)
        .rw_flags(libc::RWF_DSYNC)
        .build()
        .user_data(number);
        self.in_flight = Some(number);
        // SAFETY: the buffer stays valid and unchanged, and the descriptor open, until the
        // completion was seen, or for good: by `in_flight` for the former, and because this
        // function does not return before, for the latter. If it returns `Lost`, the kernel has its
        // own reference to the file.
        if unsafe { self.ring.submission().push(&request) }.is_err() {
            self.in_flight = None;
            return Outcome::NotTaken;
        }
        self.wait_for(number)
    }

    /// Copies the slices into the buffer, one after the other; returns how many bytes.
    ///
    /// # Panics
    /// When they are more than [`capacity`](Self::capacity).
    fn fill(&mut self, slices: &[IoSlice<'_>]) -> usize {
        assert!(self.in_flight.is_none(), "the kernel may be reading the buffer");
        let mut len = 0;
        for slice in slices {
            assert!(slice.len() <= self.capacity() - len, "more than the buffer holds");
            // SAFETY: `len + slice.len()` bytes lie inside the buffer, as asserted; no reference
            // into it exists, and no request that reads it is in flight.
            unsafe {
                ptr::copy_nonoverlapping(
                    slice.as_ptr(),
                    self.start().as_ptr().add(len),
                    slice.len(),
                )
            };
            len += slice.len();
        }
        len
    }

    /// Has the kernel take the request `number`, and waits for its completion.
    fn wait_for(&mut self, number: u64) -> Outcome {
        loop {
            let entered = self.ring.submit_and_wait(1);
            let mut completions = self.ring.completion();
            if let Some(completion) =
                completions.find(|completion| completion.user_data() == number)
            {
                drop(completions);
                self.in_flight = None;
                let result = completion.result();
                return Outcome::Returned(
                    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)),
                );
            }
            drop(completions);
            match entered {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The kernel looks for requests in that call alone, and it is not made again for
                // this ring.
                Err(_) if !self.ring.submission().is_empty() => {
                    self.in_flight = None;
                    return Outcome::NotTaken;
                }
                Err(e) => return Outcome::Lost(e),
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        // SAFETY: it is not used again.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        // SAFETY: it comes from a box, and the ring, which was the only other one to know it, is
        // gone with no request in flight.
        drop(unsafe { Box::from_raw(self.buffer.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::AsFd;

    use super::*;

    #[expect(
        clippy::print_stderr,
        reason = "a test that checks nothing must not look as if it did"
    )]
    /// A ring, where the machine lets us have one.
    fn ring(pages: usize) -> Option<Ring> {
        Ring::new(pages).map_err(|e| eprintln!("SKIPPED: no io_uring: {e}")).ok()
    }

    #[test]
    fn writes_are_what_a_system_call_would_have_done() {
        let Some(mut ring) = ring(2) else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        let file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a file");
        assert_eq!(ring.capacity(), 8192);
        for round in 0..100_u8 {
            let slices = [vec![round; 100], vec![], vec![round + 1; 8092]];
            let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let written = ring.write(file.as_fd(), u64::from(round) * 10, &slices);
            assert!(matches!(written, Outcome::Returned(Ok(8192))), "{written:?}");
        }
        let found = std::fs::read(&path).expect("the file");
        assert_eq!(found.len(), 990 + 8192);
        for round in 0..99 {
            assert_eq!(found[usize::from(round) * 10..][..10], [round; 10]);
        }
        assert!(found[1090..].iter().all(|byte| *byte == 100));
    }

    /// What the kernel said of a write that failed.
    fn error(outcome: Outcome) -> io::Error {
        match outcome {
            Outcome::Returned(Err(e)) => e,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_is_the_one_of_the_write_and_the_ring_goes_on() {
        let Some(mut ring) = ring(1) else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        let file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a file");
        let reader = OpenOptions::new().read(true).open(&path).expect("the file");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let bytes = [IoSlice::new(b"abc")];
        for _ in 0..3 {
            let refused = error(ring.write(reader.as_fd(), 0, &bytes));
            assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
            let refused = error(ring.write(full.as_fd(), 0, &bytes));
            assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
            let written = ring.write(file.as_fd(), 0, &bytes);
            assert!(matches!(written, Outcome::Returned(Ok(3))), "{written:?}");
        }
        let refused = error(ring.write(file.as_fd(), u64::MAX, &bytes));
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(std::fs::read(&path).expect("the file"), b"abc");
    }

    #[test]
    #[should_panic(expected = "more than the buffer holds")]
    fn more_than_the_buffer_holds_is_not_written() {
        let Some(mut ring) = ring(1) else { panic!("more than the buffer holds") };
        let null = OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
        let bytes = [0; 4095];
        ring.write(null.as_fd(), 0, &[IoSlice::new(&bytes), IoSlice::new(b"ab")]);
    }
}
