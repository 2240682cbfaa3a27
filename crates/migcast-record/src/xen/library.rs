//! Xen's own libraries, loaded at run time: their names hold Xen's version, so that one program can serve every version
//! and none has to be there to build it.

use std::path::Path;

use libloading::Library;

use super::XenError;

/// Xen's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// Loads a library by its name.
pub(super) fn load(name: &str) -> Result<Library, XenError> {
    // SAFETY: these libraries do nothing when they are loaded but set themselves up.
    unsafe { Library::new(name) }.map_err(|error| XenError::NoLibrary { name: name.to_owned(), why: one_line(&error) })
}

/// A function of a library, of the type its header gives.
///
/// # Safety
/// `T` is the type of the function of this name.
pub(super) unsafe fn function<T: Copy>(library: &Library, name: &'static str) -> Result<T, XenError> {
    // SAFETY: as the caller says.
    let found = unsafe { library.get::<T>(name.as_bytes()) };
    found.map(|function| *function).map_err(|_| XenError::NoFunction { name })
}

/// The version of the Xen that runs here, from a folder like /sys/hypervisor.
pub(super) fn version_in(folder: &Path) -> Option<(Version, String)> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned());
    if read("type")? != "xen" {
        return None;
    }
    let (major, minor) = (read("version/major")?.parse().ok()?, read("version/minor")?.parse().ok()?);
    let extra = read("version/extra").unwrap_or_default();
    Some((Version { major, minor }, format!("{major}.{minor}{extra}")))
}

/// A message without line breaks.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
