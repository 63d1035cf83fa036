//! How a log can end, and what opening does: the table by which recovery decides.
//!
//! Recovery computes the columns ([`Seen`]) from what it reads, looks up the row
//! ([`CASES`](table::CASES)), and acts by the row's verdict. No other code decides. A combination
//! of columns that no writer, crash or damage can leave is [`IMPOSSIBLE`](table::IMPOSSIBLE). Forged
//! bytes may still show one, and then opening refuses. A test goes over all combinations and finds
//! one row for each.
//!
//! Writes that no barrier covered reach the disk in any order. So neither "a later group verifies"
//! nor "no later group verifies" tells a torn tail from corruption. The watermark does. Each group
//! carries the durable LSN known when it was written. The highest one found anywhere, behind damage
//! too, proves that everything below it was durable. `P` is the end of the verifying prefix, a seal
//! excluded. `W` is the highest watermark.
//!
//! The form is that of `recovery_cases` in TigerBeetle's `src/vsr/journal.zig`.

#[cfg(feature = "mutations")]
use std::cell::RefCell;
#[cfg(feature = "mutations")]
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::table::{CASES, Case, IMPOSSIBLE};

mod table;
#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests;

/// Declares columns: small enums that know all their values.
macro_rules! columns {
    ($($(#[$about:meta])* $column:ident { $($(#[$says:meta])* $value:ident,)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $column {
            $($(#[$says])* $value,)+
        }

        impl $column {
            /// Every value of the column.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$value),+];
        }
    )+};
}

columns! {
    /// In what the log ends.
    Medium {
        /// A segment whose file was made for it: it held nothing but zeros.
        Fresh,
        /// A segment in the file of a dropped one: what that one held lies behind the last group.
        Recycled,
        /// A store that is whole.
        Store,
        /// A store whose beginning was dropped, and the superblock with it.
        Beheaded,
    }

    /// The last group of the verifying prefix.
    Last {
        /// There is no group.
        Nothing,
        /// A Mark: everything before it is durable.
        Mark,
        /// A Seal. Nothing behind it is looked at: the four columns that follow are as in a log
        /// that ends in order.
        Seal,
        /// Records, Head or Cut.
        Other,
    }

    /// What lies from `P` to the end of the sector of 512 bytes in which the byte at `P` lies. In a
    /// recycled segment there is no such byte when the sector starts at `P`, unless `P` is the
    /// base: a flush that ends with a sector fills none with zeros.
    At {
        /// Zeros, or the end of the file.
        Zeros,
        /// Something else.
        Bytes,
        /// A group header that verifies at `P` itself: what is wrong is in its frames.
        Header,
    }

    /// What lies behind that sector, and groups behind `P`.
    Behind {
        /// Zeros, or the end of the file.
        Zeros,
        /// Something else, in which no group header verifies.
        Bytes,
        /// A group header verifies behind `P`, of this generation or a higher one.
        Groups,
    }

    /// Whether the device reads what lies at `P` and behind it.
    Device {
        /// All of it.
        Reads,
        /// Not all of it.
        Fails,
    }

    /// The end of the prefix against the highest watermark.
    Proof {
        /// `P >= W`: everything that is known to have been durable is there.
        Held,
        /// `P < W`: bytes between them had been durable and do not verify.
        Broken,
    }

    /// Whether a segment precedes this one.
    Before {
        /// None does.
        Nothing,
        /// One does.
        Segment,
    }

    /// Segments without a group that follow this one.
    Successor {
        /// None.
        Nothing,
        /// The one whose base is where the seal ends. For a reader also one that a writer created
        /// after the directory was listed.
        Next,
        /// Others.
        Other,
    }

    /// What the state beside the segments says of the end: the newest opening that wrote, and how
    /// far the log reached.
    Stated {
        /// Nothing: the log is in a store, or its creation was interrupted.
        Nothing,
        /// The log reaches as far, and what follows is of that opening.
        Held,
        /// The log had been longer.
        Short,
        /// Some group is of another history: it does not follow the one before it, or no opening is
        /// known that could have written it.
        Other,
    }

    /// The head, below which records were dropped: the highest one that is noted.
    Head {
        /// At or before `P`.
        Within,
        /// Behind `P`: records up to there had existed.
        Beyond,
        /// In a store without its beginning, no Head group is left, or the newest one names a place
        /// before what is left.
        Unknown,
    }
}

/// What recovery found at the end of a log: one value per column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) medium: Medium,
    pub(crate) last: Last,
    pub(crate) at: At,
    pub(crate) behind: Behind,
    pub(crate) device: Device,
    pub(crate) proof: Proof,
    pub(crate) before: Before,
    pub(crate) successor: Successor,
    pub(crate) stated: Stated,
    pub(crate) head: Head,
}

impl Seen {
    /// The first look at a medium: no group, nothing behind, no segment around.
    pub(crate) const fn nothing(medium: Medium) -> Self {
        Seen {
            medium,
            last: Last::Nothing,
            at: At::Zeros,
            behind: Behind::Zeros,
            device: Device::Reads,
            proof: Proof::Held,
            before: Before::Nothing,
            successor: Successor::Nothing,
            stated: Stated::Nothing,
            head: Head::Within,
        }
    }
}

/// How a log ends, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// At a mark, or before the first group: everything is durable.
    Closed,
    /// At the end of some other group: what lies above the watermark may be in the page cache
    /// alone.
    Unclosed,
    /// In bytes that do not verify and were never known durable.
    Torn,
    /// In a loss.
    Corrupt,
}

