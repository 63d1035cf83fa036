//! guards: L33
//!
//! Any program of operations, good arguments and bad ones, against a vector of bytes; with
//! reopening in between.

use std::sync::Arc;

use cairn_sim::{Chooser, SimFs};
use cairn_stack::{Durability, Error, Stack, Transaction};
use proptest::prelude::*;

use crate::model::PATH;

#[derive(Clone, Debug)]
enum Op {
    Push(Vec<u8>),
    Extend(u64),
    Pop(u64),
    Discard(u64),
    Set(u64, Vec<u8>),
    Zero(u64, u64),
    Resize(u64),
    Get(u64, u64),
    Transaction(Vec<Op>, bool),
    Sync,
    Reopen,
    PowerCut(u64),
}

fn place() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..600u64, 1 => any::<u64>(), 1 => u64::MAX - 600..=u64::MAX]
}

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..200u64, 1 => 0..5000u64, 1 => any::<u64>().prop_map(|n| n | 1 << 62)]
}

fn simple() -> impl Strategy<Value = Op> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        3 => bytes().prop_map(Op::Push),
        1 => small().prop_map(Op::Extend),
        2 => small().prop_map(Op::Pop),
        1 => small().prop_map(Op::Discard),
        3 => (place(), bytes()).prop_map(|(at, bytes)| Op::Set(at, bytes)),
        1 => (place(), place()).prop_map(|(from, to)| Op::Zero(from, to)),
        1 => small().prop_map(Op::Resize),
        2 => (place(), place()).prop_map(|(from, to)| Op::Get(from, to)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => simple(),
        2 => (prop::collection::vec(simple(), 0..6), any::<bool>())
            .prop_map(|(ops, keep)| Op::Transaction(ops, keep)),
        1 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::PowerCut),
    ]
}

/// Stack and transaction have the same operations.
macro_rules! apply {
    ($target:expr, $op:expr, $model:expr) => {{
        let (target, model): (_, &mut Vec<u8>) = ($target, $model);
        let len = model.len() as u64;
        let span =
            |from: u64, to: u64| (from <= to && to <= len).then(|| from as usize..to as usize);
        let (told, expected) = match $op {
            Op::Push(bytes) => {
                model.extend(bytes);
                (
                    target.push(bytes).map(|at| at.to_le_bytes().to_vec()),
                    Some(len.to_le_bytes().to_vec()),
                )
            }
            Op::Extend(zeros) => {
                let expected = (*zeros < 1 << 61).then(|| {
                    model.resize((len + zeros) as usize, 0);
                    len.to_le_bytes().to_vec()
                });
                (target.extend(*zeros).map(|at| at.to_le_bytes().to_vec()), expected)
            }
            Op::Pop(bytes) => {
                let expected = len.checked_sub(*bytes).map(|at| model.split_off(at as usize));
                (target.pop(*bytes), expected)
            }
            Op::Discard(bytes) => {
                let expected = len.checked_sub(*bytes).map(|at| {
                    model.truncate(at as usize);
                    vec![]
                });
                (target.discard(*bytes).map(|()| vec![]), expected)
            }
            Op::Set(at, bytes) => {
                let expected = at
                    .checked_add(bytes.len() as u64)
                    .and_then(|end| span(*at, end))
                    .map(|range| {
                        model[range].copy_from_slice(bytes);
                        vec![]
                    });
                (target.set(*at, bytes).map(|()| vec![]), expected)
            }
            Op::Zero(from, to) => {
                let expected = span(*from, *to).map(|range| {
                    model[range].fill(0);
                    vec![]
                });
                (target.zero(*from..*to).map(|()| vec![]), expected)
            }
            Op::Resize(to) => {
                let expected = (*to < 1 << 61).then(|| {
                    model.resize(*to as usize, 0);
                    vec![]
                });
                (target.resize(*to).map(|()| vec![]), expected)
            }
            Op::Get(from, to) => {
                let expected = span(*from, *to).map(|range| model[range].to_vec());
                (target.get(*from..*to), expected)
            }
            _ => unreachable!("not an operation of both"),
        };
        match (told, expected) {
            (Ok(told), Some(expected)) => prop_assert_eq!(told, expected),
            (
                Err(Error::OutOfRange { .. } | Error::TooShort { .. } | Error::TooLong { .. }),
                None,
            ) => {}
            (told, expected) => {
                prop_assert!(false, "{:?} instead of {:?}", told, expected.is_some())
            }
        }
    }};
}

fn apply_all(
    tx: &mut Transaction<'_>,
    ops: &[Op],
    model: &mut Vec<u8>,
) -> Result<(), TestCaseError> {
    for op in ops {
        apply!(&mut *tx, op, model);
    }
    Ok(())
}

fn run(ops: Vec<Op>, durability: Durability) -> Result<(), TestCaseError> {
    let mut sim = SimFs::new();
    let open = |sim: &SimFs| {
        let options = Stack::options().reserve(4096).durability(durability);
        options.fs(Arc::new(sim.clone())).open(PATH).unwrap()
    };
    let mut stack = open(&sim);
    let mut model = Vec::new();
    for op in &ops {
        match op {
            Op::Transaction(ops, keep) => {
                let mut after = model.clone();
                let mut checked = Ok(());
                let result = stack.transaction(|tx| {
                    checked = apply_all(tx, ops, &mut after);
                    if *keep { Ok(()) } else { Err(Error::InTransaction) }
                });
                checked?;
                prop_assert_eq!(result.is_ok(), *keep);
                if *keep {
                    model = after;
                }
            }
            Op::Sync => stack.sync().unwrap(),
            Op::Reopen => {
                stack.close().unwrap();
                stack = open(&sim);
            }
            Op::PowerCut(seed) => {
                stack.sync().unwrap();
                drop(stack);
                sim = sim.power_cut(&mut Chooser::seeded(*seed));
                stack = open(&sim);
            }
            _ => apply!(&stack, op, &mut model),
        }
        prop_assert_eq!(stack.len(), model.len() as u64);
        prop_assert_eq!(&stack.peek(0).unwrap(), &model);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_program_does_what_a_vector_does(ops in prop::collection::vec(op(), 0..40)) {
        run(ops, Durability::Operation)?;
    }

    #[test]
    fn any_program_with_explicit_durability_does_what_a_vector_does(
        ops in prop::collection::vec(op(), 0..40),
    ) {
        run(ops, Durability::Explicit)?;
    }
}
