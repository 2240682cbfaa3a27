//! What the fuzzer does with an input; the corpus is replayed by the test below.
use crate::quantity::{
    QuantityError, parse_bytes, parse_duration, parse_page_rate, parse_rate, show_bytes, show_count, show_duration,
    show_page_rate, show_rate, write_bytes, write_duration, write_rate,
};
use crate::units::{ByteCount, BytesPerSec};

/// Reads a text as every kind of quantity. What is read can be shown, and reads back the same after it was written;
/// what is not says why on one line. The first 8 bytes are also taken as an amount of any size.
///
/// # Panics
/// Where the readers break one of these promises.
pub fn quantity(data: &[u8]) {
    if let Some(first) = data.first_chunk() {
        any_amount(u64::from_le_bytes(*first));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(bytes) = read(parse_bytes(text)) {
        show_bytes(bytes);
        show_count(bytes.get());
        assert_eq!(parse_bytes(&write_bytes(bytes)), Ok(bytes), "{text:?}");
    }
    if let Some(rate) = read(parse_rate(text)) {
        show_rate(rate);
        assert_eq!(parse_rate(&write_rate(rate)), Ok(rate), "{text:?}");
    }
    if let Some(span) = read(parse_duration(text)) {
        show_duration(span);
        assert_eq!(parse_duration(&write_duration(span)), Ok(span), "{text:?}");
    }
    for page_size in [512, 4096, 1 << 30] {
        if let Some(rate) = read(parse_page_rate(text, ByteCount::new(page_size))) {
            show_page_rate(rate);
            assert!(rate.get().is_finite() && rate.get() >= 0.0, "{text:?} is {rate:?}");
        }
    }
}

/// Amounts the readers take, 2^63 - 1 at most, are written exactly.
fn any_amount(amount: u64) {
    let amount = amount >> 1;
    assert_eq!(parse_bytes(&write_bytes(ByteCount::new(amount))), Ok(ByteCount::new(amount)));
    assert_eq!(parse_rate(&write_rate(BytesPerSec::new(amount))), Ok(BytesPerSec::new(amount)));
}

fn read<V>(parsed: Result<V, QuantityError>) -> Option<V> {
    if let Err(error) = &parsed {
        let line = error.to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    parsed.ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_of_quantity_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/quantity");
        let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty());
        inputs.iter().for_each(|input| super::quantity(&fs::read(input).unwrap()));
    }
}
