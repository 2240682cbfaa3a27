//! The lines of a text, none of them longer than memory is given for.
use std::io::{BufRead, Read};

use super::{File, ImportError, Place};

/// Longest line of a text. QEMU's reply for a guest of a thousand vCPUs has 40,000.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// What stands before a UTF-8 text from Windows.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Walks through the lines of a text. Ends of lines (LF, CR LF) and a byte order mark are taken off.
pub(super) struct Lines<'a> {
    input: &'a mut dyn BufRead,
    file: File<'a>,
    number: u64,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, file: File<'a>) -> Lines<'a> {
        Lines { input, file, number: 0, line: Vec::new() }
    }

    /// The next line that is not blank, with its number counted from 1.
    pub(super) fn next_line(&mut self) -> Result<Option<(u64, &str)>, ImportError> {
        loop {
            self.line.clear();
            let mut bounded = (&mut *self.input).take(LINE_BYTES_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut self.line);
            let path = || self.file.path.into();
            if read.map_err(|source| ImportError::Io { path: path(), source })? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.len() > LINE_BYTES_MAX {
                return Err(ImportError::LongLine { path: path(), line: self.number });
            }
            if !self.line.trim_ascii().is_empty() && !self.is_only_mark() {
                break;
            }
        }
        let place = Place::Line(self.number);
        let text = std::str::from_utf8(&self.line)
            .map_err(|_| self.file.value(place, "the line", "not UTF-8", "text in UTF-8"))?;
        let text = if self.number == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text };
        Ok(Some((self.number, text.trim_end_matches(['\n', '\r']))))
    }

    fn is_only_mark(&self) -> bool {
        self.number == 1 && self.line.trim_ascii_end() == BYTE_ORDER_MARK.as_bytes()
    }
}
