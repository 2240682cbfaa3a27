//! Ctrl-C, SIGTERM and SIGHUP as a question that every wait asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether we were asked to stop. Clones ask the same question.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Turns the signals into this question from now on; a second one ends the program at once.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag unset and only sets it.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.0))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupt.0)))
                .with_context(|| format!("handling signal {signal}"))?;
        }
        Ok(interrupt)
    }

    /// True once a signal came.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for a signal, at most `limit`; tells whether it came.
    pub fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.came() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(Instant::now())));
        }
        self.came()
    }
}
