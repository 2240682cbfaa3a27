//! A QMP client of a few lines: commands one at a time, events with their time of arrival.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Something QEMU reported by itself.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened, by QEMU's own word.
    pub at: SystemTime,
    /// Its name, e.g. "STOP".
    pub name: String,
    /// Its data, or null.
    pub data: Value,
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    answers: Vec<Value>,
    closed: bool,
}

/// A monitor QEMU connects to as a client, so that there is never a moment when it is not there.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

/// A socket that awaits QEMU's monitor.
#[derive(Debug)]
pub struct Awaited(UnixListener);

impl Awaited {
    /// Listens on `path`, which QEMU's monitor is to connect to.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path) -> Result<Awaited> {
        let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
        listener.set_nonblocking(true).context("listening for QEMU's monitor")?;
        Ok(Awaited(listener))
    }

    /// Takes QEMU's connection, if it has come, and leaves its negotiation mode.
    ///
    /// # Errors
    /// What is there does not speak QMP.
    pub fn accept(&self) -> Result<Option<Qmp>> {
        match self.0.accept() {
            Ok((stream, _)) => Qmp::new(stream).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("awaiting QEMU's monitor"),
        }
    }
}

impl Qmp {
    fn new(stream: UnixStream) -> Result<Qmp> {
        stream.set_nonblocking(false).context("talking to QEMU's monitor")?;
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let reader = BufReader::new(stream.try_clone().context("talking to QEMU's monitor")?);
        let to = Arc::clone(&heard);
        std::thread::spawn(move || listen(reader, &to));
        let mut qmp = Qmp { stream, heard };
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its result.
    ///
    /// # Errors
    /// QEMU refuses it, does not answer or is gone.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{request}").with_context(|| format!("QMP {command}"))?;
        let end = Instant::now() + ANSWER_MAX;
        let mut heard = lock(&self.heard);
        loop {
            if let Some(mut answer) = heard.answers.pop() {
                if let Some(error) = answer.get("error") {
                    bail!("QMP {command}: {}", error["desc"].as_str().unwrap_or("refused"));
                }
                return Ok(answer["return"].take());
            }
            if heard.closed || Instant::now() >= end {
                bail!("QMP {command}: {}", if heard.closed { "QEMU is gone" } else { "no answer in 20 s" });
            }
            let wait = Duration::from_millis(100);
            heard = self.heard.1.wait_timeout(heard, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.heard).events.clone()
    }
}

fn lock(heard: &Arc<(Mutex<Heard>, Condvar)>) -> MutexGuard<'_, Heard> {
    heard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event's time: seconds and microseconds since the Unix epoch.
fn timestamp(value: &Value) -> SystemTime {
    let part = |name: &str| value[name].as_u64().unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(part("seconds")) + Duration::from_micros(part("microseconds"))
}

fn listen(reader: impl BufRead, heard: &Arc<(Mutex<Heard>, Condvar)>) {
    for line in reader.lines().map_while(Result::ok) {
        // Anything but an event or an answer (the greeting, say) is of no interest.
        if let Ok(mut message) = serde_json::from_str::<Value>(&line) {
            if let Some(name) = message.get("event").and_then(Value::as_str).map(str::to_owned) {
                let at = timestamp(&message["timestamp"]);
                lock(heard).events.push(Event { at, name, data: message["data"].take() });
            } else if message.get("return").is_some() || message.get("error").is_some() {
                lock(heard).answers.push(message);
            }
        }
        heard.1.notify_all();
    }
    lock(heard).closed = true;
    heard.1.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A monitor with a script: what it says at first, then one reply per request.
    fn monitor(greeting: &str, replies: &[&str]) -> Qmp {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (greeting, replies) = (greeting.to_owned(), replies.iter().map(ToString::to_string).collect::<Vec<_>>());
        std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            writeln!(out, "{greeting}").unwrap();
            let mut requests = BufReader::new(theirs).lines();
            for reply in replies {
                requests.next();
                writeln!(out, "{reply}").unwrap();
            }
        });
        Qmp::new(ours).unwrap()
    }

    #[test]
    fn answers_and_events_are_told_apart() {
        let event = r#"{"timestamp":{},"event":"STOP"}"#;
        let replies = [r#"{"return":{}}"#, &format!("{event}\n{}", r#"{"return":{"running":true}}"#)];
        let mut qmp = monitor(r#"{"QMP":{}}"#, &replies);
        assert_eq!(qmp.execute("query-status", &json!({})).unwrap()["running"], true);
        assert_eq!(qmp.events()[0].name, "STOP");
    }

    #[test]
    fn a_refusal_and_an_end_are_one_line() {
        let replies = [r#"{"return":{}}"#, r#"{"error":{"class":"GenericError","desc":"no such command"}}"#];
        let mut qmp = monitor(r#"{"QMP":{}}"#, &replies);
        assert_eq!(qmp.execute("nonsense", &json!({})).unwrap_err().to_string(), "QMP nonsense: no such command");
        let error = qmp.execute("query-status", &json!({})).unwrap_err().to_string();
        assert!(error.starts_with("QMP query-status"), "{error}");
    }
}
