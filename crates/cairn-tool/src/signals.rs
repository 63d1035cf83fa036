//! Signals that end a command cleanly, and the one that must not end it at all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
#[cfg(not(unix))]
use signal_hook::consts::{SIGINT, SIGTERM};

#[cfg(unix)]
const ENDING: &[i32] = &[SIGINT, SIGTERM, SIGHUP];
#[cfg(not(unix))]
const ENDING: &[i32] = &[SIGINT, SIGTERM];

/// Exit code of a process whose user did not want to wait for the clean end.
const IMPATIENT: i32 = 130;

/// So soon after the first one, a signal is taken for the same: timeout(1) sends each twice, to the
/// process and to its group.
#[cfg(unix)]
const SAME: std::time::Duration = std::time::Duration::from_millis(300);

/// A flag that the first signal to end sets. A later one ends the process on the spot: a disk that
/// hangs cannot hold it.
pub(crate) fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    {
        let stop = stop.clone();
        on_stop(move |_| stop.store(true, std::sync::atomic::Ordering::Relaxed))?;
    }
    #[cfg(not(unix))]
    for signal in ENDING {
        signal_hook::flag::register_conditional_shutdown(*signal, IMPATIENT, stop.clone())?;
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    Ok(stop)
}

/// Makes a file size limit an error of the write that meets it, instead of the end of the process.
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    #[cfg(unix)]
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

/// Calls `stop` with the signal's name, in a thread of its own, when one to end arrives. A later
/// one ends the process on the spot.
#[cfg(unix)]
pub(crate) fn on_stop(stop: impl FnOnce(&'static str) + Send + 'static) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(ENDING)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut arriving = signals.forever();
        let first = arriving.next();
        let at = std::time::Instant::now();
        if let Some(signal) = first {
            stop(signal_hook::low_level::signal_name(signal).unwrap_or("a signal"));
        }
        if arriving.any(|_| at.elapsed() > SAME) {
            signal_hook::low_level::exit(IMPATIENT);
        }
    })?;
    Ok(())
}

/// Where there are no signal iterators, the flag is looked at from time to time.
#[cfg(not(unix))]
pub(crate) fn on_stop(stop: impl FnOnce(&'static str) + Send + 'static) -> io::Result<()> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in ENDING {
        signal_hook::flag::register(*signal, stopped.clone())?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        stop("an interrupt");
    })?;
    Ok(())
}
