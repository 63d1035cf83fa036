//! What the system says about a directory: file system, block device, space. Linux tells most of
//! it; elsewhere it is unknown.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;

/// What figures about a directory mean nothing without.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    pub(crate) system: String,
    pub(crate) cpus: usize,
    /// Processes that ran or wanted to in the last minute, on average.
    pub(crate) load: Option<f64>,
    pub(crate) file_system: FileSystem,
    /// The whole block device below; none for a file system without one, or when it is unknown.
    pub(crate) device: Option<Device>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FileSystem {
    /// As the mount table says it, such as `ext4`; empty when it is unknown.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) class: Class,
    pub(crate) mount_point: Option<PathBuf>,
    /// Of the mount and of the file system, separated by commas.
    pub(crate) options: String,
    pub(crate) total_bytes: Option<u64>,
    /// What somebody without privileges may use.
    pub(crate) free_bytes: Option<u64>,
}

/// What a type of file system means for durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    /// On a device of this machine.
    Local,
    /// Nowhere but in memory.
    Memory,
    /// On another machine.
    Network,
    /// The host's, shared with this virtual machine.
    Shared,
    /// Layers, as a container has them.
    Overlay,
    /// A process decides what a barrier means.
    Fuse,
    Unknown,
}

#[derive(Debug, Serialize)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) model: Option<String>,
    /// `write back`: it has a cache that a power cut empties, and flushes are sent.
    /// `write through`: it says that it has none.
    pub(crate) write_cache: Option<String>,
    pub(crate) rotational: Option<bool>,
    pub(crate) logical_block_size: Option<u32>,
    pub(crate) physical_block_size: Option<u32>,
    /// The devices this one is made of.
    pub(crate) below: Vec<String>,
}

impl Facts {
    /// Looks at `dir`; changes nothing, and never fails: what cannot be found out is unknown.
    pub(crate) fn of(dir: &Path) -> Self {
        let canonical = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let mount = Mount::of(&read("/proc/self/mountinfo"), &canonical);
        let device = mount.as_ref().and_then(block_dir).and_then(|block| Device::of(&block));
        let (total_bytes, free_bytes) = space(dir).unzip();
        let release = read("/proc/sys/kernel/osrelease");
        Facts {
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            load: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .and_then(|load| load.parse().ok()),
            file_system: FileSystem {
                class: mount.as_ref().map_or(Class::Unknown, |mount| Class::of(&mount.kind)),
                options: mount.as_ref().map_or(String::new(), |mount| mount.options.clone()),
                kind: mount.as_ref().map_or(String::new(), |mount| mount.kind.clone()),
                mount_point: mount.map(|mount| mount.point),
                total_bytes,
                free_bytes,
            },
            device,
        }
    }

    /// Whether so much else runs that waiting threads are woken late, which figures then measure.
    pub(crate) fn is_busy(&self) -> bool {
        self.load.is_some_and(|load| load > self.cpus as f64)
    }

    /// The facts as lines for people: what, and what it is.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let load = self.load.map(|load| format!(", load {load:.1}")).unwrap_or_default();
        vec![
            (
                "system",
                format!("{}, {}{load}", self.system, crate::report::count(self.cpus as u64, "CPU")),
            ),
            ("file system", self.file_system.to_text()),
            (
                "device",
                self.device.as_ref().map_or_else(|| "none known".to_owned(), Device::to_text),
            ),
        ]
    }
}

impl FileSystem {
    /// Whether the mount has an option, such as `nobarrier` or `barrier=0`.
    pub(crate) fn has_option(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }

    fn to_text(&self) -> String {
        let mut text = if self.kind.is_empty() { "unknown".to_owned() } else { self.kind.clone() };
        if let Some(point) = &self.mount_point {
            text += &format!(" on {} ({})", point.display(), self.options);
        }
        if let (Some(free), Some(total)) = (self.free_bytes, self.total_bytes) {
            text += &format!(", {} of {} free", ByteSize(free), ByteSize(total));
        }
        text
    }
}

impl Class {
    fn of(kind: &str) -> Self {
        match kind {
            "tmpfs" | "ramfs" | "devtmpfs" | "hugetlbfs" => Class::Memory,
            "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "ceph" | "afs" | "lustre" | "beegfs"
            | "gpfs" => Class::Network,
            "9p" | "virtiofs" | "vboxsf" | "prl_fs" | "vmhgfs" | "drvfs" => Class::Shared,
            "overlay" | "aufs" => Class::Overlay,
            "fuse" | "fuseblk" => Class::Fuse,
            kind if kind.starts_with("fuse.") => Class::Fuse,
            "" => Class::Unknown,
            _ => Class::Local,
        }
    }
}

impl Device {
    /// From its folder in `/sys`.
    fn of(block: &Path) -> Option<Self> {
        let attribute = |name: &str| {
            Some(read(block.join(name)).trim().to_owned()).filter(|text| !text.is_empty())
        };
        let number = |name: &str| attribute(name)?.parse().ok();
        let below = std::fs::read_dir(block.join("slaves")).into_iter().flatten().flatten();
        Some(Device {
            name: block.file_name()?.to_string_lossy().into_owned(),
            model: attribute("device/model"),
            write_cache: attribute("queue/write_cache"),
            rotational: attribute("queue/rotational").map(|text| text == "1"),
            logical_block_size: number("queue/logical_block_size"),
            physical_block_size: number("queue/physical_block_size"),
            below: below.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        })
    }

