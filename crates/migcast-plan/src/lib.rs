//! Answers to an administrator's questions, from forecasts: how often within a service level agreement, when, with
//! which settings, and which hosts are worth emptying.
//!
//! ```text
//!  forecast: outcome of each starting point ──► [`sla`]: how many fit, what each costs ([`sum`]: of n draws)
//!                                           ├─► [`when`]: which hours are better, and whether that can be told
//!                                           ├─► [`tune`]: which settings keep a promise, at what harm
//!                                           ├─► [`stop`]: when a migration is best decided
//!                                           └─► [`consolidate`]: which hosts can be emptied, and whether that pays
//! ```
//! Pure: numbers in, answers out. What a forecast is and how it is shown is not known here.

pub mod consolidate;
pub mod random;
pub mod schedule;
pub mod sla;
pub mod stop;
pub mod sum;
pub mod tune;
pub mod when;
