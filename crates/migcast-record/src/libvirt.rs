//! A guest that libvirt runs: its monitor through `virsh qemu-monitor-command`, its process by libvirt's pid file.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::guest::Guest;
use crate::monitor::{Monitor, MonitorError, ask};
use crate::qemu::{self, QemuError};

/// libvirt itself gives a guest's monitor 30 s; a recorder has other things to do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a guest of libvirt cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// The guest runs elsewhere.
    #[error("--uri {uri}: a recorder reads the guest's memory, so it runs on the guest's host: use a local URI there")]
    Remote {
        /// The connection.
        uri: String,
    },
    /// libvirt's pid file for the guest is not where it belongs.
    #[error("no pid file of domain {domain} among {}; --pid records by process id", tried.join(", "))]
    NoPidFile {
        /// The domain.
        domain: String,
        /// Where was looked.
        tried: Vec<String>,
    },
    /// What holds for any QEMU guest.
    #[error(transparent)]
    Qemu(#[from] QemuError),
}

/// Prepares to record a guest of libvirt: its name, id or UUID, and the connection (`virsh -c`), by default virsh's own.
///
/// # Errors
/// [`LibvirtError`]: no such guest, not running, no virsh, no permission.
pub fn open(domain: &str, uri: Option<&str>) -> Result<Guest, LibvirtError> {
    if let Some(uri) = uri.filter(|uri| is_remote(uri)) {
        return Err(LibvirtError::Remote { uri: uri.to_owned() });
    }
    let mut virsh = Virsh { domain: domain.to_owned(), uri: uri.map(str::to_owned) };
    // libvirt names the guest's process by the domain's name, whatever the user called it.
    let named = ask(&mut virsh, qapi::qmp::query_name {}).map_err(QemuError::from)?.name;
    let pid = process_of(&named.unwrap_or_else(|| domain.to_owned()))?;
    Ok(qemu::open_with(Box::new(virsh), pid)?)
}

/// A URI with a host in it, as in "qemu+ssh://host/system".
fn is_remote(uri: &str) -> bool {
    uri.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'))
}

/// The process by the pid files of the system's libvirt and of the user's own.
fn process_of(domain: &str) -> Result<u32, LibvirtError> {
    let mut places = vec![PathBuf::from("/run/libvirt/qemu")];
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
        places.push(PathBuf::from(dir).join("libvirt/qemu/run"));
    }
    if let Some(home) = std::env::var_os("HOME") {
        places.push(PathBuf::from(home).join(".cache/libvirt/qemu/run"));
    }
    let files: Vec<PathBuf> = places.iter().map(|dir| dir.join(format!("{domain}.pid"))).collect();
    let pid = files.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    pid.ok_or_else(|| LibvirtError::NoPidFile {
        domain: domain.to_owned(),
        tried: files.iter().map(|file| file.display().to_string()).collect(),
    })
}

/// The monitor passthrough of libvirt's command line client. No library of libvirt is linked: it need not be there.
struct Virsh {
    domain: String,
    uri: Option<String>,
}

impl Virsh {
    /// Runs virsh with one line of its own language and returns what it prints.
    fn run(&self, script: &str) -> Result<String, MonitorError> {
        let mut command = Command::new("virsh");
        command.arg("--quiet").args(self.uri.iter().flat_map(|uri| ["--connect", uri.as_str()])).arg(script);
        // Its messages are searched for causes below.
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => MonitorError::Gone {
                place: self.place(),
                reason: "virsh is not installed (Debian: libvirt-clients; Fedora: libvirt-client)".to_owned(),
            },
            _ => MonitorError::Io { place: self.place(), source },
        })?;
        let (success, out, err) = finish(child).map_err(|source| MonitorError::Io { place: self.place(), source })?;
        if success {
            return Ok(out);
        }
        let reason = err.lines().find(|line| !line.trim().is_empty()).unwrap_or("virsh failed without a word");
        let reason = reason.trim_start_matches("error: ").to_owned();
        let place = self.place();
        let gone = ["failed to get domain", "not running", "Domain not found"].iter().any(|text| err.contains(text));
        if gone {
            return Err(MonitorError::Gone { place, reason });
        }
        Err(MonitorError::Io { place, source: std::io::Error::other(reason) })
    }

    fn place(&self) -> String {
        format!("libvirt domain {}", self.domain)
    }
}

