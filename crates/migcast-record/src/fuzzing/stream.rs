//! What the fuzzer does with a migration stream; the corpus is replayed by the test below.

use crate::qemu::stream::{Event, Parser, Section, StreamError};

/// Follows a stream, whole and in pieces as long as the first byte says: both tell the same. Pages lie in the blocks that
/// were told, sections end before others begin, nothing is held that could not be part of one item, and what cannot be
/// followed says why on one line.
///
/// # Panics
/// Where the parser breaks one of these promises.
pub fn stream(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else { return };
    let (whole, refused) = follow(stream, stream.len());
    let (pieces, refused_in_pieces) = follow(stream, piece.into());
    assert_eq!((&whole, &refused), (&pieces, &refused_in_pieces), "in pieces of {piece}");
    check_order(&whole);
    if let Some(error) = refused {
        let line = error.to_string();
        assert!(!line.contains(char::is_control) && line.len() < 1_000, "{line:?}");
    }
}

/// What is told until the stream ends or is refused.
fn follow(stream: &[u8], piece: usize) -> (Vec<Event>, Option<StreamError>) {
    let (mut parser, mut told) = (Parser::default(), Vec::new());
    for piece in stream.chunks(piece.max(1)) {
        if let Err(error) = parser.push(piece, |event| told.push(event)) {
            return (told, Some(error));
        }
    }
    (told, None)
}

fn check_order(told: &[Event]) {
    let (mut open, mut pages): (Option<Section>, u64) = (None, 0);
    for event in told {
        match event {
            Event::Began(section) => assert_eq!(open.replace(*section), None),
            Event::Blocks(blocks) => {
                assert_eq!((open, pages), (Some(Section::Start), 0));
                pages = blocks.iter().map(|block| block.pages).sum();
            }
            Event::Page(page) => {
                assert!(matches!(open, Some(Section::Part | Section::End)));
                assert!(page.index < pages, "{page:?} of {pages}");
            }
            Event::Marked(section) => assert_eq!(open, Some(*section)),
            Event::Ended(section) => assert_eq!(open.take(), Some(*section)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_of_stream_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/stream");
        let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty());
        inputs.iter().for_each(|input| super::stream(&fs::read(input).unwrap()));
    }
}
