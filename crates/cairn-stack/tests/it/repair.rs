//! guards: L20 L22
//!
//! Repairs: for each row of the recovery table what a plan says, what the repaired stack holds, and
//! that a power cut at any point leaves the file as it was, repaired, or to be repaired in the same
//! way. A copy of all that is overwritten is kept, and a second repair finds nothing to do.

use std::sync::Arc;

use cairn_sim::{CrashExplorer, SimFs, Torn};
use cairn_stack::{CASES, Error, Inspection, Keep, Repair, RepairPlan, Stack};

use crate::cases::files;
use crate::model::{Dice, PATH, chain};

const COPY: &str = "/stack.before-repair";
const SLOTS: usize = 128 << 10;

/// What is made of a file.
enum Outcome {
    /// It opens as it is.
    Opens,
    /// Nothing in it says what the stack was.
    Refused,
    Repaired(Vec<Repaired>),
}

/// One way to repair it.
struct Repaired {
    keep: Option<Keep>,
    cut: bool,
    holds: Vec<u8>,
    /// What the plan names as missing, unproven, and whether changes are lost.
    missing: std::ops::Range<u64>,
    unproven: Vec<std::ops::Range<u64>>,
    changes_lost: bool,
}

impl Default for Repaired {
    fn default() -> Self {
        let (holds, unproven) = (Vec::new(), Vec::new());
        Repaired { keep: None, cut: false, holds, missing: 0..0, unproven, changes_lost: false }
    }
}

impl Repaired {
    fn repair(&self, sim: &SimFs) -> Repair {
        let repair = Repair::new().cut(self.cut).fs(Arc::new(sim.clone()));
        match self.keep {
            Some(keep) => repair.keep(keep),
            None => repair,
        }
    }
}

fn one(range: std::ops::Range<u64>) -> Vec<std::ops::Range<u64>> {
    std::iter::once(range).collect()
}

fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    bytes
}

/// In the order of the table, for the files of `cases`.
fn outcomes() -> Vec<Outcome> {
    let (first, second) = (Dice(1).bytes(9000), Dice(2).bytes(9000));
    let both = [&first[..], &second].concat();
    let of_two = |newer_unproven: bool| {
        let unproven = if newer_unproven { one(9000..18_000) } else { Vec::new() };
        Repaired { keep: Some(Keep::Newer), holds: both.clone(), unproven, ..Repaired::default() }
    };
    let older = |changes_lost| {
        let holds = first.clone();
        Repaired { keep: Some(Keep::Older), holds, changes_lost, ..Repaired::default() }
    };
    let set = [&[1; 10][..], &first[10..100]].concat();
    let missing = 100..9000;
    let short = |first_bytes: &[u8]| {
        let zeros = [first_bytes, &[0; 8900]].concat();
        let cut = first_bytes.to_vec();
        let missing = missing.clone();
        vec![
            Repaired { holds: zeros, missing: missing.clone(), ..Repaired::default() },
            Repaired { holds: cut, cut: true, missing, ..Repaired::default() },
        ]
    };
    let in_place = [&Dice(2).bytes(5000)[..], &first[5000..]].concat();
    let all_flipped = flipped(both.clone(), 9000);
    vec![
        Outcome::Refused,
        Outcome::Refused,
        Outcome::Refused,
        Outcome::Refused,
        Outcome::Repaired(vec![of_two(false), older(true)]),
        Outcome::Repaired(vec![of_two(false), older(true)]),
        Outcome::Opens,
        Outcome::Opens,
        Outcome::Opens,
        Outcome::Opens,
        Outcome::Opens,
        Outcome::Opens,
        Outcome::Repaired(short(&set)),
        Outcome::Repaired(short(&set)),
        Outcome::Repaired(vec![Repaired {
            holds: in_place,
            changes_lost: true,
            ..Repaired::default()
        }]),
        Outcome::Repaired(vec![
            Repaired {
                holds: flipped(first.clone(), 0),
                unproven: one(0..9000),
                ..Repaired::default()
            },
            Repaired { holds: flipped(all_flipped.clone(), 0), ..of_two(true) },
        ]),
        Outcome::Repaired(vec![Repaired {
            holds: all_flipped,
            unproven: one(9000..18_000),
            ..Repaired::default()
        }]),
    ]
}

