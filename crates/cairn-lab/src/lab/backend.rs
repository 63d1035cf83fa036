//! How the log is made to write, and whether it does.

use std::sync::Arc;

use anyhow::{Result, ensure};
use cairn_io::{Fs, Layered, NativeFs};
use cairn_log::{Log, Options};

use super::barrierless::Barrierless;
use crate::cli::{Backend, Control};

impl Backend {
    /// As the log calls it.
    fn reported(self) -> cairn_io::Backend {
        match self {
            Backend::Buffered => cairn_io::Backend::Buffered,
            Backend::Direct => cairn_io::Backend::Direct,
            Backend::IoUring => cairn_io::Backend::Uring,
        }
    }
}

/// Options of a log that is to write this way; as it chooses if `None`.
pub(crate) fn options(backend: Option<Backend>, control: Option<Control>) -> Result<Options> {
    let native = if backend == Some(Backend::IoUring) { uring()? } else { Arc::new(NativeFs) };
    let fs = match control {
        Some(control) => Arc::new(Layered::new(native, Barrierless::new(control))),
        None => native,
    };
    Ok(Log::options().direct_io(backend != Some(Backend::Buffered)).fs(fs))
}

#[cfg(feature = "io-uring")]
fn uring() -> Result<Arc<dyn Fs>> {
    Ok(Arc::new(cairn_io::UringFs))
}

#[cfg(not(feature = "io-uring"))]
fn uring() -> Result<Arc<dyn Fs>> {
    anyhow::bail!("built without io_uring; build with `--features cairn-lab/io-uring`")
}

/// Fails if the log writes in another way than it was to. It falls back without a word, at any file
/// of its own, so this is asked again and again.
pub(crate) fn ensure_used(used: cairn_io::Backend, wanted: Option<Backend>) -> Result<()> {
    let wanted = wanted.map_or(used, Backend::reported);
    ensure!(used == wanted, "the log was to write {wanted}, and writes {used}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_writes_otherwise_than_asked_is_an_error() {
        for wanted in [Backend::Buffered, Backend::Direct, Backend::IoUring] {
            for used in
                [cairn_io::Backend::Buffered, cairn_io::Backend::Direct, cairn_io::Backend::Uring]
            {
                assert_eq!(ensure_used(used, Some(wanted)).is_ok(), used == wanted.reported());
                ensure_used(used, None).unwrap();
            }
        }
    }
}
