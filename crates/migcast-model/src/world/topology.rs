//! Hosts and switches: a tree, each link of it with a rate up and a rate down.
//!
//! ```text
//!            core
//!        up ▲ │ ▼ down            a → c: a up, rack 1 up, rack 2 down, c down
//!      rack 1      rack 2         a → b: a up, b down
//!      a    b      c    d
//! ```

use crate::units::{ByteCount, BytesPerSec};

/// A host or a switch of a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipe(usize);

impl NodeId {
    /// Its number, below [`Topology::nodes`].
    pub(super) fn index(self) -> usize {
        self.0
    }
}

impl Pipe {
    /// Its number, below [`Topology::pipes`].
    pub fn index(self) -> usize {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: Option<NodeId>,
    up: BytesPerSec,
    down: BytesPerSec,
    /// Memory for guests that come; `None` where nobody counts it.
    room: Option<ByteCount>,
}

/// A tree of switches with hosts at its ends. Rates are of payload: [`crate::link::Link::goodput`].
#[derive(Clone, Debug)]
pub struct Topology {
    nodes: Vec<Node>,
}

impl Topology {
    /// A switch that carries whatever it is given, and nothing beside it yet.
    pub fn new() -> Topology {
        Topology { nodes: vec![Node { parent: None, up: BytesPerSec::ZERO, down: BytesPerSec::ZERO, room: None }] }
    }

    /// The simplest one: so many hosts at one switch, each with this rate in and out.
    pub fn star(hosts: usize, rate: BytesPerSec) -> (Topology, Vec<NodeId>) {
        let mut star = Topology::new();
        let hosts = (0..hosts).map(|_| star.add(star.core(), rate, rate)).collect();
        (star, hosts)
    }

    /// The switch in the middle.
    pub fn core(&self) -> NodeId {
        NodeId(0)
    }

    /// A host or another switch below a switch: what its link carries up to it, and down from it.
    pub fn add(&mut self, below: NodeId, up: BytesPerSec, down: BytesPerSec) -> NodeId {
        self.nodes.push(Node { parent: Some(below), up, down, room: None });
        NodeId(self.nodes.len() - 1)
    }

    /// Says how much memory a host has for guests that come. A guest takes its part from when its migration begins, and leaves
    /// its part behind when it has ended.
    pub fn set_room(&mut self, host: NodeId, room: ByteCount) {
        self.nodes[host.0].room = Some(room);
    }

    /// Memory of a host for guests that come; `None` where nobody counts it.
    pub fn room(&self, host: NodeId) -> Option<ByteCount> {
        self.nodes[host.0].room
    }

    /// The same of each node.
    pub(super) fn rooms(&self) -> impl Iterator<Item = Option<ByteCount>> {
        self.nodes.iter().map(|node| node.room)
    }

    /// The same with links `factor` > 0 times as fast.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Topology {
        let scaled = |node: &Node| Node { up: node.up.scale(factor), down: node.down.scale(factor), ..*node };
        Topology { nodes: self.nodes.iter().map(scaled).collect() }
    }

    /// The direction of a node's own link that leads away from it.
    pub fn up(&self, node: NodeId) -> Pipe {
        Pipe(2 * node.0)
    }

    /// The direction that leads to it.
    pub fn down(&self, node: NodeId) -> Pipe {
        Pipe(2 * node.0 + 1)
    }

    /// Nodes are numbered below this.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Pipes are numbered below this; those of the core, which has no link, are among them.
    pub fn pipes(&self) -> usize {
        2 * self.nodes.len()
    }

    /// What each pipe carries, by its number.
    pub fn rates(&self) -> impl Iterator<Item = BytesPerSec> {
        self.nodes.iter().flat_map(|node| [node.up, node.down])
    }

    /// The pipes from one node to another by their numbers, none where they are the same.
    pub fn path(&self, from: NodeId, to: NodeId) -> Vec<usize> {
        let above = |node: NodeId| std::iter::successors(Some(node), |node| self.nodes[node.0].parent);
        let (of_from, of_to): (Vec<NodeId>, Vec<NodeId>) = (above(from).collect(), above(to).collect());
        let meets = |node: &&NodeId| !of_to.contains(node);
        let ups = of_from.iter().take_while(meets).map(|node| self.up(*node).0);
        let meets = |node: &&NodeId| !of_from.contains(node);
        let downs: Vec<usize> = of_to.iter().take_while(meets).map(|node| self.down(*node).0).collect();
        ups.chain(downs.into_iter().rev()).collect()
    }
}

impl Default for Topology {
    fn default() -> Topology {
        Topology::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_up_to_where_both_meet_and_down_again() {
        let rate = BytesPerSec::new(1);
        let mut tree = Topology::new();
        let racks = [0, 1].map(|_| tree.add(tree.core(), rate, rate));
        let [a, b, c] = [racks[0], racks[0], racks[1]].map(|rack| tree.add(rack, rate, rate));
        let pipes = |pipes: &[Pipe]| pipes.iter().map(|pipe| pipe.index()).collect::<Vec<_>>();
        assert_eq!(tree.path(a, b), pipes(&[tree.up(a), tree.down(b)]));
        let far = [tree.up(a), tree.up(racks[0]), tree.down(racks[1]), tree.down(c)];
        assert_eq!(tree.path(a, c), pipes(&far));
        assert!(tree.path(a, a).is_empty());
        assert_eq!(tree.rates().count(), tree.pipes());
    }
}
