//! The table of recovery: everything that the two slots of a stack can hold, and the verdict.
//!
//! Every combination of the columns is described by exactly one row, or is impossible for a reason
//! that has a name; a test goes over all of them. The crash exploration counts how often it meets
//! each row, and fails unless it meets exactly those that say [`Crash::Leaves`].
//! `docs/format/stack.md` shows the same table.

/// What the first block of a slot holds.
///
/// The slots are ordered: the *newer* one is the valid one with the higher commit number; when
/// fewer than two are valid, the one that comes first here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// A header of this version that verifies.
    Valid,
    /// A header of another version that verifies.
    OtherVersion,
    /// The magic, and a rest that does not verify.
    Torn,
    /// No magic.
    Foreign,
}

/// How two valid headers are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// One stack, consecutive commits, the newer one starts from the older one's length and names
    /// its header.
    Follows,
    /// One stack, and the newer header names another one than the older header: a copy of the stack
    /// was written to, and one of the two is of that copy, or of another time.
    OtherHistory,
    /// Anything else.
    Apart,
    /// There are no two valid headers.
    Single,
}

/// What the file holds of the newer header's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The body, and the appended bytes that it names.
    Holds,
    /// No body that verifies.
    BodyLost,
    /// The body, but not the appended bytes that it names.
    BytesLost,
}

/// Whether the file holds the body of the older header's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// It verifies.
    Whole,
    /// It does not.
    Lost,
}

/// Whether the file holds the bytes that the older header's commit appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// They verify.
    Whole,
    /// They do not.
    Lost,
}

/// The length of the file, compared with the state that the other columns lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// As long as that state, or longer.
    Enough,
    /// Shorter: it was cut from outside.
    Short,
}

/// Which values of a column a row admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted<T: 'static> {
    Any,
    Is(T),
    Not(T),
    Either(&'static [T; 2]),
}

impl<T: Copy + PartialEq> Wanted<T> {
    fn admits(self, found: T) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Is(wanted) => found == wanted,
            Wanted::Not(unwanted) => found != unwanted,
            Wanted::Either(wanted) => wanted.contains(&found),
        }
    }
}

/// The state that a row leads to. The newer header's commit is *n*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// State *n*.
    Newer(Older),
    /// State *n − 1*: a crash cut off commit *n*.
    Older,
    /// The file is not a stack.
    Foreign,
    /// The file was written by another version.
    OtherVersion,
    /// The headers are of two histories of one stack.
    OtherHistory,
    /// No state can be proven.
    Corrupt(Place),
}

/// What the older slot holds, if the state is *n*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    /// Commit *n − 1*. Its changes in place may be missing and are written again.
    Replayed,
    /// Commit *n − 1*. Its changes in place were durable before its body was overwritten.
    Durable,
    /// A part of commit *n + 1*, which a crash cut off.
    CutOff,
}

/// Where the damage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The beginning of the file.
    Start,
    /// The older header.
    OlderHeader,
    /// The body of the newer commit, or what it appended.
    NewerCommit,
    /// The end of the file.
    End,
}

/// Whether a crash can leave a row, on a device that keeps A1 to A7 of `ASSUMPTIONS.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// It can, and crash exploration meets it.
    Leaves,
    /// It cannot, for this reason.
    Never(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "mutations"),
    allow(unreachable_pub, dead_code, reason = "tests alone see it")
)]
pub struct Case {
    /// Describes the file in words; `info`, `verify` and errors print it.
    pub(crate) label: &'static str,
    newer: Wanted<Slot>,
    older: Wanted<Slot>,
    link: Wanted<Link>,
    proof: Wanted<Proof>,
    older_body: Wanted<Body>,
    older_bytes: Wanted<Bytes>,
    length: Wanted<Length>,
    pub(crate) verdict: Verdict,
    crash: Crash,
}

#[cfg(feature = "mutations")]
impl Case {
    /// Describes the file in words.
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// Why no crash can leave such a file; `None` if one can.
    pub fn never(&self) -> Option<&'static str> {
        match self.crash {
            Crash::Leaves => None,
            Crash::Never(reason) => Some(reason),
        }
    }
}

/// A row that admits everything.
const ANY: Case = Case {
    label: "",
    newer: Wanted::Any,
    older: Wanted::Any,
    link: Wanted::Any,
    proof: Wanted::Any,
    older_body: Wanted::Any,
    older_bytes: Wanted::Any,
    length: Wanted::Any,
    verdict: Verdict::Foreign,
    crash: Crash::Leaves,
};

