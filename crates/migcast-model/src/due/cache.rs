//! What was sent of pages, as QEMU's XBZRLE keeps it (migration/page_cache.c): one page a slot, no choice of slot.

/// Readings of the log a page keeps its slot for against others (CACHED_PAGE_LIFETIME).
const LIFETIME: u64 = 2;

/// The cache: which page each slot holds, and how long ago it was put there or asked for.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    slots: Vec<Option<(u32, u64)>>,
    /// Readings of the log so far.
    age: u64,
    /// Nothing is encoded, or kept, before every page has had its turn once.
    is_active: bool,
}

impl Cache {
    /// A cache of so many pages (at least one; QEMU takes powers of two).
    pub(super) fn new(slots: usize) -> Cache {
        Cache { slots: vec![None; slots.max(1)], age: 0, is_active: false }
    }

    /// The scan went around.
    pub(super) fn turned_round(&mut self) {
        self.is_active = true;
    }

    /// The log was read.
    pub(super) fn grow_older(&mut self) {
        self.age += 1;
    }

    /// Whether this page, about to be sent, is in the cache. If not it takes its slot, unless another was put there, or
    /// asked for, too short a time ago. So does a page of zeros, though it is not encoded itself: what is written into it
    /// later is (ram.c `xbzrle_cache_zero_page`).
    pub(super) fn holds(&mut self, page: u32) -> bool {
        if !self.is_active {
            return false;
        }
        let slot = page as usize % self.slots.len();
        match self.slots[slot] {
            Some((held, _)) if held == page => {
                self.slots[slot] = Some((page, self.age));
                true
            }
            Some((_, put)) if put + LIFETIME > self.age => false,
            _ => {
                self.slots[slot] = Some((page, self.age));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_held_from_its_second_time_on_once_the_scan_went_around() {
        let mut cache = Cache::new(4);
        assert!(!cache.holds(1) && !cache.holds(1), "the first turn");
        cache.turned_round();
        assert!(!cache.holds(1));
        assert!(cache.holds(1));
    }

    #[test]
    fn a_page_keeps_its_slot_for_two_readings() {
        let mut cache = Cache::new(4);
        cache.turned_round();
        assert!(!cache.holds(1));
        cache.grow_older();
        assert!(!cache.holds(5), "the same slot");
        assert!(cache.holds(1), "still there, and asked for");
        cache.grow_older();
        assert!(!cache.holds(5) && cache.holds(1));
        cache.grow_older();
        cache.grow_older();
        assert!(!cache.holds(5));
        assert!(cache.holds(5) && !cache.holds(1), "replaced");
    }
}