/// What opening does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Writes on behind the last group, the mark first, again.
    GoOn,
    /// Writes what lies above the watermark again, in a new generation, and drops what follows `P`.
    Carry,
    /// Looks at the segment before: this one is none of the log yet.
    StepBack,
    /// Changes nothing, and names the loss.
    Refuse(Loss),
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// What did not verify at `P`.
    Damage,
    /// The segment that follows a seal.
    Successor,
    /// Everything from `P` on.
    End,
    /// What the log was from some group on: another history took its place.
    History,
    /// The Head group that had been durable before a store's beginning was dropped.
    Head,
}

/// How a log ended when it was opened or inspected: one row of the table by which opening decides,
/// which is in `docs/format/log.md`.
///
/// Finer than [`EndState`](crate::EndState). The label is stable; new rows may come.
///
/// ```
/// # fn main() -> cairn_log::Result<()> {
/// # let dir = tempfile::tempdir().expect("a directory");
/// let log = cairn_log::Log::open(dir.path().join("log"))?;
/// log.commit(b"record")?;
/// let look = cairn_log::Inspection::open(dir.path().join("log"))?;
/// assert_eq!(look.end_case().label(), "unclosed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndCase(usize);

impl EndCase {
    /// What a log is before its first record.
    pub(crate) const EMPTY: EndCase = EndCase(0);

    /// A few words that name the row, such as `torn tail`.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// What the row says of the log, for an operator.
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// All rows, in the order of the table.
    pub fn all() -> impl Iterator<Item = EndCase> {
        (0..CASES.len()).map(EndCase)
    }

    /// The row that this combination of columns is.
    pub(crate) fn of(seen: &Seen) -> EndCase {
        let row = CASES.iter().position(|case| case.when.iter().any(|p| p.matches(seen)));
        row.filter(|_| impossible(seen).is_none()).map_or(forged(), EndCase)
    }

    /// Counts a decision by this row, for a log that ends in `medium`.
    pub(crate) fn note(self, medium: Medium) {
        #[cfg(feature = "mutations")]
        MET.with_borrow_mut(|met| *met.entry((self.0, medium as usize)).or_default() += 1);
        #[cfg(not(feature = "mutations"))]
        let _ = medium;
    }

    pub(crate) fn ending(self) -> Ending {
        self.row().ending
    }

    pub(crate) fn act(self) -> Act {
        self.row().act
    }

    fn row(self) -> &'static Case {
        &CASES[self.0]
    }
}

impl fmt::Display for EndCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl fmt::Debug for EndCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndCase({})", self.label())
    }
}

/// The row that stands for the impossible combinations: the last one.
fn forged() -> EndCase {
    EndCase(CASES.len() - 1)
}

/// Why no log ends like this, if none does.
fn impossible(seen: &Seen) -> Option<&'static str> {
    let named = IMPOSSIBLE.iter().find(|row| row.when.iter().any(|p| p.matches(seen)));
    named.map(|row| row.why)
}

#[cfg(feature = "mutations")]
thread_local! {
    /// How often this thread decided by each row, in what the log ended: an exploration tells so
    /// which rows it never met.
    static MET: RefCell<BTreeMap<(usize, usize), u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Each row that can occur, in what, and how often the calling thread decided by it there.
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub fn end_cases_met() -> Vec<(EndCase, String, u64)> {
    let possible: BTreeSet<(usize, usize)> = combinations()
        .filter(|seen| impossible(seen).is_none())
        .map(|seen| (EndCase::of(&seen).0, seen.medium as usize))
        .collect();
    let medium = |at: usize| format!("{:?}", Medium::ALL[at]).to_lowercase();
    MET.with_borrow(|met| {
        let count = |at| met.get(at).copied().unwrap_or(0);
        possible.iter().map(|at| (EndCase(at.0), medium(at.1), count(at))).collect()
    })
}

/// All combinations of columns.
#[cfg(any(test, feature = "mutations"))]
fn combinations() -> impl Iterator<Item = Seen> {
    let mut all: Vec<Seen> = Medium::ALL.iter().copied().map(Seen::nothing).collect();
    /// Multiplies what is there by the values of one column.
    macro_rules! times {
        ($($field:ident: $column:ident),+) => {$(
            all = all
                .into_iter()
                .flat_map(|seen| $column::ALL.iter().map(move |v| Seen { $field: *v, ..seen }))
                .collect();
        )+};
    }
    times!(last: Last, at: At, behind: Behind, device: Device, proof: Proof);
    times!(before: Before, successor: Successor, stated: Stated, head: Head);
    all.into_iter()
}
