//! What is told of a directory whose names cannot be made durable.

use std::io;

/// What a system that has no barrier for directories says reads like a fault of the caller's. No
/// call is at fault, and none is acknowledged there: names could not be made durable.
pub(super) fn explain_barrier(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "this file system cannot make the names of files durable, and nothing can be \
                 acknowledged on it: use a directory on another one ({error})"
            ),
        ),
        _ => error,
    }
}
