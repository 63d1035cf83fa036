//! A file system that breaks in every way a real one is known to, for testing storage code.
//!
//! Code that keeps data is written against [`cairn_io::Fs`]; [`SimFs`] is one. It records what the
//! code does, and [`CrashExplorer`] then visits the disk states that a power cut could have left,
//! at every point of that record. A state that breaks a promise comes with a number under which it
//! is had again. The process can also die with the page cache intact, and every single system call
//! can be made to fail.
//!
//! # Finding a bug
//!
//! This journal acknowledges each record. Can it be believed?
//!
//! ```
//! use std::io::{self, IoSlice};
//! use std::path::Path;
//! use std::sync::Arc;
//! use cairn_io::{Access, File, Fs, read_full_at, write_all_at};
//! use cairn_sim::{CrashExplorer, SimFs};
//!
//! struct Journal { file: Arc<dyn File>, end: u64 }
//!
//! impl Journal {
//!     fn create(fs: &dyn Fs) -> io::Result<Self> {
//!         let file = fs.create_new(Path::new("/journal"))?;
//!         fs.sync_dir(Path::new("/"))?;
//!         Ok(Self { file, end: 0 })
//!     }
//!
//!     /// Four bytes of length, then the record. Returning `Ok` is the acknowledgement.
//!     fn append(&mut self, record: &[u8]) -> io::Result<()> {
//!         let length = (record.len() as u32).to_le_bytes();
//!         write_all_at(&*self.file, self.end, &[IoSlice::new(&length), IoSlice::new(record)])?;
//!         self.end += 4 + record.len() as u64;
//!         Ok(()) // where is the barrier?
//!     }
//!
//!     fn read(fs: &dyn Fs) -> io::Result<Vec<Vec<u8>>> {
//!         let file = fs.open(Path::new("/journal"), Access::Read)?;
//!         let mut bytes = vec![0; file.len()? as usize];
//!         read_full_at(&*file, 0, &mut bytes)?;
//!         let (mut records, mut rest) = (Vec::new(), &bytes[..]);
//!         while let Some((length, tail)) = rest.split_first_chunk::<4>() {
//!             let length = u32::from_le_bytes(*length) as usize;
//!             let Some((record, tail)) = tail.split_at_checked(length) else { break };
//!             records.push(record.to_vec());
//!             rest = tail;
//!         }
//!         Ok(records)
//!     }
//! }
//!
//! let sim = SimFs::new();
//! let mut journal = Journal::create(&sim)?;
//! let mut acknowledged = Vec::new(); // and when
//! for record in [b"one".to_vec(), b"two".to_vec(), vec![7; 2000]] {
//!     journal.append(&record)?;
//!     acknowledged.push((sim.op_count(), record));
//! }
//!
//! let failure = CrashExplorer::new(sim.trace())
//!     .for_each(|state| {
//!         let told = acknowledged.iter().filter(|(at, _)| *at <= state.point());
//!         let expected: Vec<_> = told.collect();
//!         if expected.is_empty() {
//!             return Ok(()); // nothing was promised yet
//!         }
//!         let found = Journal::read(&state.fs()).map_err(|e| e.to_string())?;
//!         let pairs = expected.iter().zip(&found);
//!         match pairs.filter(|((_, record), found)| record == *found).count() {
//!             n if n == expected.len() => Ok(()),
//!             n => Err(format!("acknowledged {}, still there {n}", expected.len())),
//!         }
//!     })
//!     .unwrap_err();
//! assert_eq!(failure.message, "acknowledged 1, still there 0");
//! # Ok::<(), io::Error>(())
//! ```
//!
//! A failing state prints what survived:
//!
//! ```text
//! acknowledged 1, still there 0
//! power cut at point 3, state 0
//!   done: 0 create /journal
//!   done: 1 sync_dir /
//!   done: 2 write /journal 0..7
//!   next: 3 write /journal 7..14
//!   /journal:
//!     length 0, one of 0, 7
//!     sectors that did not land: 0
//! seed 0; to see this state again, run the test with CAIRN_SIM_REPLAY=3:0
//! ```
//!
//! (With the barrier added, ask that nothing *but* appended records is read: the explorer will find
//! that the length can land without the record.)
//!
//! # The fault model
//!
//! This is the product; the code only carries it out.
//!
//! **Two images.** Running processes see the *live* image. The *durable* image is what is certainly
//! on the disk: of each file its bytes and its length, of each directory its names.
//! [`sync_data`](cairn_io::File::sync_data) makes a file's bytes and length durable, not its name;
//! [`sync_dir`](cairn_io::Dir::sync) makes a directory's names durable, not the bytes of the
//! files. A barrier covers what had returned before it was *called*; what other threads do
//! meanwhile is not covered.
//!
//! **A power cut** at a point of the trace leaves the durable image plus any subset of what no
//! barrier had covered:
//!
//! * Each *sector* (512 or 4096 bytes, [`SectorSize`]) holds one of its versions since the last
//!   barrier, on its own: the durable one, the one after the first write, after the second, and so
//!   on. With [`Torn::Garbage`] it may also hold random bytes where these versions differ. Writes
//!   are thus torn, reordered and skipped in any way.
//! * Each file has one of the *lengths* it had since the last barrier, independently of its bytes;
//!   a write of several pages passes through every multiple of 4096 in between. What lies beyond
//!   that length is lost; what lies inside and did not land is what was there before, or zeros.
//! * Each *name* changed since the last directory barrier leads to one of the files it led to
//!   since, or to none, on its own ([`MetadataOrder::Free`]): of a rename both names can survive,
//!   or neither. Under [`MetadataOrder::Ordered`] a prefix of the directory's operations survives
//!   and renames are whole. A file without a surviving name is gone.
//!
//! **A direct write** ([`open_direct`](cairn_io::Dir::open_direct)) takes whole sectors. It is two
//! operations of the trace: between them it is under way, and any subset of its sectors may have
//! landed; after the second they are durable, whatever had been pending there, and the file is at
//! least that long in every state. Other bytes, and other changes of the length, are as unsynced as
//! they were. Where it *fails*, each of its sectors is old or new after a power cut, whatever later
//! barriers say; processes read the new bytes until [`SimFs::evict`]; no handle has an error to
//! report. Only writing them again settles them.
//!
//! A cut in the middle of another call needs no point of its own: what can be on the disk during a
//! write is among the states after it, what can be there during a barrier is among the states
//! before it.
//!
//! **A failed barrier** behaves as measured on Linux (ext4, xfs, btrfs). The pages are marked
//! clean: the next `sync_data` says `Ok` and writes nothing of them; reads show the new bytes until
//! the cache lets go of them ([`SimFs::evict`]), then what [`FailedSync`] says. After a power cut
//! each of these sectors is old or new, whatever later barriers said; only writing it again puts a
//! sector under the next barrier. A length in doubt is under the next barrier again after any write
//! or length change. The error is reported once to each handle that was open at the time; a handle
//! opened later never hears of it ([`SimFs::fail_write_back`] is the same without a caller). A
//! failed `sync_dir` settles nothing, and a later one may succeed.
//!
//! **Process death** ([`SimFs::kill`], [`SimFs::kill_at`], [`SimFs::restart`]) loses nothing but
//! the locks; the page cache, and everything in doubt, stays as it is.
//!
//! **System calls** fail by [`FaultPlan`]: the n-th of a kind or of all, with an error before or
//! after it was carried out, short, for lack of space, for a sector that cannot be read; and
//! barriers can be made to lie, which every test of durability must notice.
//!
//! **People** move, link, copy, cut and remove files and directories while code runs, fork
//! processes, fill the disk and set the clock: see the methods of [`SimFs`] from [`SimFs::at`] on.
//! Changes that they make of names are durable as those of any process; of a move between
//! directories each name survives on its own.
//!
//! **Symbolic links** ([`SimFs::symlink`]) are followed on the way to a file, at most 40 of them,
//! and at its end to read it. As [`cairn_io::Dir`] says, they are not written through; renaming and
//! removing concerns the link.
//!
//! **Not modelled**: permissions, pipes and devices, memory maps, bit rot other than
//! [`SimFs::flip_bit`], devices that lose what a barrier had covered.
//!
//! # Threads
//!
//! [`run`] runs code in a world whose threads are scheduled by a seed; [`Simulation`] runs a whole
//! [`Workload`] from many seeds, with failing calls, power cuts and further lives. The [`guide`]
//! shows both.

