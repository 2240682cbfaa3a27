//! The recorder's place in the queue for a processor: behind the guest.

use std::io;

/// Makes the calling thread a batch job (`SCHED_BATCH`): when it wakes for a scan it does not push a running thread,
/// such as the guest's processor, off its core, but takes its turn. It gets no less time for that.
///
/// # Errors
/// What the kernel says; recording works without.
pub fn stand_back() -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sched_param: the only priority this policy has.
    let parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is the calling thread, and the parameter lives through the call.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_becomes_a_batch_job() {
        stand_back().unwrap();
        // SAFETY: asks for the policy of the calling thread.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
    }
}
