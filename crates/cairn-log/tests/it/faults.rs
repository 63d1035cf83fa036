//! guards: L02 L08 L30 L34 L37 L44 L48 L52
//!
//! Every system call of a workload fails once, in every way, or from some moment on, with every
//! error that its manual page names. What was acknowledged stays, what is
//! refused did not happen, a poisoned handle says so for ever and still reads, and the log opens
//! again without help; power cuts around the fault included.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use cairn_log::{Error, ErrorKind, Lsn};
use cairn_sim::{
    Call, Chooser, CrashExplorer, Errno, FailedSync, Fault, FaultPlan, MetadataOrder, SimFs,
    SimOptions, Torn,
};

use crate::crash::tiny;
use crate::model::{DIR, Driver, chain, check_state, contents};

/// One step of the workload; deterministic, so that the n-th call is the same in every run.
type Step = fn(&mut Driver) -> cairn_log::Result<()>;

const STEPS: &[Step] = &[
    |d| d.append(100),
    |d| d.sync(),
    |d| d.batch(&[50, 900, 10]),
    |d| d.flush(),
    |d| d.append(30),
    |d| d.sync(),
    |d| d.append(3000),
    |d| d.append(3000),
    |d| d.append(3000),
    |d| d.sync_to(6),
    |d| d.append(9000),
    |d| d.append(20),
    |d| d.sync(),
    |d| d.truncate_before(4),
    |d| d.append(40),
    |d| d.truncate_after(6),
    |d| d.append(50),
    |d| d.sync(),
    |d| d.append_before_sector_end(),
    |d| d.sync(),
    |d| {
        d.close()?;
        d.open()
    },
    |d| d.append(60),
    |d| d.sync(),
    |d| {
        d.die();
        d.open()
    },
    |d| d.append(70),
    |d| d.sync(),
    |d| d.close(),
];

const FAULTS: &[Fault] = &[
    Fault::Fail(Errno::Eio),
    Fault::Fail(Errno::Enospc),
    Fault::Fail(Errno::Eintr),
    Fault::FailAfter(0, Errno::Eio),
    Fault::Short(5),
    Fault::ShortThenFail(700, Errno::Enospc),
];

/// What happened when a call failed.
#[derive(Default)]
struct Tally {
    runs: u64,
    faults: u64,
    retried: u64,
    reopened: u64,
    unnoticed: u64,
    states: u64,
}

/// Which calls fail how.
#[derive(Clone, Debug)]
struct Case {
    direct: bool,
    call: Call,
    /// By their numbers.
    calls: std::ops::Range<u64>,
    fault: Fault,
    mode: FailedSync,
}

impl Case {
    /// Runs the workload; `false` when it never came to the fault.
    fn happens(&self, tally: &mut Tally) -> bool {
        tally.runs += 1;
        match catch_unwind(AssertUnwindSafe(|| run(self, tally))) {
            Ok(Ok(came)) => came,
            Ok(Err(why)) => panic!("{self:?}: {why}"),
            Err(panic) => {
                println!("{self:?}");
                resume_unwind(panic);
            }
        }
    }
}

/// Runs the workload with one fault; `false` when it never came to it.
fn run(case: &Case, tally: &mut Tally) -> Result<bool, String> {
    let Case { direct, call, calls, fault, mode } = case.clone();
    let sim = SimFs::with_options(SimOptions::new().failed_sync(mode));
    let mut driver = Driver::new(sim, tiny().direct_io(direct));
    driver.faults = FaultPlan::new().on(call, calls, fault);
    driver.once = true;
    driver.sim.set_faults(driver.faults.clone());
    let mut failed_at = None;
    let open: Step = |d| d.open();
    for (i, step) in std::iter::once(&open).chain(STEPS).enumerate() {
        // A recovery may have kept less than the workload needs for its truncations.
        let step = if driver.log.is_none() && i > 0 { &open } else { step };
        let Err(error) = attempt(step, &mut driver) else { continue };
        let at = driver.sim.op_count();
        failed_at.get_or_insert(at);
        driver.disarm();
        recover(&mut driver, &error, tally)
            .map_err(|why| format!("step {i}: {}: {why}", chain(&error)))?;
    }
    if driver.sim.counters().faults == 0 {
        return Ok(false);
    }
    tally.faults += 1;
    let at = match failed_at {
        Some(at) => at,
        None => {
            tally.unnoticed += 1;
            return Ok(true);
        }
    };
    let explorer = CrashExplorer::new(driver.sim.trace())
        .torn(Torn::Versions)
        .metadata_order(MetadataOrder::Free)
        .exhaustive_limit(8)
        .samples_per_point(8)
        .points(at.saturating_sub(4)..=at + 12);
    let report =
        explorer.for_each(|state| check_state(&driver, state.point(), &state.fs()).map(drop));
    tally.states += report.map_err(|failure| failure.to_string())?.distinct;
    Ok(true)
}

