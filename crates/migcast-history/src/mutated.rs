//! Segments with chance changes and right seals: what is behind the seals must stand by itself.
use crate::fuzzing::Stage;
use crate::rates::{Rate, RateSeries};

/// splitmix64.
fn chance(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 1) as usize
}

/// Changes a few bytes in one of the ways that find the weak places of decoders.
fn mutate(bytes: &mut [u8], state: &mut u64) {
    for _ in 0..1 + chance(state) % 3 {
        let at = chance(state) % bytes.len();
        match chance(state) % 5 {
            0 => bytes[at] ^= 1 << (chance(state) % 8),
            1 => bytes[at] = chance(state) as u8,
            2 => bytes[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][chance(state) % 5],
            3 => {
                let end = (at + 1 + chance(state) % 8).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            _ => {
                let from = chance(state) % bytes.len();
                let length = (1 + chance(state) % 16).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + length, at);
            }
        }
    }
}

#[test]
fn no_sealed_nonsense_is_more_than_a_damaged_segment() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(dir.path());
    let (mut state, mut read, mut refused) = (1, 0, 0);
    for round in 0..2_000 {
        let spoilt = if round % 3 == 0 { stage.first() } else { stage.now() };
        let which = round % spoilt.files();
        let mut bytes = spoilt.kept(which).to_vec();
        mutate(&mut bytes, &mut state);
        if spoilt.survives(which, bytes) { read += 1 } else { refused += 1 }
    }
    // Bytes that mean nothing to the reader (statistics, say) may change; but most do mean something.
    assert!(refused > read && read > 0, "{refused} refused, {read} read");
    println!("{refused} refused, {read} read");
}

#[test]
fn no_sealed_nonsense_is_more_than_damaged_rates() {
    let dir = tempfile::tempdir().unwrap();
    let rate = |index: i64| Rate {
        start_unix_ns: index * 1_000_000_000,
        end_unix_ns: (index + 1) * 1_000_000_000,
        written: index.unsigned_abs() % 7,
        span: std::time::Duration::from_millis(900),
    };
    let mut manifest = crate::format::Manifest::read(&kept()).unwrap();
    manifest.format = crate::format::Manifest::format_of_rates();
    manifest.written_means = crate::format::WrittenMeans::Rate;
    let made = RateSeries::create(dir.path(), manifest, (0..500).map(rate).collect()).unwrap();
    let file = dir.path().join("rates/000000.parquet");
    let whole = std::fs::read(&file).unwrap();
    let (mut state, mut read, mut refused) = (1, 0, 0);
    for _ in 0..600 {
        let mut bytes = whole.clone();
        mutate(&mut bytes, &mut state);
        crate::fuzzing::seal_anew(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        match RateSeries::open(dir.path()) {
            Ok(series) => {
                assert!(series.rates().len() <= made.rates().len());
                read += 1;
            }
            Err(error) => {
                crate::fuzzing::one_line(&error);
                refused += 1;
            }
        }
    }
    assert!(refused > read && read > 0, "{refused} refused, {read} read");
}

fn kept() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format/v3/history")
}