fn holding(bytes: &[u8]) -> SimFs {
    let sim = SimFs::new();
    sim.write_file(PATH, bytes).unwrap();
    sim
}

fn open(sim: &SimFs) -> Result<Stack, Error> {
    Stack::options().reserve(0).fs(Arc::new(sim.clone())).open(PATH)
}

/// Repairs the file, and the same again after a power cut at any point.
fn repaired(file: &[u8], expected: &Repaired) -> Result<(), String> {
    let sim = holding(file);
    let repair = expected.repair(&sim);
    let plan = repair.plan(PATH).map_err(|e| chain(&e))?;
    assert!(plan.is_needed() && plan.undecided.is_empty(), "{plan}");
    assert_eq!(plan.missing, expected.missing, "{plan}");
    assert_eq!(plan.unproven, expected.unproven, "{plan}");
    assert_eq!(plan.changes_lost, expected.changes_lost, "{plan}");
    assert_eq!(plan.len, expected.holds.len() as u64, "{plan}");
    assert!(sim.read_file(PATH).unwrap() == file, "a plan changes nothing");
    let before = sim.op_count();
    let copy = repair.apply(PATH, &plan).map_err(|e| chain(&e))?;
    assert_eq!(copy.to_str(), Some(COPY));
    let after = sim.read_file(PATH).unwrap();
    let changed = |from: usize| after[from..from + 4096] != file[from..(from + 4096)];
    assert!(!(changed(0) && changed(SLOTS / 2)), "one header stays");
    assert!(after[SLOTS..file.len()] == file[SLOTS..], "the payload stays");
    let report = CrashExplorer::new(sim.trace())
        .torn(Torn::Versions)
        .points(before..=sim.op_count())
        .exhaustive_limit(1 << 10)
        .samples_per_point(200)
        .for_each(|state| after_a_cut(&state.fs(), file, expected));
    report.map(drop).map_err(|failure| failure.to_string())?;
    settled(&sim, file, expected)
}

/// What a power cut within the repair leaves leads to the same.
fn after_a_cut(sim: &SimFs, file: &[u8], expected: &Repaired) -> Result<(), String> {
    let Ok(found) = sim.read_file(PATH) else { return Err("the file is gone".into()) };
    if found[..SLOTS.min(found.len())] != file[..SLOTS] && sim.read_file(COPY).is_err() {
        return Err("a header was overwritten, and no copy is kept".into());
    }
    if let Ok(kept) = sim.read_file(COPY)
        && kept != file[..SLOTS]
    {
        return Err("the copy is not what was there".into());
    }
    // A torn header leaves one to choose from.
    let keeps = [expected.keep, None];
    let plan = |keep| {
        let repaired = Repaired { keep, cut: expected.cut, ..Repaired::default() };
        let repair = repaired.repair(sim);
        repair.plan(PATH).map(|plan: RepairPlan| (repair, plan))
    };
    let (repair, plan) =
        keeps.into_iter().find_map(|keep| plan(keep).ok()).ok_or("no plan can be made")?;
    if plan.is_needed() {
        repair.apply(PATH, &plan).map_err(|e| chain(&e))?;
    }
    settled(sim, file, expected)
}

/// The stack is repaired, and goes on.
fn settled(sim: &SimFs, file: &[u8], expected: &Repaired) -> Result<(), String> {
    let plan = Repair::new().fs(Arc::new(sim.clone())).plan(PATH).map_err(|e| chain(&e))?;
    if plan.is_needed() {
        return Err(format!("a second repair finds something to do: {plan}"));
    }
    Inspection::open_on(sim, PATH).map_err(|e| chain(&e))?;
    let stack = open(sim).map_err(|e| chain(&e))?;
    let found = stack.peek(0).map_err(|e| chain(&e))?;
    if found != expected.holds {
        let at = found.iter().zip(&expected.holds).position(|(one, other)| one != other);
        let (found, expected) = (found.len(), expected.holds.len());
        return Err(format!("{found} bytes instead of {expected}, other ones from {at:?} on"));
    }
    stack.push("more").map_err(|e| chain(&e))?;
    stack.close().map_err(|e| chain(&e))?;
    let uuid = |file: &[u8], slot: usize| file[slot + 16..slot + 32].to_vec();
    let now = sim.read_file(PATH).map_err(|e| e.to_string())?;
    let same = [0, SLOTS / 2].iter().any(|slot| uuid(file, *slot) == uuid(&now, 0));
    if same { Ok(()) } else { Err("another identity".into()) }
}