/// Truncations name records that a recovery after a fault may have dropped: those steps are then
/// over.
fn attempt(step: &Step, driver: &mut Driver) -> cairn_log::Result<()> {
    if driver.log.is_some() && driver.end() < 8 && driver.sim.counters().faults > 0 {
        return driver.append(25);
    }
    step(driver)
}

fn recover(driver: &mut Driver, error: &Error, tally: &mut Tally) -> Result<(), String> {
    let poisoned = matches!(error, Error::Poisoned { .. } | Error::InDoubt { .. });
    // A truncation that failed half-way leaves two possibilities, and more appends would double
    // them.
    if driver.other.is_none()
        && let Some(log) = &driver.log
    {
        let refused = log.append(b"refused");
        match (poisoned, refused) {
            (true, Err(Error::Poisoned { .. })) => {}
            (true, other) => return Err(format!("a poisoned log answers {other:?}")),
            (false, Err(error)) if error.kind() == ErrorKind::Reopen => {
                return Err(format!("said nothing of being poisoned: {}", chain(&error)));
            }
            (false, Err(error)) => return Err(format!("does not go on: {}", chain(&error))),
            (false, Ok(lsn)) => {
                tally.retried += 1;
                driver.adopt(b"refused", lsn);
                return reopen_with_one_more(driver);
            }
        }
        if log.sync().is_ok() && log.durable_lsn() < log.appended_lsn() {
            return Err("a later barrier says Ok".into());
        }
        // What is durable can still be read.
        let durable = log.reader(Lsn::START).map_err(|e| chain(&e))?.durable();
        let read = durable.collect::<Result<Vec<_>, _>>().map_err(|e| chain(&e))?;
        let head = driver.model.head;
        if (read.len() as u64) + head < driver.model.acknowledged {
            return Err(format!(
                "{} acknowledged, {} readable",
                driver.model.acknowledged - head,
                read.len()
            ));
        }
    }
    tally.reopened += 1;
    driver.die();
    driver.open().map_err(|e| format!("does not open again: {}", chain(&e)))
}

/// The log refused a call and is whole: it takes the next one. Then the process dies, and what is
/// there is what was known, plus that one.
fn reopen_with_one_more(driver: &mut Driver) -> Result<(), String> {
    driver.sync().map_err(|e| format!("does not sync: {}", chain(&e)))?;
    driver.die();
    driver.open().map_err(|e| format!("does not open again: {}", chain(&e)))?;
    let (first, found) = contents(driver.log())?;
    driver.model.accepts(first, &found)
}

#[test]
fn every_call_fails_once_in_every_way() {
    let mut tally = Tally::default();
    let backends = [false, true];
    for (direct, call) in backends
        .into_iter()
        .flat_map(|direct| Call::ALL.into_iter().map(move |call| (direct, call)))
    {
        for &fault in FAULTS {
            for mode in [FailedSync::Old, FailedSync::Persisted] {
                if call != Call::Sync && mode != FailedSync::Old {
                    continue;
                }
                let case = |nth: u64| Case { direct, call, calls: nth..nth + 1, fault, mode };
                (0..).find(|nth| !case(*nth).happens(&mut tally));
            }
        }
    }
    let Tally { runs, faults, retried, reopened, unnoticed, states } = tally;
    println!(
        "{faults} faults in {runs} runs: {retried} refused and gone on, {reopened} reopened, \
             {unnoticed} made no difference; \
         {states} crash states around them"
    );
    assert!(faults > 500 && retried > 0 && reopened > 100);
}

