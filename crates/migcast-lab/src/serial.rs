//! A guest's serial line: a socket we listen on before QEMU connects, read line by line with the time of arrival.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use crate::interrupt::Interrupt;

/// One line from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When its end arrived here.
    pub at: SystemTime,
    /// The line without its end.
    pub text: String,
}

#[derive(Debug, Default)]
struct Heard {
    lines: Vec<Line>,
    closed: bool,
}

/// What has arrived so far, and waiting for more.
#[derive(Clone, Debug, Default)]
pub struct SerialLine(Arc<(Mutex<Heard>, Condvar)>);

impl SerialLine {
    /// Listens on the socket `path`, which QEMU is to connect to, and reads in the background until it closes.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path) -> Result<SerialLine> {
        let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
        let line = SerialLine::default();
        let to = line.clone();
        std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                to.read(BufReader::new(stream));
            }
            to.heard().closed = true;
            to.0.1.notify_all();
        });
        Ok(line)
    }

    fn read(&self, mut from: impl BufRead) {
        let mut bytes = Vec::new();
        // An error means the guest is gone, like an end.
        while from.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            self.heard().lines.push(Line { at: SystemTime::now(), text });
            self.0.1.notify_all();
            bytes.clear();
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.heard().lines.clone()
    }

    /// The last `count` lines, for a message.
    pub fn tail(&self, count: usize) -> String {
        let heard = self.heard();
        let from = heard.lines.len().saturating_sub(count);
        heard.lines[from..].iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join(" | ")
    }

    /// Waits for a line that contains `part`, from the first one on.
    ///
    /// # Errors
    /// `limit` passes, the guest ends, or we are interrupted; the message ends with the last lines.
    pub fn wait_for(&self, part: &str, limit: Duration, interrupt: &Interrupt) -> Result<Line> {
        let end = Instant::now() + limit;
        let mut seen = 0;
        let mut heard = self.heard();
        loop {
            if let Some(line) = heard.lines[seen..].iter().find(|line| line.text.contains(part)) {
                return Ok(line.clone());
            }
            seen = heard.lines.len();
            let reason = match () {
                () if heard.closed => Some("the guest ended".to_owned()),
                () if interrupt.came() => Some("interrupted".to_owned()),
                () if Instant::now() >= end => Some(format!("not within {} s", limit.as_secs())),
                () => None,
            };
            if let Some(reason) = reason {
                drop(heard);
                bail!("waiting for '{part}' from the guest: {reason}; it said last: {}", self.tail(5));
            }
            let wait = Duration::from_millis(50);
            heard = self.0.1.wait_timeout(heard, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_are_waited_for_and_the_end_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("line");
        let line = SerialLine::listen(&path).unwrap();
        let mut guest = UnixStream::connect(&path).unwrap();
        guest.write_all(b"booting\r\nlab: ready\r\n").unwrap();
        let limit = Duration::from_secs(30);
        let interrupt = Interrupt::default();
        assert_eq!(line.wait_for("ready", limit, &interrupt).unwrap().text, "lab: ready");
        guest.write_all(b"panic").unwrap();
        drop(guest);
        let error = line.wait_for("done", limit, &interrupt).unwrap_err().to_string();
        assert_eq!(
            error,
            "waiting for 'done' from the guest: the guest ended; it said last: booting | lab: ready | panic"
        );
    }
}
