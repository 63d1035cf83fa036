//! [`File`] over the simulated machine.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_io::{Backend, File, Stat};

use crate::content::MAX_FILE_LEN;
use crate::disk::{Change, Outcome};
use crate::faults::{Call, Errno, Fault};
use crate::inode::FileNode;
use crate::machine::{HandleId, Machine, ProcessId, Shared, alive, yield_natively};
use crate::names::NodeId;

/// What a handle was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    ReadWrite,
    /// Durable writes of whole sectors, and no reading.
    Direct,
}

pub(crate) struct SimFile {
    shared: Arc<Shared>,
    process: ProcessId,
    handle: HandleId,
    node: NodeId,
    /// The name it was opened under, for traces.
    path: Arc<Path>,
    mode: Mode,
    /// Failed barriers of the file that this handle has heard of, or that came before it was
    /// opened.
    errors_seen: AtomicU64,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.shared.lock().closed(self.node, self.handle, self.process);
    }
}

fn too_large() -> io::Error {
    io::ErrorKind::FileTooLarge.into()
}

/// Whether a system refuses a write with this error before it has done anything.
fn is_refusal(error: Errno) -> bool {
    let refusals =
        [io::ErrorKind::Interrupted, io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported];
    refusals.contains(&error.error().kind())
}

impl SimFile {
    pub(crate) fn open(
        shared: &Arc<Shared>,
        machine: &mut Machine,
        process: ProcessId,
        node: NodeId,
        path: Arc<Path>,
        mode: Mode,
    ) -> Arc<dyn File> {
        let errors = machine.disk.file(node).map_or(0, |file| file.errors);
        let handle = machine.opened(node, process);
        let errors_seen = AtomicU64::new(errors);
        Arc::new(Self { shared: shared.clone(), process, handle, node, path, mode, errors_seen })
    }

