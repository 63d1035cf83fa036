//! The seam for allocation policies: the trait, its view of a heap, and its answers.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::header::{HEADS, Header};
use crate::identity::PolicyId;
use crate::layout::{ARENA, Geometry, LISTS, Run};
use crate::mutation::{self, Mutation};
use crate::walk::{self, Source};

/// Decides where blocks are placed. Implement it to place them your own way.
///
/// A block lies in a *run*: a header of 32 bytes, then the block. When a heap allocates a block, or
/// moves one that grows, it asks its policy two questions: how long the run is, and where it
/// starts. The heap does everything else: it writes headers, keeps free runs in lists by length,
/// joins adjacent free runs, cuts the stack when its last run becomes free, commits, and checks. A
/// block that shrinks, or grows into free space behind it, stays in place; for it the heap asks
/// [`run_len`](Self::run_len) only.
///
/// Cairn's own policies are [`Slab`](crate::Slab), [`Linear`](crate::Linear) and
/// [`SizeClass`](crate::SizeClass). `examples/buddy` is one more.
///
/// # When, and under which lock
///
/// The heap calls a policy within a [transaction](crate::Heap::transaction), in the thread that
/// runs it. That thread holds the heap's turn to change, so one heap never calls its policy twice
/// at once. Readers do not wait: a slow policy delays changes, not reads. A policy must not use the
/// heap that calls it: a change would wait for ever, and a read would see an older state. If the
/// policy panics, the transaction changes nothing, and the heap stays usable.
///
/// # What a policy may assume
///
/// * The lengths that it gets are multiples of the [granule](FreeRuns::granule) and at most about
///   2^61, and offsets are below 2^62. The sum of two does not overflow.
/// * The heap has verified every run that [`FreeRuns`] returns: it is free, and it is in the list
///   of its length. It stays free until [`place`](Self::place) returns.
/// * Nothing about the order of calls. If a transaction fails, the runs that it placed never
///   existed. A policy may keep state (behind a lock or in atomics, because it gets `&self`), but
///   only as a hint, such as the place to continue a search. That state is not durable.
///
/// # What is verified
///
/// The heap verifies every answer before it changes a byte: the run is long enough for the block;
/// its offset and length are multiples of the granule; it lies within one free run or behind the
/// last run; and the bytes that it leaves free before it are none or enough for a run. If an answer
/// is wrong, the allocation fails with [`Error::Policy`] and changes nothing. So a wrong policy can
/// waste space or refuse, but it cannot lose a block, leak one, or allocate a byte twice. The heap
/// does not detect a policy that never returns.
///
/// # What is stored
///
/// A new heap stores the policy's [id](Self::id), and later opens only with a policy of that id.
/// Reading needs no policy: [`Heap::attach`](crate::Heap::attach), [`check`](crate::check()) and
/// `cairn heap` work with every heap.
///
/// # Examples
/// Best fit: the shortest free run that is long enough.
/// ```
/// use cairn_heap::{FreeRuns, Heap, Place, Policy, PolicyId, Result};
///
/// #[derive(Debug)]
/// struct BestFit;
///
/// impl Policy for BestFit {
///     fn id(&self) -> PolicyId {
///         PolicyId::Custom { number: 0x9e37_79b9, parameter: 0 }
///     }
///
///     fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
///         // Runs of a later list are longer than all of an earlier one.
///         let mut list = free.next_list(free.list_of(run_len));
///         while let Some(nth) = list {
///             let runs = free.runs(nth).collect::<Result<Vec<_>>>()?;
///             let fits = runs.into_iter().filter(|run| run.len >= run_len);
///             if let Some(run) = fits.min_by_key(|run| run.len) {
///                 return Ok(Place::Within { run, start: run.start });
///             }
///             list = free.next_list(nth + 1);
///         }
///         Ok(Place::AtEnd { gap: 0 })
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// let heap = Heap::open(cairn_stack::Stack::open(&path)?, BestFit)?;
/// let blocks = [2000, 50, 1000, 50].map(|len| heap.alloc(len));
/// let [longer, _, shorter, _] = blocks;
/// let (longer, shorter) = (longer?, shorter?);
/// heap.dealloc(longer)?;
/// heap.dealloc(shorter)?;
/// assert_eq!(heap.alloc(900)?.start(), shorter.start());
/// heap.close()?;
///
/// // No other policy opens it.
/// let stack = cairn_stack::Stack::open(&path)?;
/// assert!(Heap::open(stack, cairn_heap::SizeClass).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Policy: Send + Sync + fmt::Debug {
    /// The identity that a new heap stores: [`PolicyId::Custom`] with a number of your own. The
    /// heap calls it once, when it is opened. It must be the same at every opening.
    fn id(&self) -> PolicyId;

    /// Length of a block's run in bytes, header included. `shortest` is the length of the shortest
    /// run that holds the block; the default returns it.
    ///
    /// The answer must be at least `shortest`, a multiple of the granule (16 for all policies but
    /// [`Slab`](crate::Slab)), and at most 2^61. Bytes beyond `shortest` stay unused until the
    /// block grows; at most about 4 GiB are allowed. If the rest of a free run behind the new run
    /// would be too short for a run, the heap adds it to the new run.
    fn run_len(&self, shortest: u64) -> u64 {
        shortest
    }

    /// Place for a run of `run_len` bytes: within a free run, or at the end of the arena.
    ///
    /// # Errors
    /// Return errors of [`FreeRuns`] as they are. They break the transaction, even if the policy
    /// drops them. Any other error fails the allocation; a policy that limits the heap returns
    /// [`Error::TooLarge`], for example.
    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {
        $(impl<P: Policy + ?Sized> Policy for $pointer {
            fn id(&self) -> PolicyId {
                (**self).id()
            }

            fn run_len(&self, shortest: u64) -> u64 {
                (**self).run_len(shortest)
            }

            fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
                (**self).place(run_len, free)
            }
        })*
    };
}

