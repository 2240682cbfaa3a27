//! The laboratory: real guests that are booted, recorded and, later, migrated, to hold forecasts against reality.
//!
//! Not part of the product. What it starts it ends: processes die with it (even when it is killed), files it needs
//! for the moment lie in a [`runtime`] folder that goes when the machine does, everything built is kept in the
//! [`cache`].

pub mod accel;
pub mod cache;
pub mod capture;
pub mod check;
pub mod comparison;
pub mod connection;
pub mod cores;
pub mod disk;
pub mod evidence;
pub mod features;
pub mod guest;
pub mod initramfs;
pub mod interrupt;
pub mod kernel;
pub mod link;
pub mod load;
pub mod machine;
pub mod migration;
pub mod packages;
pub mod past;
pub mod prediction;
pub mod process;
pub mod qmp;
pub mod recording;
pub mod retrace;
pub mod runtime;
pub mod serial;
pub mod sink;
pub mod slowdown;
pub mod throttle;
pub mod together;
pub mod trace;
pub mod write_log;
pub mod xen;
