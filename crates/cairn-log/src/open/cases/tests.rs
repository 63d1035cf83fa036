//! All combinations of columns.

#![allow(clippy::print_stdout, reason = "how many combinations a row has")]

use std::collections::{BTreeMap, HashSet};

use super::*;

/// Rows that match, impossible or not.
fn rows(seen: &Seen) -> Vec<&'static str> {
    let matching = CASES.iter().filter(|case| case.when.iter().any(|p| p.matches(seen)));
    matching.map(|case| case.label).collect()
}

#[test]
fn each_combination_of_columns_is_one_row_or_impossible_for_a_reason() {
    let mut met = BTreeMap::<&str, usize>::new();
    let mut total = 0;
    for seen in combinations() {
        total += 1;
        match (impossible(&seen), &rows(&seen)[..]) {
            (Some(why), _) => {
                assert_eq!(EndCase::of(&seen), forged());
                *met.entry(why).or_default() += 1;
            }
            (None, [row]) => {
                assert_eq!(EndCase::of(&seen).label(), *row);
                *met.entry(row).or_default() += 1;
            }
            (None, rows) => panic!("{seen:?} is {rows:?}"),
        }
    }
    let columns = [
        Medium::ALL.len(),
        Last::ALL.len(),
        At::ALL.len(),
        Behind::ALL.len(),
        Device::ALL.len(),
        Proof::ALL.len(),
        Before::ALL.len(),
        Successor::ALL.len(),
        Stated::ALL.len(),
        Head::ALL.len(),
    ];
    assert_eq!(total, columns.iter().product::<usize>());
    // Each row has a combination, and each reason one that no reason before it excludes.
    for name in CASES.iter().map(|case| case.label).chain(IMPOSSIBLE.iter().map(|row| row.why)) {
        assert_eq!(met.contains_key(name), name != forged().label(), "{name}");
    }
    for (name, combinations) in met {
        println!("{combinations:5} {name}");
    }
}

#[test]
fn a_row_has_a_label_and_a_verdict_of_its_own_kind() {
    let labels: HashSet<_> = EndCase::all().map(EndCase::label).collect();
    assert_eq!(labels.len(), CASES.len());
    assert_eq!(EndCase::of(&Seen::nothing(Medium::Fresh)), EndCase::EMPTY);
    for case in EndCase::all() {
        let fits = match case.act() {
            Act::GoOn | Act::StepBack => case.ending() == Ending::Closed,
            Act::Carry => matches!(case.ending(), Ending::Unclosed | Ending::Torn),
            Act::Refuse(_) => case.ending() == Ending::Corrupt,
        };
        assert!(fits && !case.meaning().is_empty(), "{case}");
    }
}

/// What is known durable and not there is never cut, and what follows a torn tail never stays.
#[test]
fn no_row_that_opens_loses_what_is_known_durable() {
    for seen in combinations() {
        let opens = !matches!(EndCase::of(&seen).act(), Act::Refuse(_) | Act::StepBack);
        let whole = seen.proof == Proof::Held
            && seen.device == Device::Reads
            && seen.head == Head::Within
            && matches!(seen.stated, Stated::Nothing | Stated::Held)
            && (seen.last != Last::Seal || seen.successor == Successor::Next);
        assert!(whole || !opens, "{seen:?}");
        let closed = EndCase::of(&seen).ending() == Ending::Closed;
        let nothing_behind = seen.at == At::Zeros
            && (seen.behind == Behind::Zeros
                || seen.behind == Behind::Bytes && seen.medium == Medium::Recycled);
        assert!(!closed || nothing_behind, "{seen:?}");
    }
}
