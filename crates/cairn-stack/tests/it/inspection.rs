//! Looking at a stack: what it shows, that it changes nothing, and that a writer does not disturb
//! it. That a look after any crash shows what opening finds is checked in every state of
//! `crash.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_sim::SimFs;
use cairn_stack::{EndState, Error, ErrorKind, Inspection, Stack};

use crate::model::PATH;

#[test]
fn a_look_tells_how_the_stack_ended_and_changes_nothing() {
    let sim = SimFs::new();
    let options = Stack::options().fs(Arc::new(sim.clone()));
    let look = || Inspection::open_on(&sim, PATH).unwrap();
    assert_eq!(
        Inspection::open_on(&sim, PATH).unwrap_err().kind(),
        ErrorKind::System,
        "there is none"
    );
    let stack = options.clone().open(PATH).unwrap();
    assert_eq!((look().end_state(), look().len()), (EndState::Closed, 0));
    stack.push([7; 5000]).unwrap();
    stack.set(10, "in memory until the next commit").unwrap();
    stack.zero(100..200).unwrap();
    let before = sim.op_count();
    let seen = look();
    assert_eq!(
        (seen.end_state(), seen.len(), seen.is_current().unwrap()),
        (EndState::Unclosed, 5000, true)
    );
    let mut bytes = vec![1; 300];
    seen.get_into(0, &mut bytes).unwrap();
    assert_eq!(bytes, stack.get(0..300).unwrap());
    for offset in [4990, 5001, u64::MAX] {
        assert!(
            matches!(seen.get_into(offset, &mut [0; 11]), Err(Error::OutOfRange { len: 5000, .. })),
            "{offset}"
        );
    }
    assert_eq!(sim.op_count(), before, "nothing was written");
    stack.push("more").unwrap();
    assert!(!seen.is_current().unwrap());
    stack.close().unwrap();
    let closed = look();
    assert_eq!(
        (closed.end_state(), closed.len(), closed.file_len()),
        (EndState::Closed, 5004, 131_072 + 5004)
    );
    assert_eq!(closed.uuid(), seen.uuid());
    assert!(closed.sequence() > seen.sequence() && closed.created() == seen.created());
}

/// All bytes of the stack are the same in every state of it.
#[test]
fn what_is_read_of_a_stack_in_use_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stack");
    let stack = Stack::open(&path).unwrap();
    stack.push([0; 3000]).unwrap();
    let done = AtomicBool::new(false);
    let (mut whole, mut stale) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..3000u64 {
                let byte = n as u8;
                stack
                    .transaction(|tx| {
                        let len = tx.len();
                        if n.is_multiple_of(3) {
                            tx.discard(len - 1000)?;
                        } else {
                            tx.push(vec![byte; 1 + n as usize % 4000])?;
                        }
                        let len = tx.len();
                        tx.set(0, vec![byte; len as usize])
                    })
                    .unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            // Writes of both headers may be under way at the two moments that are compared.
            let Ok(look) = Inspection::open(&path) else {
                stale += 1;
                continue;
            };
            let mut bytes = vec![0; look.len() as usize];
            look.get_into(0, &mut bytes).unwrap();
            if look.is_current().unwrap() {
                assert!(bytes.iter().all(|b| *b == bytes[0]), "a mixture at {}", look.sequence());
                whole += 1;
            } else {
                stale += 1;
            }
        }
    });
    println!("{whole} looks at one moment, {stale} at a stack that went on");
    assert!(whole > 10);
}
