//! The rows of the table of ends, and the combinations of columns that cannot occur.

use super::{
    Act, At, Before, Behind, Device, Ending, Head, Last, Loss, Medium, Proof, Seen, Stated,
    Successor,
};

/// The values that each column may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    medium: &'static [Medium],
    last: &'static [Last],
    at: &'static [At],
    behind: &'static [Behind],
    device: &'static [Device],
    proof: &'static [Proof],
    before: &'static [Before],
    successor: &'static [Successor],
    stated: &'static [Stated],
    head: &'static [Head],
}

/// Any value in every column.
const ANY: Pattern = Pattern {
    medium: Medium::ALL,
    last: Last::ALL,
    at: At::ALL,
    behind: Behind::ALL,
    device: Device::ALL,
    proof: Proof::ALL,
    before: Before::ALL,
    successor: Successor::ALL,
    stated: Stated::ALL,
    head: Head::ALL,
};

impl Pattern {
    pub(super) fn matches(&self, seen: &Seen) -> bool {
        self.medium.contains(&seen.medium)
            && self.last.contains(&seen.last)
            && self.at.contains(&seen.at)
            && self.behind.contains(&seen.behind)
            && self.device.contains(&seen.device)
            && self.proof.contains(&seen.proof)
            && self.before.contains(&seen.before)
            && self.successor.contains(&seen.successor)
            && self.stated.contains(&seen.stated)
            && self.head.contains(&seen.head)
    }
}

/// One row of the table.
pub(super) struct Case {
    pub(super) label: &'static str,
    pub(super) meaning: &'static str,
    pub(super) when: &'static [Pattern],
    pub(super) ending: Ending,
    pub(super) act: Act,
}

const NOT_RECYCLED: &[Medium] = &[Medium::Fresh, Medium::Store, Medium::Beheaded];
const NOT_SEAL: &[Last] = &[Last::Nothing, Last::Mark, Last::Other];
const BEGINNING: &[At] = &[At::Bytes, At::Header];
const NO_GROUP: &[Behind] = &[Behind::Zeros, Behind::Bytes];

/// One history, as far as can be told.
const OURS: Pattern = Pattern { stated: &[Stated::Nothing, Stated::Held, Stated::Short], ..ANY };

/// Everything verifies, and what is noted of the log is there.
const WHOLE: Pattern = Pattern {
    device: &[Device::Reads],
    proof: &[Proof::Held],
    stated: &[Stated::Nothing, Stated::Held],
    head: &[Head::Within],
    ..ANY
};

/// Nothing that is there is wrong, and the log had been longer.
const SHORT: Pattern =
    Pattern { last: NOT_SEAL, stated: &[Stated::Short], head: Head::ALL, ..WHOLE };

/// Nothing follows `P`.
const CLEAN: Pattern = Pattern { at: &[At::Zeros], behind: &[Behind::Zeros], ..WHOLE };

/// What follows `P` in a recycled file is what the file held before: each flush fills its last
/// sector with zeros.
const STALE: Pattern =
    Pattern { medium: &[Medium::Recycled], at: &[At::Zeros], behind: &[Behind::Bytes], ..WHOLE };

/// An unfinished write begins in the sector of `P`.
const BEGUN: Pattern = Pattern { last: NOT_SEAL, at: BEGINNING, behind: NO_GROUP, ..WHOLE };

/// Of an unfinished write only sectors behind that of `P` are there.
const BEGUN_BEHIND: Pattern = Pattern {
    medium: NOT_RECYCLED,
    last: NOT_SEAL,
    at: &[At::Zeros],
    behind: &[Behind::Bytes],
    ..WHOLE
};

/// Of several unfinished writes a later one is there, and none before it.
const BEGUN_LATER: Pattern = Pattern { last: NOT_SEAL, behind: &[Behind::Groups], ..WHOLE };

/// The same where the last segment may have been made ahead.
const SHORT_AHEAD: Pattern =
    Pattern { last: &[Last::Nothing], before: &[Before::Segment], ..SHORT };

const BEYOND: &[Head] = &[Head::Beyond];

