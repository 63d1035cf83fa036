//! guards: L18 L23
//!
//! Two threads that prepare at once, where the log may have no thread of its own for that: the
//! committer, and a caller. The file system holds single calls until the other thread has got
//! somewhere, or cannot get on. Every schedule that was found once lost acknowledged records.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use cairn_io::{Fs, NativeFs};
use cairn_log::{Log, Lsn, Options};
use cairn_sim::{Call, SimFs};

use crate::hooked::{Hook, hooked};

/// How long a thread waits for another one that may be waiting for it. The schedule is held up
/// that long at most; what is asserted does not depend on it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far a schedule has got.
#[derive(Debug, Default)]
struct Steps(Mutex<u32>, Condvar);

impl Steps {
    fn reach(&self, step: u32) {
        let mut at = self.0.lock().unwrap();
        *at = step.max(*at);
        self.1.notify_all();
    }

    /// Until this step was reached, or for as long as there is patience.
    fn wait(&self, step: u32) {
        let at = self.0.lock().unwrap();
        drop(self.1.wait_timeout_while(at, PATIENCE, |at| *at < step).unwrap());
    }

    fn at(&self) -> u32 {
        *self.0.lock().unwrap()
    }
}

fn options(fs: Arc<dyn Fs>) -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10).fs(fs)
}

/// Opens the log again and compares it with what was acknowledged, as `read` has it.
fn compare<T: PartialEq>(
    fs: Arc<dyn Fs>,
    path: &Path,
    acknowledged: &[T],
    read: impl Fn(Lsn, &[u8]) -> Option<T>,
) -> Result<(), String> {
    let count = acknowledged.len();
    let log = options(fs)
        .open(path)
        .map_err(|e| format!("{count} acknowledged, and does not open: {e}"))?;
    let mut found = Vec::new();
    for record in log.reader(log.head_lsn()).unwrap() {
        let record =
            record.map_err(|e| format!("{count} acknowledged, {} read: {e}", found.len()))?;
        found.extend(read(record.lsn(), record.payload()));
    }
    match found == acknowledged {
        true => Ok(()),
        false => Err(format!("{count} records acknowledged, {} are there", found.len())),
    }
}

/// Holds the committer when it has made the spare file, and again when it has renamed it.
#[derive(Debug, Default)]
struct Making(Steps);

impl Making {
    fn concerns(path: &Path) -> bool {
        path.ends_with("spare.tmp")
    }

    fn by_committer() -> bool {
        thread::current().name() == Some("cairn-commit")
    }
}

impl Hook for Making {
    fn before(&self, call: Call, path: &Path) -> io::Result<()> {
        if call == Call::Rename && Self::concerns(path) && !Self::by_committer() {
            // The caller has made a file under the same name, and would rename it.
            self.0.reach(2);
            self.0.wait(3);
        }
        Ok(())
    }
    fn after(&self, call: Call, path: &Path) -> io::Result<()> {
        if !Self::concerns(path) || !Self::by_committer() {
            return Ok(());
        }
        match call {
            Call::Create => {
                self.0.reach(1);
                self.0.wait(2);
            }
            // With two that prepare, of the caller's file.
            Call::Rename => {
                self.0.reach(3);
                self.0.wait(4);
            }
            _ => {}
        }
        Ok(())
    }
    fn background(&self, _: bool) -> bool {
        false
    }
}

/// The log rotates while the committer makes the next segment's file.
pub(crate) fn rotate_beside_making(fs: Arc<dyn Fs>, path: &Path, len: usize) -> Result<(), String> {
    let hooked = hooked(fs.clone(), Making::default());
    let steps = &hooked.layer().hook.0;
    let log = options(Arc::new(hooked.clone())).open(path).unwrap();
    let first = log.submit(&vec![0; len]).unwrap();
    // The committer leads, and prepares then.
    while log.durable_lsn() <= first.lsn() {
        thread::yield_now();
    }
    steps.wait(1);
    let mut acknowledged = vec![0];
    for n in 1..30 {
        log.commit(&vec![n; len]).map_err(|e| format!("commit {n}: {e}"))?;
        acknowledged.push(n);
        if steps.at() >= 3 {
            steps.reach(4);
            // The committer may take note of the name meanwhile.
            thread::sleep(Duration::from_millis(20));
        }
    }
    drop((first, log));
    compare(fs, path, &acknowledged, |_, payload| payload.first().copied())
}

#[test]
fn a_rotation_beside_a_thread_that_makes_the_next_segment_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for len in [300, 1200] {
        rotate_beside_making(Arc::new(SimFs::new()), "/log".as_ref(), len).unwrap();
        let path = dir.path().join(len.to_string());
        rotate_beside_making(Arc::new(NativeFs), &path, len).unwrap();
    }
}

/// Holds the second thread when it is about to cut a sealed segment's file.
#[derive(Debug, Default)]
struct Trimming(Steps);

impl Hook for Trimming {
    fn before(&self, call: Call, _: &Path) -> io::Result<()> {
        if call == Call::SetLen && thread::current().name() == Some("second") {
            self.0.reach(1);
            self.0.wait(2);
        }
        Ok(())
    }
    fn background(&self, _: bool) -> bool {
        false
    }
}

/// The segment whose file the second thread is to cut is dropped meanwhile, and its file becomes
/// the next segment.
pub(crate) fn recycle_beside_trimming(fs: Arc<dyn Fs>, path: &Path) -> Result<(), String> {
    let hooked = hooked(fs.clone(), Trimming::default());
    let steps = &hooked.layer().hook.0;
    let log = options(Arc::new(hooked.clone())).open(path).unwrap();
    log.commit(&[1; 2000]).unwrap();
    let mut live = Vec::new();
    thread::scope(|scope| -> Result<(), String> {
        let failed = |e: cairn_log::Error| format!("commit: {e}");
        let second = thread::Builder::new().name("second".into());
        // Begins a segment, and cuts the file of the first one.
        let second = second.spawn_scoped(scope, || log.commit(&[2; 2000])).unwrap();
        steps.wait(1);
        let mut lsn = log.commit(&[3; 300]).map_err(failed)?;
        log.truncate_before(lsn).map_err(failed)?;
        for n in 1..=29 {
            live.push((lsn, if n == 1 { 3 } else { n - 1 }));
            lsn = log.commit(&[n; 300]).map_err(failed)?;
        }
        live.push((lsn, 29));
        steps.reach(2);
        second.join().unwrap().map(drop).map_err(failed)
    })?;
    drop(log);
    // Where the second thread's record comes depends on the schedule.
    compare(fs, path, &live, |lsn, payload| (payload.len() == 300).then_some((lsn, payload[0])))
}

#[test]
fn a_recycled_file_is_not_cut_by_a_thread_that_prepared_before() {
    let dir = tempfile::tempdir().unwrap();
    recycle_beside_trimming(Arc::new(SimFs::new()), "/log".as_ref()).unwrap();
    recycle_beside_trimming(Arc::new(NativeFs), &dir.path().join("log")).unwrap();
}
