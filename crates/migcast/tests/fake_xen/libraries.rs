//! Xen's libraries without Xen: libxenctrl and libxenstore of a dom0 with one other domain, as far as a recorder asks them.
//!
//! The test compiles this file (`rustc --crate-type cdylib`). What happens is in the folder `$FAKE_XEN`: `calls` gets a line
//! for each call; `on` is there while the log is on; a test makes `gone` (the domain has ended), `slow` (milliseconds of a
//! reading), `refuse` (an errno for turning the log on), `busy` (turning it off fails once), `closed` (Xen does not let anybody ask).

#![allow(clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks, missing_docs)]

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulong, c_void};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
    fn __errno_location() -> *mut c_int;
}

/// Page frames: memory, then nothing, then eight special pages just below 4 GiB.
const MEMORY: u64 = 2_000;
const SPECIAL: std::ops::Range<u64> = 0xfeff8..0xff000;

#[repr(C)]
pub struct Buffer {
    hbuf: *mut c_void,
    rest: [u64; 4],
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("FAKE_XEN").expect("the test says where")).join(name)
}

fn number(name: &str) -> Option<u64> {
    fs::read_to_string(file(name)).ok()?.trim().parse().ok()
}

fn domain() -> u32 {
    number("domain").expect("the test says which") as u32
}

fn note(call: &str) {
    let mut calls =
        fs::OpenOptions::new().append(true).create(true).open(file("calls")).expect("a folder of the test's");
    writeln!(calls, "{call}").expect("a folder of the test's");
}

fn fail(errno: c_int) -> c_int {
    unsafe { *__errno_location() = errno };
    -1
}

#[unsafe(no_mangle)]
pub extern "C" fn xc_interface_open(_: *mut c_void, _: *mut c_void, _: c_uint) -> *mut c_void {
    if file("closed").exists() {
        fail(13);
        return std::ptr::null_mut();
    }
    1 as *mut c_void
}

#[unsafe(no_mangle)]
pub extern "C" fn xc_interface_close(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc__hypercall_buffer_alloc_pages(
    _: *mut c_void,
    buffer: *mut Buffer,
    pages: c_int,
) -> *mut c_void {
    unsafe { (*buffer).hbuf = calloc(pages as usize, 4096) };
    unsafe { (*buffer).hbuf }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc__hypercall_buffer_free_pages(_: *mut c_void, buffer: *mut Buffer, _: c_int) {
    unsafe { free((*buffer).hbuf) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_domain_nr_gpfns(_: *mut c_void, _: u32, frames: *mut c_ulong) -> c_int {
    unsafe { *frames = SPECIAL.end };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_get_pfn_type_batch(_: *mut c_void, _: u32, count: c_uint, types: *mut c_ulong) -> c_int {
    for frame in unsafe { std::slice::from_raw_parts_mut(types, count as usize) } {
        *frame = if *frame < MEMORY || SPECIAL.contains(frame) { 0 } else { 0xf << 28 };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_domain_getinfolist(_: *mut c_void, first: u32, _: c_uint, info: *mut u16) -> c_int {
    if file("gone").exists() || first != domain() {
        return 0;
    }
    unsafe { *info = first as u16 };
    // Running, with hardware's paging.
    unsafe { *info.cast::<u32>().add(1) = (1 << 1) | (1 << 5) };
    1
}

fn switch(operation: c_uint) -> c_int {
    if file("gone").exists() {
        return fail(3);
    }
    match operation {
        2 => {
            note("enable");
            if let Some(errno) = number("refuse") {
                return fail(errno as c_int);
            }
            if file("on").exists() {
                return fail(22);
            }
            fs::write(file("on"), "").expect("a folder of the test's");
        }
        _ => {
            note("off");
            if fs::remove_file(file("busy")).is_ok() {
                return fail(16);
            }
            let _ = fs::remove_file(file("on"));
        }
    }
    0
}

/// Since 4.16.
#[cfg(not(before_4_16))]
#[unsafe(no_mangle)]
pub extern "C" fn xc_shadow_control(_: *mut c_void, _: u32, operation: c_uint, _: *mut c_uint, _: c_uint) -> c_int {
    switch(operation)
}

/// Since 4.16.
#[cfg(not(before_4_16))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_logdirty_control(
    _: *mut c_void,
    _: u32,
    operation: c_uint,
    buffer: *mut Buffer,
    frames: c_ulong,
    _: c_uint,
    _: *mut c_void,
) -> c_longlong {
    assert_eq!(operation, 11);
    unsafe { read(buffer, frames) }
}

/// One call for all of it.
#[cfg(before_4_16)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_shadow_control(
    _: *mut c_void,
    _: u32,
    operation: c_uint,
    buffer: *mut Buffer,
    frames: c_ulong,
    _: *mut c_ulong,
    _: u32,
    _: *mut c_void,
) -> c_int {
    match operation {
        11 => unsafe { read(buffer, frames) as c_int },
        _ => switch(operation),
    }
}

/// At the n-th reading the pages n to n + 9 have been written, a special one, and a frame that is none.
unsafe fn read(buffer: *mut Buffer, frames: c_ulong) -> c_longlong {
    assert_eq!(frames, SPECIAL.end);
    if file("gone").exists() {
        return fail(3).into();
    }
    std::thread::sleep(Duration::from_millis(number("slow").unwrap_or(0)));
    let before = fs::read_to_string(file("calls")).unwrap_or_default().matches("clean").count() as u64;
    note("clean");
    let words = unsafe { std::slice::from_raw_parts_mut((*buffer).hbuf.cast::<u64>(), frames.div_ceil(64) as usize) };
    words.fill(0);
    for frame in (before..before + 10).chain([SPECIAL.start + 4, MEMORY + 70]) {
        words[(frame / 64) as usize] |= 1 << (frame % 64);
    }
    frames as c_longlong
}

#[unsafe(no_mangle)]
pub extern "C" fn xs_open(_: c_ulong) -> *mut c_void {
    1 as *mut c_void
}

#[unsafe(no_mangle)]
pub extern "C" fn xs_close(_: *mut c_void) {}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xs_read(_: *mut c_void, _: u32, path: *const c_char, length: *mut c_uint) -> *mut c_void {
    let (path, id) = (unsafe { CStr::from_ptr(path) }.to_string_lossy(), domain());
    let value = match path.as_ref() {
        "/local/domain/0/name" => "Domain-0".to_owned(),
        path if path == format!("/local/domain/{id}/name") => "web".to_owned(),
        path if path == format!("/local/domain/{id}/vm") => "/vm/d4e4b915-30a6-4834-8b5b-403e6cd8574e".to_owned(),
        _ => return std::ptr::null_mut(),
    };
    unsafe {
        let memory = malloc(value.len() + 1).cast::<u8>();
        std::ptr::copy_nonoverlapping(value.as_ptr(), memory, value.len());
        *memory.add(value.len()) = 0;
        *length = value.len() as c_uint;
        memory.cast()
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xs_directory(
    _: *mut c_void,
    _: u32,
    _: *const c_char,
    count: *mut c_uint,
) -> *mut *mut c_char {
    let names = ["0".to_owned(), domain().to_string()];
    unsafe {
        let table = malloc(2 * size_of::<*mut c_char>() + 32).cast::<*mut c_char>();
        let mut text = table.add(2).cast::<u8>();
        for (index, name) in names.iter().enumerate() {
            *table.add(index) = text.cast();
            std::ptr::copy_nonoverlapping(name.as_ptr(), text, name.len());
            *text.add(name.len()) = 0;
            text = text.add(name.len() + 1);
        }
        *count = 2;
        table
    }
}