/// Two valid headers that follow each other.
const PAIR: Case = Case {
    newer: Wanted::Is(Slot::Valid),
    older: Wanted::Is(Slot::Valid),
    link: Wanted::Is(Link::Follows),
    ..ANY
};

/// One valid header. If the other slot holds another version, that is a row of its own.
const SINGLE: Case = Case {
    newer: Wanted::Is(Slot::Valid),
    older: Wanted::Not(Slot::OtherVersion),
    link: Wanted::Is(Link::Single),
    ..ANY
};

const OTHER_VERSION: &str = "no crash makes one version out of another";
const ONE_BEFORE: &str = "header n is written only while the other slot holds header n − 1";
const BARRIER_BEFORE: &str = "commit n is begun only after the barrier of commit n − 1 returned, \
                              and touches nothing that proves commit n − 1";
const LONG_ENOUGH: &str =
    "the file of a durable state is as long as that state, and no commit cuts it shorter";

/// The table. The rows are in no order: exactly one of them describes a file.
#[cfg_attr(
    not(feature = "mutations"),
    allow(unreachable_pub, reason = "tests alone see it from outside")
)]
pub const CASES: [Case; 17] = [
    Case {
        label: "neither slot holds a header",
        newer: Wanted::Is(Slot::Foreign),
        older: Wanted::Is(Slot::Foreign),
        verdict: Verdict::Foreign,
        // A store whose creation was cut off.
        crash: Crash::Leaves,
        ..ANY
    },
    Case {
        label: "a header of another version",
        newer: Wanted::Is(Slot::OtherVersion),
        verdict: Verdict::OtherVersion,
        crash: Crash::Never(OTHER_VERSION),
        ..ANY
    },
    Case {
        label: "a header of another version beside one of this version",
        newer: Wanted::Is(Slot::Valid),
        older: Wanted::Is(Slot::OtherVersion),
        verdict: Verdict::OtherVersion,
        crash: Crash::Never(OTHER_VERSION),
        ..ANY
    },
    Case {
        label: "neither header verifies",
        newer: Wanted::Is(Slot::Torn),
        verdict: Verdict::Corrupt(Place::Start),
        crash: Crash::Never(
            "one slot is written between two barriers; only the creation of a store writes both, \
             each header within one sector",
        ),
        ..ANY
    },
    Case {
        label: "the headers do not follow each other",
        newer: Wanted::Is(Slot::Valid),
        older: Wanted::Is(Slot::Valid),
        link: Wanted::Is(Link::Apart),
        verdict: Verdict::Corrupt(Place::OlderHeader),
        crash: Crash::Never(ONE_BEFORE),
        ..ANY
    },
    Case {
        label: "the headers are of two histories of one stack",
        newer: Wanted::Is(Slot::Valid),
        older: Wanted::Is(Slot::Valid),
        link: Wanted::Is(Link::OtherHistory),
        verdict: Verdict::OtherHistory,
        crash: Crash::Never(ONE_BEFORE),
        ..ANY
    },
    Case {
        label: "both commits are whole",
        proof: Wanted::Is(Proof::Holds),
        older_body: Wanted::Is(Body::Whole),
        length: Wanted::Is(Length::Enough),
        verdict: Verdict::Newer(Older::Replayed),
        crash: Crash::Leaves,
        ..PAIR
    },
    Case {
        label: "the newest commit is whole, the body of the one before it is overwritten",
        proof: Wanted::Is(Proof::Holds),
        older_body: Wanted::Is(Body::Lost),
        length: Wanted::Is(Length::Enough),
        verdict: Verdict::Newer(Older::Durable),
        crash: Crash::Leaves,
        ..PAIR
    },
    Case {
        label: "the newest commit is whole, the other header is torn",
        older: Wanted::Is(Slot::Torn),
        proof: Wanted::Is(Proof::Holds),
        length: Wanted::Is(Length::Enough),
        verdict: Verdict::Newer(Older::CutOff),
        crash: Crash::Leaves,
        ..SINGLE
    },
    Case {
        label: "the newest commit is whole, the other slot holds no header",
        older: Wanted::Is(Slot::Foreign),
        proof: Wanted::Is(Proof::Holds),
        length: Wanted::Is(Length::Enough),
        verdict: Verdict::Newer(Older::CutOff),
        // A store whose creation was cut off.
        crash: Crash::Leaves,
        ..SINGLE
    },
    Case {
        label: "the body of the newest commit is missing, the commit before it is whole",
        proof: Wanted::Is(Proof::BodyLost),
        older_body: Wanted::Is(Body::Whole),
        older_bytes: Wanted::Is(Bytes::Whole),
        length: Wanted::Is(Length::Enough),
        verdict: Verdict::Older,
        crash: Crash::Leaves,
        ..PAIR
    },
    Case {
        label: "bytes that the newest commit appended are missing, the commit before it is whole",
        proof: Wanted::Is(Proof::BytesLost),
        older_body: Wanted::Is(Body::Whole),
        older_bytes: Wanted::Is(Bytes::Whole),
        length: Wanted::Is(Length::Enough),
        verdict: Verdict::Older,
        crash: Crash::Leaves,
        ..PAIR
    },
    Case {
        label: "the file is cut short of what the newest commit says",
        newer: Wanted::Is(Slot::Valid),
        older: Wanted::Not(Slot::OtherVersion),
        link: Wanted::Either(&[Link::Follows, Link::Single]),
        proof: Wanted::Is(Proof::Holds),
        length: Wanted::Is(Length::Short),
        verdict: Verdict::Corrupt(Place::End),
        crash: Crash::Never(LONG_ENOUGH),
        ..ANY
    },
    Case {
        label: "the file is cut short of what the commit before the newest says",
        proof: Wanted::Not(Proof::Holds),
        older_body: Wanted::Is(Body::Whole),
        older_bytes: Wanted::Is(Bytes::Whole),
        length: Wanted::Is(Length::Short),
        verdict: Verdict::Corrupt(Place::End),
        crash: Crash::Never(LONG_ENOUGH),
        ..PAIR
    },
    Case {
        label: "neither commit is whole: the body of the older one is missing",
        proof: Wanted::Not(Proof::Holds),
        older_body: Wanted::Is(Body::Lost),
        verdict: Verdict::Corrupt(Place::NewerCommit),
        crash: Crash::Never(BARRIER_BEFORE),
        ..PAIR
    },
    Case {
        label: "neither commit is whole: bytes that the older one appended are missing",
        proof: Wanted::Not(Proof::Holds),
        older_body: Wanted::Is(Body::Whole),
        older_bytes: Wanted::Is(Bytes::Lost),
        verdict: Verdict::Corrupt(Place::NewerCommit),
        crash: Crash::Never(BARRIER_BEFORE),
        ..PAIR
    },
    Case {
        label: "the commit of the only header is not whole",
        proof: Wanted::Not(Proof::Holds),
        verdict: Verdict::Corrupt(Place::NewerCommit),
        crash: Crash::Never("a slot is torn only while the commit in the other one is durable"),
        ..SINGLE
    },
];