    fn file<'m>(&self, machine: &'m Machine) -> io::Result<&'m FileNode> {
        machine.disk.file(self.node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn writable(&self) -> io::Result<()> {
        match self.mode {
            Mode::ReadWrite | Mode::Direct => Ok(()),
            Mode::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn check_readable(&self, machine: &mut Machine, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.saturating_add(len as u64);
        let bad = machine.faults.unreadable_ranges().iter().any(|(path, range)| {
            range.start < end
                && offset < range.end
                && machine.disk.lookup(crate::disk::ROOT, path).is_ok_and(|node| node == self.node)
        });
        if bad {
            machine.counters.faults += 1;
            return Err(Errno::Eio.error());
        }
        Ok(())
    }

    /// How many bytes of a write find space.
    fn fit(&self, machine: &Machine, offset: u64, len: usize) -> io::Result<usize> {
        let Some(free) = machine.free_pages() else {
            return Ok(len);
        };
        let content = &self.file(machine)?.live;
        let page = crate::content::PAGE as u64;
        let (mut at, end, mut left) = (offset, offset + len as u64, free);
        while at < end {
            let next = ((at / page + 1) * page).min(end);
            let missing = content.pages_missing(at, next - at);
            if missing > left {
                break;
            }
            left -= missing;
            at = next;
        }
        if at == offset && len > 0 {
            return Err(Errno::Enospc.error());
        }
        Ok(usize::try_from(at - offset).expect("at most len"))
    }

    fn write(&self, machine: &mut Machine, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let n = self.fit(machine, offset, bytes.len())?;
        let bytes: Arc<[u8]> = bytes[..n].into();
        machine.counters.bytes_written += n as u64;
        machine.commit(&self.path, Change::Write { node: self.node, offset, bytes });
        Ok(n)
    }

    fn write_direct(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::WriteDirect)?;
        let sector = machine.disk.sector.len();
        let slices = slices.iter().filter(|slice| !slice.is_empty());
        let aligned = |slice: &IoSlice<'_>| {
            slice.len().is_multiple_of(sector) && slice.as_ptr().addr().is_multiple_of(sector)
        };
        if !offset.is_multiple_of(sector as u64) || !slices.clone().all(aligned) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes: Vec<u8> = slices.flat_map(|slice| slice.iter().copied()).collect();
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > MAX_FILE_LEN) {
            return Err(too_large());
        }
        let n = self.fit(&machine, offset, bytes.len())?;
        let bytes = &bytes[..n];
        // How much is done as it should be, how much more is touched, and what is said.
        let (done, touched, result) = match fault {
            None => (n, n, Ok(n)),
            Some(Fault::Ignore) => {
                self.commit_direct(&mut machine, offset, bytes, Outcome::Ignored);
                return Ok(n);
            }
            Some(Fault::Fail(error)) if is_refusal(error) => (0, 0, Err(error.error())),
            Some(Fault::Fail(error)) => (0, n, Err(error.error())),
            Some(Fault::FailAfter(k, error)) => (k.min(n), n, Err(error.error())),
            Some(Fault::Short(k) | Fault::ShortThenFail(k, _)) => {
                (k.min(n), k.min(n), Ok(k.min(n)))
            }
        };
        let done = done / sector * sector;
        let touched = touched.next_multiple_of(sector);
        if done > 0 {
            self.commit_direct(&mut machine, offset, &bytes[..done], Outcome::Done);
            machine.pause();
            // Killed in the middle of it.
            alive(&machine, self.process)?;
            machine.commit(
                &self.path,
                Change::DirectDone { node: self.node, offset, len: done as u64 },
            );
        }
        if touched > done {
            self.commit_direct(
                &mut machine,
                offset + done as u64,
                &bytes[done..touched],
                Outcome::Failed,
            );
        }
        result
    }

    fn commit_direct(&self, machine: &mut Machine, offset: u64, bytes: &[u8], outcome: Outcome) {
        if !bytes.is_empty() {
            machine.counters.bytes_written += bytes.len() as u64;
            let bytes = bytes.into();
            machine.commit(
                &self.path,
                Change::WriteDirect { node: self.node, offset, bytes, outcome },
            );
        }
    }

    fn set_len_now(&self, machine: &mut Machine, len: u64) -> io::Result<()> {
        if len > MAX_FILE_LEN {
            return Err(too_large());
        }
        machine.commit(&self.path, Change::SetLen { node: self.node, len });
        Ok(())
    }

    fn allocate_now(&self, machine: &mut Machine, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if offset.checked_add(len).is_none_or(|end| end > MAX_FILE_LEN) {
            return Err(too_large());
        }
        let missing = self.file(machine)?.live.pages_missing(offset, len);
        if machine.free_pages().is_some_and(|free| missing > free) {
            return Err(Errno::Enospc.error());
        }
        machine.commit(&self.path, Change::Allocate { node: self.node, offset, len });
        Ok(())
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.mode == Mode::Direct {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (mut machine, fault) = self.shared.enter(self.process, Call::Read)?;
        let want = match fault {
            Some(Fault::Fail(error) | Fault::FailAfter(_, error)) => return Err(error.error()),
            Some(Fault::Short(bytes) | Fault::ShortThenFail(bytes, _)) => bytes.min(buf.len()),
            Some(Fault::Ignore) | None => buf.len(),
        };
        self.check_readable(&mut machine, offset, want)?;
        let n = self.file(&machine)?.live.read(offset, &mut buf[..want]);
        machine.counters.bytes_read += n as u64;
        Ok(n)
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writable()?;
        if self.mode == Mode::Direct {
            return self.write_direct(offset, slices);
        }
        let (mut machine, fault) = self.shared.enter(self.process, Call::Write)?;
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > MAX_FILE_LEN) {
            return Err(too_large());
        }
        match fault {
            None | Some(Fault::Ignore) => self.write(&mut machine, offset, &bytes),
            Some(Fault::Fail(error)) => Err(error.error()),
            Some(Fault::Short(k) | Fault::ShortThenFail(k, _)) => {
                self.write(&mut machine, offset, &bytes[..k.min(bytes.len())])
            }
            Some(Fault::FailAfter(k, error)) => {
                self.write(&mut machine, offset, &bytes[..k.min(bytes.len())])?;
                Err(error.error())
            }
        }
    }

    fn block_size(&self) -> usize {
        match self.mode {
            Mode::Direct => self.shared.lock().disk.sector.len(),
            Mode::Read | Mode::ReadWrite => 1,
        }
    }

    fn backend(&self) -> Backend {
        match self.mode {
            Mode::Direct => Backend::Direct,
            Mode::Read | Mode::ReadWrite => Backend::Buffered,
        }
    }

    fn len(&self) -> io::Result<u64> {
        let (machine, fault) = self.shared.enter(self.process, Call::Len)?;
        match fault {
            Some(Fault::Fail(error) | Fault::FailAfter(_, error)) => Err(error.error()),
            _ => Ok(self.file(&machine)?.live.len()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let (mut machine, fault) = self.shared.enter(self.process, Call::SetLen)?;
        match fault {
            Some(Fault::Fail(error)) => Err(error.error()),
            Some(Fault::FailAfter(_, error)) => {
                self.set_len_now(&mut machine, len).and(Err(error.error()))
            }
            _ => self.set_len_now(&mut machine, len),
        }
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        let (mut machine, fault) = self.shared.enter(self.process, Call::Allocate)?;
        match fault {
            Some(Fault::Fail(error)) => Err(error.error()),
            Some(Fault::FailAfter(_, error)) => {
                self.allocate_now(&mut machine, offset, len).and(Err(error.error()))
            }
            _ => self.allocate_now(&mut machine, offset, len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let covers = {
            let machine = self.shared.lock();
            alive(&machine, self.process)?;
            machine.point()
        };
        // The barrier covers what had returned by now. Letting other threads in makes code that
        // counts on more fail.
        yield_natively();
        let (mut machine, fault) = self.shared.enter(self.process, Call::Sync)?;
        let (outcome, error) = match fault {
            Some(Fault::Fail(error)) => (Outcome::Failed, Some(error)),
            Some(Fault::FailAfter(_, error)) => (Outcome::Done, Some(error)),
            Some(Fault::Ignore) => (Outcome::Ignored, None),
            _ => (Outcome::Done, None),
        };
        machine.commit(&self.path, Change::SyncData { node: self.node, covers, outcome });
        let errors = self.file(&machine)?.errors;
        let unheard = self.errors_seen.swap(errors, Ordering::Relaxed) < errors;
        match error {
            Some(error) => Err(error.error()),
            None if unheard => Err(Errno::Eio.error()),
            None => Ok(()),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Lock)?;
        match fault {
            Some(Fault::Fail(error) | Fault::FailAfter(_, error)) => Err(error.error()),
            _ => Ok(machine.try_lock(self.node, self.handle)),
        }
    }
    fn unlock(&self) -> io::Result<()> {
        self.shared.lock().unlock(self.node, self.handle);
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        let (machine, fault) = self.shared.enter(self.process, Call::Stat)?;
        match fault {
            Some(Fault::Fail(error) | Fault::FailAfter(_, error)) => Err(error.error()),
            _ => Ok(machine.disk.stat(self.node)),
        }
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        let (machine, fault) = self.shared.enter(self.process, Call::DataFrom)?;
        match fault {
            Some(Fault::Fail(error) | Fault::FailAfter(_, error)) => Err(error.error()),
            _ => Ok(self.file(&machine)?.live.data_from(offset)),
        }
    }
}
