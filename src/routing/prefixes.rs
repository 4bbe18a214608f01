//! A tree of byte prefixes: finds all of those that a topic begins with, in one walk down.
//!
//! A radix tree in an arena. Nothing here is recursive: a peer may subscribe to a hundred thousand nested prefixes.

use std::fmt::Debug;

/// Names a prefix for as long as it has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

const ROOT: NodeId = NodeId(0);

/// Children beyond this number are looked up by index.
const FEW: usize = 24;

/// What a prefix carries. One without a value is not in the tree.
pub(crate) trait Value: Default + Debug {
    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool;
}

/// Prefixes with values.
#[derive(Debug)]
pub(crate) struct PrefixTree<V> {
    nodes: Vec<Node<V>>,
    free: Vec<NodeId>,
}

#[derive(Debug)]
struct Node<V> {
    /// What this node adds to its parent's prefix; only the root's is empty.
    label: Label,
    parent: NodeId,
    children: Children,
    value: V,
}

/// Bytes of a prefix: a few of them in place.
#[derive(Debug)]
enum Label {
    Short { length: u8, bytes: [u8; Label::SHORT] },
    Long(Box<[u8]>),
}

impl Label {
    const SHORT: usize = 14;

    fn new(label: &[u8]) -> Self {
        match u8::try_from(label.len()) {
            Ok(length) if label.len() <= Self::SHORT => {
                let mut bytes = [0; Self::SHORT];
                bytes[..label.len()].copy_from_slice(label);
                Self::Short { length, bytes }
            }
            _ => Self::Long(label.into()),
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// The nodes below a node, by the first byte of their labels.
#[derive(Debug)]
enum Children {
    None,
    One(u8, NodeId),
    Few(Vec<(u8, NodeId)>),
    /// `ROOT` stands for none: it is nobody's child.
    Many(Box<[NodeId; 256]>, usize),
}

impl Children {
    #[inline]
    fn get(&self, byte: u8) -> Option<NodeId> {
        match self {
            Self::None => None,
            Self::One(only, id) => (*only == byte).then_some(*id),
            Self::Few(list) => list.iter().find(|(other, _)| *other == byte).map(|(_, id)| *id),
            Self::Many(table, _) => Some(table[usize::from(byte)]).filter(|id| *id != ROOT),
        }
    }

    /// Adds a child, or replaces the one with this byte.
    fn set(&mut self, byte: u8, id: NodeId) {
        match self {
            Self::None => *self = Self::One(byte, id),
            Self::One(other, old) if *other == byte => *old = id,
            Self::One(other, old) => *self = Self::Few(vec![(*other, *old), (byte, id)]),
            Self::Few(list) => match list.iter().position(|(other, _)| *other == byte) {
                Some(index) => list[index].1 = id,
                None if list.len() < FEW => list.push((byte, id)),
                None => {
                    let mut table = Box::new([ROOT; 256]);
                    list.iter().for_each(|(byte, id)| table[usize::from(*byte)] = *id);
                    table[usize::from(byte)] = id;
                    *self = Self::Many(table, FEW + 1);
                }
            },
            Self::Many(table, count) => {
                let old = std::mem::replace(&mut table[usize::from(byte)], id);
                *count += usize::from(old == ROOT);
            }
        }
    }

    fn remove(&mut self, byte: u8) {
        match self {
            Self::None => {}
            Self::One(other, _) => {
                if *other == byte {
                    *self = Self::None;
                }
            }
            Self::Few(list) => {
                list.retain(|(other, _)| *other != byte);
                if let [(byte, id)] = list[..] {
                    *self = Self::One(byte, id);
                }
            }
            Self::Many(table, count) => {
                let old = std::mem::replace(&mut table[usize::from(byte)], ROOT);
                *count -= usize::from(old != ROOT);
                if *count <= FEW / 2 {
                    let bytes = (0..=u8::MAX).zip(table.iter().copied());
                    *self = Self::Few(bytes.filter(|(_, id)| *id != ROOT).collect());
                }
            }
        }
    }

    /// The only child, if there is just one.
    fn only(&self) -> Option<NodeId> {
        match self {
            Self::One(_, id) => Some(*id),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl<V: Value> Default for PrefixTree<V> {
    fn default() -> Self {
        let root = Node { label: Label::new(b""), parent: ROOT, children: Children::None, value: V::default() };
        Self { nodes: vec![root], free: Vec::new() }
    }
}

impl<V: Value> PrefixTree<V> {
    #[inline]
    fn node(&self, id: NodeId) -> &Node<V> {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<V> {
        &mut self.nodes[id.0 as usize]
    }

    /// The value of a prefix that is in the tree.
    pub(crate) fn value_mut(&mut self, id: NodeId) -> &mut V {
        &mut self.node_mut(id).value
    }

    pub(crate) fn value(&self, id: NodeId) -> &V {
        &self.node(id).value
    }

    /// Whether nothing but the empty prefix is in the tree, if that.
    #[inline]
    pub(crate) fn is_flat(&self) -> bool {
        self.node(ROOT).children.is_empty()
    }

    /// Calls `visit` with the value of every prefix that `topic` begins with, the shortest first.
    #[inline]
    pub(crate) fn walk(&self, topic: &[u8], mut visit: impl FnMut(&V)) {
        let mut node = self.node(ROOT);
        let mut rest = topic;
        loop {
            if !node.value.is_empty() {
                visit(&node.value);
            }
            let Some(child) = rest.first().and_then(|byte| node.children.get(*byte)) else {
                return;
            };
            node = self.node(child);
            let label = node.label.bytes();
            // The first byte has been found already, and often there is no other.
            if label.len() > 1 && !rest.starts_with(label) {
                return;
            }
            rest = &rest[label.len()..];
        }
    }

    /// Finds exactly this prefix.
    pub(crate) fn find(&self, prefix: &[u8]) -> Option<NodeId> {
        let (mut id, mut rest) = (ROOT, prefix);
        loop {
            let Some(byte) = rest.first() else {
                return Some(id).filter(|id| !self.value(*id).is_empty());
            };
            id = self.node(id).children.get(*byte)?;
            rest = rest.strip_prefix(self.node(id).label.bytes())?;
        }
    }

    /// Finds this prefix or makes a place for it, which must then be given a value, or be [pruned](Self::prune).
    pub(crate) fn insert(&mut self, prefix: &[u8]) -> NodeId {
        let (mut id, mut rest) = (ROOT, prefix);
        loop {
            let Some(byte) = rest.first() else {
                return id;
            };
            let Some(child) = self.node(id).children.get(*byte) else {
                let leaf = self.new_node(Label::new(rest), id);
                self.node_mut(id).children.set(*byte, leaf);
                return leaf;
            };
            let label = self.node(child).label.bytes();
            let common = common_length(label, rest);
            id = if common == label.len() { child } else { self.split(child, common) };
            rest = &rest[common..];
        }
    }

    /// Puts a node in between a node and its parent that takes the first `at` bytes of the label.
    fn split(&mut self, lower: NodeId, at: usize) -> NodeId {
        let parent = self.node(lower).parent;
        let label = self.node(lower).label.bytes();
        let (first, next) = (label[0], label[at]);
        let (head, tail) = (Label::new(&label[..at]), Label::new(&label[at..]));
        let upper = self.new_node(head, parent);
        self.node_mut(upper).children.set(next, lower);
        self.node_mut(parent).children.set(first, upper);
        let node = self.node_mut(lower);
        (node.label, node.parent) = (tail, upper);
        upper
    }

    fn new_node(&mut self, label: Label, parent: NodeId) -> NodeId {
        let node = Node { label, parent, children: Children::None, value: V::default() };
        match self.free.pop() {
            Some(id) => {
                *self.node_mut(id) = node;
                id
            }
            None => {
                #[allow(clippy::cast_possible_truncation)] // four thousand million nodes do not fit into memory
                let id = NodeId(self.nodes.len() as u32);
                self.nodes.push(node);
                id
            }
        }
    }

    /// Forgets a prefix whose value is empty: to be called when a value has become so.
    pub(crate) fn prune(&mut self, id: NodeId) {
        let mut id = id;
        // At most twice around: a leaf that goes may leave its parent with nothing but one child.
        while id != ROOT && self.value(id).is_empty() {
            let parent = self.node(id).parent;
            let first = self.node(id).label.bytes()[0];
            if self.node(id).children.is_empty() {
                self.node_mut(parent).children.remove(first);
            } else if let Some(child) = self.node(id).children.only() {
                let label = [self.node(id).label.bytes(), self.node(child).label.bytes()].concat();
                let child_node = self.node_mut(child);
                (child_node.label, child_node.parent) = (Label::new(&label), parent);
                self.node_mut(parent).children.set(first, child);
            } else {
                return;
            }
            let node = self.node_mut(id);
            (node.label, node.children, node.value) = (Label::new(b""), Children::None, V::default());
            self.free.push(id);
            id = parent;
        }
        if self.free.len() + 1 == self.nodes.len() {
            // Only the root is left: give the memory back.
            self.nodes.truncate(1);
            self.nodes.shrink_to_fit();
            self.free = Vec::new();
        }
    }

    /// The bytes of a prefix.
    pub(crate) fn prefix(&self, id: NodeId) -> Vec<u8> {
        let mut id = id;
        let mut reversed = Vec::new();
        while id != ROOT {
            reversed.extend(self.node(id).label.bytes().iter().rev());
            id = self.node(id).parent;
        }
        reversed.reverse();
        reversed
    }

    /// How many nodes [`iter`](Self::iter) looks at.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Every prefix in the tree, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NodeId> + Clone {
        #[allow(clippy::cast_possible_truncation)] // as in `new_node`
        let ids = (0..self.nodes.len() as u32).map(NodeId);
        ids.filter(|id| !self.value(*id).is_empty())
    }
}

/// How many bytes are the same at the beginning.
fn common_length(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count();
    let done = blocks * BLOCK;
    done + a[done..].iter().zip(&b[done..]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default)]
    struct Name(Option<Vec<u8>>);

    impl Value for Name {
        fn is_empty(&self) -> bool {
            self.0.is_none()
        }
    }

    fn add(tree: &mut PrefixTree<Name>, prefix: &[u8]) -> NodeId {
        let id = tree.insert(prefix);
        tree.value_mut(id).0 = Some(prefix.to_vec());
        id
    }

    fn remove(tree: &mut PrefixTree<Name>, prefix: &[u8]) -> bool {
        let id = tree.find(prefix);
        if let Some(id) = id {
            tree.value_mut(id).0 = None;
            tree.prune(id);
        }
        id.is_some()
    }

    fn found(tree: &PrefixTree<Name>, topic: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        tree.walk(topic, |name| found.extend(name.0.clone()));
        found
    }

    #[test]
    fn all_prefixes_of_a_topic_are_found_the_shortest_first() {
        let mut tree = PrefixTree::default();
        for prefix in [&b"abc"[..], b"", b"ab", b"abd", b"b", b"abcdefghijklmnopqrstuvwxyz"] {
            add(&mut tree, prefix);
        }
        assert_eq!(found(&tree, b"abcd"), [&b""[..], b"ab", b"abc"]);
        assert_eq!(found(&tree, b"a"), [b""]);
        assert_eq!(found(&tree, b"abcdefghijklmnopqrstuvwxyz!").len(), 4);
    }

    #[test]
    fn a_tree_that_was_emptied_holds_no_nodes() {
        let mut tree = PrefixTree::default();
        let prefixes: Vec<_> = (0..2_000_u32).map(|n| (n * n).to_string().into_bytes()).collect();
        for prefix in &prefixes {
            add(&mut tree, prefix);
        }
        assert!(prefixes.iter().all(|prefix| remove(&mut tree, prefix)));
        assert!(tree.is_flat());
        assert_eq!((tree.free.len(), tree.nodes.len()), (0, 1));
    }

    #[test]
    fn a_hundred_thousand_nested_prefixes_overflow_no_stack() {
        const DEPTH: usize = 100_000;
        let topic = vec![b'x'; DEPTH];
        let mut tree = PrefixTree::<Name>::default();
        // The longest first: each later one splits the node at the top.
        for length in (1..=DEPTH).rev() {
            let id = tree.insert(&topic[..length]);
            tree.value_mut(id).0 = Some(Vec::new());
        }
        let mut count = 0;
        tree.walk(&topic, |_| count += 1);
        assert_eq!(count, DEPTH);
        for length in 1..=DEPTH {
            let id = tree.insert(b"x");
            assert_eq!(tree.prefix(id), b"x");
            tree.value_mut(id).0 = None;
            tree.prune(id);
            // What is left begins one further down.
            if length == 1_000 {
                break;
            }
        }
        drop(tree);
    }

    /// Few letters, so that prefixes share and split; now and then one of many, for wide nodes.
    fn prefix() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => vec(prop_oneof![Just(b'a'), Just(b'b')], 0..6),
            1 => vec(any::<u8>(), 0..3),
            1 => vec(Just(b'a'), 10..40),
        ]
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_a_list(steps in vec((any::<bool>(), prefix()), 1..200), topics in vec(prefix(), 1..20)) {
            let (mut tree, mut list) = (PrefixTree::default(), BTreeMap::new());
            for (adds, prefix) in steps {
                if adds {
                    let id = add(&mut tree, &prefix);
                    list.insert(prefix, id);
                } else {
                    prop_assert_eq!(remove(&mut tree, &prefix), list.remove(&prefix).is_some());
                }
            }
            for topic in topics {
                let expected: Vec<_> = list.keys().filter(|prefix| topic.starts_with(prefix)).cloned().collect();
                prop_assert_eq!(found(&tree, &topic), expected);
            }
            // The names are stable, and tell their prefixes.
            for (prefix, id) in &list {
                prop_assert_eq!((tree.find(prefix), &tree.prefix(*id)), (Some(*id), prefix));
            }
            prop_assert_eq!(tree.iter().count(), list.len());
        }
    }
}
