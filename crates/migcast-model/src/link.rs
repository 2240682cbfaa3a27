//! The link between source and target, and the sender's buffer in front of it.

use std::time::Duration;

use crate::units::{ByteCount, BytesPerSec, SimTime};

/// A link: what the line carries, what of it is payload, and how much the sender's kernel takes before it blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Line rate, as people name links: 1 Gbit/s is 125,000,000 B/s.
    pub line_rate: BytesPerSec,
    /// Payload bytes per byte on the line, in (0, 1].
    pub payload_share: f64,
    /// Bytes the sender's socket accepts beyond what the target has received. Bytes accepted are not bytes delivered:
    /// what stands here when the guest stops has to be delivered before the target can run it.
    pub sender_buffer: ByteCount,
}

impl Link {
    /// TCP with time stamps over Ethernet with 1500-byte frames: 1448 payload bytes of 1538 on the line (frame, preamble
    /// and gap).
    pub const ETHERNET_PAYLOAD_SHARE: f64 = 1448.0 / 1538.0;

    /// Linux's largest automatic TCP send buffer (`net.ipv4.tcp_wmem`, third value, as shipped): 4 MiB.
    pub const LINUX_SENDER_BUFFER: ByteCount = ByteCount::new(4 << 20);

    /// Ethernet and Linux defaults around a line rate.
    pub fn ethernet(line_rate: BytesPerSec) -> Link {
        Link { line_rate, payload_share: Link::ETHERNET_PAYLOAD_SHARE, sender_buffer: Link::LINUX_SENDER_BUFFER }
    }

    /// Payload bytes per second.
    pub fn goodput(&self) -> BytesPerSec {
        self.line_rate.scale(self.payload_share)
    }
}

/// A writer is woken when one part in so many of the buffer is free.
const FREE_WHEN_WOKEN: u64 = 3;

/// The sender's socket buffer during one migration: bytes go in until it is full and leave at the granted rate. A writer
/// that found it full sleeps until a third of it is free again (Linux, net/core/stream.c `sk_stream_write_space` and
/// net/sock.h `sk_stream_is_writeable`), so bytes are accepted in bursts.
///
/// ```text
///  migration thread ──accept──► [ queued ≤ capacity ] ──granted rate──► target
///
///  queued  ▔╲▁╱▔╲▁╱▔╲▁╱▔   between two thirds of the capacity and all of it
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SendQueue {
    capacity: ByteCount,
    /// What is free when a writer is woken.
    burst: ByteCount,
    queued: ByteCount,
    at: SimTime,
}

impl SendQueue {
    /// An empty buffer that holds `capacity` bytes.
    pub fn new(capacity: ByteCount) -> SendQueue {
        SendQueue::of_connections(capacity, 1)
    }

    /// The empty buffers of several connections (at least one) that are written in turn, each of `capacity` bytes: all of
    /// them hold as many times more, but whoever finds one full waits for that one alone.
    pub fn of_connections(capacity: ByteCount, connections: u64) -> SendQueue {
        let burst = ByteCount::new(capacity.get() / FREE_WHEN_WOKEN);
        let capacity = ByteCount::new(capacity.get().saturating_mul(connections.max(1)));
        SendQueue { capacity, burst, queued: ByteCount::ZERO, at: SimTime::ZERO }
    }

    /// Writes `bytes`, which take the sender at least `cpu` to prepare, from `now` on, while the link carries `granted`.
    /// Returns when the last byte has been accepted. `now` must not lie before the end of the previous call.
    pub fn accept(&mut self, now: SimTime, bytes: ByteCount, cpu: Duration, granted: BytesPerSec) -> SimTime {
        let prepared = now + cpu;
        self.drain(now, granted);
        if prepared == now && self.queued + bytes <= self.capacity {
            // It takes no time.
            self.queued += bytes;
            return now;
        }
        let overflow = (self.queued + bytes).saturating_sub(self.capacity).get();
        let burst = self.burst.get();
        let freed = if burst == 0 { overflow } else { overflow.next_multiple_of(burst) };
        let end = prepared.max(ByteCount::new(freed).gone_by(now, granted));
        self.queued += bytes;
        self.drain(end, granted);
        end
    }

    /// Bytes that a writer gets rid of from `now` on without waiting longer than `span`, while the link carries `granted`:
    /// what is free, and what becomes free whenever it is woken. The next byte keeps it longer.
    pub fn room(&self, now: SimTime, span: Duration, granted: BytesPerSec) -> ByteCount {
        ByteCount::new(self.free(now, granted).get().saturating_add(self.freed_in(span, granted).get()))
    }

    /// Bytes that may be written at once, `now`.
    pub fn free(&self, now: SimTime, granted: BytesPerSec) -> ByteCount {
        self.capacity.saturating_sub(self.queued_at(now, granted))
    }

    /// Bytes for which a writer that found the buffer full is woken within `span`.
    fn freed_in(&self, span: Duration, granted: BytesPerSec) -> ByteCount {
        let delivered = granted.bytes_in(span).get();
        ByteCount::new(if self.burst.is_zero() { delivered } else { delivered - delivered % self.burst.get() })
    }

    /// So much time passes in which as much is accepted as is delivered.
    pub fn stays_for(&mut self, span: Duration) {
        self.at += span;
    }

