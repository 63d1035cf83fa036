//! What is the same in all output of `--json`: when it is on, errors and notes as objects, numbers
//! that fill 64 bits as strings. `docs/json.md` has the whole vocabulary.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Serialize, Serializer};

use crate::problem::Problem;
use crate::text::one_line;

/// Whether this process was asked for JSON. Set once, before anything is printed.
static ON: AtomicBool = AtomicBool::new(false);

/// Takes note of `--json` among the arguments, also when they make no sense otherwise: an error
/// about them is then an object, too.
pub(crate) fn choose(args: &[OsString]) {
    let options = args.iter().take_while(|arg| *arg != "--");
    ON.store(options.into_iter().any(|arg| arg == "--json"), Ordering::Relaxed);
}

pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// A number of which every bit may be set, such as a tag, as `0x` and 16 digits. Many readers of
/// JSON keep no more than 53 bits of a number.
pub(crate) fn hex<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#018x}"))
}

/// The same for a number that may not be there.
pub(crate) fn hex_if_any<S: Serializer>(
    value: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => hex(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// The same as decimal digits, for a number that an option takes.
pub(crate) fn decimal<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A line on standard error about what went wrong.
#[derive(Serialize)]
struct Failure<'a> {
    error: Failed<'a>,
}

#[derive(Serialize)]
struct Failed<'a> {
    command: &'a str,
    exit_code: u8,
    #[serde(flatten)]
    problem: Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// The line for an error.
pub(crate) fn failure(
    command: &str,
    exit_code: u8,
    problem: Problem,
    hint: Option<&str>,
) -> String {
    to_line(&Failure { error: Failed { command, exit_code, problem, hint } })
}

/// A line on standard error that is worth knowing and no failure.
#[derive(Serialize)]
struct Note<'a> {
    note: Noted<'a>,
}

#[derive(Serialize)]
struct Noted<'a> {
    message: &'a str,
}

/// The line for a note.
pub(crate) fn note(message: &str) -> String {
    to_line(&Note { note: Noted { message } })
}

fn to_line(value: &impl Serialize) -> String {
    // What is serialized here are strings and numbers.
    serde_json::to_string(value).unwrap_or_else(|error| one_line(&error.to_string()))
}
