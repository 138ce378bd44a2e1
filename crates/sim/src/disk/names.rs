//! Names: what a process sees, what the medium holds, and the changes between the two.
//!
//! A change sets names absolutely ("`b` is file 7, `a` is nothing"). The medium takes changes in any
//! order, except that of two changes of one name the later never goes without the earlier: so a
//! rename leaves the file under its old name or its new one and never under neither, whatever
//! happened to these names before and after.

use std::collections::{BTreeMap, BTreeSet};

use crate::random::Random;

/// Number of a file or a directory; never used twice.
pub(crate) type NodeId = u64;

/// The directory that is always there.
pub(crate) const ROOT: NodeId = 0;

/// How unsynced changes of names survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSurvival {
    /// Of each directory the first so many: what a journaling file system leaves.
    Prefix,
    /// Any of them, as far as renames stay atomic.
    Subset,
}

#[derive(Debug, Clone, Default)]
struct Directory {
    seen: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

#[derive(Debug)]
struct Change {
    /// Each name with its directory and what it leads to from now on.
    names: Vec<(NodeId, String, Option<NodeId>)>,
    /// A failed sync forgot it: no later sync of its directories makes it durable.
    forgotten: bool,
}

impl Change {
    fn is_in(&self, directory: NodeId) -> bool {
        self.names.iter().any(|(of, ..)| *of == directory)
    }
}

/// All directories of a disk.
#[derive(Debug)]
pub(crate) struct Names {
    directories: BTreeMap<NodeId, Directory>,
    /// Changes that the medium is not known to hold, oldest first.
    pending: Vec<Change>,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            directories: BTreeMap::from([(ROOT, Directory::default())]),
            pending: Vec::new(),
        }
    }

    pub(crate) fn is_directory(&self, node: NodeId) -> bool {
        self.directories.contains_key(&node)
    }

    pub(crate) fn get(&self, directory: NodeId, name: &str) -> Option<NodeId> {
        self.directories.get(&directory)?.seen.get(name).copied()
    }

    /// The names that a process sees in a directory.
    pub(crate) fn list(&self, directory: NodeId) -> Vec<String> {
        let directory = self.directories.get(&directory);
        directory.map_or_else(Vec::new, |found| found.seen.keys().cloned().collect())
    }

    /// Makes an empty directory of this number; its name comes by a change like any other.
    pub(crate) fn add_directory(&mut self, node: NodeId) {
        self.directories.insert(node, Directory::default());
    }

    /// Changes names at once for all processes, and for the medium some day.
    pub(crate) fn change(&mut self, names: Vec<(NodeId, String, Option<NodeId>)>) {
        for (directory, name, node) in &names {
            if let Some(directory) = self.directories.get_mut(directory) {
                set(&mut directory.seen, name, *node);
            }
        }
        self.pending.push(Change {
            names,
            forgotten: false,
        });
    }

    /// Makes the changes of a directory durable, except forgotten ones.
    pub(crate) fn sync(&mut self, directory: NodeId) {
        let chosen = |_: usize, change: &Change| change.is_in(directory) && !change.forgotten;
        self.make_durable(chosen);
    }

    /// A sync that failed: some changes of the directory are durable, the others may be forgotten.
    pub(crate) fn fail_sync(&mut self, directory: NodeId, forgets: bool, random: &mut Random) {
        let cut = random.index(self.pending.len() + 1);
        self.make_durable(|at, change| at < cut && change.is_in(directory));
        if forgets {
            for change in &mut self.pending {
                change.forgotten |= change.is_in(directory);
            }
        }
    }

    /// Power loss: some of the pending changes reach the medium, and that is what is seen then. How
    /// many were lost.
    pub(crate) fn crash(&mut self, survival: NameSurvival, random: &mut Random) -> u64 {
        let pending = self.pending.len();
        match survival {
            NameSurvival::Subset => {
                let lost = *random.pick(&[0, 250_000, 500_000, 1_000_000]);
                let chosen: Vec<bool> = (0..pending).map(|_| !random.per_million(lost)).collect();
                self.make_durable(|at, _| chosen[at]);
            }
            NameSurvival::Prefix => {
                let cuts: BTreeMap<NodeId, usize> = self
                    .directories
                    .keys()
                    .map(|&directory| (directory, random.index(pending + 1)))
                    .collect();
                self.make_durable(|at, change| {
                    change
                        .names
                        .iter()
                        .any(|(directory, ..)| cuts.get(directory).is_some_and(|&cut| at < cut))
                });
            }
        }
        let lost = self.pending.len() as u64;
        self.pending.clear();
        for directory in self.directories.values_mut() {
            directory.seen = directory.durable.clone();
        }
        lost
    }

    /// The nodes that a process can see, or could after a power failure.
    pub(crate) fn reachable(&self) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::from([ROOT]);
        let mut next: Vec<NodeId> = vec![ROOT];
        let pending = self.pending.iter().flat_map(|change| &change.names);
        next.extend(pending.filter_map(|(_, _, node)| *node));
        found.extend(&next);
        while let Some(node) = next.pop() {
            if let Some(directory) = self.directories.get(&node) {
                let nodes = directory.seen.values().chain(directory.durable.values());
                next.extend(nodes.copied().filter(|&node| found.insert(node)));
            }
        }
        found
    }

    /// The nodes that names of the running system lead to, once for each name.
    pub(crate) fn seen(&self) -> impl Iterator<Item = NodeId> {
        let directories = self.directories.values();
        directories.flat_map(|directory| directory.seen.values().copied())
    }

    /// Drops directories that nothing leads to.
    pub(crate) fn retain(&mut self, reachable: &BTreeSet<NodeId>) {
        self.directories.retain(|node, _| reachable.contains(node));
    }

    /// Makes the chosen changes durable, and with each those before it that touch one of its names.
    fn make_durable(&mut self, chosen: impl Fn(usize, &Change) -> bool) {
        let mut names = BTreeSet::new();
        let mut taken = vec![false; self.pending.len()];
        for (at, change) in self.pending.iter().enumerate().rev() {
            let key = |(directory, name, _): &(NodeId, String, _)| (*directory, name.clone());
            if chosen(at, change) || change.names.iter().any(|name| names.contains(&key(name))) {
                names.extend(change.names.iter().map(key));
                taken[at] = true;
            }
        }
        let mut rest = Vec::new();
        for (change, taken) in std::mem::take(&mut self.pending).into_iter().zip(taken) {
            if !taken {
                rest.push(change);
                continue;
            }
            for (directory, name, node) in &change.names {
                if let Some(directory) = self.directories.get_mut(directory) {
                    set(&mut directory.durable, name, *node);
                }
            }
        }
        self.pending = rest;
    }
}

fn set(names: &mut BTreeMap<String, NodeId>, name: &str, node: Option<NodeId>) {
    match node {
        Some(node) => names.insert(name.to_owned(), node),
        None => names.remove(name),
    };
}
