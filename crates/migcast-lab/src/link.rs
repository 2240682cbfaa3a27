//! A shaped link between two ends of one machine: a network namespace, a veth pair, a token bucket at each end.
//!
//! ```text
//!   here 10.231.N.1 ═ veth ══ tbf rate ══ veth ═ 10.231.N.2 there (namespace)
//! ```

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use migcast_model::units::{ByteCount, BytesPerSec};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process;

/// Bytes a bucket lets pass at once: enough for one full segment of segmentation offload, little against 100 ms.
const BURST: &str = "256kb";
/// Longest time a packet waits in a bucket's queue.
const LATENCY: &str = "50ms";

/// TCP with time stamps in 1500-byte frames, as `tbf` counts them: 1448 payload bytes of 1514.
pub const PAYLOAD_SHARE: f64 = 1448.0 / 1514.0;

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Least, first and largest size of a send buffer; each namespace has its own.
const TCP_SEND_BUFFER: &str = "/proc/sys/net/ipv4/tcp_wmem";

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The host's own network.
    Here,
    /// The namespace.
    There,
}

impl End {
    /// The other one.
    pub fn other(self) -> End {
        match self {
            End::Here => End::There,
            End::There => End::Here,
        }
    }
}

/// A shaped link. Dropping it removes namespace and devices.
#[derive(Debug)]
pub struct ShapedLink {
    number: u32,
}

impl ShapedLink {
    /// Makes a link that carries `rate` in each direction. Needs root.
    ///
    /// # Errors
    /// `ip` or `tc` is missing or refuses.
    pub fn make(rate: BytesPerSec) -> Result<ShapedLink> {
        // The process id keeps two laboratories on one machine apart; a stale link of a killed one is replaced.
        let link = ShapedLink { number: std::process::id() };
        link.remove();
        let (namespace, here, there) = (link.namespace_name(), link.device(End::Here), link.device(End::There));
        ip(&["netns", "add", &namespace])?;
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &namespace])?;
        ip(&["addr", "add", &format!("{}/30", link.address(End::Here)), "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        ip(&["-n", &namespace, "addr", "add", &format!("{}/30", link.address(End::There)), "dev", &there])?;
        ip(&["-n", &namespace, "link", "set", &there, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        link.shape(rate)?;
        Ok(link)
    }

    /// Changes the rate of both directions.
    ///
    /// # Errors
    /// `tc` refuses.
    pub fn shape(&self, rate: BytesPerSec) -> Result<()> {
        let rate = format!("{}bit", rate.bits());
        for end in [End::Here, End::There] {
            let mut tc = Command::new("tc");
            if end == End::There {
                tc.args(["-n", &self.namespace_name()]);
            }
            tc.args(["qdisc", "replace", "dev", &self.device(end), "root", "tbf"]);
            tc.args(["rate", &rate, "burst", BURST, "latency", LATENCY]);
            process::output(&mut tc).context("shaping the link")?;
        }
        Ok(())
    }

    /// The address of an end.
    pub fn address(&self, end: End) -> String {
        format!("10.231.{}.{}", self.number % 256, if end == End::Here { 1 } else { 2 })
    }

    /// The namespace of an end, if it is not the host's own.
    pub fn namespace(&self, end: End) -> Option<String> {
        (end == End::There).then(|| self.namespace_name())
    }

    /// Gives connections that are made in the namespace from now on a send buffer of this size, instead of one that the
    /// kernel sizes as it goes: its size decides how many pages a sender has passed when it looks at the clock.
    ///
    /// # Errors
    /// The namespace cannot be entered (needs root).
    pub fn fix_send_buffer(&self, size: ByteCount) -> Result<()> {
        let sizes = format!("4096 {0} {0}", size.get());
        within(&self.namespace_name(), || fs::write(TCP_SEND_BUFFER, &sizes).context(TCP_SEND_BUFFER))
    }

    fn namespace_name(&self) -> String {
        format!("migcast-{}", self.number)
    }

    fn device(&self, end: End) -> String {
        format!("mc{}{}", self.number % 10_000_000, if end == End::Here { 'h' } else { 't' })
    }

    fn remove(&self) {
        // Removing the namespace removes both devices. It is not there on the first call.
        let _ = ip(&["netns", "del", &self.namespace_name()]);
    }
}

impl Drop for ShapedLink {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Does something in a network namespace. A socket stays in the namespace it was made in, and a thread enters one alone.
///
/// # Errors
/// There is no such namespace, or it may not be entered (needs root); or what `act` says.
pub fn within<T: Send>(namespace: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter_and_act = || {
        let path = Path::new(NAMESPACES).join(namespace);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("entering a namespace")?;
        act()
    };
    thread::scope(|scope| scope.spawn(enter_and_act).join()).map_err(|_| anyhow!("a thread in {namespace} panicked"))?
}

fn ip(arguments: &[&str]) -> Result<String> {
    process::output(Command::new("ip").args(arguments)).context("making a link (needs root and iproute2)")
}
