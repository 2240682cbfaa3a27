//! When which page is due to be written: the same list for the same pattern and seed, everywhere.

use std::time::Duration;

use crate::pattern::{Pattern, Phase};

/// One write that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// When, counted from the schedule's start; at once where it is computation that paces the writes.
    pub due: Duration,
    /// Which page of the working set.
    pub page: u32,
}

/// The endless list of writes of a pattern, in the order they are due. Empty for an idle pattern.
#[derive(Clone, Debug)]
pub struct Schedule {
    pattern: Pattern,
    random: Random,
    /// Writes given so far (of the current phase, where there are phases).
    given: u64,
    /// The current phase and when it began.
    phase: usize,
    phase_start: Duration,
}

impl Schedule {
    /// The schedule of `pattern`, with its random choices drawn from `seed`.
    pub fn new(pattern: Pattern, seed: u64) -> Schedule {
        Schedule { pattern, random: Random(seed), given: 0, phase: 0, phase_start: Duration::ZERO }
    }
}

impl Iterator for Schedule {
    type Item = Write;

    fn next(&mut self) -> Option<Write> {
        let random = &mut self.random;
        let (rate, page) = match &self.pattern {
            Pattern::Idle => return None,
            Pattern::Uniform { rate, pages } => (*rate, random.below(*pages)),
            Pattern::Sequential { rate, pages } => {
                let page = u32::try_from(self.given % u64::from(*pages)).expect("a remainder is below its divisor");
                (*rate, page)
            }
            Pattern::HotCold { rate, pages, hot_pages, hot_writes } => {
                (*rate, random.hot_or_cold(*pages, *hot_pages, *hot_writes))
            }
            Pattern::Phases(_) => return Some(self.next_in_phases()),
            Pattern::Computing { pages, .. } => {
                return Some(Write { due: Duration::ZERO, page: random.below(*pages) });
            }
        };
        let due = due(self.given, rate);
        self.given += 1;
        Some(Write { due, page })
    }
}

impl Schedule {
    fn next_in_phases(&mut self) -> Write {
        let Pattern::Phases(phases) = &self.pattern else { unreachable!("called for phases only") };
        loop {
            let Phase { length, rate, pages } = phases[self.phase];
            if rate > 0 {
                let into_phase = due(self.given, rate);
                if into_phase < length {
                    self.given += 1;
                    return Write { due: self.phase_start + into_phase, page: self.random.below(pages) };
                }
            }
            self.phase_start += length;
            self.phase = (self.phase + 1) % phases.len();
            self.given = 0;
        }
    }
}

/// When write number `index` is due at `rate` writes per second, rounded down to the nanosecond.
fn due(index: u64, rate: u32) -> Duration {
    let rate = u64::from(rate);
    Duration::from_secs(index / rate) + Duration::from_nanos(index % rate * 1_000_000_000 / rate)
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Draws from `seed` on.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`, which must not be 0; its bias is below `limit` ÷ 2^32.
    fn below(&mut self, limit: u32) -> u32 {
        let scaled = (self.bits() >> 32) * u64::from(limit);
        u32::try_from(scaled >> 32).expect("the upper half of a product of 32 bits")
    }

    fn hot_or_cold(&mut self, pages: u32, hot_pages: f64, hot_writes: f64) -> u32 {
        let hot = ((f64::from(pages) * hot_pages) as u32).clamp(1, pages - 1);
        let draw = self.below(1 << 24);
        if f64::from(draw) < hot_writes * f64::from(1 << 24) { self.below(hot) } else { hot + self.below(pages - hot) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str, count: usize) -> Vec<Write> {
        Schedule::new(text.parse().unwrap(), 7).take(count).collect()
    }

    #[test]
    fn idle_writes_nothing() {
        assert_eq!(first("idle", 1), []);
    }

    #[test]
    fn the_same_seed_gives_the_same_writes_and_another_does_not() {
        let pattern: Pattern = "uniform:rate=1000,pages=5000".parse().unwrap();
        let of = |seed| Schedule::new(pattern.clone(), seed).take(100).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn what_computation_paces_is_due_at_once() {
        let writes = first("computing:steps=60000,pages=50", 200);
        assert!(writes.iter().all(|write| write.due.is_zero() && write.page < 50));
        assert!(writes.iter().any(|write| write.page != writes[0].page));
    }

    #[test]
    fn writes_are_evenly_spaced_at_the_rate() {
        let writes = first("uniform:rate=3,pages=10", 4);
        let due: Vec<_> = writes.iter().map(|write| write.due.as_nanos()).collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, 1_000_000_000]);
    }

    #[test]
    fn sequential_goes_round() {
        let pages: Vec<_> = first("sequential:rate=10,pages=3", 7).iter().map(|write| write.page).collect();
        assert_eq!(pages, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn uniform_covers_its_working_set_evenly() {
        let mut hits = [0_u32; 10];
        for write in first("uniform:rate=10,pages=10", 10_000) {
            hits[write.page as usize] += 1;
        }
        assert!(hits.iter().all(|&count| (900..1100).contains(&count)), "{hits:?}");
    }

    #[test]
    fn hot_pages_get_their_share() {
        let writes = first("hot-cold:rate=10,pages=1000,hot-pages=0.1,hot-writes=0.9", 10_000);
        let hot = writes.iter().filter(|write| write.page < 100).count();
        assert!((8_900..9_100).contains(&hot), "{hot}");
        assert!(writes.iter().all(|write| write.page < 1000));
    }

    #[test]
    fn phases_change_rate_and_working_set_and_pause() {
        let writes = first("phases:1s@2/1+1s@0/1+1s@4/50", 14);
        let due: Vec<_> = writes.iter().map(|write| write.due.as_millis()).collect();
        assert_eq!(due, [0, 500, 2000, 2250, 2500, 2750, 3000, 3500, 5000, 5250, 5500, 5750, 6000, 6500]);
        assert_eq!((writes[0].page, writes[1].page), (0, 0));
        assert!(writes[2..6].iter().any(|write| write.page > 0));
    }
}
