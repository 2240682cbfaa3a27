//! Bytes still to be understood, and the numbers and names in them.

use super::{StreamError, unexpected};

/// Bytes still to be understood. Numbers are big-endian.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    /// Position of the first of them in the stream.
    pub(super) at: u64,
}

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        (self.bytes, self.at) = (rest, self.at + count as u64);
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().expect("two bytes were taken");
        Some(u16::from_be_bytes(bytes))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Some(u32::from_be_bytes(bytes))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        Some(u64::from_be_bytes(bytes))
    }

    /// A length in one byte, then so many letters. It ends up in lines for people: what could break one is refused.
    pub(super) fn name(&mut self) -> Result<Option<String>, StreamError> {
        let at = self.at + 1;
        let Some(length) = self.u8() else { return Ok(None) };
        let Some(letters) = self.take(length.into()) else { return Ok(None) };
        let odd = (at..).zip(letters).find(|(_, letter)| !letter.is_ascii_graphic());
        match odd {
            Some((at, letter)) => Err(unexpected(at, "letter of a name", *letter, "one of ASCII that can be seen")),
            None => Ok(Some(String::from_utf8_lossy(letters).into_owned())),
        }
    }
}
