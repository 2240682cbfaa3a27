//! How pages lie in QEMU's stream, and what the rate limit has seen of it (ram.c `save_page_header`, multifd.c).

use std::time::Duration;

use super::rules::Rules;
use super::settings::Settings;
use crate::due::{PageBytes, SendLimit, Sent};
use crate::link::{Link, SendQueue};
use crate::platform::Platform;
use crate::units::{ByteCount, PageCount};

/// Around the pages of a step: section type 1, id 4, end marker 8, footer 5.
pub(super) const SECTION_BYTES: ByteCount = ByteCount::new(18);
/// Header of a page: offset and flags. The block's name, sent when the block changes, is left out: under 100 bytes a pass.
const PAGE_HEADER: u64 = 8;
/// A zero page: header and one byte.
const ZERO_PAGE_BYTES: ByteCount = ByteCount::new(PAGE_HEADER + 1);
/// Header of an encoded page: the page's, one byte of kind, two of length.
const ENCODED_HEADER: u64 = PAGE_HEADER + 3;
/// Pages with data per flush of the main channel: MAX_IOV_SIZE 64, a header and a page each.
pub(super) const DATA_PAGES_PER_FLUSH: u64 = 32;
/// IO_BUF_SIZE: headers alone (zero pages) flush the main channel when they fill this.
const FLUSH_BUFFER: ByteCount = ByteCount::new(32_768);
/// Pages of a multifd packet: MULTIFD_PACKET_SIZE 512 KiB.
const PAGES_PER_PACKET: u64 = 128;
/// A packet's header is always as long as for 128 pages: 320 bytes and 8 for each.
const PACKET_HEADER: ByteCount = ByteCount::new(320 + 8 * PAGES_PER_PACKET);

/// Bytes of a page in QEMU's main channel, header included (ram.c, save_page_header). Nothing is encoded.
pub fn page_bytes(page_size: ByteCount) -> PageBytes {
    let data = ByteCount::new(PAGE_HEADER) + page_size;
    PageBytes { data, zero: ZERO_PAGE_BYTES, encoded: data }
}

/// The stream of one migration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Bytes of a page, packets' headers aside.
    pub(super) page: PageBytes,
    page_size: ByteCount,
    /// Multifd's channels; none without it.
    channels: Option<u64>,
    /// Whether the channels look for zero pages, so that those take a place in a packet: 9.0 and later.
    zero_in_packets: bool,
    /// Whether every section ends with a packet from each channel, for which the thread waits: up to 8.0.
    syncs_each_section: bool,
    /// What the rate limit of 8.2 and later, and with multifd that of all versions, has not seen yet.
    unflushed: Unflushed,
}

/// Bytes that wait for a flush.
#[derive(Clone, Copy, Debug, Default)]
struct Unflushed {
    /// Pages that fill a flush or a packet.
    pages: u64,
    bytes: ByteCount,
    /// Without what the data itself takes.
    headers: ByteCount,
}

impl Stream {
    pub(super) fn new(rules: &Rules, settings: &Settings, page_size: ByteCount) -> Stream {
        let channels = settings.multifd.is_on.then_some(settings.multifd.channels);
        let mut page = page_bytes(page_size);
        let encoded = page_size.get() * settings.xbzrle.encoded_percent / 100;
        page.encoded = ByteCount::new(ENCODED_HEADER + encoded).min(page.data);
        let zero_in_packets = channels.is_some() && rules.channels_find_zero_pages;
        if channels.is_some() {
            page.data = page_size;
        }
        if zero_in_packets {
            page.zero = ByteCount::ZERO;
        }
        let syncs_each_section = rules.multifd_syncs_each_section;
        Stream { page, page_size, channels, zero_in_packets, syncs_each_section, unflushed: Unflushed::default() }
    }

    /// The sender's buffers: each channel has one of its own.
    pub(super) fn queue(&self, link: &Link) -> SendQueue {
        SendQueue::of_connections(link.sender_buffer, self.channels.unwrap_or(1))
    }

    /// What the work on these pages takes: channels share it, but zero pages are the main thread's until it is theirs.
    pub(super) fn work(&self, sent: Sent, platform: &Platform) -> Duration {
        let Some(channels) = self.channels else { return platform.page_work(sent) };
        let alone = if self.zero_in_packets { Sent::default() } else { Sent { zero: sent.zero, ..Sent::default() } };
        let shared = Sent { zero: sent.zero - alone.zero, ..sent };
        platform.page_work(alone) + platform.page_work(shared) / u32::try_from(channels).unwrap_or(u32::MAX)
    }

    /// Where one channel carries all: pages with data that make a flush, and how many of them wait for it.
    pub(super) fn flush(&self) -> Option<(u64, u64)> {
        self.channels.is_none().then_some((DATA_PAGES_PER_FLUSH, self.unflushed.pages))
    }

    /// The same limit, and no further than the next flush or packet.
    pub(super) fn until_flush(&self, limit: SendLimit) -> SendLimit {
        let left = PageCount::new(self.pages_per_flush() - self.unflushed.pages);
        if self.zero_in_packets {
            SendLimit { pages: limit.pages.min(left), ..limit }
        } else {
            SendLimit { data_pages: limit.data_pages.min(left), ..limit }
        }
    }

    /// Takes pages into the stream. Returns the bytes they add to it, packets that they fill included, and what a rate
    /// limit that counts flushed bytes sees of them.
    pub(super) fn take(&mut self, sent: Sent) -> (ByteCount, ByteCount) {
        let mut bytes = sent.bytes(self.page);
        let data = sent.data.bytes(self.page_size);
        self.unflushed.bytes += bytes;
        self.unflushed.headers += bytes.saturating_sub(data);
        self.unflushed.pages += if self.zero_in_packets { sent.pages() } else { sent.data }.get();
        let full = self.unflushed.pages >= self.pages_per_flush();
        let filled = self.channels.is_none() && self.unflushed.headers >= FLUSH_BUFFER;
        if !full && !filled {
            return (bytes, ByteCount::ZERO);
        }
        // As many flushes as they fill; headers that fill the buffer take all pages with them.
        let (flushes, rest) =
            (self.unflushed.pages / self.pages_per_flush(), self.unflushed.pages % self.pages_per_flush());
        if self.channels.is_some() {
            let headers = ByteCount::new(PACKET_HEADER.get() * flushes);
            bytes += headers;
            self.unflushed.bytes += headers;
        }
        let rest = if full { rest } else { 0 };
        let left = ByteCount::new(rest * self.page.data.get());
        let flushed = self.unflushed.bytes.saturating_sub(left);
        self.unflushed = Unflushed { bytes: left, pages: rest, headers: ByteCount::ZERO };
        (bytes, flushed)
    }

    /// Ends a section, the last one if the guest stands still: bytes it adds, and all that is flushed by it.
    pub(super) fn end_section(&mut self, is_last: bool) -> (ByteCount, ByteCount) {
        let mut bytes = SECTION_BYTES;
        if let Some(channels) = self.channels {
            if !self.syncs_each_section && !is_last {
                return (bytes, bytes);
            }
            let open = u64::from(self.unflushed.pages > 0);
            bytes += ByteCount::new(PACKET_HEADER.get() * (channels + open));
        }
        (bytes, std::mem::take(&mut self.unflushed).bytes + bytes)
    }

    fn pages_per_flush(&self) -> u64 {
        if self.channels.is_some() { PAGES_PER_PACKET } else { DATA_PAGES_PER_FLUSH }
    }
}
