//! A QMP monitor on a UNIX socket, held only as long as it is needed.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

use crate::monitor::{Monitor, MonitorError};

/// A monitor that is free greets at once.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// QEMU's main loop may be held up for a while; longer than this nobody waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// No answer of the commands used here is larger.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A QMP socket. Connects for the first command and stays connected until released.
#[derive(Debug)]
pub struct QmpSocket {
    path: PathBuf,
    greeting_timeout: Duration,
    answer_timeout: Duration,
    connection: Option<Connection>,
    peer: Option<u32>,
}

impl QmpSocket {
    /// The monitor at this path; nothing is connected yet.
    pub fn new(path: &Path) -> QmpSocket {
        QmpSocket::with_timeouts(path, GREETING_TIMEOUT, ANSWER_TIMEOUT)
    }

    /// As [`QmpSocket::new`], with other limits for the greeting and for each answer.
    pub fn with_timeouts(path: &Path, greeting_timeout: Duration, answer_timeout: Duration) -> QmpSocket {
        QmpSocket { path: path.to_owned(), greeting_timeout, answer_timeout, connection: None, peer: None }
    }

    /// The process at the other end, once connected, as the kernel says.
    pub fn peer(&self) -> Option<u32> {
        self.peer
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn connect(&mut self) -> Result<Connection, MonitorError> {
        let stream = UnixStream::connect(&self.path).map_err(|error| self.refused(&error))?;
        self.peer = rustix::net::sockopt::socket_peercred(&stream)
            .ok()
            .and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok());
        let mut connection = Connection { stream: BufReader::new(Timed { stream, deadline: Instant::now() }) };
        let greeting = connection.line(self.greeting_timeout).map_err(|error| self.greeting_error(&error))?;
        if greeting.get("QMP").is_none() {
            return Err(self.not_qmp(&greeting.to_string()));
        }
        let enabled = connection
            .exchange(r#"{"execute":"qmp_capabilities"}"#, self.answer_timeout)
            .map_err(|source| MonitorError::Io { place: self.place(), source })?;
        match enabled.get("return") {
            Some(_) => Ok(connection),
            None => Err(self.not_qmp(&enabled.to_string())),
        }
    }

    /// Why nobody could be reached.
    fn refused(&self, error: &io::Error) -> MonitorError {
        let place = self.place();
        let is_other = std::fs::metadata(&self.path).is_ok_and(|meta| !meta.file_type().is_socket());
        if is_other {
            return MonitorError::NotQmp { place, what: "not a socket".to_owned() };
        }
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "no such socket; is the guest running?".to_owned(),
            io::ErrorKind::ConnectionRefused => "nobody listens there; is the guest running?".to_owned(),
            io::ErrorKind::PermissionDenied => "no permission; run as the guest's user or as root".to_owned(),
            _ => error.to_string(),
        };
        MonitorError::Gone { place, reason }
    }

    fn greeting_error(&self, error: &io::Error) -> MonitorError {
        match error.kind() {
            io::ErrorKind::TimedOut => {
                MonitorError::Busy { place: self.place(), seconds: self.greeting_timeout.as_secs_f64() }
            }
            io::ErrorKind::InvalidData => self.not_qmp(&error.to_string()),
            io::ErrorKind::UnexpectedEof => self.not_qmp("it hung up without a greeting"),
            _ => MonitorError::Gone { place: self.place(), reason: error.to_string() },
        }
    }

    fn not_qmp(&self, said: &str) -> MonitorError {
        let mut what: String = said.chars().filter(|c| !c.is_control()).take(80).collect();
        if what.is_empty() {
            what = "no text".to_owned();
        }
        MonitorError::NotQmp { place: self.place(), what }
    }
}

impl QmpSocket {
    /// As [`Monitor::exchange`], and hands over a descriptor with the command, e.g. for `getfd`.
    ///
    /// # Errors
    /// As [`Monitor::exchange`].
    pub(crate) fn exchange_with(
        &mut self,
        request: &str,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, MonitorError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = connection
            .exchange_with(request, descriptor, self.answer_timeout)
            .map_err(|source| MonitorError::Io { place: self.place(), source })?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

impl Monitor for QmpSocket {
    fn exchange(&mut self, request: &str) -> Result<Value, MonitorError> {
        self.exchange_with(request, None)
    }

    fn release(&mut self) {
        self.connection = None;
    }
}

#[derive(Debug)]
struct Connection {
    stream: BufReader<Timed>,
}

impl Connection {
    /// Sends a command and returns the answer to it, past any events.
    fn exchange(&mut self, request: &str, timeout: Duration) -> io::Result<Value> {
        self.exchange_with(request, None, timeout)
    }

    /// Likewise; a descriptor goes with the command's first byte.
    fn exchange_with(
        &mut self,
        request: &str,
        descriptor: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> io::Result<Value> {
        let timed = self.stream.get_mut();
        timed.deadline = Instant::now() + timeout;
        timed.stream.set_write_timeout(Some(timeout))?;
        let line = format!("{request}\n");
        let sent = match descriptor {
            Some(descriptor) => send_with(&timed.stream, line.as_bytes(), descriptor)?,
            None => 0,
        };
        timed.stream.write_all(&line.as_bytes()[sent..])?;
        loop {
            // One deadline for all of it: a flood of events is no answer either.
            let answer = self.next_line()?;
            if answer.get("event").is_none() {
                return Ok(answer);
            }
        }
    }

    /// Waits for one line.
    fn line(&mut self, timeout: Duration) -> io::Result<Value> {
        self.stream.get_mut().deadline = Instant::now() + timeout;
        self.next_line()
    }

    fn next_line(&mut self) -> io::Result<Value> {
        let mut bytes = Vec::new();
        self.stream.by_ref().take(ANSWER_BYTES_MAX).read_until(b'\n', &mut bytes)?;
        match bytes.last() {
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the monitor hung up")),
            Some(b'\n') => serde_json::from_slice::<Value>(&bytes).map_err(|_| {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).trim_end().to_owned();
                io::Error::new(io::ErrorKind::InvalidData, format!("not JSON: {text:?}"))
            }),
            Some(_) if bytes.len() as u64 == ANSWER_BYTES_MAX => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"))
            }
            Some(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the monitor hung up in the middle of a line")),
        }
    }
}

/// Sends some of `bytes`, one at least, with a descriptor. Says how many.
fn send_with(stream: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut message, SendFlags::NOSIGNAL)?)
}

/// A stream whose reads all end by one deadline, however slowly the bytes drip.
#[derive(Debug)]
struct Timed {
    stream: UnixStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            _ => error,
        })
    }
}
