//! A core for the vCPU alone.
//!
//! Source, target, the link's soft interrupts and the laboratory share the cores of one small computer. Left to the scheduler,
//! a vCPU that computes lost up to a quarter of its time to them while it was migrated, now more, now less, and so wrote less
//! than it was recorded to write. On hosts with cores to spare, or with pinned vCPUs, nothing of that happens.

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::load::Thread;

/// As long as it lives, this thread and what it starts keep off one core, which vCPUs may be given.
#[derive(Debug)]
pub struct Reserved {
    core: VcpuCore,
    before: CpuSet,
}

/// The core that is left to vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuCore(usize);

impl Reserved {
    /// Reserves the last core that this thread may run on; `None` where it is the only one.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take() -> Result<Option<Reserved>> {
        let before = sched_getaffinity(None).context("which cores there are")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| before.is_set(*core));
        let Some((core, _)) = cores.next_back().zip(cores.next()) else { return Ok(None) };
        let mut rest = before;
        rest.unset(core);
        sched_setaffinity(None, &rest).context("leaving a core to the vCPU")?;
        Ok(Some(Reserved { core: VcpuCore(core), before }))
    }

    /// The core.
    pub fn core(&self) -> VcpuCore {
        self.core
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Where that is refused we go on with fewer cores.
        let _ = sched_setaffinity(None, &self.before);
    }
}

impl VcpuCore {
    /// Lets a vCPU run there and nowhere else.
    ///
    /// # Errors
    /// The thread is gone, or the system refuses.
    pub fn give_to(self, vcpu: Thread) -> Result<()> {
        let mut alone = CpuSet::new();
        alone.set(self.0);
        let id = i32::try_from(vcpu.id).ok().and_then(Pid::from_raw).context("a vCPU without a thread")?;
        sched_setaffinity(Some(id), &alone).context("giving the vCPU its core")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores() -> Vec<usize> {
        let now = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|core| now.is_set(*core)).collect()
    }

    #[test]
    fn the_last_core_is_kept_free_and_given_back() {
        let before = cores();
        let Some(reserved) = Reserved::take().unwrap() else {
            assert_eq!(before.len(), 1, "the only core cannot be kept free");
            return;
        };
        assert_eq!(reserved.core(), VcpuCore(*before.last().unwrap()));
        assert_eq!(cores(), before[..before.len() - 1]);

        // A thread begins where its maker may run, and goes where it is put.
        let core = reserved.core();
        let moved = std::thread::spawn(move || {
            let id = u64::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let beginning = cores();
            core.give_to(Thread { pid: std::process::id(), id }).unwrap();
            (beginning, cores())
        });
        assert_eq!(moved.join().unwrap(), (cores(), vec![before[before.len() - 1]]));
        drop(reserved);
        assert_eq!(cores(), before);
    }
}
