//! libxc's migration stream, as far as it tells of pages: bytes in, rounds out.
//!
//! ```text
//!  … xl's and libxl's preamble │ marker "XENF" │ domain header │ record … record │ libxl's epilogue …
//!                                                  PAGE_DATA: count, page frame numbers with types, pages
//! ```
//! Rounds are not marked: each walks the frames upwards, so one begins where they start over. Source: Xen 4.17,
//! docs/specs/libxc-migration-stream.pandoc; tools/libs/guest/xg_sr_save.c.

use std::time::Duration;

/// What the image header begins with: eight bytes of ones, then the id.
const MARKER: [u8; 12] = *b"\xff\xff\xff\xff\xff\xff\xff\xffXENF";
/// The rest of the image header, and the domain header.
const HEADERS: usize = 12 + 16;
const RECORD_HEADER: usize = 8;
const PAGE_DATA: u32 = 1;
const FRAME_BITS: u32 = 52;
/// Types from here on have no page behind them: broken, to be allocated, nothing there.
const NO_PAGE_FROM: u64 = 0xd;

/// One pass over the pages that are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Pages that were sent.
    pub pages: u64,
    /// Frames that were named though there is no page.
    pub holes: u64,
    /// When its first and last page data came, as the caller counts time.
    pub began: Duration,
    /// See `began`.
    pub ended: Duration,
}

/// Reads a stream piece by piece.
#[derive(Debug, Default)]
pub struct Parser {
    rounds: Vec<Round>,
    last_frame: Option<u64>,
    pending: Vec<u8>,
    /// Bytes to be passed over.
    skip: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Preamble,
    Headers,
    Record,
    /// Behind the header of a PAGE_DATA record whose body has so many bytes.
    Count(u64),
    Frames(u64),
    Over,
}

impl Parser {
    /// The rounds so far; the last one may not be over.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// Takes the next bytes, which came at `now`.
    pub fn feed(&mut self, mut bytes: &[u8], now: Duration) {
        while !bytes.is_empty() && !matches!(self.place, Place::Over) {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len() as u64);
                (self.skip, bytes) = (self.skip - passed, &bytes[passed as usize..]);
                continue;
            }
            let wanted = match self.place {
                Place::Preamble => MARKER.len(),
                Place::Headers => HEADERS,
                Place::Record | Place::Count(_) => RECORD_HEADER,
                Place::Frames(_) => self.pending_frames(),
                Place::Over => return,
            };
            let taken = (wanted - self.pending.len()).min(bytes.len());
            self.pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.pending.len() == wanted {
                self.step(now);
            }
        }
    }

    /// Bytes of the frames of a record, whose number is kept where they begin.
    fn pending_frames(&self) -> usize {
        let count = u32::from_le_bytes(self.pending[..4].try_into().expect("four bytes"));
        RECORD_HEADER + 8 * count as usize
    }

    fn step(&mut self, now: Duration) {
        match self.place {
            Place::Preamble => {
                if self.pending == MARKER {
                    (self.place, self.pending) = (Place::Headers, Vec::new());
                } else {
                    self.pending.remove(0);
                }
            }
            Place::Headers => (self.place, self.pending) = (Place::Record, Vec::new()),
            Place::Record => {
                let word = |at: usize| u32::from_le_bytes(self.pending[at..at + 4].try_into().expect("four bytes"));
                let (kind, length) = (word(0), u64::from(word(4)));
                self.pending.clear();
                match kind {
                    0 => self.place = Place::Over,
                    PAGE_DATA if length >= RECORD_HEADER as u64 => self.place = Place::Count(length),
                    // Bodies are padded to eight bytes.
                    _ => self.skip = length.next_multiple_of(8),
                }
            }
            Place::Count(length) => {
                self.place = Place::Frames(length);
                if self.pending_frames() as u64 > length {
                    // Not a record of this format.
                    self.place = Place::Over;
                }
            }
            Place::Frames(length) => {
                let words = std::mem::take(&mut self.pending);
                for word in words[RECORD_HEADER..].chunks_exact(8) {
                    self.frame(u64::from_le_bytes(word.try_into().expect("eight bytes")), now);
                }
                self.skip = length.next_multiple_of(8) - words.len() as u64;
                self.place = Place::Record;
            }
            Place::Over => {}
        }
    }

    fn frame(&mut self, word: u64, now: Duration) {
        let (frame, kind) = (word & ((1 << FRAME_BITS) - 1), word >> 60);
        if self.last_frame.is_none_or(|last| frame <= last) {
            self.rounds.push(Round { began: now, ..Round::default() });
        }
        self.last_frame = Some(frame);
        let round = self.rounds.last_mut().expect("a first frame begins a round");
        round.ended = now;
        *if kind < NO_PAGE_FROM { &mut round.pages } else { &mut round.holes } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut record = [kind.to_le_bytes(), (body.len() as u32).to_le_bytes()].concat();
        record.extend_from_slice(body);
        record.resize(record.len().next_multiple_of(8), 0);
        record
    }

    fn pages(frames: &[u64]) -> Vec<u8> {
        let mut body = [(frames.len() as u32).to_le_bytes(), [0; 4]].concat();
        frames.iter().for_each(|frame| body.extend_from_slice(&frame.to_le_bytes()));
        let with_page = frames.iter().filter(|frame| *frame >> 60 == 0).count();
        body.resize(body.len() + 4096 * with_page, 0xff);
        record(PAGE_DATA, &body)
    }

    fn stream() -> Vec<u8> {
        let hole = 0xf << 60;
        [
            b"Xen saved domain, xl format\n \0 \r\xff\xff\xff".as_slice(),
            &MARKER,
            &[0; HEADERS],
            &record(9, &[1; 13]),
            &pages(&[0, 1, 5]),
            &pages(&[7, 8 | hole, 9 | hole, 20]),
            &pages(&[1, 7]),
            &pages(&[1]),
            &record(0xa, &[2; 40]),
            &record(0, &[]),
            b"\x01\0\0\0 libxl goes on",
        ]
        .concat()
    }

    #[test]
    fn rounds_begin_where_frames_start_over() {
        for piece in [1, 3, 1_000, 1 << 20] {
            let mut parser = Parser::default();
            stream().chunks(piece).for_each(|bytes| parser.feed(bytes, Duration::ZERO));
            let rounds: Vec<_> = parser.rounds().iter().map(|round| (round.pages, round.holes)).collect();
            assert_eq!(rounds, [(5, 2), (2, 0), (1, 0)], "in pieces of {piece}");
        }
    }

    #[test]
    fn a_stream_that_is_none_ends_without_a_round() {
        let mut parser = Parser::default();
        parser.feed(&[0xff; 100], Duration::ZERO);
        parser.feed(&[MARKER.as_slice(), &[0; HEADERS], &record(PAGE_DATA, &[0xff; 16])].concat(), Duration::ZERO);
        parser.feed(&[0xff; 100], Duration::ZERO);
        assert_eq!(parser.rounds(), []);
    }
}
