//! guards: L28 L31 L32
//!
//! proptest generates programs. Each does to a heap what it does to a map of byte strings.

use cairn_sim::{Chooser, SimFs};
use proptest::prelude::*;

use crate::model::{ALL, Dice, Driver, State};

#[derive(Clone, Debug)]
enum Op {
    Transaction { seed: u64, steps: usize, sizes: usize },
    Reopen,
    PowerCut(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let transaction = (any::<u64>(), 1usize..8, 10usize..5000)
        .prop_map(|(seed, steps, sizes)| Op::Transaction { seed, steps, sizes });
    prop_oneof![
        20 => transaction,
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::PowerCut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 128,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_program_does_what_a_map_does(
        policy in 0..ALL.len(),
        ops in prop::collection::vec(op(), 0..40),
    ) {
        let mut driver = Driver::new(SimFs::new(), ALL[policy]);
        driver.open().unwrap();
        for op in ops {
            match op {
                Op::Transaction { seed, steps, sizes } => {
                    driver.transaction(&mut Dice(seed), steps, sizes).unwrap();
                }
                Op::Reopen => {
                    driver.heap.take().unwrap().close().unwrap();
                    driver.open().unwrap();
                }
                Op::PowerCut(seed) => {
                    drop(driver.heap.take());
                    driver.sim = driver.sim.power_cut(&mut Chooser::seeded(seed));
                    driver.open().unwrap();
                }
            }
            let found = State::of(driver.heap()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&found, &driver.state);
        }
    }
}
