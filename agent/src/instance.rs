//! What this device and its file system say of the place that a ledger lives at: see [`core::instance`](crate::core::instance).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::{
    core::instance::{FileId, Instance},
    private_file,
};

/// Names that makers leave in the hardware of many devices.
const PLACEHOLDERS: [&str; 4] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
    "0000000000000000",
];

/// The name of the file that is made anew, beside the ledger.
const BESIDE: &str = "instance";

/// Looks at the ledger's file and at the device.
pub fn read(ledger: &Path) -> Instance {
    let device = device(Path::new("/"), is_container());
    Instance {
        path: Some(ledger.display().to_string()),
        beside: beside(ledger).into_iter().collect(),
        ..device.in_another_file(&file(ledger))
    }
}

/// The file that is beside a ledger now.
pub fn beside(ledger: &Path) -> Option<FileId> {
    let path = ledger.with_file_name(BESIDE);
    path.exists().then(|| file(&path).file())
}

/// Makes the file that is to be beside a ledger; [`put_beside`] puts it there.
///
/// # Errors
///
/// What the system says.
pub fn make_beside(ledger: &Path) -> io::Result<FileId> {
    let path = ledger.with_file_name(format!("{BESIDE}.new"));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    private_file::create(&path, &[])?;
    Ok(file(&path).file())
}

/// Puts the file that was made beside a ledger in the place of the former one.
///
/// # Errors
///
/// What the system says; then the former one is still there.
pub fn put_beside(ledger: &Path) -> io::Result<()> {
    let made = ledger.with_file_name(format!("{BESIDE}.new"));
    fs::rename(made, ledger.with_file_name(BESIDE))
}

/// Looks at the ledger's file alone.
pub fn file(ledger: &Path) -> Instance {
    let found = fs::metadata(ledger).ok();
    let born = found.as_ref().and_then(|found| found.created().ok());
    let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let number = found.as_ref().and_then(number);
    let kind = kind(ledger);
    Instance {
        born: born.and_then(|born| i64::try_from(born.as_nanos()).ok()),
        inode: number.filter(|_| kind.is_some_and(keeps_numbers)),
        file_system: kind,
        ..Instance::default()
    }
}

/// What a device says of itself below a root folder.
fn device(root: &Path, is_container: bool) -> Instance {
    let text = |path: &str| {
        let text = fs::read_to_string(root.join(path)).ok()?;
        // A device tree's texts end with a zero byte.
        let text = text.trim_matches(|end: char| end.is_whitespace() || end == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    };
    let hardware: [(&str, &[&str]); 2] = [
        ("product_uuid", &["sys/class/dmi/id/product_uuid"]),
        (
            "serial_number",
            &[
                "sys/firmware/devicetree/base/serial-number",
                "proc/device-tree/serial-number",
            ],
        ),
    ];
    let known = hardware.into_iter().filter_map(|(kind, paths)| {
        let name = paths.iter().find_map(|path| text(path))?.to_lowercase();
        (!PLACEHOLDERS.contains(&name.as_str())).then(|| (kind.to_owned(), name))
    });
    Instance {
        hardware: if is_container {
            BTreeMap::new()
        } else {
            known.collect()
        },
        machine: text("etc/machine-id").or_else(|| text("var/lib/dbus/machine-id")),
        boot: text("proc/sys/kernel/random/boot_id"),
        host: text("proc/sys/kernel/hostname"),
        ..Instance::default()
    }
}

/// Whether this is a container: the hardware is its host's then, and it may be moved to another with its volume.
fn is_container() -> bool {
    let files = ["/.dockerenv", "/run/.containerenv"].map(PathBuf::from);
    let variables = ["container", "KUBERNETES_SERVICE_HOST"];
    files.iter().any(|file| file.exists())
        || variables
            .iter()
            .any(|name| std::env::var_os(name).is_some())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn kind(path: &Path) -> Option<u64> {
    u64::try_from(rustix::fs::statfs(path).ok()?.f_type).ok()
}

/// Other systems have one kind for such files, each.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn kind(_path: &Path) -> Option<u64> {
    Some(0)
}

/// Whether a file has the same number after each restart: ext2 to ext4, XFS, Btrfs, F2FS, ZFS, bcachefs, UBIFS and JFFS2,
/// and those of other systems.
const fn keeps_numbers(kind: u64) -> bool {
    matches!(
        kind,
        0 | 0xef53
            | 0x5846_5342
            | 0x9123_683e
            | 0xf2f5_2010
            | 0x2fc1_2fc1
            | 0xca45_1a4e
            | 0x2405_1905
            | 0x72b6
    )
}

#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "other systems have no such number"
)]
fn number(found: &fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(found))
}

#[cfg(not(unix))]
fn number(_found: &fs::Metadata) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_hardware_and_a_container_is_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(device(root.path(), false), Instance::default());
        write("sys/class/dmi/id/product_uuid", "AB12\n");
        write("proc/device-tree/serial-number", "10000000abcdef\0");
        write("etc/machine-id", "0123\n");
        write("proc/sys/kernel/random/boot_id", "boot\n");
        let found = device(root.path(), false);
        assert_eq!(found.hardware["product_uuid"], "ab12");
        assert_eq!(found.hardware["serial_number"], "10000000abcdef");
        assert_eq!(found.machine.as_deref(), Some("0123"));
        assert_eq!(found.boot.as_deref(), Some("boot"));
        assert!(device(root.path(), true).hardware.is_empty());
        write(
            "sys/class/dmi/id/product_uuid",
            &format!("{}\n", PLACEHOLDERS[2]),
        );
        let found = device(root.path(), false);
        assert!(!found.hardware.contains_key("product_uuid"));
    }

    #[test]
    fn a_file_that_grows_and_is_read_stays_the_same_and_a_copy_of_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "one").unwrap();
        let was = read(&path);
        fs::write(&path, "one and two").unwrap();
        fs::copy(&path, &copy).unwrap();
        assert_eq!(read(&path).differs(&was), None);
        let moved = folder.path().join("c");
        fs::rename(&path, &moved).unwrap();
        assert_eq!(read(&moved).differs(&was), None);
        if was.born.is_some() || was.inode.is_some() {
            assert!(read(&copy).differs(&was).is_some());
        }
    }
}
