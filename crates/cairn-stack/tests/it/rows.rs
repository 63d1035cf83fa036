//! The rows of the recovery table that an exploration met, and how often.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use cairn_stack::CASES;

/// Rows that only a store leaves, if its creation is cut off.
pub(crate) const OF_A_STORE: [&str; 2] =
    ["neither slot holds a header", "the newest commit is whole, the other slot holds no header"];

/// Counts of looks by the label of the row that described the file.
#[derive(Clone, Default)]
pub(crate) struct Rows(RefCell<BTreeMap<&'static str, u64>>);

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} looks", self.0.borrow().values().sum::<u64>())
    }
}

impl Rows {
    pub(crate) fn met(&self, label: &'static str) {
        *self.0.borrow_mut().entry(label).or_default() += 1;
    }

    pub(crate) fn absorb(&self, others: &Rows) {
        for (label, times) in &*others.0.borrow() {
            *self.0.borrow_mut().entry(label).or_default() += times;
        }
    }

    fn times(&self, label: &str) -> u64 {
        self.0.borrow().get(label).copied().unwrap_or_default()
    }

    /// Says how often each row that a crash leaves was met.
    pub(crate) fn print(&self) {
        for case in CASES.iter().filter(|case| case.never().is_none()) {
            println!("{:>10} × {}", self.times(case.label()), case.label());
        }
    }

    /// As [`check`](Self::check), but for the rows that only the creation of a store leaves.
    pub(crate) fn check_all_of_a_file(&self) {
        for label in OF_A_STORE {
            assert_eq!(self.times(label), 0, "a file has its name once it is whole: {label}");
            self.met(label);
        }
        self.check();
    }

    /// Fails unless exactly the rows that a crash leaves were met. A row that was not met is a hole
    /// in the exploration. Any other row that was met has a wrong reason in the table.
    pub(crate) fn check(&self) {
        let met: Vec<_> = self.0.borrow().keys().copied().collect();
        let mut expected: Vec<_> =
            CASES.iter().filter(|case| case.never().is_none()).map(|case| case.label()).collect();
        expected.sort_unstable();
        assert_eq!(met, expected);
    }
}
