//! A target that only listens: it reads a migration stream as fast as the link brings it and notes which page came when.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, ensure};

use crate::link;
use migcast_record::stream::{Block, Event, Page, Parser, Section};

/// Bytes read at once: what the link brings in a few milliseconds.
const PIECE: usize = 256 << 10;

/// What arrived of one migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The blocks of memory, in QEMU's scan order.
    pub blocks: Vec<Block>,
    /// Sections with pages, in order: one per step, the last with the guest stopped.
    pub sections: Vec<Arrived>,
    /// Bytes of the whole stream.
    pub bytes: u64,
}

/// A section with pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its pages in order.
    pub pages: Vec<Page>,
    /// When its end arrived.
    pub at: SystemTime,
}

/// A sink that listens or receives.
#[derive(Debug)]
pub struct Sink(JoinHandle<Result<Received>>);

impl Sink {
    /// Listens on `address` (`host:port`) in a network namespace, or in our own.
    ///
    /// # Errors
    /// The namespace cannot be entered (needs root) or the address is taken.
    pub fn listen(namespace: Option<&str>, address: &str) -> Result<Sink> {
        let bind = || Ok(TcpListener::bind(address)?);
        let listener = match namespace {
            Some(namespace) => link::within(namespace, bind),
            None => bind(),
        };
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        Ok(Sink(thread::spawn(move || {
            let (stream, _) = listener.accept().context("awaiting the source")?;
            receive(stream)
        })))
    }

    /// Why it gave up, if it did.
    pub fn refusal(self) -> Option<anyhow::Error> {
        if self.0.is_finished() { self.finish().err() } else { None }
    }

    /// Waits for the stream's end.
    ///
    /// # Errors
    /// The stream broke off before all memory had come, or is not one that can be followed.
    pub fn finish(self) -> Result<Received> {
        self.0.join().map_err(|_| anyhow!("the sink panicked"))?
    }
}

fn receive(mut stream: TcpStream) -> Result<Received> {
    let (mut received, mut parser) = (Received::default(), Parser::default());
    let mut piece = vec![0; PIECE];
    loop {
        let count = stream.read(&mut piece).context("reading the migration stream")?;
        if count == 0 {
            break;
        }
        received.bytes += count as u64;
        parser.push(&piece[..count], |event| received.take(event, SystemTime::now()))?;
    }
    ensure!(parser.is_past_memory(), "the migration stream broke off after {} bytes", received.bytes);
    Ok(received)
}

impl Received {
    fn take(&mut self, event: Event, at: SystemTime) {
        match (event, self.sections.last_mut()) {
            (Event::Blocks(blocks), _) => self.blocks = blocks,
            (Event::Began(Section::Part | Section::End), _) => self.sections.push(Arrived { pages: Vec::new(), at }),
            (Event::Page(page), Some(section)) => section.pages.push(page),
            (Event::Ended(Section::Part | Section::End), Some(section)) => section.at = at,
            // Set-up brings no page.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Connects to a sink of its own and sends it these bytes.
    fn send(bytes: &[u8]) -> Result<Received> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sink = Sink(thread::spawn(move || receive(listener.accept().unwrap().0)));
        TcpStream::connect(address).unwrap().write_all(bytes).unwrap();
        sink.finish()
    }

    /// A block of two pages; page 1, a zero page, in a part; page 0 the same way at the end.
    const STREAM: &[u8] = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\
        \x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\x20\x04\x01r\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\x10\x7e\0\0\0\x02\
        \x02\0\0\0\x02\0\0\0\0\0\0\x10\x02\x01r\0\0\0\0\0\0\0\0\x10\x7e\0\0\0\x02\
        \x03\0\0\0\x02\0\0\0\0\0\0\0\x22\0\0\0\0\0\0\0\0\x10\x7e\0\0\0\x02devices";

    #[test]
    fn pages_are_kept_by_section_and_the_rest_is_drained() {
        let received = send(STREAM).unwrap();
        assert_eq!(received.blocks, [Block { name: "r".to_owned(), pages: 2 }]);
        let pages: Vec<Vec<Page>> = received.sections.into_iter().map(|section| section.pages).collect();
        let zero = |index| vec![Page { index, zero: true }];
        assert_eq!(pages, [zero(1), zero(0)]);
        assert_eq!(received.bytes, STREAM.len() as u64);
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        let error = send(&STREAM[..STREAM.len() - 20]).unwrap_err().to_string();
        assert_eq!(error, format!("the migration stream broke off after {} bytes", STREAM.len() - 20));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named_with_the_address() {
        let error = format!("{:#}", Sink::listen(Some("migcast-no-such"), "127.0.0.1:0").unwrap_err());
        assert!(error.starts_with("listening on 127.0.0.1:0"), "{error}");
    }
}
