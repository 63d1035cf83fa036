//! Scripts: who does what, drawn from dice.

use cairn_log::EndCase;
use cairn_sim::{Broken, Dice, Script, Workload, World};

use crate::acts::Act;
use crate::calls::{Call, Home, Setup};
use crate::life;
use crate::told::Ledger;

/// Which scripts are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Some of everything, in a directory.
    Directory,
    /// Some of everything but followers, in one store.
    Store,
    /// Some of everything, in one store.
    StoreFollowers,
    /// The same in a store of several files, which gives the space of dropped records back.
    Segmented,
    /// Segments fill fast, where the log begins no threads of its own.
    Inline,
    /// The end is cut again and again, and followers look now and then.
    Cutting,
    /// Large records in a large segment: zeros are written ahead of them.
    Ahead,
    /// Three writers, sixty calls.
    Three,
    /// Little is written, and closed, where marks and sectors end at the same place.
    Closing,
    /// Short, with one writer: many cuts, few schedules.
    Plain,
}

pub struct Logs(pub Style);

fn len(dice: &mut Dice) -> usize {
    match dice.below(20) {
        0 => 0,
        1 => dice.below(8),
        2 => 600 + dice.below(2500),
        3 => 3800 + dice.below(600),
        4 => 9000,
        5 => 484 - dice.below(40),
        _ => 8 + dice.below(300),
    }
}

fn setup(home: Home, dice: &mut Dice) -> Setup {
    Setup {
        home,
        segment: *dice.pick(&[8 << 10, 8 << 10, 16 << 10, 24 << 10, 64 << 10, 1 << 20]),
        buffer: *dice.pick(&[4 << 10, 4 << 10, 4 << 10, 32 << 10]),
        buffers: *dice.pick(&[2, 2, 3, 4]),
        flights: *dice.pick(&[1, 2, 4]),
        direct: dice.chance(1, 2),
        inline: false,
    }
}

fn writer(dice: &mut Dice, count: usize) -> Vec<Call> {
    let one = |dice: &mut Dice| match dice.below(24) {
        0..5 => Call::Append(len(dice)),
        5..10 => Call::Commit(len(dice)),
        10 => Call::TryAppend(len(dice)),
        11 | 12 => Call::Batch(1 + dice.below(4), dice.below(900)),
        13 | 14 => Call::Submit(len(dice)),
        15 | 16 => Call::Await(len(dice)),
        17 => Call::Callback(len(dice)),
        18 => Call::Wait,
        19 | 20 => Call::Sync,
        21 => Call::Flush,
        22 => *dice.pick(&[Call::SyncTo, Call::SyncTo, Call::Misplace]),
        _ => Call::Pause(1 << dice.below(12)),
    };
    (0..count).map(|_| one(dice)).collect()
}

fn truncator(dice: &mut Dice, count: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    // Some cut the end again and again: who looks seldom misses a cut.
    let often_after = dice.chance(1, 4);
    while calls.len() < count {
        match dice.below(6) {
            _ if often_after && dice.chance(1, 2) => calls.push(Call::After(dice.below(4))),
            0 => calls.push(Call::After(dice.below(6))),
            1 | 2 => calls.push(Call::Before(dice.below(5))),
            3 => calls.push(Call::Retain((8 << 10) * (1 + dice.below(4) as u64))),
            _ => calls.push(Call::Pause(1 << dice.below(12))),
        }
        let more = 1 + dice.below(3);
        calls.extend(writer(dice, more));
    }
    calls.truncate(count);
    calls
}

/// Commits a few records, cuts, commits more, cuts again. Every other time the second cut is a
/// small one: it lies above the first.
fn cutter(dice: &mut Dice, count: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    while calls.len() < count {
        (0..1 + dice.below(5)).for_each(|_| calls.push(Call::Commit(8 + dice.below(100))));
        calls.push(Call::After(dice.below(5)));
        if dice.chance(1, 2) {
            (0..3 + dice.below(3)).for_each(|_| calls.push(Call::Commit(8 + dice.below(100))));
            calls.push(Call::After(dice.below(2)));
        }
        if dice.chance(1, 3) {
            calls.push(Call::Pause(1 << dice.below(14)));
        }
    }
    calls
}

