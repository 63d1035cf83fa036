//! What has to be known about each file system.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use rustix::io::Errno;

use super::device::succeed;
use crate::cli::FileSystem;

const MIB: u64 = 1 << 20;
const XFS_GROUPS: u64 = 4;

impl FileSystem {
    /// As the kernel calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
        }
    }

    pub(crate) fn maker(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "mkfs.ext4",
            FileSystem::Xfs => "mkfs.xfs",
            FileSystem::Btrfs => "mkfs.btrfs",
        }
    }

    pub(crate) fn package(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "e2fsprogs",
            FileSystem::Xfs => "xfsprogs",
            FileSystem::Btrfs => "btrfs-progs",
        }
    }

    /// About the smallest device that the tools accept with settings near their defaults.
    pub(crate) fn device_len(self) -> u64 {
        match self {
            FileSystem::Ext4 => 64 * MIB,
            FileSystem::Xfs => 300 * MIB,
            FileSystem::Btrfs => 128 * MIB,
        }
    }

    /// Makes the file system in an image file of zeros.
    pub(crate) fn make(self, image: &Path) -> Result<()> {
        let mut command = Command::new(self.maker());
        match self {
            // Small block groups and journals are the defaults of small devices; blocks of 4 KiB
            // are those of all others.
            FileSystem::Ext4 => command.args([
                "-q",
                "-F",
                "-b",
                "4096",
                "-E",
                "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
            ]),
            FileSystem::Xfs => {
                command.args(["-q", "-f", "-K", "-d", &format!("agcount={XFS_GROUPS}")])
            }
            FileSystem::Btrfs => command.args(["-q", "-f", "-K"]),
        };
        succeed(command.arg(image)).map(drop)
    }

    /// Whether a write may be torn: not where it touches the superblock or what is as vital. No
    /// file system survives that, and drives that tear a sector's neighbours there make it
    /// unmountable, whatever the log does.
    pub(crate) fn may_tear(self, offset: u64, len: usize) -> bool {
        let end = offset + len as u64;
        let touches = |vital: Range<u64>| offset < vital.end && vital.start < end;
        let device_len = self.device_len();
        match self {
            // The first block of each group of 128 MiB: the superblock, and its copies.
            FileSystem::Ext4 => {
                !(0..device_len).step_by(128 << 20).any(|at| touches(at..at + 4096))
            }
            // The four headers of each allocation group.
            FileSystem::Xfs => !(0..XFS_GROUPS)
                .map(|i| i * (device_len / XFS_GROUPS))
                .any(|at| touches(at..at + 2048)),
            FileSystem::Btrfs => {
                ![64 << 10, 64 << 20, 256 << 30].into_iter().any(|at| touches(at..at + 4096))
            }
        }
    }

    /// Whether an error says that the file system found damage of its own. Reported apart from
    /// violations, never hidden.
    pub(crate) fn is_own_damage(error: &(dyn std::error::Error + 'static)) -> bool {
        // EFSCORRUPTED and EFSBADCRC are these two.
        let codes = [Errno::UCLEAN, Errno::BADMSG].map(|errno| Some(errno.raw_os_error()));
        error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| codes.contains(&error.raw_os_error()))
    }
}
