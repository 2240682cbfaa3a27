//! Several guests migrated over one link, all in one go, in the orders that `migcast plan` gives, beside its forecasts.
//!
//! ```text
//!  guests ─► own load ─► histories ─► fleet file ─► migcast plan ─► policies ─┬─► dispatcher ─► real migrations ─► kept
//!                                                                            └────────── forecasts ──────────────► comparison
//! ```

pub mod comparison;
pub mod dispatcher;
pub mod fleet;
pub mod kept;
pub mod member;
pub mod plan;
pub mod trial;