/// Fills segments: threads that lead prepare the next one while others rotate.
fn rotator(dice: &mut Dice, count: usize) -> Vec<Call> {
    let keeps = dice.chance(1, 2);
    let one = |dice: &mut Dice| match dice.below(8) {
        0..5 => Call::Commit(300 + dice.below(1200)),
        5 => Call::Submit(300 + dice.below(1200)),
        6 if !keeps => Call::Before(dice.below(3)),
        _ => Call::Wait,
    };
    (0..count).map(|_| one(dice)).collect()
}

/// Writes blocks in a row.
fn hauler(dice: &mut Dice, count: usize) -> Vec<Call> {
    let one = |dice: &mut Dice| match dice.below(6) {
        0..3 => Call::Commit(2000 + dice.below(9000)),
        3 | 4 => Call::Append(2000 + dice.below(9000)),
        _ => Call::Sync,
    };
    (0..count).map(|_| one(dice)).collect()
}

/// A record or two whose group, with the mark of a close behind it, fills sectors.
fn closer(dice: &mut Dice) -> Vec<Call> {
    // The header of a group, the mark, the header of a frame.
    let full = 512 - 40 - 40 - 12;
    let last = if dice.chance(2, 3) { full } else { dice.below(full) };
    let more = (0..dice.below(2)).map(|_| Call::Commit(512 - 40 - 12));
    more.chain([Call::Commit(last)]).collect()
}

fn reader(dice: &mut Dice, count: usize) -> Vec<Call> {
    let one = |dice: &mut Dice| match dice.below(12) {
        0..2 => Call::Read,
        2..4 => Call::OpenReader,
        4..6 => Call::ReadOn(1 + dice.below(12)),
        6..9 => Call::Follow(1 + dice.below(10)),
        9 => Call::Inspect,
        10 => Call::Intrude,
        _ => Call::Pause(1 << dice.below(13)),
    };
    (0..count).map(|_| one(dice)).collect()
}

/// What an operator and other processes do while the log is used.
fn operator(dice: &mut Dice) -> Vec<Call> {
    let micros = |dice: &mut Dice| 1 << dice.below(12);
    let harms = dice.chance(1, 6);
    let mut calls = Vec::new();
    for _ in 0..2 + dice.below(4) {
        calls.push(Call::Pause(micros(dice)));
        calls.push(match dice.below(20) {
            0..3 => Call::Act(Act::Copy),
            3 => Call::Act(Act::Diverge),
            4 | 5 => Call::Act(Act::Link(dice.below(8))),
            6 => Call::Act(Act::Shortcut),
            7 => Call::Act(Act::Stray(dice.below(3))),
            8 => Call::Act(Act::Fork(micros(dice))),
            9 => Call::Act(Act::Verify),
            10 => Call::Act(Act::Jump(1 << dice.below(12), dice.chance(1, 2))),
            11 => Call::Act(Act::RemoveLock),
            12 => Call::Act(Act::Full(dice.below(6) as u64, micros(dice))),
            13 => Call::Act(Act::MoveAway(micros(dice))),
            14 => Call::Act(Act::MoveFile(dice.below(8), micros(dice))),
            15 => Call::Rotate,
            16 => Call::RetainAge(1 << dice.below(12), dice.below(9) as u64),
            _ if harms => Call::Act(harm(dice)),
            _ => Call::Act(Act::Copy),
        });
    }
    calls
}

/// What somebody does to a file.
fn harm(dice: &mut Dice) -> Act {
    match dice.below(6) {
        0 => Act::Lose(dice.below(8)),
        1 => Act::Cut(dice.below(8), dice.below(16)),
        2 => Act::Elsewhere(dice.below(8)),
        _ => Act::BringBack(dice.below(8)),
    }
}

fn home(style: Style) -> Home {
    match style {
        Style::Store | Style::StoreFollowers => Home::Store,
        Style::Segmented => Home::Segmented,
        _ => Home::Directory,
    }
}

