//! A scan by several threads.
//!
//! ```text
//! tracked pages   | piece 0 | piece 1 | piece 2 | piece 3 | …    whoever is free takes the next one
//! found               A         B         B         A            put in order in the end
//! ```

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Order, PIECE, Scan};
use crate::clock::thread_cpu;
use crate::memory::{Eye, MemoryError};

/// What was found in pieces, by their numbers.
type Found = Result<Vec<(usize, Scan)>, MemoryError>;

/// Looks at every tracked page once, with each eye on a thread of its own, the first on the calling one.
///
/// # Errors
/// That of any eye.
pub(super) fn scan(
    order: &Order,
    hashes: &mut [u64],
    eyes: Vec<Box<dyn Eye + Send + '_>>,
) -> Result<Scan, MemoryError> {
    let pieces = Mutex::new(hashes.chunks_mut(PIECE as usize).enumerate());
    let work = |eye: &mut dyn Eye| -> Found {
        let mut found = Vec::new();
        loop {
            let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, hashes)) = next else { return Ok(found) };
            let first = number as u32 * PIECE;
            found.push((number, order.look(first, hashes, eye)?));
        }
    };
    let mut eyes = eyes.into_iter();
    let own = eyes.next();
    let (found, cpu_elsewhere) = std::thread::scope(|scope| {
        let others: Vec<_> = eyes.map(|mut eye| scope.spawn(move || (work(eye.as_mut()), thread_cpu()))).collect();
        let mut found: Vec<Found> = own.into_iter().map(|mut eye| work(eye.as_mut())).collect();
        let mut cpu_elsewhere = Duration::ZERO;
        for other in others {
            let (theirs, cpu) = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            found.push(theirs);
            cpu_elsewhere += cpu;
        }
        (found, cpu_elsewhere)
    });
    let mut found: Vec<_> = found.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    let mut scan = Scan { cpu_elsewhere, ..Scan::default() };
    for (_, piece) in found {
        scan.written.extend(piece.written);
        scan.zero_changes.extend(piece.zero_changes);
        scan.unreadable += piece.unreadable;
    }
    Ok(scan)
}