forward!(Arc<P>, Box<P>);

/// A place for a run. Offsets are offsets in the heap's stack, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Within a free run. The bytes before and behind the new run stay free.
    Within {
        /// The free run, as [`FreeRuns`] showed it during this call.
        run: FreeRun,
        /// Offset of the new run: the free run's start, or at least [`FreeRuns::run_min`] bytes
        /// behind it. A multiple of the granule, relative to the arena's start.
        start: u64,
    },
    /// At the end of the arena. The stack grows.
    AtEnd {
        /// Free bytes between the last run and the new one: 0, or at least [`FreeRuns::run_min`].
        /// A multiple of the granule.
        gap: u64,
    },
}

/// A free run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FreeRun {
    /// Offset in the heap's stack, in bytes.
    pub start: u64,
    /// Length in bytes, header included.
    pub len: u64,
}

impl FreeRun {
    /// One past its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The free runs of a heap, in lists by their length, as a policy sees them.
///
/// There are 192 lists, numbered from 0 by rising length: a run of a later list is longer than
/// every run of an earlier one. The first 32 lists hold runs of one length each, 1 to 32 granules.
/// In each of the others but the last, lengths differ by less than an eighth. The run that was
/// freed last is the first of its list.
///
/// Each run costs one read of 48 bytes from the stack, usually from the page cache.
pub struct FreeRuns<'a> {
    source: &'a mut dyn Source,
    header: &'a Header,
    geometry: Geometry,
    /// The first error of an iteration. The policy may drop it.
    error: Option<Error>,
    /// The run that was read last.
    seen: Option<Run>,
}

impl fmt::Debug for FreeRuns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreeRuns").field("arena", &self.arena()).finish_non_exhaustive()
    }
}

