//! migcast's model of live migration.
pub mod dirty;
pub mod units;