impl Monitor for Virsh {
    fn exchange(&mut self, request: &str) -> Result<Value, MonitorError> {
        let mut answers = self.exchange_all(&[request.to_owned()])?;
        answers.pop().ok_or_else(|| self.odd("nothing"))
    }

    /// All in one run of virsh, because starting it costs more than the commands.
    fn exchange_all(&mut self, requests: &[String]) -> Result<Vec<Value>, MonitorError> {
        let domain = quoted(&self.domain);
        let script: Vec<String> = requests
            .iter()
            .map(|request| format!("qemu-monitor-command --domain {domain} --cmd {}", quoted(request)))
            .collect();
        let text = self.run(&script.join("; "))?;
        let answers = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let answers: Vec<Value> = answers.collect::<Result<_, _>>().map_err(|_| self.odd(&text))?;
        if answers.len() != requests.len() {
            return Err(self.odd(&format!("{} answers to {} commands", answers.len(), requests.len())));
        }
        Ok(answers)
    }
}

impl Virsh {
    fn odd(&self, text: &str) -> MonitorError {
        let what = text.chars().filter(|c| !c.is_control()).take(80).collect();
        MonitorError::NotQmp { place: self.place(), what }
    }
}

/// Quotes a word for virsh's own parser, in which a backslash protects any character outside single quotes.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Waits for a child and collects what it says; kills it when it takes too long.
fn finish(mut child: Child) -> std::io::Result<(bool, String, String)> {
    let collect = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was said until the pipe broke is all there is to know.
            let _ = stream.map(|mut stream| stream.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = collect(child.stdout.take().map(|stream| Box::new(stream) as _));
    let err = collect(child.stderr.take().map(|stream| Box::new(stream) as _));
    let in_time = wait_for(&child)?;
    if !in_time {
        child.kill()?;
    }
    let status = child.wait()?;
    let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    let (out, err) = (text(out), text(err));
    if !in_time {
        let what = format!("libvirt gave no answer within {} s", ANSWER_TIMEOUT.as_secs());
        return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, what));
    }
    Ok((status.success(), out, err))
}

/// Whether the child ends in time.
fn wait_for(child: &Child) -> std::io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("a child without an id"))?;
    let life = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let deadline = std::time::Instant::now() + ANSWER_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(0), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&life, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_with_a_host_is_remote() {
        assert!(is_remote("qemu+ssh://root@host/system") && is_remote("qemu+tcp://h/system"));
        assert!(!is_remote("qemu:///system") && !is_remote("qemu+unix:///session"));
        let error = open("d", Some("qemu+ssh://host/system")).err().unwrap();
        assert!(error.to_string().contains("runs on the guest's host"), "{error}");
    }

    #[test]
    fn words_are_quoted_for_virsh() {
        assert_eq!(quoted(r#"{"a":"b"}"#), r#"'{"a":"b"}'"#);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn an_unknown_domain_names_the_places_that_were_searched() {
        let error = process_of("no-such-domain").unwrap_err();
        assert!(error.to_string().contains("/run/libvirt/qemu/no-such-domain.pid"), "{error}");
    }

    #[test]
    fn a_child_is_heard_to_its_end() {
        let child = Command::new("sh")
            .args(["-c", "seq 1 20000; echo bad >&2; exit 3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (success, out, err) = finish(child).unwrap();
        assert!(!success && out.ends_with("20000\n") && err == "bad\n");
    }
}
