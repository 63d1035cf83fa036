//! The table describes everything that a file can hold, once, and the format page shows it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;

use super::*;

/// One combination of the columns.
#[derive(Clone, Copy, Debug)]
struct Facts {
    newer: Slot,
    older: Slot,
    link: Link,
    proof: Proof,
    older_body: Body,
    older_bytes: Bytes,
    length: Length,
}

impl Look for Facts {
    type Error = Infallible;

    fn newer(&mut self) -> Slot {
        self.newer
    }
    fn older(&mut self) -> Slot {
        self.older
    }
    fn link(&mut self) -> Link {
        self.link
    }
    fn proof(&mut self) -> Result<Proof, Infallible> {
        Ok(self.proof)
    }
    fn older_body(&mut self) -> Result<Body, Infallible> {
        Ok(self.older_body)
    }
    fn older_bytes(&mut self) -> Result<Bytes, Infallible> {
        Ok(self.older_bytes)
    }
    fn length(&mut self) -> Length {
        self.length
    }
}

/// A reason why combinations of the columns describe no file, and which ones.
type Impossible = (&'static str, fn(&Facts) -> bool);

const IMPOSSIBLE: [Impossible; 5] = [
    ("the newer slot is the one that comes first", |f| f.older < f.newer),
    ("two valid headers are compared, and no others", |f| {
        (f.link == Link::Single) == (f.newer == Slot::Valid && f.older == Slot::Valid)
    }),
    ("a header that is not valid leads to no body", |f| {
        f.newer != Slot::Valid && f.proof != Proof::BodyLost
    }),
    ("nor does the older one", |f| f.older != Slot::Valid && f.older_body != Body::Lost),
    ("without a body nothing says what was appended", |f| {
        f.older_body == Body::Lost && f.older_bytes != Bytes::Lost
    }),
];

const SLOTS: [Slot; 4] = [Slot::Valid, Slot::OtherVersion, Slot::Torn, Slot::Foreign];

fn all() -> Vec<Facts> {
    let mut all = Vec::new();
    for newer in SLOTS {
        for older in SLOTS {
            for link in [Link::Follows, Link::OtherHistory, Link::Apart, Link::Single] {
                for proof in [Proof::Holds, Proof::BodyLost, Proof::BytesLost] {
                    for older_body in [Body::Whole, Body::Lost] {
                        for older_bytes in [Bytes::Whole, Bytes::Lost] {
                            for length in [Length::Enough, Length::Short] {
                                all.push(Facts {
                                    newer,
                                    older,
                                    link,
                                    proof,
                                    older_body,
                                    older_bytes,
                                    length,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

fn admits(case: &Case, facts: &Facts) -> bool {
    case.newer.admits(facts.newer)
        && case.older.admits(facts.older)
        && case.link.admits(facts.link)
        && case.proof.admits(facts.proof)
        && case.older_body.admits(facts.older_body)
        && case.older_bytes.admits(facts.older_bytes)
        && case.length.admits(facts.length)
}

#[test]
fn every_combination_has_one_row_or_is_impossible() {
    let (mut rows, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for facts in all() {
        let impossible: Vec<_> =
            IMPOSSIBLE.iter().filter(|(_, is)| is(&facts)).map(|(why, _)| *why).collect();
        if !impossible.is_empty() {
            reasons.extend(impossible);
            continue;
        }
        let admitting: Vec<_> = CASES.iter().filter(|case| admits(case, &facts)).collect();
        let [row] = admitting[..] else { panic!("{facts:?} has the rows {admitting:?}") };
        let Ok(found) = classify(&mut { facts });
        assert_eq!(found.label, row.label, "{facts:?}");
        rows.insert(row.label);
    }
    assert_eq!(rows.len(), CASES.len(), "each row describes something, each in its own words");
    assert_eq!(reasons.len(), IMPOSSIBLE.len(), "each reason excludes something");
}

fn cell<T: std::fmt::Debug + Copy>(wanted: Wanted<T>) -> String {
    let words = |value: T| {
        let mut text = String::new();
        for letter in format!("{value:?}").chars() {
            if letter.is_uppercase() && !text.is_empty() {
                text.push(' ');
            }
            text.extend(letter.to_lowercase());
        }
        text
    };
    match wanted {
        Wanted::Any => String::new(),
        Wanted::Is(value) => words(value),
        Wanted::Not(value) => format!("not {}", words(value)),
        Wanted::Either([one, other]) => format!("{} or {}", words(*one), words(*other)),
    }
}

fn state(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Newer(Older::Replayed) => "*n*, after *n − 1*",
        Verdict::Newer(Older::Durable) => "*n*",
        Verdict::Newer(Older::CutOff) => "*n*, torn",
        Verdict::Older => "*n − 1*, torn",
        Verdict::Foreign => "not a stack",
        Verdict::OtherVersion => "other version",
        Verdict::OtherHistory => "other history",
        Verdict::Corrupt(_) => "corrupt",
    }
}

/// The table as `docs/format/stack.md` shows it.
fn documented() -> String {
    let mut text = String::new();
    for case in &CASES {
        let never = if case.crash == Crash::Leaves { "yes" } else { "no" };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {never} |",
            case.label,
            cell(case.newer),
            cell(case.older),
            cell(case.link),
            cell(case.proof),
            cell(case.older_body),
            cell(case.older_bytes),
            cell(case.length),
            state(case.verdict),
        )
        .unwrap();
    }
    text
}

#[test]
fn the_format_page_shows_the_table() {
    let page = include_str!("../../../../../docs/format/stack.md");
    let table = documented();
    assert!(page.contains(&table), "docs/format/stack.md must contain\n{table}");
    let never = |case: &Case| match case.crash {
        Crash::Leaves => None,
        Crash::Never(reason) => Some(format!("| {} | {reason} |\n", case.label)),
    };
    let never: String = CASES.iter().filter_map(never).collect();
    assert!(page.contains(&never), "docs/format/stack.md must contain\n{never}");
}
