//! A Parquet file that vouches for its own bytes.
//!
//! Parquet has no checksum over a file, and its decoders are not written for damaged pages. So each file's metadata has
//! an entry [`KEY`] with the XXH3 of the whole file, taken while the entry's 16 digits are zeros. It is found by its
//! bytes, before anything is parsed:
//!
//! ```text
//! … PAR1-data … "migcast.xxh3_64" 0x18 0x10 "0123456789abcdef" … footer length "PAR1"
//!                key               Thrift: string of 16 bytes
//! ```
use twox_hash::XxHash3_64;

/// Metadata key of the seal. In every file.
pub(crate) const KEY: &str = "migcast.xxh3_64";

/// The value before sealing.
pub(crate) const OPEN: &str = "0000000000000000";

/// How Thrift's compact protocol begins a string field of 16 bytes that follows another field.
const STRING_OF_16: [u8; 2] = [0x18, 0x10];

/// Writes the hash into an encoded file whose metadata has [`KEY`] with the value [`OPEN`].
pub(crate) fn seal(bytes: &mut [u8]) {
    let place = place(bytes).expect("the encoder has just written the key");
    assert_eq!(&bytes[place.clone()], OPEN.as_bytes(), "a file is sealed once");
    let hash = hash(XxHash3_64::oneshot(bytes));
    bytes[place].copy_from_slice(hash.as_bytes());
}

/// True if the bytes are those that were sealed.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let Some(place) = place(bytes) else { return false };
    let mut hasher = XxHash3_64::new();
    for part in [&bytes[..place.start], OPEN.as_bytes(), &bytes[place.end..]] {
        std::hash::Hasher::write(&mut hasher, part);
    }
    bytes[place] == *hash(std::hash::Hasher::finish(&hasher)).as_bytes()
}

/// A hash as 16 hexadecimal digits.
pub(crate) fn hash(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Where the digits stand: behind the last occurrence of the key, as the footer is the end of a file.
pub(crate) fn place(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let mark = [KEY.as_bytes(), &STRING_OF_16].concat();
    let start = bytes.windows(mark.len()).rposition(|window| window == mark)? + mark.len();
    (start + OPEN.len() <= bytes.len()).then_some(start..start + OPEN.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_breaks_a_seal() {
        let mut bytes = [b"PAR1 data ", KEY.as_bytes(), &STRING_OF_16, OPEN.as_bytes(), b" end PAR1"].concat();
        assert!(!is_whole(&bytes));
        seal(&mut bytes);
        assert!(is_whole(&bytes));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(&bytes), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(!is_whole(&bytes[..length]), "{length} bytes");
        }
    }
}
