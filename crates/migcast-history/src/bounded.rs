//! The pages of a column, with what they claim held against limits before memory is taken for it.
//!
//! The decoder believes a page's header: it reserves the uncompressed size and fills a dictionary of the stated length.
//! A forged page of a few bytes would take gigabytes that way.
//!
//! Pages are decompressed here: the decoder makes a compressor and a decompressor for each column chunk, and a day of
//! history has twenty thousand, of a few kilobytes each.
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use zstd::bulk::Decompressor;

/// Uncompressed bytes a page may have. Writers make pages of about 1 MiB.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Encodings a page of values may have. Others are not needed for any column of the format, and their decoders reserve
/// what the page claims.
const ENCODINGS: [Encoding; 4] =
    [Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY, Encoding::DELTA_BINARY_PACKED];

thread_local! {
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Gives a column chunk's pages, or an error where one claims too much.
pub(crate) struct BoundedPages {
    pages: SerializedPageReader<Headers>,
    headers: Arc<Headers>,
    is_compressed: bool,
}

impl BoundedPages {
    /// The pages of a chunk of `rows` rows in a file.
    pub(crate) fn new(file: Bytes, chunk: &ColumnChunkMetaData, rows: usize) -> Result<BoundedPages> {
        let headers = Arc::new(Headers { file, page_bytes: AtomicUsize::new(0) });
        let is_compressed = matches!(chunk.compression(), Compression::ZSTD(_));
        let as_it_lies = |chunk: &ColumnChunkMetaData| {
            chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()
        };
        let pages = match is_compressed {
            true => SerializedPageReader::new(Arc::clone(&headers), &as_it_lies(chunk)?, rows, None)?,
            false => SerializedPageReader::new(Arc::clone(&headers), chunk, rows, None)?,
        };
        Ok(BoundedPages { pages, headers, is_compressed })
    }

    /// The page without its compression.
    fn decompressed(&self, mut page: Page) -> Result<Page> {
        let buf = match &mut page {
            Page::DataPageV2 { is_compressed: false, .. } => return Ok(page),
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. }
                if (*def_levels_byte_len, *rep_levels_byte_len) != (0, 0) =>
            {
                return Err(refused("levels, which no column of the format has"));
            }
            Page::DataPage { buf, .. } | Page::DataPageV2 { buf, .. } | Page::DictionaryPage { buf, .. } => buf,
        };
        // Its header was the last that was read.
        *buf = decompress(buf, self.headers.page_bytes.load(Ordering::Relaxed))?;
        Ok(page)
    }
}

/// `bytes` after decompression, so many.
fn decompress(bytes: &[u8], length: usize) -> Result<Bytes> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    let unpacked = DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(bytes, length)
    })?;
    if unpacked.len() == length { Ok(unpacked.into()) } else { Err(refused("fewer bytes than it says")) }
}

impl PageReader for BoundedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let mut page = self.pages.get_next_page()?;
        if self.is_compressed {
            page = page.map(|page| self.decompressed(page)).transpose()?;
        }
        match &page {
            // A value takes at least a byte. (The format has booleans in no dictionary.)
            Some(Page::DictionaryPage { buf, num_values, .. }) if *num_values as usize > buf.len() => {
                Err(refused("a dictionary of more values than bytes"))
            }
            // What `PLAIN_DICTIONARY` means depends on the page; the older name of `RLE_DICTIONARY` here.
            Some(Page::DataPage { encoding, .. } | Page::DataPageV2 { encoding, .. })
                if !ENCODINGS.contains(encoding) && !is_plain_dictionary(*encoding) =>
            {
                Err(refused("an encoding that no column of the format has"))
            }
            _ => Ok(page),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for BoundedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

#[allow(deprecated)] // read for as long as others write it
fn is_plain_dictionary(encoding: Encoding) -> bool {
    encoding == Encoding::PLAIN_DICTIONARY
}

fn refused(what: &str) -> ParquetError {
    ParquetError::General(format!("a page has {what}"))
}

/// A file of which the page reader reads page headers as streams and page data by length: so every header passes
/// [`ChunkReader::get_read`].
struct Headers {
    file: Bytes,
    /// Uncompressed bytes of the page whose header was read last.
    page_bytes: AtomicUsize,
}

impl Length for Headers {
    fn len(&self) -> u64 {
        self.file.len() as u64
    }
}

impl ChunkReader for Headers {
    type T = <Bytes as ChunkReader>::T;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let header = usize::try_from(start).ok().and_then(|start| self.file.get(start..));
        match header.and_then(uncompressed_size) {
            Some(bytes @ 0..=PAGE_BYTES_MAX) => {
                self.page_bytes.store(bytes as usize, Ordering::Relaxed);
                self.file.get_read(start)
            }
            Some(_) => Err(refused("more than 64 MiB")),
            None => Err(refused("a header that does not begin with type and size")),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // The decoder's own implementation panics on a range outside of the file.
        let start = usize::try_from(start).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        let inside = range.filter(|range| range.end <= self.file.len());
        inside.map(|range| self.file.slice(range)).ok_or_else(|| refused("bytes outside of the file"))
    }
}

/// The uncompressed size in a page header: the second field of the Thrift structure, in the compact protocol.
///
/// ```text
/// 0x15 type (varint)   0x15 uncompressed size (zigzag varint)   …      0x15: the next field, a 32-bit integer
/// ```
fn uncompressed_size(header: &[u8]) -> Option<u64> {
    let (_, rest) = varint(header.strip_prefix(&[0x15])?)?;
    let (zigzag, _) = varint(rest.strip_prefix(&[0x15])?)?;
    // Odd ones are negative.
    zigzag.is_multiple_of(2).then_some(zigzag / 2)
}

/// A variable-length integer and what is behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_long_as_its_header_says_or_refused() {
        let packed = zstd::bulk::compress(b"pages", 1).unwrap();
        assert_eq!(decompress(&packed, 5).unwrap(), &b"pages"[..]);
        for (packed, length) in [(&packed[..], 4), (&packed, 6), (&packed[..packed.len() - 1], 5), (b"", 5)] {
            decompress(packed, length).unwrap_err();
        }
        assert!(decompress(b"", 0).unwrap().is_empty(), "no values, no bytes");
    }

    #[test]
    fn sizes_are_read_from_headers() {
        assert_eq!(uncompressed_size(&[0x15, 0x00, 0x15, 0x14, 0x15]), Some(10));
        assert_eq!(uncompressed_size(&[0x15, 0x04, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f]), Some((1 << 31) - 1));
        for header in [&[][..], &[0x15], &[0x15, 0x00, 0x15], &[0x15, 0x00, 0x15, 0x01], &[0x15, 0x00, 0x26, 0x02]] {
            assert_eq!(uncompressed_size(header), None, "{header:?}");
        }
        assert_eq!(varint(&[0xff; 20]), None);
    }
}