/// A device that is gone, a quota that is used up: what failed goes on failing until the caller was
/// told. Nothing retries for ever, and what the first failure left is what all of them leave.
#[test]
fn every_call_fails_from_some_moment_on() {
    let mut tally = Tally::default();
    for call in Call::ALL {
        for errno in [Errno::Eio, Errno::Enospc, Errno::Enotsup] {
            for direct in [false, true] {
                let (fault, mode) = (Fault::Fail(errno), FailedSync::Old);
                let case = |nth| Case { direct, call, calls: nth..u64::MAX, fault, mode };
                (0..).step_by(5).find(|nth| !case(*nth).happens(&mut tally));
            }
        }
    }
    assert!(tally.faults > 100 && tally.reopened > 30, "{} faults", tally.faults);
}

/// The errors that the manual pages of Linux name, with their numbers there.
#[cfg(target_os = "linux")]
fn named_errors(call: Call) -> &'static [i32] {
    const EPERM: i32 = 1;
    const ENOENT: i32 = 2;
    const ENXIO: i32 = 6;
    const EBADF: i32 = 9;
    const EAGAIN: i32 = 11;
    const ENOMEM: i32 = 12;
    const EACCES: i32 = 13;
    const EBUSY: i32 = 16;
    const ENODEV: i32 = 19;
    const EISDIR: i32 = 21;
    const EINVAL: i32 = 22;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ETXTBSY: i32 = 26;
    const EFBIG: i32 = 27;
    const ESPIPE: i32 = 29;
    const EROFS: i32 = 30;
    const EPIPE: i32 = 32;
    const ENAMETOOLONG: i32 = 36;
    const ENOLCK: i32 = 37;
    const ENOSYS: i32 = 38;
    const ELOOP: i32 = 40;
    const EOVERFLOW: i32 = 75;
    const EOPNOTSUPP: i32 = 95;
    const EDQUOT: i32 = 122;
    const ESTALE: i32 = 116;
    match call {
        Call::Open => &[
            EACCES,
            EBUSY,
            EFBIG,
            EINVAL,
            EISDIR,
            ELOOP,
            EMFILE,
            ENAMETOOLONG,
            ENFILE,
            ENODEV,
            ENOMEM,
            ENXIO,
            EOPNOTSUPP,
            EOVERFLOW,
            EPERM,
            EROFS,
            ETXTBSY,
            EAGAIN,
            ESTALE,
        ],
        Call::Create => &[EACCES, EDQUOT, EMFILE, ENFILE, ENOMEM, EROFS, EPERM, ENOENT],
        Call::CreateDir => &[EACCES, EDQUOT, ENOENT, ENOMEM, EROFS, EPERM],
        Call::Rename => &[EACCES, EBUSY, EDQUOT, EINVAL, ENOMEM, EPERM, EROFS],
        Call::Remove => &[EACCES, EBUSY, ENOMEM, EPERM, EROFS],
        Call::List => &[EBADF, EACCES, EMFILE, ENFILE, ENOMEM],
        Call::SyncDir | Call::Sync => &[EBADF, EROFS, EINVAL, EDQUOT],
        Call::Random => &[ENOSYS, EINVAL, EAGAIN],
        Call::Read => &[EAGAIN, EBADF, EINVAL, EISDIR, ENXIO, EOVERFLOW, ESPIPE],
        Call::Write | Call::WriteDirect => {
            &[EAGAIN, EBADF, EDQUOT, EFBIG, EINVAL, EPERM, EPIPE, ENXIO, EOVERFLOW, ESPIPE]
        }
        Call::Len => &[EACCES, EBADF, ENOMEM, EOVERFLOW],
        Call::SetLen => &[EACCES, EFBIG, EINVAL, EISDIR, EPERM, EROFS, ETXTBSY, EBADF],
        Call::Allocate => {
            &[EBADF, EFBIG, EINVAL, ENODEV, ENOSYS, EOPNOTSUPP, EPERM, ESPIPE, ETXTBSY, EDQUOT]
        }
        Call::Lock => &[EBADF, EINVAL, ENOLCK],
        _ => &[],
    }
}

/// Each error at every eleventh place, and another one at the next.
#[cfg(target_os = "linux")]
#[test]
fn every_error_that_a_manual_page_names() {
    let mut tally = Tally::default();
    for call in Call::ALL {
        for (first, number) in (0u64..).zip(named_errors(call)) {
            let (fault, mode) = (Fault::Fail(Errno::Os(*number)), FailedSync::Old);
            let direct = first % 2 == 0 || call == Call::WriteDirect;
            let case = |nth: u64| Case { direct, call, calls: nth..nth + 1, fault, mode };
            (first % 11..).step_by(11).find(|nth| !case(*nth).happens(&mut tally));
        }
    }
    assert!(tally.faults > 150, "{} faults", tally.faults);
}

