//! Many pieces of work by several threads, of which the caller is one.

#[cfg(not(any(cairn_loom, cairn_shuttle)))]
use std::sync::mpsc;

#[cfg(any(cairn_loom, cairn_shuttle))]
pub(crate) use modelled::{each, processors};

#[cfg(not(any(cairn_loom, cairn_shuttle)))]
use crate::error::Result;
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
use crate::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
use crate::sync::thread;

/// How many threads can work at once.
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does `task` for each number below `count`, with `helpers` threads besides the caller's, and
/// tells `done`, on the calling thread, of each that is over. Returns the results in order, at
/// least up to the first error: numbers are taken in order, and what was taken is finished.
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
pub(crate) fn each<T: Send>(
    count: usize,
    helpers: usize,
    task: impl Fn(usize) -> Result<T> + Sync,
    mut done: impl FnMut(&Result<T>),
) -> Vec<Result<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let i = next.fetch_add(1, Ordering::Relaxed);
        if i >= count {
            return None;
        }
        let result = task(i);
        if result.is_err() {
            next.store(count, Ordering::Relaxed);
        }
        Some((i, result))
    };
    let mut results = Vec::with_capacity(count);
    let mut keep = |(i, result)| {
        done(&result);
        results.push((i, result));
    };
    thread::scope(|scope| {
        let (sender, others) = mpsc::channel();
        for _ in 0..helpers {
            let (work, sender) = (&work, sender.clone());
            let help = move || {
                while let Some(part) = work() {
                    let _ = sender.send(part);
                }
            };
            // A thread that cannot be had leaves its share to the others.
            if thread::Builder::new()
                .name("cairn-parallel".into())
                .spawn_scoped(scope, help)
                .is_err()
            {
                break;
            }
        }
        drop(sender);
        while let Some(part) = work() {
            keep(part);
            others.try_iter().for_each(&mut keep);
        }
        others.iter().for_each(&mut keep);
    });
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Checkers of interleavings have no scopes for threads, and nothing to check here.
#[cfg(any(cairn_loom, cairn_shuttle))]
mod modelled {
    use crate::error::Result;

    pub(crate) fn processors() -> usize {
        1
    }

    pub(crate) fn each<T>(
        count: usize,
        _helpers: usize,
        task: impl Fn(usize) -> Result<T>,
        mut done: impl FnMut(&Result<T>),
    ) -> Vec<Result<T>> {
        (0..count).map(task).inspect(|result| done(result)).collect()
    }
}

#[cfg(test)]
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::Lsn;
    use crate::error::{Dropped, Error};
    use crate::sync::Mutex;

    fn failed(i: usize) -> Error {
        Error::Truncated { lsn: Lsn(i as u64), dropped: Dropped::Unread }
    }

    fn wait_until(done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the others do not come");
            thread::yield_now();
        }
    }

    #[test]
    fn results_come_in_order_up_to_the_first_error_at_least() {
        for helpers in 0..5 {
            for wrong in [vec![], vec![0], vec![19], vec![7, 8, 12]] {
                let check = |i| if wrong.contains(&i) { Err(failed(i)) } else { Ok(i) };
                let (caller, mut told) = (thread::current().id(), BTreeSet::new());
                let results = each(20, helpers, check, |checked| {
                    assert_eq!(thread::current().id(), caller);
                    told.extend(checked.as_ref().ok());
                });
                let sound: Vec<_> = results
                    .iter()
                    .take_while(|checked| checked.is_ok())
                    .flatten()
                    .copied()
                    .collect();
                assert!(
                    sound.iter().copied().eq(0..wrong.first().copied().unwrap_or(20)),
                    "{helpers}: {sound:?}"
                );
                assert_eq!(wrong.is_empty(), results.len() == sound.len());
                assert!(told.is_superset(&sound.into_iter().collect()));
            }
        }
        assert!(each(0, 3, |_| Ok(()), |_| {}).is_empty());
    }

    /// The caller gets a helper's first result last.
    #[test]
    fn results_come_in_order_whoever_is_first() {
        let (caller, helped, begun) =
            (thread::current().id(), AtomicUsize::new(0), AtomicUsize::new(0));
        let check = |i: usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            if thread::current().id() == caller {
                wait_until(|| helped.load(Ordering::Relaxed) > 0);
            } else {
                helped.store(1, Ordering::Relaxed);
                wait_until(|| begun.load(Ordering::Relaxed) == 20);
            }
            Ok(i)
        };
        assert!(each(20, 2, check, |_| {}).into_iter().flatten().eq(0..20));
    }

    /// Each check waits for all others: with one thread less, none would end.
    #[test]
    fn as_many_are_checked_at_once_as_there_are_threads() {
        let threads = Mutex::<BTreeSet<_>>::default();
        let check = |i: usize| {
            threads.lock().unwrap().insert(format!("{:?}", thread::current().id()));
            wait_until(|| threads.lock().unwrap().len() == 4);
            Ok(i)
        };
        assert_eq!(each(8, 3, check, |_| {}).len(), 8);
        assert_eq!(threads.lock().unwrap().len(), 4);
    }
}