/// What the threads of one life do.
pub fn draw(style: Style, dice: &mut Dice, life: usize) -> Script<Call> {
    let mut setup = setup(home(style), dice);
    match style {
        Style::Inline => (setup.inline, setup.segment) = (true, 8 << 10),
        Style::Ahead => setup.segment = *dice.pick(&[256 << 10, 1 << 20]),
        Style::Closing => setup.direct = false,
        _ => {}
    }
    let mut script = Script::new().part("log", vec![Call::Open(setup)]);
    // Later lives are short: they are many.
    let calls = if life == 0 { 20 } else { 4 };
    if style == Style::Cutting {
        script = script.part("cutter", cutter(dice, calls));
        for name in ["looks", "looks_too"] {
            let look = |dice: &mut Dice| match dice.below(3) {
                0 => Call::Pause(1 << dice.below(14)),
                _ => Call::Follow(1 + dice.below(6)),
            };
            script = script.part(name, (0..calls).map(|_| look(dice)).collect());
        }
    } else if style == Style::Inline {
        for name in ["writer", "other", "third"] {
            script = script.part(name, rotator(dice, calls + calls / 2));
        }
    } else if style == Style::Ahead {
        for name in ["writer", "other"] {
            script = script.part(name, hauler(dice, calls));
        }
    } else if style == Style::Three {
        for name in ["writer", "other", "third"] {
            script = script.part(name, writer(dice, calls));
        }
    } else if style == Style::Closing {
        script = script.part("writer", closer(dice));
    } else if style == Style::Plain {
        let mut calls = writer(dice, calls);
        calls.retain(|call| !matches!(call, Call::Callback(_) | Call::Await(_)));
        script = script.part("writer", calls);
    } else {
        script = script.part("writer", writer(dice, calls));
        if dice.chance(3, 4) {
            script = script.part("other", writer(dice, calls));
        }
        if dice.chance(2, 3) {
            script = script.part("truncator", truncator(dice, calls));
        }
        if dice.chance(1, 2) {
            script = script.part("reader", reader(dice, calls));
        }
        if dice.chance(1, 4) {
            let task = dice.chance(1, 2);
            script = script.part("follower", vec![Call::FollowToTheEnd(task)]);
        }
    }
    if style == Style::Store {
        let follows = |call: &Call| matches!(call, Call::Follow(_) | Call::FollowToTheEnd(_));
        script.parts.iter_mut().for_each(|part| part.calls.retain(|call| !follows(call)));
    }
    let end = if style == Style::Closing || dice.chance(1, 2) { Call::Close } else { Call::Drop };
    script = script.part("main", vec![end]);
    let general =
        [Style::Directory, Style::Store, Style::StoreFollowers, Style::Segmented].contains(&style);
    if general && dice.chance(1, 3) {
        script = script.part("operator", operator(dice));
    }
    if general && life > 0 && dice.chance(1, 2) {
        script = script.part("before", vec![Call::Act(harm(dice))]);
    }
    script
}

impl Workload for Logs {
    type Call = Call;
    type Told = Ledger;

    fn name(&self) -> String {
        format!("log, {:?}", self.0)
    }

    fn script(&self, dice: &mut Dice, life: usize) -> Script<Call> {
        draw(self.0, dice, life)
    }

    fn live(&self, world: &World, script: &Script<Call>, told: Ledger) -> Result<Ledger, Broken> {
        life::live(world, script, told)
    }

    fn can_meet(&self) -> Vec<String> {
        let directory = home(self.0) == Home::Directory;
        let elsewhere = |row: &&str| directory || !OF_DIRECTORIES.contains(row);
        let rows = EndCase::all().map(EndCase::label).filter(|row| !OF_DAMAGE.contains(row));
        let rows = rows.chain(["created", "carried over", "removed files", "several segments"]);
        let rows = rows.filter(elsewhere).map(|row| format!("recovery: {row}"));
        let calls: &[&str] = match self.0 {
            Style::Directory | Style::Store | Style::StoreFollowers | Style::Segmented => &ALL,
            _ => &[],
        };
        let calls = calls.iter().filter(|call| self.0 != Style::Store || **call != "follow");
        rows.chain(calls.map(|call| (*call).to_owned())).collect()
    }
}

/// Rows of the table of ends that damage alone makes, and one that is never the last verdict:
/// behind what was made ahead, opening steps back to the segment before.
const OF_DAMAGE: [&str; 8] = [
    "made ahead",
    "damage below the watermark",
    "unreadable tail",
    "seal without successor",
    "seal before another successor",
    "head beyond the end",
    "dropped beginning without its head",
    "impossible",
];

/// What a store, which has no segments of its own, cannot meet.
const OF_DIRECTORIES: [&str; 3] = ["interrupted rotation", "removed files", "several segments"];

const ALL: [&str; 20] = [
    "append",
    "try_append",
    "commit",
    "batch",
    "submit",
    "await",
    "callback",
    "wait",
    "sync",
    "flush",
    "sync_to",
    "truncate_before",
    "truncate_after",
    "retain",
    "read",
    "open_reader",
    "read_on",
    "follow",
    "inspect",
    "intrude",
];
