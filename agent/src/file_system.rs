//! The file system that the data directory is on, where that is one on which a ledger is not safe.

use std::path::Path;

/// A kind of file system that a ledger should not be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Risky {
    /// Its name.
    pub name: &'static str,
    /// Whether what is on it ends with the power.
    is_memory: bool,
}

impl Risky {
    /// The risk, for a person.
    pub const fn risk(self) -> &'static str {
        if self.is_memory {
            "it is in memory: a loss of power, or a new start of the device or the container, takes all that is owed"
        } else {
            "locks and writes of several devices may not hold on it: two agents on it could damage the ledger"
        }
    }

    /// What to do about it, for a person.
    pub const fn advice(self) -> &'static str {
        if self.is_memory {
            "move the data directory to a disk: --data-dir"
        } else {
            "move the data directory to a disk of this device (--data-dir), or see that never more than one agent \
             is started on it"
        }
    }
}

/// Looks what a folder is on; `None` where that is as it should be, or cannot be told.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn risky(folder: &Path) -> Option<Risky> {
    of_magic(u64::try_from(rustix::fs::statfs(folder).ok()?.f_type).ok()?)
}

/// Other systems are not asked.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn risky(_folder: &Path) -> Option<Risky> {
    None
}

/// As `statfs(2)` lists them. virtiofs is a kind of FUSE, and tells no more.
#[cfg(any(target_os = "linux", target_os = "android"))]
const fn of_magic(magic: u64) -> Option<Risky> {
    let (name, is_memory) = match magic {
        0x6969 => ("NFS", false),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => ("SMB (CIFS)", false),
        0x0102_1997 => ("9p", false),
        0x6573_5546 => ("FUSE (virtiofs and others)", false),
        0x0102_1994 => ("tmpfs", true),
        0x8584_58f6 => ("ramfs", true),
        _ => return None,
    };
    Some(Risky { name, is_memory })
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn shared_file_systems_and_memory_are_named_and_disks_are_not() {
        let name = |magic| of_magic(magic).map(|found| (found.name, found.is_memory));
        assert_eq!(name(0x6969), Some(("NFS", false)));
        assert_eq!(name(0xff53_4d42), Some(("SMB (CIFS)", false)));
        assert_eq!(name(0x0102_1994), Some(("tmpfs", true)));
        for disk in [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x794c_7630] {
            assert_eq!(name(disk), None, "{disk:x}");
        }
        assert_eq!(risky(Path::new("/no such folder")), None);
    }
}
