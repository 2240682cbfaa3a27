//! Gaps between two writes of a page, in buckets: each gap up to 15 windows by itself, then eight buckets an octave.

/// Buckets, the one for first writes included. The last holds gaps up to 2^32 windows.
pub const BUCKETS: u16 = 240;

/// The bucket of first writes: nothing is known of a write before.
pub const FIRST_WRITE: u16 = 0;

/// The bucket of a gap in recorded windows (1 = the window before). A gap of 0 stands for a first write.
pub fn bucket(gap: u32) -> u16 {
    if gap < 8 {
        return gap as u16;
    }
    let octave = gap.ilog2();
    let eighth = (gap >> (octave - 3)) & 7;
    ((octave - 2) * 8 + eighth) as u16
}

/// The smallest gap in a bucket. `bucket` < [`BUCKETS`].
pub fn bucket_start(bucket: u16) -> u32 {
    if bucket < 16 {
        return u32::from(bucket);
    }
    let octave = u32::from(bucket) / 8 + 2;
    (8 + u32::from(bucket) % 8) << (octave - 3)
}

/// How many gaps a bucket other than [`FIRST_WRITE`] holds.
pub fn bucket_width(bucket: u16) -> u32 {
    if bucket < 16 { 1 } else { 1 << (u32::from(bucket) / 8 - 1) }
}

/// How many of a bucket's gaps are no longer than `longest`.
pub(super) fn up_to(bucket: u16, longest: u32) -> u32 {
    longest.saturating_add(1).saturating_sub(bucket_start(bucket)).min(bucket_width(bucket))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_exact_below_16_and_end_at_2_pow_32() {
        (0..16).for_each(|gap| assert_eq!(u32::from(bucket(gap)), gap));
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
        (0..BUCKETS).for_each(|b| assert_eq!(bucket(bucket_start(b)), b));
        (1..BUCKETS - 1).for_each(|b| assert_eq!(bucket_start(b) + bucket_width(b), bucket_start(b + 1), "{b}"));
    }

    proptest! {
        #[test]
        fn a_gap_lies_in_its_bucket(gap in 1u32..) {
            let b = bucket(gap);
            prop_assert!(bucket_start(b) <= gap);
            prop_assert!(b + 1 == BUCKETS || gap < bucket_start(b + 1));
        }
    }
}
