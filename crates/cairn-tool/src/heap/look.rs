//! One moment of a heap that may be in use.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use cairnlog::heap::Heap;
use cairnlog::stack::{self, EndState, Stack};

use super::shadow::Shadow;
use crate::stack::look as look_at_stack;

/// So long a heap that changes all the while is looked at again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the heap in a file, as the next opening will find it, and at how its stack ends. What
/// `see` returns is of one moment: if a writer changed the heap meanwhile, it is called again.
pub(super) fn look<T>(
    path: &Path,
    see: impl Fn(&Heap, EndState) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    look_below(path, |stack, end| see(&Heap::attach(stack)?, end))
}

/// As [`look`], at the stack, also if the heap in it is too damaged to open.
pub(super) fn look_below<T>(
    path: &Path,
    see: impl Fn(Stack, EndState) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        let moment = look_at_stack(path)?;
        let seen = shadow(path).and_then(|stack| see(stack, moment.end_state()));
        // Damage, too, is believed only if no writer wrote while it was found.
        if moment.is_current()? {
            return seen;
        }
        if begun.elapsed() > PATIENCE {
            bail!(
                "{} changes all the while; stop its writer, or run the command again",
                path.display()
            );
        }
    }
}

/// The stack in a file; what is written to it stays in memory.
fn shadow(path: &Path) -> anyhow::Result<Stack> {
    let shadow = Shadow::of(path).map_err(|source| stack::Error::Io {
        op: "open",
        path: path.to_owned(),
        source: Arc::new(source),
    })?;
    Ok(Stack::options().fs(Arc::new(shadow)).reserve(0).open(path)?)
}