/// A sandbox forbids it, a network file system does not know it: reserving space is an
/// optimisation, and only lack of space is an error.
#[cfg(target_os = "linux")]
#[test]
fn space_is_reserved_where_that_can_be_done_and_a_log_does_without() {
    for number in named_errors(Call::Allocate).iter().chain(&[5]) {
        let sim = SimFs::new();
        sim.set_faults(FaultPlan::new().on(
            Call::Allocate,
            0..u64::MAX,
            Fault::Fail(Errno::Os(*number)),
        ));
        let mut driver = Driver::new(sim, tiny());
        // EFBIG and EDQUOT say that there is no space for it.
        if [27, 122].contains(number) {
            assert_eq!(driver.open().unwrap_err().kind(), ErrorKind::Space, "errno {number}");
            continue;
        }
        driver.open().unwrap_or_else(|e| panic!("errno {number}: {}", chain(&e)));
        for _ in 0..40 {
            driver.append(3000).unwrap_or_else(|e| panic!("errno {number}: {}", chain(&e)));
        }
        driver.close().unwrap_or_else(|e| panic!("errno {number}: {}", chain(&e)));
        driver.open().unwrap();
    }
}

/// guards: L02
///
/// The barrier that was to make it durable that a name is gone failed. Another one says Ok, and
/// proves nothing: the name may come back, so nothing is built on its being gone.
#[test]
fn a_second_ok_of_the_directorys_barrier_is_not_believed() {
    let mut driver = Driver::new(SimFs::new(), tiny());
    driver.open().unwrap();
    for _ in 0..9 {
        driver.append(500).unwrap();
        driver.sync().unwrap();
    }
    let middle = driver.log().reader(cairn_log::Seq(5)).unwrap().next().unwrap().unwrap().lsn();
    driver.sim.set_faults(FaultPlan::new().fail(Call::SyncDir, 0, Errno::Eio));
    let log = driver.log();
    assert!(matches!(log.truncate_before(middle), Err(Error::Poisoned { .. })));
    assert!(matches!(log.truncate_before(middle), Err(Error::Poisoned { .. })));
    assert!(matches!(log.append(b"on"), Err(Error::Poisoned { .. })));
    assert_eq!(driver.sim.counters().faults, 1);
    driver.die();
    driver.open().unwrap();
    assert_eq!(contents(driver.log()).unwrap().0, 0);
}

/// A call that returned an error may have been carried out: a segment that was made ahead has lost
/// its name, although taking it away is said to have failed.
pub(crate) fn a_failed_rename_that_was_done() -> Result<(), String> {
    let mut met = false;
    for nth in 0..6 {
        let sim = SimFs::with_options(SimOptions::new().seed(nth));
        let log = tiny().direct_io(false).fs(Arc::new(sim.clone())).open(DIR).unwrap();
        let mut lsns = Vec::new();
        for _ in 0..=nth {
            lsns.push(log.commit(&[1; 500]).unwrap());
        }
        let failing = Fault::FailAfter(1, Errno::Enospc);
        sim.set_faults(FaultPlan::new().on(Call::Rename, 0..1, failing));
        let _ = log.truncate_after(lsns[lsns.len() / 2]);
        met |= sim.counters().faults > 0;
        sim.set_faults(FaultPlan::new());
        let mut told = 0;
        while log.commit(&[2; 500]).is_ok() && told < 20 {
            told += 1;
            let sim = sim.trace().crash_at(sim.op_count(), &mut Chooser::everything());
            let log = tiny().fs(Arc::new(sim)).open(DIR).map_err(|e| e.to_string())?;
            let (_, found) = contents(&log)?;
            let twos = found.iter().filter(|record| record[0] == 2).count();
            if twos < told {
                return Err(format!("{twos} of {told} records"));
            }
        }
    }
    assert!(met, "no rename failed");
    Ok(())
}

#[test]
fn a_rename_that_failed_may_have_been_done() {
    a_failed_rename_that_was_done().unwrap();
}
