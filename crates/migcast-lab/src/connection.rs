//! The TCP connection of a migration, as the sender's kernel knows it.

use std::fs;
use std::process::Command;

use crate::link::{End, ShapedLink};
use crate::process;

/// Where the target of a migration that is alone listens.
pub const PORT: u16 = 4444;

/// The way a migration takes: over which link, from which end, to which port at the other.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The link.
    pub link: &'a ShapedLink,
    /// The source's end.
    pub from: End,
    /// Where the target listens; each migration that runs beside others has its own.
    pub port: u16,
}

impl Route<'_> {
    /// As QEMU is told it, of either end.
    pub fn uri(self) -> String {
        format!("tcp:{}:{}", self.link.address(self.from.other()), self.port)
    }
}

/// Bytes the sender's kernel holds for the target; `None` where nobody tells.
pub fn send_queue(route: Route) -> Option<u64> {
    // Columns: receive queue, send queue, local address, peer address.
    said(route)?.split_whitespace().nth(1)?.parse().ok()
}

/// Bytes the sender's kernel may hold, as it has sized the buffer of this connection by now; `None` where nobody tells.
pub fn send_buffer(route: Route) -> Option<u64> {
    // skmem:(r0,rb131072,t0,tb2626560,…)
    let text = said(route)?;
    text.split_once(",tb")?.1.split(',').next()?.parse().ok()
}

/// Most bytes a sender's kernel may hold of any connection; `None` where nobody tells.
pub fn send_buffer_max() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").ok()?.split_whitespace().nth(2)?.parse().ok()
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where its target listens.
    pub port: u16,
    /// Bytes that the target's kernel has acknowledged.
    pub acked_bytes: u64,
    /// Segments sent again.
    pub retransmitted_segments: u64,
}

/// How far all connections are that cross the link from this end; none where nobody tells.
pub fn progress(link: &ShapedLink, from: End) -> Vec<Progress> {
    let said =
        process::output(ss(link, from).args(["-HtniO", "state", "established", "dst", &link.address(from.other())]));
    said.unwrap_or_default().lines().filter_map(progress_of).collect()
}

/// `0 2896 10.231.7.1:40312 10.231.7.2:4445 … bytes_acked:104857 … retrans:0/3 …`, without retrans where there are none.
fn progress_of(line: &str) -> Option<Progress> {
    let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
    let again = value("retrans:").and_then(|counts| counts.split_once('/')?.1.parse().ok());
    Some(Progress {
        port: line.split_whitespace().nth(3)?.rsplit_once(':')?.1.parse().ok()?,
        acked_bytes: value("bytes_acked:")?.parse().ok()?,
        retransmitted_segments: again.unwrap_or_default(),
    })
}

/// What `ss` says of the connection to the target's port.
fn said(route: Route) -> Option<String> {
    let Route { link, from, port } = route;
    let address = link.address(from.other());
    let filter = ["-Htnm", "state", "established", "dst", &address, "and", "dport", "=", &port.to_string()];
    process::output(ss(link, from).args(filter)).ok()
}

/// `ss` at this end.
fn ss(link: &ShapedLink, from: End) -> Command {
    let mut ss = Command::new("ss");
    if let Some(namespace) = link.namespace(from) {
        ss.args(["-N", &namespace]);
    }
    ss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_with_and_without_segments_sent_again() {
        let line = "0 2896 10.231.7.1:40312 10.231.7.2:4445 cubic wscale:7,7 bytes_acked:104857 lastsnd:4";
        let expected = Progress { port: 4445, acked_bytes: 104_857, retransmitted_segments: 0 };
        assert_eq!(progress_of(line), Some(expected));
        let again = format!("{line} retrans:1/3 rcv_space:14480");
        assert_eq!(progress_of(&again), Some(Progress { retransmitted_segments: 3, ..expected }));
        assert_eq!(progress_of("0 0 10.231.7.1:40312 10.231.7.2:4445 cubic"), None);
    }
}