pub mod sync {
    //! Locks, conditions, atomics and threads that a world can schedule. Outside of a world they
    //! behave as std's, whose names they have.

    #[cfg(any(cairn_loom, cairn_shuttle))]
    pub use cairn_io::sync::thread;
    pub use cairn_io::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic,
    };

    #[cfg(not(any(cairn_loom, cairn_shuttle)))]
    pub mod thread {
        //! Threads by std's names. There is no `scope`: a thread of a world may be left where it is
        //! when its world ends early, and would outlive what it borrows.

        pub use cairn_io::sync::thread::{
            Builder, JoinHandle, Thread, ThreadId, current, sleep, spawn, yield_now,
        };
    }
}

#[doc = include_str!("guide.md")]
pub mod guide {
    #[allow(unused_imports, reason = "the page names them")]
    use crate::*;
}

mod choice;
mod chooser;
mod content;
mod crash;
mod dice;
mod dir;
mod disk;
mod explore;
mod explorer;
mod faults;
mod file;
mod fs;
mod inode;
mod machine;
mod model;
mod names;
mod operator;
mod options;
mod paths;
mod rng;
mod schedule;
mod simulation;
mod trace;
mod world;

pub use chooser::Chooser;
pub use dice::Dice;
pub use explore::{Again, Check, Explorations, Visit, Visited, explore_seeds};
pub use explorer::{CrashExplorer, CrashState, Failure, REPLAY_VARIABLE, Report};
pub use faults::{Call, Errno, Fault, FaultPlan};
pub use fs::SimFs;
pub use machine::{Counters, Hold};
pub use model::{MetadataOrder, Torn};
pub use options::{FailedSync, SectorSize, SimOptions};
pub use schedule::{Broken, Decision, Faults, Turn};
pub use simulation::{
    CASE_VARIABLE, End, Explored, FIRST_VARIABLE, Failed, History, Part, RUNS_VARIABLE,
    SECONDS_VARIABLE, SEED_VARIABLE, SERIAL, Script, Seed, Simulation, Sought, Told, Workload,
    seek_bugs,
};
pub use trace::{Op, Trace};
pub use world::{Line, Ran, World, WorldOptions, block_on, call, fail, met, run, say};
