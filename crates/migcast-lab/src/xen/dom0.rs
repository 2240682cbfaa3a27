//! One boot of Xen with a dom0 that does a job.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use rustix::process::Signal;

use super::files::Files;
use super::guest::Guest;
use crate::interrupt::Interrupt;
use crate::process::{self, Running};
use crate::runtime::RuntimeDir;
use crate::serial::{Line, SerialLine};

/// A shell function for jobs: sends a file or a folder as a compressed tar archive.
pub const SEND: &str = r#"send() { echo "lab-file $2"; tar c -C "$1" "$2" | gzip -c | base64; echo "lab-end"; }"#;

/// Memory of the emulated machine: dom0 with its image, and two guests while one is being moved.
const MACHINE_MIB: &str = "1792";

/// The machine's time counts its instructions, one a nanosecond, and leaps to the next timer where nothing runs: what a
/// computation takes depends on nothing but itself, not on the computer's speed nor on what else it does. One processor: with
/// two, which QEMU then runs by turns, a guest's timers stop.
const CLOCK: [&str; 8] =
    ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-rtc", "clock=vm", "-smp", "1"];

/// What Xen is told. What its serial buffer cannot hold is lost, and histories are sent over it.
const CONSOLE_AND_DOM0: &str = "console=com1 com1=115200,8n1 serial_tx_buffer=8M dom0_mem=768M,max:768M dom0_max_vcpus=1 \
                                spec-ctrl=eager-fpu";

/// What a job said and sent.
#[derive(Debug)]
pub struct Done {
    /// Lines that begin with "lab: ", without that.
    pub said: Vec<String>,
    /// Archives by name.
    archives: Vec<(String, Vec<u8>)>,
}

impl Done {
    /// Unpacks what was sent under this name into `folder`.
    ///
    /// # Errors
    /// Nothing was sent under it, or it is damaged.
    pub fn unpack(&self, name: &str, folder: &Path) -> Result<PathBuf> {
        let (_, archive) = self.archives.iter().find(|(sent, _)| sent == name).with_context(|| {
            format!("dom0 sent no {name}; it said last: {}", self.said[self.said.len().saturating_sub(5)..].join(" | "))
        })?;
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let packed = folder.join(format!("{name}.tar.gz"));
        std::fs::write(&packed, archive).with_context(|| format!("writing {}", packed.display()))?;
        let packed = Removed(packed);
        let tar = &mut Command::new("tar");
        process::run(
            tar.args(["--extract", "--gzip", "--no-same-owner", "--directory"])
                .arg(folder)
                .arg("--file")
                .arg(&packed.0),
        )?;
        Ok(folder.join(name))
    }
}

/// Boots a dom0 that does `job`, a shell script, with the files of `guest`, and waits until the machine is off.
///
/// # Errors
/// It does not boot, or the job is not done within `limit`.
pub fn run(
    files: &Files<'_>,
    migcast: &Path,
    guest: &Guest,
    (job, limit): (&str, Duration),
    interrupt: &Interrupt,
) -> Result<Done> {
    let folder = RuntimeDir::make()?;
    // Guests may be tried side by side.
    let image = files.cache().join(format!("xen-dom0-{}-{}.cpio", std::process::id(), guest.name));
    files.write_dom0(&image, migcast, guest, job)?;
    let _image = Removed(image.clone());
    let socket = folder.path().join("serial");
    let serial = SerialLine::listen(&socket)?;
    let mut command = files.emulator();
    command
        .args(CLOCK)
        .args(["-cpu", "max,-smap,+svm,-rdtscp", "-m", MACHINE_MIB])
        .args(["-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-serial"])
        .arg(format!("unix:{}", socket.display()))
        .arg("-kernel")
        .arg(&files.hypervisor)
        .args(["-append", CONSOLE_AND_DOM0])
        .arg("-initrd")
        // Modules are separated by commas.
        .arg(format!("{} console=hvc0 rdinit=/init quiet,{}", files.kernel.display(), image.display()));
    let mut machine = Running::start("QEMU 7.2", command.stdin(Stdio::null()), Signal::KILL)?;
    let end = Instant::now() + limit;
    loop {
        if machine.ended()?.is_some() {
            break;
        }
        ensure!(!interrupt.came(), "interrupted");
        if Instant::now() >= end {
            bail!(
                "dom0 was not done within {} s; what it said is in {}",
                limit.as_secs(),
                keep(files, &serial.lines())?
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let lines = serial.lines();
    let done = heard(&lines)?;
    if !done.said.iter().any(|said| said == "dom0 done") {
        bail!("dom0 ended before its job was done; what it said is in {}", keep(files, &lines)?);
    }
    Ok(done)
}

/// Keeps what dom0 said, to be looked at. Returns where.
fn keep(files: &Files<'_>, lines: &[Line]) -> Result<String> {
    let path = files.cache().join("xen-serial.log");
    let text: String = lines.iter().map(|line| line.text.clone() + "\n").collect();
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}

fn heard(lines: &[Line]) -> Result<Done> {
    let mut done = Done { said: Vec::new(), archives: Vec::new() };
    let mut file: Option<(String, String)> = None;
    for Line { text, .. } in lines {
        match &mut file {
            Some((name, content)) if text == "lab-end" => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(&*content);
                done.archives.push((name.clone(), decoded.with_context(|| format!("{name} arrived damaged"))?));
                file = None;
            }
            // The kernel may say something in between.
            Some((_, content)) if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) => {
                content.push_str(text);
            }
            _ => {
                if let Some(name) = text.strip_prefix("lab-file ") {
                    file = Some((name.to_owned(), String::new()));
                } else if let Some(said) = text.strip_prefix("lab: ") {
                    done.said.push(said.to_owned());
                }
            }
        }
    }
    Ok(done)
}

/// A file that goes when this value does.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dom0_says_and_sends_is_told_apart() {
        let text =
            "[    1.0] kernel\nlab: dom0 ready\nlab-file h\nYWJj\n[    2.0] kernel\nZGVm\nlab-end\nlab: dom0 done";
        let line = |text: &str| Line { at: std::time::SystemTime::UNIX_EPOCH, text: text.to_owned() };
        let done = heard(&text.lines().map(line).collect::<Vec<_>>()).unwrap();
        assert_eq!(done.said, ["dom0 ready", "dom0 done"]);
        assert_eq!(done.archives, [("h".to_owned(), b"abcdef".to_vec())]);
    }
}
