//! The C functions over an open file: each turns what SQLite gives into a call of [`Handle`].

use std::{
    ffi::{c_int, c_void},
    ptr, slice,
    sync::atomic,
};

use rusqlite::ffi;

use super::{SimFile, answer, code};
use crate::{file::SECTOR, handle::Handle, locks::Level};

/// Version 2 is without memory-mapped files, which could not fail.
pub(super) static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The handle of an open file.
///
/// # Safety
///
/// `file` was opened by `open` and not yet closed, and is used by one thread at a time: SQLite keeps
/// a connection's files to itself.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: `open` wrote a `SimFile` there, with a handle from `Box::into_raw`.
    unsafe { &mut *(*file.cast::<SimFile>()).handle }
}

// SAFETY, for all below: SQLite calls them, with what its documentation of `sqlite3_io_methods`
// promises: a file that is open, buffers of the length it says, places for answers, and of the
// methods of one file none at the same time.

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: see above; after it, SQLite no longer uses the file.
    let handle = unsafe {
        let file = file.cast::<SimFile>();
        (*file).sqlite.pMethods = ptr::null();
        Box::from_raw((*file).handle)
    };
    handle.close();
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    length: c_int,
    start: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(length), Ok(start)) = (usize::try_from(length), usize::try_from(start)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: see above; the buffer is zeroed first, as a slice must not be uninitialised.
    let (handle, buffer) = unsafe {
        out.cast::<u8>().write_bytes(0, length);
        (
            handle(file),
            slice::from_raw_parts_mut(out.cast::<u8>(), length),
        )
    };
    match handle.read(start, buffer) {
        Ok(there) if there < length => ffi::SQLITE_IOERR_SHORT_READ,
        other => code(other.map(drop)),
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    length: c_int,
    start: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(length), Ok(start)) = (usize::try_from(length), usize::try_from(start)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: see above.
    let (handle, data) = unsafe { (handle(file), slice::from_raw_parts(data.cast(), length)) };
    code(handle.write(start, data))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    let Ok(length) = usize::try_from(length) else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    // SAFETY: see above.
    code(unsafe { handle(file) }.truncate(length))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: see above.
    code(unsafe { handle(file) }.sync())
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        let size = handle(file).size();
        let size = size.and_then(|it| it.try_into().map_err(|_| ffi::SQLITE_IOERR_FSTAT));
        answer(out, size)
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let Some(level) = Level::from_sqlite(level) else {
        return ffi::SQLITE_OK;
    };
    // SAFETY: see above.
    code(unsafe { handle(file) }.lock(level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see above.
    unsafe { handle(file) }.unlock(Level::from_sqlite(level));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: see above.
    unsafe { answer(out, handle(file).is_reserved().map(c_int::from)) }
}

unsafe extern "C" fn file_control(
    _file: *mut ffi::sqlite3_file,
    _operation: c_int,
    _argument: *mut c_void,
) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    c_int::try_from(SECTOR).unwrap_or(c_int::MAX)
}

/// Promises SQLite what its VFS for Unix does: that the bytes beside a write are safe, and no more.
unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    index: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let (Ok(index), Ok(size)) = (usize::try_from(index), usize::try_from(size)) else {
        return ffi::SQLITE_IOERR_SHMMAP;
    };
    // SAFETY: see above. The region lives for as long as the handle, or until it unmaps.
    unsafe {
        let start = handle(file).shm_map(index, size, extend != 0);
        answer(
            out,
            start.map(|it| it.map_or(ptr::null_mut(), <*mut u8>::cast)),
        )
    }
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let (Ok(first), Ok(count)) = (u32::try_from(first), u32::try_from(count)) else {
        return ffi::SQLITE_IOERR_SHMLOCK;
    };
    // SAFETY: see above.
    let handle = unsafe { handle(file) };
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        handle.shm_unlock(first, count);
        return ffi::SQLITE_OK;
    }
    code(handle.shm_lock(first, count, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0))
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    atomic::fence(atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: see above.
    unsafe { handle(file) }.shm_unmap();
    ffi::SQLITE_OK
}
