//! Why a domain of Xen cannot be recorded, each in one line.

use std::io;

/// Why a domain cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum XenError {
    /// This machine does not run Xen.
    #[error("this machine does not run Xen ({folder}/type does not say so): --xen records from dom0")]
    NotXen {
        /// Where that was looked for.
        folder: String,
    },
    /// A library of Xen's is missing.
    #[error("cannot load {name}, Xen's own library of this version ({why}): install the toolstack's packages")]
    NoLibrary {
        /// Its name.
        name: String,
        /// What the loader said.
        why: String,
    },
    /// It has not what it should have.
    #[error("Xen's library has no function {name}: its version is not supported")]
    NoFunction {
        /// The function.
        name: &'static str,
    },
    /// Xen does not talk to this domain or user.
    #[error("Xen does not let this program ask: run it in dom0, as root")]
    NotDom0 {
        /// What it said.
        source: io::Error,
    },
    /// XenStore does not answer.
    #[error("XenStore does not answer: is xenstored running?")]
    NoStore {
        /// What was said.
        source: io::Error,
    },
    /// There is no such domain.
    #[error("no domain has the name or id {domain:?}; `xl list` names them")]
    NoDomain {
        /// What was asked for.
        domain: String,
    },
    /// It is the one this runs in.
    #[error("domain 0 cannot log itself, allowed: another domain")]
    Itself,
    /// It is being migrated.
    #[error("domain {domain} is being migrated, and its log is the migration's: try again when that is over")]
    Migrating {
        /// Its id.
        domain: u32,
    },
    /// Xen refuses the log.
    #[error(
        "Xen refuses to log the writes of domain {domain}: its log is on already (another recorder, or the screen of an HVM \
         guest), or it has passed-through devices; Xen says the same to both. After a recorder that was killed: migcast \
         record --release {domain}"
    )]
    Refused {
        /// Its id.
        domain: u32,
    },
    /// This Xen cannot do it.
    #[error("this Xen cannot log the writes of domain {domain}: a PV guest needs a Xen with shadow paging")]
    Unsupported {
        /// Its id.
        domain: u32,
    },
    /// The child that turns the log off after a kill cannot be started.
    #[error("cannot start the child that would turn the log off if this recorder were killed")]
    NoWatchdog {
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("Xen cannot tell {what} of domain {domain}")]
    Call {
        /// What it was asked for.
        what: &'static str,
        /// Its id.
        domain: u32,
        /// What it said.
        source: io::Error,
    },
}
