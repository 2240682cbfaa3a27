//! Other programs: run to the end with their output at hand, or started so that they cannot outlive us.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

/// Runs a program to its end. Its output appears only if it fails.
///
/// # Errors
/// The program is missing or fails; the message ends with the last lines it printed.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a program to its end with its standard output in `file`.
///
/// # Errors
/// As for [`run`].
pub fn run_into(command: &mut Command, file: File) -> Result<()> {
    finish(command.stdout(file)).map(drop)
}

/// Runs a program to its end and returns what it wrote to standard output.
///
/// # Errors
/// As for [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let said = finish(command.stdout(Stdio::piped()))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn finish(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = bound(command, Signal::KILL)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .with_context(|| format!("starting {program} (missing? `cargo xtask setup` says what is needed)"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        bail!("{program} {}: {}", ending(done.status), last.into_iter().rev().collect::<Vec<_>>().join(" | "));
    }
    Ok(done.stdout)
}

/// Says how a program ended: "ended with code 1", "was ended by signal 9".
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Makes the program get `signal` when the thread that starts it ends, however it ends, and puts it into a process
/// group of its own, so that Ctrl-C reaches us first and we end it in order.
pub fn bound(command: &mut Command, signal: Signal) -> &mut Command {
    let parent = rustix::process::getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(signal))?;
        // We may have died before the line above took effect.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::other("the laboratory ended")) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and neither allocates nor locks.
    unsafe { command.pre_exec(bind) };
    command.process_group(0)
}

/// A running program that is killed when this value is dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts the program, bound to this thread's life by `signal`.
    ///
    /// # Errors
    /// It is missing or may not be started.
    pub fn start(name: &str, command: &mut Command, signal: Signal) -> Result<Running> {
        let child = bound(command, signal)
            .spawn()
            .with_context(|| format!("starting {name} (missing? `cargo xtask setup` says what is needed)"))?;
        Ok(Running { name: name.to_owned(), child })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The program itself, e.g. to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("looking after {}", self.name))
    }

    /// Sends a signal, unless it has ended.
    ///
    /// # Errors
    /// The system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a process id is positive and fits 31 bits");
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Waits until it ends, at most `limit`; `None` if it has not by then.
    ///
    /// # Errors
    /// The system does not say how it ended.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_how_it_ended_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert_eq!(error, "sh ended with code 3: broken");
    }

    #[test]
    fn a_missing_program_names_the_cure() {
        let error = format!("{:#}", run(&mut Command::new("no-such-program")).unwrap_err());
        assert!(error.contains("no-such-program") && error.contains("cargo xtask setup"), "{error}");
    }

    #[test]
    fn what_is_dropped_has_ended() {
        let running = Running::start("sleep", Command::new("sleep").arg("600"), Signal::KILL).unwrap();
        let pid = Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap();
        drop(running);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_bound_program_ends_with_the_thread_that_started_it() {
        let start = || Running::start("sleep", Command::new("sleep").arg("600"), Signal::KILL).unwrap();
        let mut running = std::thread::spawn(start).join().unwrap();
        let status = running.wait(Duration::from_secs(30)).unwrap().expect("ended with its thread");
        assert_eq!(status.signal(), Some(9));
    }
}