impl<'a> FreeRuns<'a> {
    pub(crate) fn new(source: &'a mut dyn Source, header: &'a Header, geometry: Geometry) -> Self {
        FreeRuns { source, header, geometry, error: None, seen: None }
    }

    /// Range of all runs: from the end of the heap's header to the end of its stack.
    #[must_use]
    pub fn arena(&self) -> Range<u64> {
        ARENA..self.source.len()
    }

    /// Lengths of runs, and their offsets relative to the arena's start, are multiples of it. In
    /// bytes: 16 for all policies but [`Slab`](crate::Slab).
    #[must_use]
    pub fn granule(&self) -> u64 {
        self.geometry.granule
    }

    /// Length of the shortest run in bytes: 48 for all policies but [`Slab`](crate::Slab).
    #[must_use]
    pub fn run_min(&self) -> u64 {
        self.geometry.run_min()
    }

    /// Number of free runs.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.header.free_runs()
    }

    /// Bytes of all free runs, headers included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.header.free_bytes()
    }

    /// The list for free runs of `run_len` bytes. It may hold shorter and longer ones, too.
    #[must_use]
    pub fn list_of(&self, run_len: u64) -> usize {
        self.geometry.list_of(run_len)
    }

    /// The first list at or after `list` that is not empty.
    #[must_use]
    pub fn next_list(&self, list: usize) -> Option<usize> {
        self.header.first_list(list)
    }

    /// The free runs of one list; none if `list` is too high. The iterator reads each run when it
    /// reaches it.
    ///
    /// # Errors
    /// The iterator ends after its first error: [`Error::Corrupt`] if the list is damaged,
    /// [`Error::Stack`] if the system cannot read.
    pub fn runs(&mut self, list: usize) -> impl Iterator<Item = Result<FreeRun>> {
        let mut next = self.first(list);
        std::iter::from_fn(move || {
            let read = next.clone().and_then(|next| match next {
                None => Ok(None),
                Some((at, from)) => self.read(list, at, from).map(Some),
            });
            match read {
                Ok(None) => None,
                Ok(Some((run, after))) => {
                    next = Ok(after.map(|after| (after, run.start)));
                    Some(Ok(run))
                }
                Err(error) => {
                    next = Ok(None);
                    self.error.get_or_insert_with(|| error.clone());
                    Some(Err(error))
                }
            }
        })
    }

    /// Offset of the first run of a list, and the link back that this run must have: 0.
    fn first(&self, list: usize) -> Result<Option<(u64, u64)>> {
        if list >= LISTS {
            return Ok(None);
        }
        let head = self.header.head(list);
        if (head != 0) != self.header.has(list) {
            let what = "the bit of this list of free runs is wrong";
            return Err(Error::Corrupt { offset: (HEADS + 8 * list) as u64, what });
        }
        Ok(Some((head, 0)).filter(|(head, _)| *head != 0))
    }

    /// The free run at `at`, which must link back to `from`, and the offset of the next run.
    ///
    /// The link back ends every circle with an error: the first run that the iterator would reach
    /// twice has two predecessors, and links back to one of them only.
    fn read(&mut self, list: usize, at: u64, from: u64) -> Result<(FreeRun, Option<u64>)> {
        let (run, next, back) = walk::free_at(self.source, self.geometry, at)?;
        if back != from && !mutation::is(Mutation::TrustLinks) {
            return Err(Error::Corrupt { offset: at, what: "links of free runs do not match" });
        }
        if self.geometry.list_of(run.len) != list {
            let what = "a free run is in the list of another length";
            return Err(Error::Corrupt { offset: at, what });
        }
        self.seen = Some(run);
        Ok((FreeRun { start: at, len: run.len }, Some(next).filter(|next| *next != 0)))
    }

    /// The first error of all iterations, and the run that was read last.
    pub(crate) fn finish(self) -> (Option<Error>, Option<Run>) {
        (self.error, self.seen)
    }
}
