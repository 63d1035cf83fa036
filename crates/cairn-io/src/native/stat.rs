//! What the system says of a file: which one it is, of what kind, and how many names it has.

#[cfg(unix)]
use rustix::fs::FileType;

use crate::dir::{FileId, Kind, Stat};

/// The types of the fields differ from system to system.
#[cfg(unix)]
#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "on this system")]
pub(super) fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(stat.st_mode as _) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    };
    let id = FileId { device: stat.st_dev as u64, inode: stat.st_ino as u64 };
    Stat { id, kind, links: u64::from(stat.st_nlink) }
}

#[cfg(windows)]
pub(super) fn stat_of(file: &std::fs::File) -> std::io::Result<Stat> {
    let found = winapi_util::file::information(file)?;
    let kind = kind_of(&file.metadata()?);
    let id = FileId { device: found.volume_serial_number(), inode: found.file_index() };
    Ok(Stat { id, kind, links: found.number_of_links() })
}

#[cfg(not(unix))]
pub(super) fn kind_of(metadata: &std::fs::Metadata) -> Kind {
    match metadata.file_type() {
        found if found.is_symlink() => Kind::Link,
        found if found.is_dir() => Kind::Dir,
        found if found.is_file() => Kind::File,
        _ => Kind::Other,
    }
}
