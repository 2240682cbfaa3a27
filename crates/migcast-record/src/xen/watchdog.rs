//! A child that turns the log off if the recorder is killed.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// What the recorder tells the child when there is nothing left to do for it.
const NOTHING_TO_DO: &[u8] = b"off\n";

/// The child. It reads its standard input to the end; unless it was told otherwise before, it releases the domain.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Starts `command`, which releases the domain when its standard input ends without a word.
    pub(super) fn start(mut command: Command) -> std::io::Result<Watchdog> {
        use std::os::unix::process::CommandExt;
        // Ctrl-C on the terminal is not for it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Watchdog { child: command.spawn()? })
    }

    /// The log is off, or no longer ours.
    pub(super) fn dismiss(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(NOTHING_TO_DO);
        }
        let _ = self.child.wait();
    }
}

/// Waits, as the child, until the recorder has ended. Says whether the log is left for it to turn off.
pub fn is_orphaned() -> bool {
    let mut said = Vec::new();
    let read = std::io::Read::read_to_end(&mut std::io::stdin(), &mut said);
    read.is_err() || said != NOTHING_TO_DO
}
