//! Reading every byte of a log: each segment by itself, as many at once as there are processors.

use std::io;
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
use std::sync::mpsc;

use super::{Inspection, Verification, position};
use crate::error::{Error, Result};
use crate::format::DATA_OFFSET;
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
use crate::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
use crate::sync::thread;
use crate::walk::Walk;
#[cfg(any(cairn_loom, cairn_shuttle))]
use modelled::{each, helpers};

/// What one segment holds.
#[derive(Debug, Default)]
struct Checked {
    records: u64,
    bytes: u64,
    problems: Vec<Error>,
}

impl Inspection {
    /// Reads everything, sealed segments too, and reports all that does not verify. `progress` is told, by the calling thread, the bytes read since it was
    /// last called.
    ///
    /// Reads as many segments at once as there are processors, where the file system allows [work in the background](cairn_io::Fs::background). The
    /// result does not depend on it.
    ///
    /// # Errors
    /// [`Error::Io`] when a segment cannot be opened; of kind `NotFound` also when a truncation dropped it meanwhile: look again. Damage is no error here.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Verification> {
        let mut found =
            Verification { records: 0, bytes: 0, end_state: self.end_state(), problems: self.problems.clone() };
        let count = self.survey.segments.len();
        let helpers = if self.fs.background() { helpers(count) } else { 0 };
        let checked = each(
            count,
            helpers,
            |i| self.check(i, helpers > 0),
            |checked| {
                if let Ok(checked) = checked {
                    progress(checked.bytes);
                }
            },
        );
        for checked in checked {
            let Checked { records, bytes, problems } = checked?;
            found.records += records;
            found.bytes += bytes;
            found.problems.extend(problems);
        }
        found.problems.sort_by_key(position);
        // Damage at the end of the log was found when it was looked at, and again now.
        found.problems.dedup_by(|b, a| match (a, b) {
            (Error::Corrupt(a), Error::Corrupt(b)) => (&a.path, a.lsn) == (&b.path, b.lsn),
            _ => false,
        });
        Ok(found)
    }

    /// Walks the segment number `i`, which must verify up to where the next one starts, going on behind damage. `helped`: others are at the same, on all processors.
    fn check(&self, i: usize, helped: bool) -> Result<Checked> {
        let segments = &self.survey.segments;
        let file = &segments[i];
        let base_lsn = file.superblock.base_lsn;
        let next = segments.get(i + 1).map(|next| next.superblock.base_lsn);
        let end_lsn = next.unwrap_or(self.tail.end_lsn.max(self.tail.proven_lsn));
        // What lies beyond the file's end is reported as missing already.
        let file_end = base_lsn + file.file_len.saturating_sub(DATA_OFFSET);
        let span = file.open(&*self.fs, end_lsn.min(file_end))?;
        let mut walk = Walk::new(span.clone(), span.base_lsn, span.base_seq);
        if helped {
            walk.read_in_place();
        }
        let mut checked = Checked { bytes: end_lsn - base_lsn, ..Checked::default() };
        loop {
            match walk.advance_record() {
                Ok(true) => checked.records += u64::from(walk.next_seq > self.survey.head.seq),
                Ok(false) => return Ok(checked),
                // The segment was dropped, and what is in its file now is another one.
                Err(_) if file.is_gone(&*self.fs) => {
                    return Err(Error::io("read", &file.path, io::ErrorKind::NotFound.into()));
                }
                Err(damage) => {
                    // Never at the damage itself: a group whose header verifies and whose frames do not would be found again and again.
                    // And never at a group of another generation: it is not this segment's.
                    let mut resumes = walk.find_group(damage.lsn + 1);
                    while let Some(other) = resumes.filter(|g| g.generation != span.generation) {
                        resumes = walk.find_group(other.lsn + 1);
                    }
                    let corruption = span.corruption(damage, resumes.map(|g| g.lsn).or(next));
                    checked.problems.push(Error::Corrupt(corruption));
                    match resumes {
                        Some(group) => walk.resume(&group),
                        None => return Ok(checked),
                    }
                }
            }
        }
    }
}

/// How many threads to take besides the caller's, to check `count` segments.
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
fn helpers(count: usize) -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(count).saturating_sub(1)
}

/// Does `check` for each number below `count`, and tells `done`, on the calling thread, of each that is over. Returns the results in order, at least up to the
/// first error: numbers are taken in order, and what was taken is finished.
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
fn each<T: Send>(
    count: usize,
    helpers: usize,
    check: impl Fn(usize) -> Result<T> + Sync,
    mut done: impl FnMut(&Result<T>),
) -> Vec<Result<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let i = next.fetch_add(1, Ordering::Relaxed);
        if i >= count {
            return None;
        }
        let checked = check(i);
        if checked.is_err() {
            next.store(count, Ordering::Relaxed);
        }
        Some((i, checked))
    };
    let mut results = Vec::with_capacity(count);
    let mut keep = |(i, checked)| {
        done(&checked);
        results.push((i, checked));
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
            if thread::Builder::new().name("cairn-verify".into()).spawn_scoped(scope, help).is_err() {
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
    results.into_iter().map(|(_, checked)| checked).collect()
}

/// Checkers of interleavings have no scopes for threads, and nothing to check here.
#[cfg(any(cairn_loom, cairn_shuttle))]
mod modelled {
    pub(super) fn helpers(_count: usize) -> usize {
        0
    }

    pub(super) fn each<T>(
        count: usize,
        _helpers: usize,
        check: impl Fn(usize) -> super::Result<T>,
        mut done: impl FnMut(&super::Result<T>),
    ) -> Vec<super::Result<T>> {
        (0..count).map(check).inspect(|checked| done(checked)).collect()
    }
}

#[cfg(test)]
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::Lsn;
    use crate::sync::Mutex;

    fn failed(i: usize) -> Error {
        Error::Truncated { lsn: Lsn(i as u64) }
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
                let sound: Vec<_> = results.iter().take_while(|checked| checked.is_ok()).flatten().copied().collect();
                assert!(sound.iter().copied().eq(0..wrong.first().copied().unwrap_or(20)), "{helpers}: {sound:?}");
                assert_eq!(wrong.is_empty(), results.len() == sound.len());
                assert!(told.is_superset(&sound.into_iter().collect()));
            }
        }
        assert!(each(0, 3, |_| Ok(()), |_| {}).is_empty());
    }

    /// The caller gets a helper's first result last.
    #[test]
    fn results_come_in_order_whoever_is_first() {
        let (caller, helped, begun) = (thread::current().id(), AtomicUsize::new(0), AtomicUsize::new(0));
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

    #[test]
    fn there_are_never_more_threads_than_segments() {
        assert_eq!((helpers(0), helpers(1)), (0, 0));
        assert!(helpers(2) <= 1);
        let processors = thread::available_parallelism().unwrap().get();
        assert_eq!(helpers(usize::MAX), processors - 1);
    }
}
