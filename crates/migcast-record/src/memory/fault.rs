//! Copying from memory that may not be there: where touching it raises SIGBUS, the copy ends early instead of the program.
//!
//! ```text
//! copy_bytes:  rep movsb          ── SIGBUS here ──► handler: go on after this instruction
//!              mov rax, rcx       bytes that were not copied
//! ```
//! Of all instructions of the program this one alone is caught; any other SIGBUS goes to whoever heard of it before. The
//! handler reads two words that the kernel gave it and one atomic pointer: it allocates nothing and waits for nobody, in
//! whatever thread and state it finds the program.

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::io;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use super::PAGE_SIZE;

/// `rep movsb` is two bytes long.
const INSTRUCTION_BYTES: i64 = 2;
/// Linux's codes of a SIGBUS at an address that cannot be filled, and at memory that is broken.
const BUS_ADRERR: i32 = 2;
const BUS_MCEERR_AR: i32 = 4;

/// Who heard of SIGBUS before. Never freed: a handler may be reading it in another thread.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());
static HOLDERS: Mutex<Holders> = Mutex::new(Holders { count: 0, covered: false });

struct Holders {
    count: usize,
    /// Somebody set a handler over ours and may still pass on to it, so that it can neither be taken away nor be set
    /// over theirs, which would go round in circles.
    covered: bool,
}

/// Copies `bytes` bytes, and returns how many were not copied because touching the next one raised SIGBUS. The unnamed
/// parameter keeps `bytes` in rcx, where the instruction wants it.
///
/// Written in assembly so that the handler knows the instruction, and so that nothing is assumed about memory that
/// another process writes meanwhile: what is copied may be half of a write, but the copy does not change any more.
#[unsafe(naked)]
unsafe extern "sysv64" fn copy_bytes(to: *mut u8, from: *const u8, _: usize, bytes: usize) -> usize {
    std::arch::naked_asm!("rep movsb", "mov rax, rcx", "ret")
}

/// Asks the processor to have a page at `from` in its second cache soon. A hint: it reads nothing and raises nothing,
/// and where nothing is mapped it does nothing.
pub(super) fn fetch(from: *const u8) {
    for line in (0..PAGE_SIZE as usize).step_by(64) {
        // SAFETY: a prefetch is allowed at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(line).cast()) };
    }
}

/// While one of these lives, the SIGBUS of [`Caught::copy`] is caught, in all threads. With the last one it goes back to
/// whoever heard of it before.
#[derive(Debug)]
pub(super) struct Caught(());

impl Caught {
    /// Catches it.
    ///
    /// # Errors
    /// What the kernel says; this thread blocks the signal, and so it would end the program; or somebody else has set a
    /// handler over ours.
    pub(super) fn hold() -> io::Result<Caught> {
        if blocked()? {
            return Err(io::Error::other("SIGBUS is blocked"));
        }
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        let current = handler_now()?;
        if holders.count == 0 && !holders.covered {
            install(&current)?;
        } else if !is_ours(&current) {
            return Err(io::Error::other("somebody else catches SIGBUS"));
        }
        holders.count += 1;
        Ok(Caught(()))
    }

    /// Copies from `from` until `to` is full. False where that raised SIGBUS; what `to` holds then means nothing.
    ///
    /// # Safety
    /// As many bytes as `to` has must be mapped at `from`, readable, by a mapping that Rust knows nothing of.
    pub(super) unsafe fn copy(&self, from: *const u8, to: &mut [u8]) -> bool {
        // SAFETY: the caller vouches for `from`, the slice for `to`; SIGBUS is caught while `self` lives. They do not
        // overlap: `to` is Rust's.
        unsafe { copy_bytes(to.as_mut_ptr(), from, 0, to.len()) == 0 }
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        holders.count -= 1;
        if holders.count > 0 {
            return;
        }
        let before = BEFORE.load(Ordering::Acquire);
        holders.covered = !handler_now().is_ok_and(|current| is_ours(&current));
        if !holders.covered {
            // SAFETY: `before` was filled when the handler was installed, and is never freed.
            unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
        }
    }
}

fn blocked() -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks only; the set lives through the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set) } {
        // SAFETY: the set was filled by the call.
        0 => Ok(unsafe { libc::sigismember(&raw const set, libc::SIGBUS) } == 1),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn handler_now() -> io::Result<libc::sigaction> {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks only; the struct lives through the call.
    match unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut now) } {
        0 => Ok(now),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_bus_error as *const () as usize
}

/// Sets our handler in place of `before`. What it passes on, it passes on as `before` wants to be called.
fn install(before: &libc::sigaction) -> io::Result<()> {
    BEFORE.store(Box::into_raw(Box::new(*before)), Ordering::Release);
    let mut action = *before;
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | before.sa_flags & (libc::SA_RESTART | libc::SA_NODEFER);
    // SAFETY: the handler has the signature of SA_SIGINFO and does only what a handler may do.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes both to a handler installed with SA_SIGINFO, and nobody else uses them meanwhile.
    let (code, here) = unsafe { ((*info).si_code, &mut *context.cast::<libc::ucontext_t>()) };
    let at = &mut here.uc_mcontext.gregs[libc::REG_RIP as usize];
    if matches!(code, BUS_ADRERR | BUS_MCEERR_AR) && *at == copy_bytes as *const () as i64 {
        *at += INSTRUCTION_BYTES;
        return;
    }
    // SAFETY: never freed, and filled before this handler was installed.
    let Some(before) = (unsafe { BEFORE.load(Ordering::Acquire).as_ref() }) else { return };
    // Somebody sent it: no instruction will raise it again.
    let sent = code <= 0;
    match before.sa_sigaction {
        libc::SIG_IGN if sent => {}
        // What the program itself raises cannot be ignored.
        libc::SIG_DFL | libc::SIG_IGN => end(sent),
        handler => {
            // SAFETY: this is how the kernel would call the handler that was installed so.
            unsafe {
                if before.sa_flags & libc::SA_SIGINFO != 0 {
                    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                    std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
                } else {
                    std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal);
                }
            }
            // Rust's own handler gives up so, and leaves the rest to the instruction that comes again.
            if sent && handler_now().is_ok_and(|now| now.sa_sigaction == libc::SIG_DFL) {
                end(sent);
            }
        }
    }
}

/// Ends the program as SIGBUS does by default: when the faulting instruction runs again, or by raising it.
fn end(sent: bool) {
    // SAFETY: all-zero bytes are a valid sigaction: the default. Both calls are allowed in a handler.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, &raw const default, std::ptr::null_mut());
        if sent {
            libc::raise(libc::SIGBUS);
        }
    }
}

#[cfg(test)]
mod tests;
