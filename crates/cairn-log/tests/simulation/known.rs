//! Failures that simulations found, each with the smallest case that shows it. Those that are known
//! and not mended yet are a list that is to become empty: a test fails when one of them is gone, so
//! that it is taken off. Those that are mended stay mended.

use cairn_sim::{Broken, Simulation};

use crate::scripts::{Logs, Style};

/// A known failure.
pub struct Known {
    /// What is wrong, in one sentence.
    about: &'static str,
    /// The case, as a simulation printed it.
    case: &'static str,
    property: &'static str,
    /// What the report says, too.
    says: &'static str,
}

pub const KNOWN: &[Known] = &[];

/// What was wrong, and the case that showed it.
const MENDED: &[(&str, &str)] = &[
    (
        "A follower of a log in a store delivers records that a truncation took back, when the cut \
         lies inside a group.",
        include_str!("known/follower-of-a-store.case"),
    ),
    (
        "A follower that does not look between two cuts of the end is told of the last one only, \
         and goes on in the new history.",
        include_str!("known/follower-between-cuts.case"),
    ),
    (
        "An inspection never ends while every call of `File::len` fails.",
        include_str!("known/inspection-without-end.case"),
    ),
    (
        "A look fails where one truncation of the end after the other removes what it has listed.",
        include_str!("known/look-across-two-cuts.case"),
    ),
    (
        "The same, where truncations of the beginning remove segments: a problem, not an error.",
        include_str!("known/problems-of-two-cuts.case"),
    ),
    (
        "Opening a log in a store builds on a superblock that an earlier process wrote and no \
         barrier covered: after a power cut another log is there.",
        include_str!("known/superblock-without-barrier.case"),
    ),
    (
        "`close` calls a sealed segment displaced that is read through a symbolic link.",
        include_str!("known/closed-with-a-linked-segment.case"),
    ),
    (
        "A log makes its directory in one that it may not open, gives it no durable name, and says \
         nothing.",
        include_str!("known/name-in-a-parent-that-is-not-read.case"),
    ),
    (
        "Where the lock file was removed, a second process calls what the writer is in the middle \
         of damage, instead of saying that the log is locked.",
        include_str!("known/opened-without-lock-file.case"),
    ),
    (
        "A log that was rotated and not closed is called cut short where the power takes the first \
         mark of the new segment: the state says that the seal is durable, and the end is looked \
         for in front of it.",
        include_str!("known/end-in-front-of-a-seal.case"),
    ),
    (
        "A copy that was made while the log was open is recovered and goes on; its new file, put \
         beside the original, passes for a recovery that was interrupted.",
        include_str!("known/recovery-of-a-copy.case"),
    ),
    (
        "The end of the log is cut while it is open, a copy made then goes its own way, and its \
         file takes the place of the original's: it passes for it, as far as the log reached \
         before.",
        include_str!("known/copy-of-a-cut-log.case"),
    ),
    (
        "The file that becomes a segment is exchanged before it gets its name, and records go to \
         one that has none.",
        include_str!("known/exchanged-before-it-is-named.case"),
    ),
    (
        "A segment that was made ahead is moved away, and put back when the log has passed its \
         place: the log is called damaged.",
        include_str!("known/empty-segment-that-comes-back.case"),
    ),
    (
        "A segment that was made ahead loses its name although the rename is said to have failed; \
         the writer rotates into it, and the next opening misses it.",
        include_str!("known/failed-rename-that-was-done.case"),
    ),
    (
        "The first segment of a copy comes in the place of ours, with the same groups and a longer \
         seal: the log opens, and readers call it damaged.",
        include_str!("known/longer-seal-of-a-copy.case"),
    ),
    (
        "A truncation of the beginning meets a sector that cannot be read, takes a number that is \
         only possible for what lies behind it, and writes that down as the number of the head.",
        include_str!("known/head-with-a-guessed-number.case"),
    ),
];

pub fn is_known(broken: &Broken) -> bool {
    KNOWN.iter().any(|known| known.property == broken.property && broken.text.contains(known.says))
}

#[test]
fn the_list_is_what_is_found() {
    for known in KNOWN {
        let simulation = Simulation::new(Logs(Style::Directory));
        let Err(found) = simulation.repeat(known.case) else {
            panic!("mended? take it off: {}", known.about)
        };
        assert_eq!(found.broken.property, known.property, "{}", known.about);
        assert!(found.broken.text.contains(known.says), "{}: {}", known.about, found.broken);
    }
}

/// guards: L03 L66 L68
#[test]
fn what_was_mended_stays_mended() {
    for (about, case) in MENDED {
        if let Err(found) = Simulation::new(Logs(Style::Directory)).repeat(case) {
            panic!("back again: {about}\n{found}");
        }
    }
}
