//! The hypervisor, asked through libxenctrl.
//!
//! Facts: tools/include/xenctrl.h and xen/domctl.h of 4.17; `xc_logdirty_control` was split from `xc_shadow_control` in
//! 4.16.

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulong, c_void};
use std::io;
use std::ptr::null_mut;
use std::rc::Rc;

use libloading::Library;

use super::XenError;
use super::library::{Version, function, load};

/// A domain's number.
pub(super) type DomId = u32;

/// XEN_DOMCTL_SHADOW_OP_*.
const OFF: c_uint = 0;
const ENABLE_LOGDIRTY: c_uint = 2;
const CLEAN: c_uint = 11;
/// A page type of `xc_get_pfn_type_batch`: nothing is there (XEN_DOMCTL_PFINFO_XTAB), or what was there is broken, or
/// only to be allocated.
const TYPE_SHIFT: u32 = 28;
const NO_PAGE_FROM: c_ulong = 0xd;
/// Most types that are asked for in one call.
pub(super) const TYPES_MAX: usize = 1024;

/// The version since which the log has a call of its own.
const LOGDIRTY_CONTROL: Version = Version { major: 4, minor: 16 };

/// `struct xc_hypercall_buffer`: memory that Xen may write.
#[repr(C)]
struct HypercallBuffer {
    hbuf: *mut c_void,
    param_shadow: *mut HypercallBuffer,
    dir: c_int,
    ubuf: *mut c_void,
    sz: usize,
}

/// `xc_shadow_op_stats_t`.
#[repr(C)]
#[derive(Default)]
struct Stats {
    fault_count: u32,
    dirty_count: u32,
}

/// `xc_domaininfo_t`, whose beginning is the same in all versions; longer than any of them.
#[repr(C, align(8))]
struct Info {
    domain: u16,
    _pad: u16,
    flags: u32,
    _more: [u64; 63],
}

/// What becomes of a domain (XEN_DOMINF_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    flags: u32,
}

impl State {
    pub(super) fn is_dying(self) -> bool {
        self.flags & 1 != 0
    }

    /// Full virtualisation: HVM or PVH.
    pub(super) fn is_hvm(self) -> bool {
        self.flags & (1 << 1) != 0
    }

    /// Suspended, for one.
    pub(super) fn is_shut_down(self) -> bool {
        self.flags & (1 << 2) != 0
    }

    pub(super) fn is_paused(self) -> bool {
        self.flags & (1 << 3) != 0
    }
}

/// `struct xentoollog_logger`.
#[repr(C)]
struct Logger {
    vmessage: extern "C" fn(*mut Logger, c_int, c_int, *const c_char, *const c_char, *mut c_void),
    progress: Option<extern "C" fn()>,
    destroy: extern "C" fn(*mut Logger),
}

extern "C" fn say_nothing(_: *mut Logger, _: c_int, _: c_int, _: *const c_char, _: *const c_char, _: *mut c_void) {}

extern "C" fn keep(_: *mut Logger) {}

type Handle = *mut c_void;
type InterfaceOpen = unsafe extern "C" fn(*mut Logger, *mut Logger, c_uint) -> Handle;
type InterfaceClose = unsafe extern "C" fn(Handle) -> c_int;
type AllocPages = unsafe extern "C" fn(Handle, *mut HypercallBuffer, c_int) -> *mut c_void;
type FreePages = unsafe extern "C" fn(Handle, *mut HypercallBuffer, c_int);
type NrGpfns = unsafe extern "C" fn(Handle, DomId, *mut c_ulong) -> c_int;
type PfnTypes = unsafe extern "C" fn(Handle, DomId, c_uint, *mut c_ulong) -> c_int;
type InfoList = unsafe extern "C" fn(Handle, DomId, c_uint, *mut Info) -> c_int;
type ShadowControl = unsafe extern "C" fn(Handle, DomId, c_uint, *mut c_uint, c_uint) -> c_int;
type LogdirtyControl =
    unsafe extern "C" fn(Handle, DomId, c_uint, *mut HypercallBuffer, c_ulong, c_uint, *mut Stats) -> c_longlong;
type ShadowControlOld =
    unsafe extern "C" fn(Handle, DomId, c_uint, *mut HypercallBuffer, c_ulong, *mut c_ulong, u32, *mut Stats) -> c_int;

/// How this version is asked about its log.
enum Calls {
    /// 4.16 and later.
    Split(ShadowControl, LogdirtyControl),
    /// Before.
    One(ShadowControlOld),
}

/// The hypervisor, through libxenctrl.
pub(super) struct Control {
    handle: Handle,
    close: InterfaceClose,
    alloc: AllocPages,
    free: FreePages,
    nr_gpfns: NrGpfns,
    pfn_types: PfnTypes,
    info_list: InfoList,
    calls: Calls,
    _logger: Box<Logger>,
    _library: Library,
}

impl Control {
    /// Opens the hypervisor of this version.
    pub(super) fn open(version: Version) -> Result<Control, XenError> {
        let Version { major, minor } = version;
        let library = load(&format!("libxenctrl.so.{major}.{minor}"))?;
        // SAFETY: the types are those of xenctrl.h of this version.
        unsafe {
            let open: InterfaceOpen = function(&library, "xc_interface_open")?;
            let calls = if version >= LOGDIRTY_CONTROL {
                Calls::Split(function(&library, "xc_shadow_control")?, function(&library, "xc_logdirty_control")?)
            } else {
                Calls::One(function(&library, "xc_shadow_control")?)
            };
            let mut logger = Box::new(Logger { vmessage: say_nothing, progress: None, destroy: keep });
            let handle = open(&raw mut *logger, &raw mut *logger, 0);
            if handle.is_null() {
                return Err(XenError::NotDom0 { source: io::Error::last_os_error() });
            }
            Ok(Control {
                handle,
                close: function(&library, "xc_interface_close")?,
                alloc: function(&library, "xc__hypercall_buffer_alloc_pages")?,
                free: function(&library, "xc__hypercall_buffer_free_pages")?,
                nr_gpfns: function(&library, "xc_domain_nr_gpfns")?,
                pfn_types: function(&library, "xc_get_pfn_type_batch")?,
                info_list: function(&library, "xc_domain_getinfolist")?,
                calls,
                _logger: logger,
                _library: library,
            })
        }
    }

