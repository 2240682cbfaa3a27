//! Where in the memory the zero pages lie, more finely than by band.

use std::ops::Range;

use super::BANDS;
use crate::units::PageCount;

/// Parts of a band told apart, at most. On the shipped recordings more than 8 change no forecast by more than a tenth of a
/// percent of downtime; a large guest's parts are longer.
const PARTS_MOST: u32 = 16;

/// Zero pages of one moment, by equal parts of the memory in scan order: exact at the edges of parts, evenly mixed inside.
#[derive(Clone, Debug)]
pub struct ZeroPlaces {
    /// Pages of the memory that a part holds.
    part_pages: f64,
    /// Zero pages of the memory before each part, and before the end.
    before: Vec<f64>,
    /// Of each part the first behind it that is of another kind: all zero, not at all, or mixed, which no other is like.
    alike_until: Vec<u32>,
}

impl ZeroPlaces {
    /// Of `tracked` pages, that stand for `memory` pages, those in these runs of ranks, ascending.
    pub fn new(tracked: u32, memory: PageCount, zero: impl IntoIterator<Item = Range<u32>>) -> ZeroPlaces {
        let bands = BANDS as u32;
        let parts = (bands * (tracked / bands).clamp(1, PARTS_MOST)) as usize;
        // In tracked pages; one that lies across an edge counts on either side for what lies there.
        let held = f64::from(tracked.max(1)) / parts as f64;
        let mut zero_in = vec![0.0; parts];
        for Range { start, end } in zero {
            let (mut at, end) = (f64::from(start), f64::from(end));
            for (part, zero) in zero_in.iter_mut().enumerate().skip((at / held) as usize) {
                let edge = (held * (part + 1) as f64).min(end).max(at);
                *zero += edge - at;
                at = edge;
                if at >= end {
                    break;
                }
            }
        }
        let is_none = |part: usize| zero_in[part] < 1e-6 * held;
        let is_all = |part: usize| zero_in[part] > (1.0 - 1e-6) * held;
        let mut alike_until: Vec<u32> = (1..=parts as u32).collect();
        for part in (0..parts - 1).rev() {
            let is_mixed = |part: usize| !is_none(part) && !is_all(part);
            let close = is_mixed(part) && is_mixed(part + 1) && (zero_in[part] - zero_in[part + 1]).abs() < 0.25 * held;
            if (is_none(part) && is_none(part + 1)) || (is_all(part) && is_all(part + 1)) || close {
                alike_until[part] = alike_until[part + 1];
            }
        }
        let weight = memory.get() as f64 / f64::from(tracked.max(1));
        let mut before = vec![0.0; parts + 1];
        for (part, zero) in zero_in.iter().enumerate() {
            before[part + 1] = before[part] + zero * weight;
        }
        ZeroPlaces { part_pages: memory.get() as f64 / parts as f64, before, alike_until }
    }

    /// These with so many zero pages more, or fewer if negative: as far as there is room, and only in parts that are mixed.
    pub(super) fn shifted(&self, pages: f64) -> ZeroPlaces {
        let mut zero: Vec<f64> = self.before.windows(2).map(|edges| edges[1] - edges[0]).collect();
        shift(&mut zero, self.part_pages, pages);
        let sums = zero.iter().scan(0.0, |sum, zero| {
            *sum += zero;
            Some(*sum)
        });
        ZeroPlaces { before: std::iter::once(0.0).chain(sums).collect(), ..self.clone() }
    }

    /// Zero pages among the pages of the memory before this one.
    pub fn before(&self, page: f64) -> f64 {
        let place = page / self.part_pages;
        let part = (place as usize).min(self.alike_until.len() - 1);
        let (before, next) = (self.before[part], self.before[part + 1]);
        before + (next - before) * (place - part as f64).min(1.0)
    }

    /// Zero pages among those from one page of the memory up to another.
    pub fn between(&self, from: f64, to: f64) -> f64 {
        (self.before(to) - self.before(from)).clamp(0.0, to - from)
    }

    /// The page of the memory up to which pages are of one kind, or evenly mixed, from this one on: behind it.
    pub fn alike_until(&self, page: f64) -> f64 {
        // On an edge, or the rounding of sums before it, it is the part behind.
        let part = ((page / self.part_pages + 1e-4) as usize).min(self.alike_until.len() - 1);
        f64::from(self.alike_until[part]) * self.part_pages
    }
}

/// Adds so many zero pages, or takes them away, to parts of the memory of `room` pages each: the more the more evenly a part
/// is mixed. What is all zero, or not at all, stays so.
pub(super) fn shift(zero: &mut [f64], room: f64, pages: f64) {
    let mixed = |zero: f64| (zero * (room - zero) / room).max(0.0);
    let all: f64 = zero.iter().map(|zero| mixed(*zero)).sum();
    if all > 0.0 {
        zero.iter_mut().for_each(|zero| *zero = (*zero + pages * mixed(*zero) / all).clamp(0.0, room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_pages_are_told_by_part_and_runs_of_parts_of_a_kind() {
        // 64 bands of 16 parts of 16 pages; each tracked page stands for two.
        let places = ZeroPlaces::new(16_384, PageCount::new(32_768), [128..192, 8_192..8_200]);
        assert_eq!((places.before(256.0), places.before(400.0), places.before(32_768.0)), (0.0, 128.0, 144.0));
        assert_eq!(places.between(270.0, 280.0), 10.0);
        assert_eq!([0.0, 256.0, 383.0, 384.0].map(|page| places.alike_until(page)), [256.0, 384.0, 384.0, 16_384.0]);
        // Half of a part's pages are zero, wherever in it.
        assert_eq!((places.between(16_384.0, 16_392.0), places.alike_until(16_400.0)), (4.0, 16_416.0));
        assert_eq!(places.alike_until(16_416.0), 32_768.0);
    }

    #[test]
    fn more_of_them_lie_where_some_do() {
        // Parts of 16 tracked pages: eight of them all zero, one half.
        let places = ZeroPlaces::new(16_384, PageCount::new(32_768), [128..256, 8_192..8_200]);
        let more = places.shifted(4.0);
        assert_eq!((more.before(512.0), more.before(32_768.0)), (256.0, 276.0));
        assert_eq!((more.between(16_384.0, 16_416.0), places.shifted(-99.0).before(32_768.0)), (20.0, 256.0));
        assert_eq!(more.alike_until(16_400.0), places.alike_until(16_400.0));
    }

    #[test]
    fn a_page_across_the_edge_of_a_part_lies_on_either_side() {
        // 100 tracked pages in 64 parts.
        let places = ZeroPlaces::new(100, PageCount::new(6_400), std::iter::once(1..3));
        assert!((places.between(64.0, 192.0) - 128.0).abs() < 72.0, "{}", places.between(64.0, 192.0));
        assert!((places.before(6_400.0) - 128.0).abs() < 1e-6);
    }

    #[test]
    fn few_tracked_pages_have_a_part_each() {
        let places = ZeroPlaces::new(3, PageCount::new(6_400), std::iter::once(1..2));
        let whole = places.before(6_400.0);
        assert!((whole - 6_400.0 / 3.0).abs() < 1e-6, "{whole}");
    }
}
