//! Properties that every simulated workload has, whatever the structure: each one function with a
//! name. That no call hangs is the world's own ([`cairn_sim::run`]).

use std::path::Path;

use cairn_sim::{Broken, SimFs};

/// See [`untouched`].
pub const TRUTH: &str = "inspection tells the truth and changes nothing";
/// See [`bounded`] and [`all_closed`].
pub const BOUNDED: &str = "memory, descriptors and space stay bounded";
/// See [`usable`].
pub const USABLE: &str = "after the last fault it can be used without help";
/// Calls succeed in a life in which nothing fails, and nobody does what explains an error.
pub const NO_ERROR: &str = "calls succeed when nothing fails";
/// See [`refused`].
pub const TOLD: &str = "what cannot be survived is told, and nothing else is lost";

/// Files that a structure and those who look at it may have open.
pub const OPEN_MAX: u64 = 40;

/// A look from outside changes no byte.
///
/// # Errors
/// [`TRUTH`].
pub fn untouched<T>(fs: &SimFs, look: impl FnOnce() -> T) -> Result<T, Broken> {
    let before = fs.fingerprint();
    let seen = look();
    match fs.fingerprint() == before {
        true => Ok(seen),
        false => Err(Broken::new(TRUTH, "the look changed something")),
    }
}

/// Files under `place` take no more than `space` bytes, what waits in memory no more than `memory`
/// of `held` bytes, and no more than `open_max` files are open.
///
/// # Errors
/// [`BOUNDED`].
pub fn bounded(
    fs: &SimFs,
    place: impl AsRef<Path>,
    space: u64,
    (held, memory): (u64, u64),
    open_max: u64,
) -> Result<(), Broken> {
    let mut files = fs.files();
    files.retain(|(path, _)| path.starts_with(place.as_ref()));
    let taken: u64 = files.iter().map(|(_, len)| len).sum();
    let open = fs.counters().open_files;
    let text = match () {
        () if taken > space => format!("{taken} bytes on the disk, {space} expected: {files:?}"),
        () if held > memory => format!("{held} bytes wait in memory, {memory} expected"),
        () if open > open_max => format!("{open} files are open"),
        () => return Ok(()),
    };
    Err(Broken::new(BOUNDED, text))
}

/// Nothing stays open when nobody holds the structure any more.
///
/// # Errors
/// [`BOUNDED`].
pub fn all_closed(fs: &SimFs) -> Result<(), Broken> {
    match fs.counters().open_files {
        0 => Ok(()),
        open => Err(Broken::new(BOUNDED, format!("{open} files stay open after the end"))),
    }
}

/// In a life in which no call fails, opening and reading succeed, whatever earlier lives met.
/// `None`: calls do fail.
///
/// # Errors
/// [`USABLE`].
pub fn usable<T, E: std::fmt::Debug>(
    fs: &SimFs,
    opened: Result<T, E>,
) -> Result<Option<T>, Broken> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(_) if fs.counters().faults > 0 => Ok(None),
        Err(error) => Err(Broken::new(USABLE, format!("open: {error:?}"))),
    }
}

/// What was harmed is refused with an error that says so, and not a byte of `file` is changed.
/// Whether it was refused.
///
/// # Errors
/// [`TOLD`].
pub fn refused<T, E: std::fmt::Debug>(
    fs: &SimFs,
    file: &str,
    says_so: impl FnOnce(&E) -> bool,
    open: impl FnOnce() -> Result<T, E>,
) -> Result<bool, Broken> {
    let before = fs.read_file(file).ok();
    let broken = |text: String| Err(Broken::new(TOLD, text));
    match open() {
        Ok(_) => Ok(false),
        Err(error) if !says_so(&error) => broken(format!("{error:?}")),
        Err(error) if fs.read_file(file).ok() != before => {
            broken(format!("refused, and changed: {error:?}"))
        }
        Err(_) => Ok(true),
    }
}
