//! migcast's model of live migration: scenario in, outcome out.
//!
//! ```text
//!  dirty source ─► due set ─► algorithm (a stepped machine) ─► simulate ─► outcome ─► forecast
//!                                ▲ guest, link, platform, settings          (one start)  (many starts)
//! ```
//!
//! Pure: no clock, no files, no threads inside a simulation, no randomness without a seed. The same input gives the same
//! bytes on every machine.

pub mod algorithm;
pub mod backtest;
pub mod bounds;
pub mod calibrate;
pub mod dirty;
pub mod due;
pub mod forecast;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guest;
pub mod link;
pub mod manager;
pub mod migration;
pub mod outcome;
mod page_set;
mod paired;
pub mod platform;
pub mod quantity;
pub mod sampling;
pub mod simulate;
pub mod speed;
pub mod units;
pub mod world;
