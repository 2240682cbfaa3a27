//! `/proc/PID/maps`: what a process has mapped where.

use std::io;
use std::ops::Range;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Addresses in the process.
    pub(crate) addresses: Range<u64>,
    pub(crate) writable: bool,
    pub(crate) shared: bool,
    /// Offset in the file, in bytes.
    pub(crate) offset: u64,
    /// Device and inode of the file; `None` for anonymous memory.
    pub(crate) file: Option<(u64, u64)>,
    /// The path or the kernel's name for it; may be empty.
    pub(crate) name: String,
}

impl Mapping {
    /// True for memory a guest or a program can write: no device, no kernel page.
    pub(crate) fn is_writable_memory(&self) -> bool {
        let device = self.name.starts_with("/dev/")
            && !["/dev/shm/", "/dev/hugepages", "/dev/zero"].iter().any(|ok| self.name.starts_with(ok));
        let special = self.name.starts_with("anon_inode:") || self.name.starts_with("[v");
        self.writable && !device && !special
    }
}

/// The mappings of a process, in address order.
pub(crate) fn of_process(pid: u32) -> io::Result<Vec<Mapping>> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/maps"))?)
}

fn parse(text: &str) -> io::Result<Vec<Mapping>> {
    text.lines()
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/maps has a line of unknown form: {line}"))
            })
        })
        .collect()
}

/// `start-end perms offset major:minor inode   name`, all numbers but the inode in hexadecimal.
fn parse_line(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?.as_bytes();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let device = rustix::fs::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    Some(Mapping {
        addresses: u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?,
        writable: perms.get(1)? == &b'w',
        shared: perms.get(3)? == &b's',
        offset,
        file: (inode != 0).then_some((device, inode)),
        name: fields.next().unwrap_or("").trim_start().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55872cbee000-55872ccef000 rw-p 01a5a000 fe:00 10199046                   /usr/bin/qemu-system-x86_64
55873e3d0000-55873f546000 rw-p 00000000 00:00 0                          [heap]
7fceb1c00000-7fceb1c01000 rw-p 00000000 00:00 0 
7fceb1c01000-7fceb1c02000 ---p 00000000 00:00 0 
7fcebbed4000-7fcebc000000 rw-s 00001000 00:01 1051                       /memfd:two words (deleted)
7fcebc000000-7fcebc001000 rw-s 00000000 00:0f 12                         anon_inode:kvm-vcpu:0
7fcebd000000-7fcebd001000 rw-s 00000000 00:05 13                         /dev/dri/card0
7fcebe000000-7fcebe001000 rw-s 00000000 00:05 14                         /dev/shm/ram
";

    #[test]
    fn reads_every_field() {
        let maps = parse(TEXT).unwrap();
        assert_eq!(maps[0].file, Some((rustix::fs::makedev(0xfe, 0), 10_199_046)));
        assert_eq!((maps[1].name.as_str(), maps[1].file), ("[heap]", None));
        assert_eq!(maps[2].addresses, 0x7fce_b1c0_0000..0x7fce_b1c0_1000);
        assert!(maps[4].shared && !maps[0].shared);
        assert_eq!((maps[4].offset, maps[4].name.as_str()), (0x1000, "/memfd:two words (deleted)"));
    }

    #[test]
    fn devices_and_guard_pages_are_not_memory() {
        let memory: Vec<bool> = parse(TEXT).unwrap().iter().map(Mapping::is_writable_memory).collect();
        assert_eq!(memory, [true, true, true, false, true, false, false, true]);
    }

    #[test]
    fn a_foreign_line_is_an_error_not_a_panic() {
        for line in ["", "x", "0-1 rw", "0-1 rw-p 0 0:0", "0-z rw-p 0 0:0 0"] {
            assert!(parse(&format!("{line}\n")).is_err(), "{line:?}");
        }
    }
}