    /// How a domain is; `None` where there is none of this number.
    pub(super) fn state(&self, domain: DomId) -> io::Result<Option<State>> {
        let mut info = Info { domain: u16::MAX, _pad: 0, flags: 0, _more: [0; 63] };
        // SAFETY: the handle is open, and there is room for one domain.
        let found = unsafe { (self.info_list)(self.handle, domain, 1, &raw mut info) };
        if found < 0 {
            return Err(io::Error::last_os_error());
        }
        // The list begins with the first domain there is from this number on.
        let is_it = found > 0 && u32::from(info.domain) == domain;
        Ok(is_it.then_some(State { flags: info.flags }))
    }

    /// Turns the log on. Everything written from now on is in it.
    pub(super) fn enable_log(&self, domain: DomId) -> io::Result<()> {
        self.shadow_control(domain, ENABLE_LOGDIRTY)
    }

    /// Turns the log off.
    pub(super) fn disable_log(&self, domain: DomId) -> io::Result<()> {
        self.shadow_control(domain, OFF)
    }

    fn shadow_control(&self, domain: DomId, operation: c_uint) -> io::Result<()> {
        // SAFETY: the handle is open; what may be null is.
        let done = unsafe {
            match self.calls {
                Calls::Split(control, _) => control(self.handle, domain, operation, null_mut(), 0),
                Calls::One(control) => {
                    control(self.handle, domain, operation, null_mut(), 0, null_mut(), 0, null_mut())
                }
            }
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads the log and clears it. `bitmap` has a bit for each page frame.
    pub(super) fn clean_log(&self, domain: DomId, bitmap: &mut Bitmap) -> io::Result<()> {
        let mut stats = Stats::default();
        let (buffer, pages) = (&raw mut *bitmap.buffer, bitmap.frames as c_ulong);
        // SAFETY: the handle is open, and the buffer has room for so many bits.
        let covered = unsafe {
            match self.calls {
                Calls::Split(_, control) => control(self.handle, domain, CLEAN, buffer, pages, 0, &raw mut stats),
                Calls::One(control) => {
                    control(self.handle, domain, CLEAN, buffer, pages, null_mut(), 0, &raw mut stats).into()
                }
            }
        };
        if covered < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// One more than the highest page frame number there may be.
    pub(super) fn frames(&self, domain: DomId) -> io::Result<u64> {
        let mut frames: c_ulong = 0;
        // SAFETY: the handle is open, and the number has a place.
        let done = unsafe { (self.nr_gpfns)(self.handle, domain, &raw mut frames) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(frames) }
    }

    /// Whether there are pages at these frame numbers, at most [`TYPES_MAX`] of them, from `first` on.
    pub(super) fn present(&self, domain: DomId, first: u64, count: usize) -> io::Result<Vec<bool>> {
        let mut frames: Vec<c_ulong> = (first..first + count as u64).collect();
        // SAFETY: the handle is open, and there are so many frames, whose types take their places.
        let done = unsafe { (self.pfn_types)(self.handle, domain, count as c_uint, frames.as_mut_ptr()) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(frames.iter().map(|answer| (answer >> TYPE_SHIFT) & 0xf < NO_PAGE_FROM).collect())
    }

    /// Memory for the log of so many page frames.
    pub(super) fn bitmap(self: &Rc<Self>, frames: u64) -> io::Result<Bitmap> {
        let pages =
            c_int::try_from(frames.div_ceil(8 * 4096)).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // As HYPERCALL_BUFFER_INIT_NO_BOUNCE has it.
        let unused = usize::MAX as *mut c_void;
        let mut buffer =
            Box::new(HypercallBuffer { hbuf: null_mut(), param_shadow: null_mut(), dir: 0, ubuf: unused, sz: 0 });
        // SAFETY: the handle is open, and the buffer lies where it is as long as it is used.
        let words = unsafe { (self.alloc)(self.handle, &raw mut *buffer, pages) };
        if words.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Bitmap { control: Rc::clone(self), buffer, words: words.cast(), frames, pages })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nobody uses it any more.
        unsafe { (self.close)(self.handle) };
    }
}

/// A bit for each page frame, in memory that Xen may write.
pub(super) struct Bitmap {
    control: Rc<Control>,
    buffer: Box<HypercallBuffer>,
    words: *const u64,
    frames: u64,
    pages: c_int,
}

impl Bitmap {
    /// Frame numbers whose bits are set, ascending.
    pub(super) fn ones(&self) -> impl Iterator<Item = u64> + '_ {
        // SAFETY: whole pages were allocated, of at least so many words, and Xen writes them only in a call.
        let words = unsafe { std::slice::from_raw_parts(self.words, self.frames.div_ceil(64) as usize) };
        let frames = self.frames;
        let of_word = |(index, word): (usize, &u64)| {
            let (first, mut left) = (64 * index as u64, *word);
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.checked_sub(1)?;
                Some(first + u64::from(bit))
            })
        };
        words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(of_word).filter(move |frame| *frame < frames)
    }
}

impl Drop for Bitmap {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this handle and so many pages.
        unsafe { (self.control.free)(self.control.handle, &raw mut *self.buffer, self.pages) };
    }
}