    /// Whether it is a disk that another system makes up: virtio, Xen.
    pub(crate) fn is_virtual(&self) -> bool {
        ["vd", "xvd"].iter().any(|prefix| self.name.starts_with(prefix))
            || self
                .model
                .as_deref()
                .is_some_and(|model| model.contains("QEMU") || model.contains("Virtual"))
    }

    fn to_text(&self) -> String {
        let mut parts = vec![match &self.model {
            Some(model) => format!("{} ({model})", self.name),
            None => self.name.clone(),
        }];
        if !self.below.is_empty() {
            parts.push(format!("made of {}", self.below.join(" and ")));
        }
        parts.push(format!("write cache: {}", self.write_cache.as_deref().unwrap_or("unknown")));
        parts.extend(
            self.rotational.map(|yes| if yes { "rotational" } else { "not rotational" }.to_owned()),
        );
        if let (Some(logical), Some(physical)) = (self.logical_block_size, self.physical_block_size)
        {
            parts.push(format!("blocks of {logical} and {physical} bytes"));
        }
        parts.join(", ")
    }
}

/// A line of `/proc/self/mountinfo`; see proc_pid_mountinfo(5).
#[derive(Debug, PartialEq)]
struct Mount {
    /// `major:minor`.
    device: String,
    point: PathBuf,
    kind: String,
    source: String,
    options: String,
}

impl Mount {
    /// The mount that `dir`, a path without links, is on: of the deepest ones the last, which hides
    /// the others.
    fn of(mountinfo: &str, dir: &Path) -> Option<Self> {
        let mounts =
            mountinfo.lines().filter_map(Self::parse).filter(|mount| dir.starts_with(&mount.point));
        mounts.max_by_key(|mount| mount.point.components().count())
    }

    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let (device, point, options) = (mount.next()?, mount.nth(1)?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, source, more) =
            (file_system.next()?, file_system.next()?, file_system.next().unwrap_or_default());
        // Most file systems repeat whether they are mounted for writing.
        let more = more
            .split(',')
            .filter(|o| !o.is_empty() && options.split(',').all(|other| other != *o));
        Some(Mount {
            device: device.to_owned(),
            point: unescape(point).into(),
            kind: kind.to_owned(),
            source: unescape(source),
            options: options.split(',').chain(more).collect::<Vec<_>>().join(","),
        })
    }
}

/// Blanks and the like are three octal digits behind a backslash.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

/// The folder in `/sys` of the whole device below a mount.
fn block_dir(mount: &Mount) -> Option<PathBuf> {
    let by_number = Path::new("/sys/dev/block").join(&mount.device).canonicalize().ok();
    // Btrfs has device numbers that no device has; its source is one.
    let by_source = || {
        let device = Some(&mount.source).filter(|source| source.starts_with("/dev/"))?;
        let device = Path::new(device).canonicalize().ok()?;
        Path::new("/sys/class/block").join(device.file_name()?).canonicalize().ok()
    };
    let path = by_number.or_else(by_source)?;
    if path.join("partition").exists() { path.parent().map(Path::to_owned) } else { Some(path) }
}

/// The text of a file that the kernel makes up; empty where there is none.
fn read(path: impl AsRef<Path>) -> String {
    if cfg!(target_os = "linux") {
        std::fs::read_to_string(path).unwrap_or_default()
    } else {
        String::new()
    }
}

/// Bytes in all, and bytes free.
#[cfg(unix)]
#[allow(clippy::useless_conversion, reason = "the types differ between systems")]
fn space(dir: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

#[cfg(not(unix))]
fn space(_: &Path) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=24684084k
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,nobarrier
30 27 8:1 /a /mnt/two\\040words rw,noatime shared:5 master:1 - btrfs /dev/sda1 rw,subvol=/a
31 27 0:50 / /mnt/no-super rw - 9p host
32 27 0:51 / /data ro - xfs /dev/old ro
33 27 0:52 / /data rw - nfs4 server:/data rw
";

    #[track_caller]
    fn check(dir: &str, kind: &str, options: &str, class: Class) {
        let mount = Mount::of(MOUNTS, Path::new(dir)).unwrap();
        assert_eq!((mount.kind.as_str(), mount.options.as_str()), (kind, options));
        assert_eq!(Class::of(&mount.kind), class);
    }

    #[test]
    fn the_deepest_and_last_mount_is_the_one() {
        check("/home/ada", "ext4", "rw,relatime,discard,nobarrier", Class::Local);
        check("/dev/shm/x", "tmpfs", "rw,relatime,size=24684084k", Class::Memory);
        check("/dev/shmx", "ext4", "rw,relatime,discard,nobarrier", Class::Local);
        check("/mnt/two words/log", "btrfs", "rw,noatime,subvol=/a", Class::Local);
        check("/mnt/no-super", "9p", "rw", Class::Shared);
        check("/data/log", "nfs4", "rw", Class::Network);
        assert_eq!(Mount::of("", Path::new("/")), None);
        assert_eq!(Mount::of("nonsense\n1 2 - x\n", Path::new("/")), None);
    }

    #[test]
    fn looking_never_fails() {
        let facts = Facts::of(Path::new("/no/such/directory"));
        assert_eq!(facts.file_system.free_bytes, None);
        assert_eq!(facts.lines().len(), 3);
    }
}
