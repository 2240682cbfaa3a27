//! Whether libxl is sending a domain's memory anywhere.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::control::DomId;
use super::library::Version;

/// PF_KTHREAD.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The first version whose helper is told a second descriptor before the domain (libxl_save_callout.c: `libxl-save-helper
/// --save-domain FD RECV_FD DOMID …`, seen with 4.17; before, `--save-domain FD DOMID …`).
const TWO_DESCRIPTORS: Version = Version { major: 4, minor: 7 };

/// The processes of dom0. It lives for a second or so, as it takes the ids of kernel threads for theirs for ever.
#[derive(Debug)]
pub(super) struct Processes {
    folder: PathBuf,
    /// Which word of the helper's command line is the domain.
    domain_word: usize,
    /// They never run a program. Most processes of a dom0 are such.
    kernel_threads: BTreeSet<OsString>,
}

impl Processes {
    /// Of a dom0 of this version of Xen; none has been looked at.
    pub(super) fn of(version: Version) -> Processes {
        let domain_word = if version < TWO_DESCRIPTORS { 3 } else { 4 };
        Processes { folder: "/proc".into(), domain_word, kernel_threads: BTreeSet::new() }
    }

    /// The same, and none has been looked at.
    pub(super) fn fresh(&self) -> Processes {
        Processes { folder: self.folder.clone(), kernel_threads: BTreeSet::new(), ..*self }
    }

    /// Whether one of them is the helper that saves this domain. A process may have become it since the last time.
    pub(super) fn save(&mut self, domain: DomId) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return false };
        let wanted = domain.to_string();
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) || self.kernel_threads.contains(&name) {
                continue;
            }
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            if line.is_empty() && is_kernel_thread(&entry.path()) {
                self.kernel_threads.insert(name);
                continue;
            }
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let saves = words.get(1) == Some(&b"--save-domain".as_slice())
                && words.get(self.domain_word) == Some(&wanted.as_bytes());
            if saves && words[0].ends_with(b"libxl-save-helper") {
                return true;
            }
        }
        false
    }
}

/// Whether the process of this folder is a kernel thread; others may be without a command line while they start a program.
fn is_kernel_thread(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    // Behind the name, which ends with the last parenthesis: state, five numbers, flags.
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_being_saved_while_the_helper_has_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let process = |pid: &str, line: &str, flags: u64| {
            let process = folder.path().join(pid);
            std::fs::create_dir(&process).unwrap();
            std::fs::write(process.join("cmdline"), line.replace(' ', "\0")).unwrap();
            std::fs::write(process.join("stat"), format!("{pid} (a b) c) S 2 0 0 0 -1 {flags} 0 0\n")).unwrap();
        };
        process("11", "", 0x0020_8040);
        process("12", "", 0x0040_0000);
        process("13", "/usr/lib/xen-4.17/bin/libxl-save-helper --restore-domain 8 20 5 ", 0);
        process("14", "grep --save-domain 8 20 7 ", 0);
        process("self", "libxl-save-helper --save-domain 8 20 9 ", 0);
        let of = |minor| Processes { folder: folder.path().into(), ..Processes::of(Version { major: 4, minor }) };
        let mut processes = of(17);
        assert!(![3, 5, 7, 9].into_iter().any(|domain| processes.save(domain)));
        assert_eq!(processes.kernel_threads, BTreeSet::from(["11".into()]));
        // One that was there becomes another program.
        let helper = ["/x/libxl-save-helper", "--save-domain", "15", "11", "3", "1", "136", "0", ""].join("\0");
        std::fs::write(folder.path().join("12/cmdline"), helper).unwrap();
        assert_eq!([3, 11, 15, 1].map(|domain| processes.save(domain)), [true, false, false, false]);
        assert!(of(6).save(11), "a descriptor less before 4.7");
    }
}