/// Looks at a file, one column at a time, in the order of these methods.
pub(crate) trait Look {
    /// Why looking fails.
    type Error;

    fn newer(&mut self) -> Slot;
    fn older(&mut self) -> Slot;
    fn link(&mut self) -> Link;
    fn proof(&mut self) -> Result<Proof, Self::Error>;
    fn older_body(&mut self) -> Result<Body, Self::Error>;
    fn older_bytes(&mut self) -> Result<Bytes, Self::Error>;
    fn length(&mut self) -> Length;
}

/// The row that describes a file. A column is looked at only if a row that is still possible asks
/// about it: if the newest commit is whole, the bytes that the older one appended are not read.
pub(crate) fn classify<L: Look>(look: &mut L) -> Result<&'static Case, L::Error> {
    let mut rows: Vec<&'static Case> = CASES.iter().collect();
    narrow::<_, L::Error>(&mut rows, |row| row.newer, || Ok(look.newer()))?;
    narrow::<_, L::Error>(&mut rows, |row| row.older, || Ok(look.older()))?;
    narrow::<_, L::Error>(&mut rows, |row| row.link, || Ok(look.link()))?;
    narrow(&mut rows, |row| row.proof, || look.proof())?;
    narrow(&mut rows, |row| row.older_body, || look.older_body())?;
    narrow(&mut rows, |row| row.older_bytes, || look.older_bytes())?;
    narrow::<_, L::Error>(&mut rows, |row| row.length, || Ok(look.length()))?;
    let [case] = rows[..] else {
        unreachable!("a test finds one row for each combination, not {rows:?}")
    };
    Ok(case)
}

/// Drops the rows that do not admit what is found in a column.
fn narrow<T: Copy + PartialEq + 'static, E>(
    rows: &mut Vec<&'static Case>,
    column: impl Fn(&Case) -> Wanted<T>,
    look: impl FnOnce() -> Result<T, E>,
) -> Result<(), E> {
    if rows.iter().any(|row| column(row) != Wanted::Any) {
        let found = look()?;
        rows.retain(|row| column(row).admits(found));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
