//! One state that was checked, kept in a folder so that it can be checked again.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::check::{Bench, Verdict};
use super::history::History;
use super::image::Image;
use crate::cli::{Backend, FileSystem};

const CASE: &str = "case.json";
const IMAGE: &str = "image";

/// A state of a device, where it comes from, and what must be found in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) fs: FileSystem,
    /// How the log was to write.
    pub(crate) backend: Option<Backend>,
    pub(crate) seed: u64,
    /// Operations recorded when the power failed.
    pub(crate) cut_at: usize,
    /// Operations since the last flush.
    pub(crate) window: Range<usize>,
    /// What became of each of them.
    pub(crate) fates: String,
    /// What was found to be wrong.
    pub(crate) message: String,
    pub(crate) history: History,
    #[serde(skip)]
    pub(crate) image: Option<Image>,
}

impl Case {
    /// Keeps it in a new folder of `keep`.
    pub(crate) fn save(&self, keep: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(keep)?;
        let prefix = format!("{}-{}-{}-", self.fs.name(), self.seed, self.cut_at);
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(keep)?.keep();
        serde_json::to_writer_pretty(File::create(folder.join(CASE))?, self)?;
        if let Some(image) = &self.image {
            image.save(&File::create(folder.join(IMAGE))?)?;
        }
        Ok(folder)
    }

    fn load(folder: &Path) -> Result<Self> {
        let open = |name| {
            File::open(folder.join(name))
                .with_context(|| format!("cannot open {name} in {}", folder.display()))
        };
        let mut case: Case = serde_json::from_reader(open(CASE)?)?;
        case.image = Some(Image::from_file(&open(IMAGE)?)?);
        Ok(case)
    }

    /// Where and how the power failed.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}, seed {}, cut at operation {} (since the last flush: {:?}), writes {}: {}",
            self.fs.name(),
            self.seed,
            self.cut_at,
            self.window,
            self.fates,
            self.message
        )
    }
}

/// Checks a kept state again.
pub(crate) fn replay(folder: &Path, scratch: &Path) -> Result<Verdict> {
    let case = Case::load(folder)?;
    println!("{}", case.describe());
    let bench = Bench::new(case.fs, case.backend, scratch)?;
    case.image.context("no image")?.restore(&bench.image)?;
    bench.check(&case.history, case.cut_at, true)
}