/// Every way in which a log can end. For each combination of columns that is not
/// [impossible](IMPOSSIBLE) exactly one row matches. The last row stands for the impossible ones.
pub(super) static CASES: [Case; 17] = [
    Case {
        label: "empty",
        meaning: "nothing was ever written to the log",
        when: &[
            Pattern { last: &[Last::Nothing], before: &[Before::Nothing], ..CLEAN },
            Pattern { last: &[Last::Nothing], before: &[Before::Nothing], ..STALE },
        ],
        ending: Ending::Closed,
        act: Act::GoOn,
    },
    Case {
        label: "made ahead",
        meaning: "the segment has its name and no group yet: the log ends in the one before",
        when: &[
            Pattern {
                last: &[Last::Nothing],
                before: &[Before::Segment],
                stated: OURS.stated,
                head: Head::ALL,
                ..CLEAN
            },
            Pattern {
                last: &[Last::Nothing],
                before: &[Before::Segment],
                stated: OURS.stated,
                head: Head::ALL,
                ..STALE
            },
        ],
        ending: Ending::Closed,
        act: Act::StepBack,
    },
    Case {
        label: "closed",
        meaning: "the last writer closed the log, or cut it: everything is durable",
        when: &[Pattern { last: &[Last::Mark], ..CLEAN }, Pattern { last: &[Last::Mark], ..STALE }],
        ending: Ending::Closed,
        act: Act::GoOn,
    },
    Case {
        label: "unclosed",
        meaning: "the log is in use, or its writer stopped without closing it; every byte verifies",
        when: &[
            Pattern { last: &[Last::Other], ..CLEAN },
            Pattern { last: &[Last::Other], ..STALE },
        ],
        ending: Ending::Unclosed,
        act: Act::Carry,
    },
    Case {
        label: "interrupted rotation",
        meaning: "the last segment is sealed, and its successor has no group yet",
        when: &[Pattern { last: &[Last::Seal], successor: &[Successor::Next], ..WHOLE }],
        ending: Ending::Unclosed,
        act: Act::Carry,
    },
    Case {
        label: "torn tail",
        meaning: "what was written last does not verify, and nothing proves that it was durable",
        when: &[BEGUN],
        ending: Ending::Torn,
        act: Act::Carry,
    },
    Case {
        label: "torn tail without its beginning",
        meaning: "of what was written last, which nothing proves, only later sectors are there",
        when: &[BEGUN_BEHIND],
        ending: Ending::Torn,
        act: Act::Carry,
    },
    Case {
        label: "torn tail before whole groups",
        meaning: "of several writes that nothing proves durable, an earlier one is incomplete",
        when: &[BEGUN_LATER],
        ending: Ending::Torn,
        act: Act::Carry,
    },
    Case {
        label: "damage below the watermark",
        meaning: "bytes that had been durable do not verify",
        when: &[Pattern { proof: &[Proof::Broken], ..OURS }],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::Damage),
    },
    Case {
        label: "unreadable tail",
        meaning: "the device cannot read what follows the last group: it may be records",
        when: &[Pattern { device: &[Device::Fails], proof: &[Proof::Held], ..OURS }],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::Damage),
    },
    Case {
        label: "seal without successor",
        meaning: "a segment is sealed only after its successor has its name: that one is lost",
        when: &[Pattern { last: &[Last::Seal], successor: &[Successor::Nothing], ..OURS }],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::Successor),
    },
    Case {
        label: "seal before another successor",
        meaning: "the segment that follows is not the one for which the last one was sealed",
        when: &[Pattern { last: &[Last::Seal], successor: &[Successor::Other], ..OURS }],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::Successor),
    },
    Case {
        label: "head beyond the end",
        meaning: "records were dropped up to a place that the log no longer reaches",
        when: &[
            Pattern { head: BEYOND, ..BEGUN },
            Pattern { head: BEYOND, ..BEGUN_BEHIND },
            Pattern { head: BEYOND, ..BEGUN_LATER },
            Pattern { last: &[Last::Mark, Last::Other], head: BEYOND, ..CLEAN },
            Pattern { last: &[Last::Mark, Last::Other], head: BEYOND, ..STALE },
            Pattern { last: &[Last::Nothing], before: &[Before::Nothing], head: BEYOND, ..CLEAN },
            Pattern { last: &[Last::Nothing], before: &[Before::Nothing], head: BEYOND, ..STALE },
            Pattern { last: &[Last::Seal], successor: &[Successor::Next], head: BEYOND, ..WHOLE },
        ],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::End),
    },
    Case {
        label: "cut short",
        meaning: "the log had been longer when it was last opened or closed: its end is lost",
        when: &[
            Pattern { last: &[Last::Mark, Last::Other], ..SHORT },
            Pattern { last: &[Last::Seal], successor: &[Successor::Next], ..SHORT },
            Pattern { before: &[Before::Nothing], last: &[Last::Nothing], ..SHORT },
            Pattern { at: BEGINNING, ..SHORT_AHEAD },
            Pattern { at: &[At::Zeros], behind: &[Behind::Groups], ..SHORT_AHEAD },
            Pattern {
                medium: NOT_RECYCLED,
                at: &[At::Zeros],
                behind: &[Behind::Bytes],
                ..SHORT_AHEAD
            },
        ],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::End),
    },
    Case {
        label: "another history",
        meaning: "a copy of the log was written to, and something of that one is in this one",
        when: &[Pattern { stated: &[Stated::Other], ..ANY }],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::History),
    },
    Case {
        label: "dropped beginning without its head",
        meaning: "a store's beginning was dropped, and the note that preceded the drop is lost",
        when: &[Pattern { head: &[Head::Unknown], ..WHOLE }],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::Head),
    },
    Case {
        label: "impossible",
        meaning: "no writer, crash or damage leaves such bytes",
        when: &[],
        ending: Ending::Corrupt,
        act: Act::Refuse(Loss::Damage),
    },
];