#[test]
fn each_row_that_is_refused_has_its_repair() {
    let (files, outcomes) = (files(), outcomes());
    assert_eq!((files.len(), outcomes.len()), (CASES.len(), CASES.len()));
    let mut repairs = 0;
    for ((case, file), outcome) in CASES.iter().zip(files).zip(outcomes) {
        let label = case.label();
        let sim = holding(&file.bytes);
        let plan = Repair::new().fs(Arc::new(sim.clone())).plan(PATH);
        match outcome {
            Outcome::Opens => {
                let plan = plan.unwrap();
                assert!(!plan.is_needed() && plan.found == label, "{label}: {plan}");
                let refused = Repair::new().fs(Arc::new(sim)).apply(PATH, &plan);
                assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{label}");
            }
            Outcome::Refused => {
                let (refused, opened) = (plan.unwrap_err(), open(&sim).unwrap_err());
                assert_eq!(chain(&refused), chain(&opened), "{label}");
            }
            Outcome::Repaired(ways) => {
                for way in ways {
                    repaired(&file.bytes, &way).unwrap_or_else(|error| panic!("{label}: {error}"));
                    repairs += 1;
                }
            }
        }
    }
    println!("{repairs} repairs");
}

/// The file does not tell which header its bytes belong to: a person has to.
#[test]
fn headers_of_two_histories_are_named_and_none_is_chosen() {
    for (case, file) in CASES.iter().zip(files()) {
        if !case.label().starts_with("the headers") {
            continue;
        }
        let sim = holding(&file.bytes);
        let repair = Repair::new().fs(Arc::new(sim.clone()));
        let plan = repair.plan(PATH).unwrap();
        let [newer, older] = plan.undecided[..] else { panic!("{plan}") };
        assert!(newer.commit > older.commit && plan.kept.is_none());
        assert!(plan.to_string().contains(&format!("{:016x}", older.epoch)), "{plan}");
        let refused = repair.apply(PATH, &plan).unwrap_err();
        assert!(matches!(refused, Error::InvalidOption { option: "keep", .. }), "{refused}");
        assert!(sim.read_file(PATH).unwrap() == file.bytes);
    }
}

#[test]
fn a_stack_in_use_or_another_one_than_planned_is_not_repaired() {
    let file = files().pop().unwrap().bytes;
    let sim = holding(&file);
    let repair = Repair::new().fs(Arc::new(sim.clone()));
    let plan = repair.plan(PATH).unwrap();
    let mut other = file.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    other.pop();
    sim.write_file(PATH, &other).unwrap();
    let refused = repair.apply(PATH, &plan).unwrap_err();
    assert!(matches!(refused, Error::Outdated { .. }), "{refused}");
    assert!(sim.read_file(PATH).unwrap() == other);
    let only = Repair::new().keep(Keep::Older).fs(Arc::new(sim.clone())).plan(PATH).unwrap_err();
    assert!(matches!(only, Error::InvalidOption { .. }), "{only}");

    let whole = SimFs::new();
    let stack = open(&whole).unwrap();
    let repair = Repair::new().fs(Arc::new(whole.clone()));
    let plan = repair.plan(PATH).unwrap();
    assert!(matches!(repair.apply(PATH, &plan), Err(Error::Locked { .. })));
    drop(stack);
    assert!(Repair::new().fs(Arc::new(whole)).plan("/none").is_err());
}

/// Copies of earlier repairs are kept.
#[test]
fn each_repair_keeps_a_copy_of_its_own() {
    let file = files().pop().unwrap().bytes;
    let sim = holding(&file);
    let repair = Repair::new().fs(Arc::new(sim.clone()));
    for copy in [COPY, "/stack.before-repair.2", "/stack.before-repair.3"] {
        sim.write_file(PATH, &file).unwrap();
        let plan = repair.plan(PATH).unwrap();
        assert_eq!(repair.apply(PATH, &plan).unwrap().to_str(), Some(copy));
        assert!(sim.read_file(copy).unwrap() == file[..SLOTS]);
    }
}