    /// When everything accepted so far has been delivered, if nothing else is written.
    pub fn delivered(&self, granted: BytesPerSec) -> SimTime {
        self.at + self.queued.transfer_time_ceil(granted)
    }

    /// Bytes it holds at most.
    pub fn capacity(&self) -> ByteCount {
        self.capacity
    }

    /// Bytes that are free when a writer that found it full is woken.
    pub fn burst(&self) -> ByteCount {
        self.burst
    }

    /// The same buffer `at` another time, when so many bytes of it are free.
    #[must_use]
    pub fn with_free(self, free: ByteCount, at: SimTime) -> SendQueue {
        SendQueue { queued: self.capacity.saturating_sub(free), at, ..self }
    }

    /// Bytes accepted and not yet delivered.
    pub fn queued(&self) -> ByteCount {
        self.queued
    }

    fn queued_at(&self, now: SimTime, granted: BytesPerSec) -> ByteCount {
        if now == self.at { self.queued } else { self.queued.saturating_sub(granted.bytes_between(self.at, now)) }
    }

    fn drain(&mut self, now: SimTime, granted: BytesPerSec) {
        self.queued = self.queued_at(now, granted);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: BytesPerSec = BytesPerSec::new(1_000);

    fn at_millis(millis: u64) -> SimTime {
        SimTime::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn ethernet_carries_1448_payload_bytes_of_1538_behind_linux_s_largest_buffer() {
        let link = Link::ethernet(BytesPerSec::new(1_538_000));
        assert_eq!(link.goodput(), BytesPerSec::new(1_448_000));
        assert_eq!(link.sender_buffer, ByteCount::new(4_194_304));
    }

    #[test]
    fn bytes_are_accepted_before_they_are_delivered() {
        let mut queue = SendQueue::new(ByteCount::new(500));
        let accepted = queue.accept(SimTime::ZERO, ByteCount::new(400), Duration::ZERO, RATE);
        assert_eq!(accepted, SimTime::ZERO);
        assert_eq!(queue.delivered(RATE), at_millis(400));
    }

    #[test]
    fn a_full_buffer_holds_the_sender_to_the_link() {
        let mut queue = SendQueue::new(ByteCount::new(600));
        let accepted = queue.accept(SimTime::ZERO, ByteCount::new(2_600), Duration::ZERO, RATE);
        assert_eq!(accepted, at_millis(2_000));
        assert_eq!(queue.queued(), ByteCount::new(600));
        assert_eq!(queue.delivered(RATE), at_millis(2_600));
    }

    #[test]
    fn a_writer_that_found_the_buffer_full_sleeps_until_a_third_is_free() {
        let mut queue = SendQueue::new(ByteCount::new(600));
        queue.accept(SimTime::ZERO, ByteCount::new(600), Duration::ZERO, RATE);
        // One byte too many: woken when 200 have left, at 200 ms; then 199 more go in at once.
        let accepted = queue.accept(SimTime::ZERO, ByteCount::new(1), Duration::ZERO, RATE);
        assert_eq!((accepted, queue.queued()), (at_millis(200), ByteCount::new(401)));
        let accepted = queue.accept(accepted, ByteCount::new(199), Duration::ZERO, RATE);
        assert_eq!((accepted, queue.queued()), (at_millis(200), ByteCount::new(600)));
    }

    #[test]
    fn there_is_room_for_what_is_free_and_for_what_a_woken_writer_finds() {
        let mut queue = SendQueue::new(ByteCount::new(600));
        queue.accept(SimTime::ZERO, ByteCount::new(500), Duration::ZERO, RATE);
        let room = |millis| queue.room(SimTime::ZERO, Duration::from_millis(millis), RATE).get();
        assert_eq!([0, 199, 200, 399, 400].map(room), [100, 100, 300, 300, 500], "woken every 200 ms");
        let room = room(450);
        let within = queue.clone().accept(SimTime::ZERO, ByteCount::new(room), Duration::ZERO, RATE);
        let beyond = queue.accept(SimTime::ZERO, ByteCount::new(room + 1), Duration::ZERO, RATE);
        assert_eq!((within, beyond), (at_millis(400), at_millis(600)));
    }

    #[test]
    fn a_slow_sender_is_bound_by_its_own_work() {
        let mut queue = SendQueue::new(ByteCount::new(500));
        let accepted = queue.accept(SimTime::ZERO, ByteCount::new(100), Duration::from_secs(1), RATE);
        assert_eq!(accepted, at_millis(1_000));
        assert_eq!(queue.queued(), ByteCount::ZERO);
    }

    #[test]
    fn the_buffer_drains_while_the_sender_sleeps() {
        let mut queue = SendQueue::new(ByteCount::new(500));
        queue.accept(SimTime::ZERO, ByteCount::new(500), Duration::ZERO, RATE);
        let accepted = queue.accept(at_millis(300), ByteCount::new(300), Duration::ZERO, RATE);
        assert_eq!(accepted, at_millis(300));
        assert_eq!(queue.delivered(RATE), at_millis(800));
    }

    #[test]
    fn no_link_never_delivers() {
        let mut queue = SendQueue::new(ByteCount::new(500));
        let accepted = queue.accept(SimTime::ZERO, ByteCount::new(501), Duration::ZERO, BytesPerSec::ZERO);
        assert_eq!(accepted, SimTime::MAX);
    }
}
