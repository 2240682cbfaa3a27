//! XenStore, asked through libxenstore (tools/include/xenstore.h, the same in all versions).

use std::ffi::{CStr, CString, c_char, c_uint, c_ulong, c_void};
use std::io;

use libloading::Library;

use super::XenError;
use super::library::{function, load};

type Handle = *mut c_void;
type XsOpen = unsafe extern "C" fn(c_ulong) -> Handle;
type XsClose = unsafe extern "C" fn(Handle);
type XsRead = unsafe extern "C" fn(Handle, u32, *const c_char, *mut c_uint) -> *mut c_void;
type XsDirectory = unsafe extern "C" fn(Handle, u32, *const c_char, *mut c_uint) -> *mut *mut c_char;

/// XenStore, through libxenstore.
pub(super) struct Store {
    handle: Handle,
    close: XsClose,
    read: XsRead,
    directory: XsDirectory,
    _library: Library,
}

impl Store {
    pub(super) fn open() -> Result<Store, XenError> {
        let library = load("libxenstore.so.4").or_else(|_| load("libxenstore.so.3.0"))?;
        // SAFETY: the types are those of xenstore.h, the same in all versions.
        unsafe {
            let open: XsOpen = function(&library, "xs_open")?;
            let handle = open(0);
            if handle.is_null() {
                return Err(XenError::NoStore { source: io::Error::last_os_error() });
            }
            Ok(Store {
                handle,
                close: function(&library, "xs_close")?,
                read: function(&library, "xs_read")?,
                directory: function(&library, "xs_directory")?,
                _library: library,
            })
        }
    }

    /// What is kept under a path; `None` where nothing is.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let (path, mut length) = (CString::new(path).ok()?, 0);
        // SAFETY: the handle is open, the path ends with a zero; what comes back is ours and as long as it says.
        unsafe {
            let value = (self.read)(self.handle, 0, path.as_ptr(), &raw mut length);
            if value.is_null() {
                return None;
            }
            let bytes = std::slice::from_raw_parts(value.cast::<u8>(), length as usize);
            let text = String::from_utf8_lossy(bytes).into_owned();
            libc::free(value);
            Some(text)
        }
    }

    /// The names under a path.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let Ok(path) = CString::new(path) else { return Vec::new() };
        let mut count = 0;
        // SAFETY: the handle is open, the path ends with a zero; what comes back is one piece of memory that is ours, with
        // so many texts in it.
        unsafe {
            let names = (self.directory)(self.handle, 0, path.as_ptr(), &raw mut count);
            if names.is_null() {
                return Vec::new();
            }
            let of = std::slice::from_raw_parts(names.cast_const(), count as usize);
            let texts = of.iter().map(|name| CStr::from_ptr(*name).to_string_lossy().into_owned()).collect();
            libc::free(names.cast());
            texts
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nobody uses it any more.
        unsafe { (self.close)(self.handle) };
    }
}
