//! A child that lets go of a guest if the recorder is killed.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// What the recorder tells the child when there is nothing left to do for it.
const NOTHING_TO_DO: &[u8] = b"off\n";

/// The child. It reads its standard input to the end; unless it was told otherwise before, it lets go of the guest.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Starts `command`, which lets go of the guest when its standard input ends without a word.
    pub(crate) fn start(mut command: Command) -> std::io::Result<Watchdog> {
        use std::os::unix::process::CommandExt;
        // Ctrl-C on the terminal is not for it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Watchdog { child: command.spawn()? })
    }

    /// The guest was let go of, or there is nothing to be let go.
    pub(crate) fn dismiss(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(NOTHING_TO_DO);
        }
        let _ = self.child.wait();
    }
}

/// Waits, as the child, until the recorder has ended. Says whether the guest is left for it to let go of.
pub fn is_orphaned() -> bool {
    let mut said = Vec::new();
    let read = std::io::Read::read_to_end(&mut std::io::stdin(), &mut said);
    read.is_err() || said != NOTHING_TO_DO
}
