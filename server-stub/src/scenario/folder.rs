//! An agent's data folder: made, copied, and put back, as backups and images of disks do.

use std::{io, path::Path};

use fs_err as fs;

/// Makes a folder for its owner only, as agents want theirs.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Copies a folder to where there may be one already: the files are new ones, with the rights of the old. Sockets are
/// left out.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    create_private(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let place = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &place)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_all_files_and_nothing_of_what_was_there_before() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        create_private(&from.join("inner")).unwrap();
        fs::write(from.join("inner/ledger"), "17").unwrap();
        create_private(&to).unwrap();
        fs::write(to.join("left over"), "").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("inner/ledger")).unwrap(), "17");
        assert!(!to.join("left over").exists());
        assert!(from.join("inner/ledger").exists());
    }
}
