//! Hands disks to SQLite: its tables of C functions, here those over names; [`methods`] are those
//! over an open file.
//!
//! A path of no disk goes to the file system that was SQLite's default, whose files bring their own
//! functions: only opening, deleting and looking up names pass through here. So does time.

mod methods;

use std::{
    ffi::{CStr, c_char, c_int},
    ptr,
    sync::OnceLock,
};

use rusqlite::ffi;

use crate::{
    disk::{Inner, is_simulated, resolve},
    handle::{self, Handle},
};

/// The longest path, for SQLite's buffers.
const PATH_MAX: c_int = 512;

/// What SQLite has in place of an open file: its own part first.
#[repr(C)]
struct SimFile {
    sqlite: ffi::sqlite3_file,
    /// Ours from `Box::into_raw`, from a successful open until the close.
    handle: *mut Handle,
}

/// SQLite hands a connection's files from thread to thread with the connection.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Handle>();
};

/// Makes simulated disks SQLite's default file system, once in a process.
pub(crate) fn register() {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    let code = *REGISTERED.get_or_init(|| {
        // SAFETY: without a name it finds the default, and initialises SQLite if need be. What it
        // finds is valid for good; null if there is none.
        let Some(base) = (unsafe { ffi::sqlite3_vfs_find(ptr::null()).as_ref() }) else {
            return ffi::SQLITE_ERROR;
        };
        let size = c_int::try_from(size_of::<SimFile>()).unwrap_or(c_int::MAX);
        let vfs = Box::new(ffi::sqlite3_vfs {
            szOsFile: base.szOsFile.max(size),
            mxPathname: base.mxPathname.max(PATH_MAX),
            pNext: ptr::null_mut(),
            zName: c"tally-simdisk".as_ptr(),
            pAppData: ptr::from_ref(base).cast_mut().cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            // Time, sleep, randomness and libraries: the base's own functions, which use nothing of
            // the file system they are called on.
            ..*base
        });
        // SAFETY: leaked, so valid for good, as SQLite demands; as is all that it points to.
        unsafe { ffi::sqlite3_vfs_register(Box::leak(vfs), 1) }
    });
    assert_eq!(code, ffi::SQLITE_OK, "SQLite refuses the simulated disk");
}

/// The file system that was the default before.
///
/// # Safety
///
/// `vfs` is the one that [`register`] made.
unsafe fn base(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: by the contract it is valid, and so is what `register` put there.
    unsafe { (*vfs).pAppData.cast() }
}

/// The path that SQLite gave, if it is one in UTF-8; a null pointer stands for a temporary file.
///
/// # Safety
///
/// `path` is null or a C string that outlives the use of what is returned.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: by the contract.
    unsafe { CStr::from_ptr(path) }.to_str().ok()
}

fn code(result: Result<(), i32>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

/// Puts a value where SQLite wants it.
///
/// # Safety
///
/// `out` is valid for a write.
unsafe fn answer<T>(out: *mut T, result: Result<T, i32>) -> c_int {
    match result {
        Ok(value) => {
            // SAFETY: by the contract.
            unsafe { out.write(value) };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

// SAFETY, for all below: SQLite calls them, with what its documentation of `sqlite3_vfs` promises:
// valid pointers, and buffers of the length it says.

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: see above; the file has room for ours and for the base's.
    unsafe {
        (*file).pMethods = ptr::null();
        let opened = match text(path) {
            Some(path) if is_simulated(path) => match resolve(path) {
                Some((disk, name)) => Handle::open(disk, name, flags),
                None => Err(ffi::SQLITE_CANTOPEN),
            },
            None if path.is_null() => Handle::open(Inner::temporary(), "temporary", flags),
            _ => {
                let base = base(vfs);
                return match (*base).xOpen {
                    Some(open) => open(base, path, file, flags, flags_out),
                    None => ffi::SQLITE_CANTOPEN,
                };
            }
        };
        match opened {
            Err(code) => code,
            Ok(handle) => {
                if !flags_out.is_null() {
                    *flags_out = if handle.is_read_only() {
                        flags & !ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_READONLY
                    } else {
                        flags
                    };
                }
                file.cast::<SimFile>().write(SimFile {
                    sqlite: ffi::sqlite3_file {
                        pMethods: &raw const methods::METHODS,
                    },
                    handle: Box::into_raw(Box::new(handle)),
                });
                ffi::SQLITE_OK
            }
        }
    }
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    sync_folder: c_int,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        match text(path) {
            Some(path) if is_simulated(path) => code(match resolve(path) {
                Some((disk, name)) => handle::delete(&disk, name, sync_folder != 0),
                None => Err(ffi::SQLITE_IOERR_DELETE_NOENT),
            }),
            _ => match (*base(vfs)).xDelete {
                Some(delete) => delete(base(vfs), path, sync_folder),
                None => ffi::SQLITE_IOERR_DELETE,
            },
        }
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        match text(path) {
            Some(path) if is_simulated(path) => {
                let there = match resolve(path) {
                    Some((disk, name)) => handle::access(&disk, name, flags),
                    None => Ok(false),
                };
                answer(out, there.map(c_int::from))
            }
            _ => match (*base(vfs)).xAccess {
                Some(access) => access(base(vfs), path, flags, out),
                None => ffi::SQLITE_IOERR_ACCESS,
            },
        }
    }
}

unsafe extern "C" fn full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    out_len: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: see above; the copy is only made if it fits.
    unsafe {
        match text(path) {
            Some(text) if is_simulated(text) => {
                let length = text.len() + 1;
                if usize::try_from(out_len).is_ok_and(|room| length <= room) {
                    ptr::copy_nonoverlapping(path, out, length);
                    ffi::SQLITE_OK
                } else {
                    ffi::SQLITE_CANTOPEN
                }
            }
            _ => match (*base(vfs)).xFullPathname {
                Some(full_pathname) => full_pathname(base(vfs), path, out_len, out),
                None => ffi::SQLITE_CANTOPEN,
            },
        }
    }
}
