//! Each case is a program of its own: how signals are dealt with belongs to a whole process, and some cases end it.

use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use super::*;

const ROLE: &str = "MIGCAST_TEST_SIGBUS";
/// Exit code of a handler that was set before ours.
const HEARD: i32 = 42;

extern "C" fn hears_all(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's words, or those of whoever passed the signal on; a handler may end the program so.
    unsafe {
        let right = signal == libc::SIGBUS && !(*info).si_addr().is_null() && !context.is_null();
        libc::_exit(if right { HEARD } else { 1 });
    }
}

extern "C" fn hears_the_number(signal: libc::c_int) {
    // SAFETY: a handler may end the program so.
    unsafe { libc::_exit(if signal == libc::SIGBUS { HEARD } else { 1 }) }
}

fn set(handler: usize, flags: libc::c_int) {
    // SAFETY: all-zero bytes are a valid sigaction; the handlers have the signatures that `flags` promise.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
    }
}

fn raise() {
    // SAFETY: sends a signal to this thread.
    unsafe { libc::raise(libc::SIGBUS) };
}

/// A page of a file that has none: touching it raises SIGBUS.
fn page_of_nothing() -> *const u8 {
    let file = std::fs::File::from(rustix::fs::memfd_create("nothing", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    let (prot, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, prot, flags, &file, 0).unwrap().cast() }
}

fn touch_nothing() {
    // SAFETY: the page is mapped and readable; that it raises SIGBUS is what is wanted.
    unsafe { page_of_nothing().read_volatile() };
}

fn copies(caught: &Caught, from: *const u8) -> bool {
    // SAFETY: `from` is a page that was mapped for the test.
    unsafe { caught.copy(from, &mut [0; 4096]) }
}

/// Not a check: the programs of the test below.
#[test]
fn program() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "information" | "information, sent" => set(hears_all as *const () as usize, libc::SA_SIGINFO),
        "number" => set(hears_the_number as *const () as usize, 0),
        "default" | "default, sent" => set(libc::SIG_DFL, 0),
        "ignored" | "ignored, sent" => set(libc::SIG_IGN, 0),
        _ => {}
    }
    let before = handler_now().unwrap().sa_sigaction;
    if role == "blocked" {
        // SAFETY: the set is made and then used.
        unsafe {
            let mut signals = std::mem::zeroed();
            libc::sigaddset(&raw mut signals, libc::SIGBUS);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        }
        assert!(Caught::hold().is_err());
        return;
    }
    let (one, two) = (Caught::hold().unwrap(), Caught::hold().unwrap());
    assert!(!copies(&one, page_of_nothing()) && copies(&two, [7_u8; 4096].as_ptr()));
    drop(one);
    assert!(!copies(&two, page_of_nothing()), "one that is left is enough");
    match role.as_str() {
        "put back" => {
            drop(two);
            assert_eq!(handler_now().unwrap().sa_sigaction, before);
            let again = Caught::hold().unwrap();
            assert!(!copies(&again, page_of_nothing()));
        }
        "covered" => {
            set(hears_all as *const () as usize, libc::SA_SIGINFO);
            assert!(Caught::hold().is_err());
            drop(two);
            assert_eq!(handler_now().unwrap().sa_sigaction, hears_all as *const () as usize);
            assert!(Caught::hold().is_err(), "theirs may pass on to ours");
        }
        role if role.ends_with("sent") => raise(),
        _ => touch_nothing(),
    }
}

fn play(role: &str) -> ExitStatus {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "memory::fault::tests::program", "--test-threads=1"]).env(ROLE, role);
    program.output().unwrap().status
}

#[test]
fn another_s_sigbus_does_what_it_did_before() {
    for role in ["information", "information, sent", "number"] {
        assert_eq!(play(role).code(), Some(HEARD), "{role}");
    }
    // Rust's own handler knows nothing of the fault either, and lets it end the program.
    for role in ["default", "default, sent", "ignored", "rust", "rust, sent"] {
        assert_eq!(play(role).signal(), Some(libc::SIGBUS), "{role}");
    }
    assert_eq!(play("ignored, sent").code(), Some(0));
}

#[test]
fn with_the_last_holder_it_goes_back_to_whoever_had_it() {
    assert_eq!(play("put back").code(), Some(0));
    assert_eq!(play("covered").code(), Some(0));
}

#[test]
fn a_thread_that_would_not_hear_of_it_is_refused() {
    assert_eq!(play("blocked").code(), Some(0));
}

#[test]
fn a_copy_ends_where_the_memory_does() {
    let file = std::fs::File::from(rustix::fs::memfd_create("half", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(&[7; 4096], 0).unwrap();
    let (prot, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let two_pages: *const u8 =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), 8192, prot, flags, &file, 0).unwrap().cast() };
    let caught = Caught::hold().unwrap();
    let mut bytes = [0; 4096];
    // SAFETY: both pages are mapped and readable.
    unsafe {
        assert!(caught.copy(two_pages, &mut bytes));
        assert_eq!(bytes, [7; 4096]);
        assert!(!caught.copy(two_pages.add(100), &mut bytes), "its last 100 bytes are not there");
        assert!(!caught.copy(two_pages.add(4096), &mut bytes));
    }
}