/// Combinations of columns that no writer, crash or damage leaves.
pub(super) struct Impossible {
    pub(super) why: &'static str,
    pub(super) when: &'static [Pattern],
}

const IN_STORE: &[Medium] = &[Medium::Store, Medium::Beheaded];

/// A combination that one of these names matches no row of [`CASES`], whatever its patterns say.
pub(super) static IMPOSSIBLE: [Impossible; 11] = [
    Impossible {
        why: "a watermark is at most its own group's position: only a group behind P proves more",
        when: &[Pattern { behind: NO_GROUP, proof: &[Proof::Broken], ..ANY }],
    },
    Impossible {
        why: "nothing behind a seal is looked at",
        when: &[
            Pattern { last: &[Last::Seal], at: BEGINNING, ..ANY },
            Pattern { last: &[Last::Seal], behind: &[Behind::Bytes, Behind::Groups], ..ANY },
            Pattern { last: &[Last::Seal], device: &[Device::Fails], ..ANY },
        ],
    },
    Impossible {
        why: "a log in a store is never sealed",
        when: &[Pattern { medium: IN_STORE, last: &[Last::Seal], ..ANY }],
    },
    Impossible {
        why: "a log in a store is one segment: none precedes it, and none follows it",
        when: &[
            Pattern { medium: IN_STORE, before: &[Before::Segment], ..ANY },
            Pattern { medium: IN_STORE, successor: &[Successor::Next, Successor::Other], ..ANY },
        ],
    },
    Impossible {
        why: "a log in a store has no state beside it",
        when: &[Pattern { medium: IN_STORE, stated: &[Stated::Held, Stated::Short], ..ANY }],
    },
    Impossible {
        why: "nothing behind a group of another history is looked at",
        when: &[
            Pattern { stated: &[Stated::Other], at: BEGINNING, ..ANY },
            Pattern { stated: &[Stated::Other], behind: &[Behind::Bytes, Behind::Groups], ..ANY },
            Pattern { stated: &[Stated::Other], device: &[Device::Fails], ..ANY },
        ],
    },
    Impossible {
        why: "only a seal says where the next segment starts",
        when: &[Pattern { last: NOT_SEAL, successor: &[Successor::Next], ..ANY }],
    },
    Impossible {
        why: "a superblock says how far records were dropped",
        when: &[Pattern {
            medium: &[Medium::Fresh, Medium::Recycled, Medium::Store],
            head: &[Head::Unknown],
            ..ANY
        }],
    },
    Impossible {
        why: "a Head group notes a place before itself, and a store has the head from there alone",
        when: &[Pattern { medium: IN_STORE, head: BEYOND, ..ANY }],
    },
    Impossible {
        why: "without a group there is no Head group",
        when: &[Pattern {
            medium: &[Medium::Beheaded],
            last: &[Last::Nothing],
            head: &[Head::Within],
            ..ANY
        }],
    },
    Impossible {
        why: "the scan of a store without its beginning starts at a group header that verifies",
        when: &[Pattern {
            medium: &[Medium::Beheaded],
            last: &[Last::Nothing],
            at: &[At::Zeros, At::Bytes],
            device: &[Device::Reads],
            ..ANY
        }],
    },
];
