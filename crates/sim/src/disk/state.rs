//! The state behind all handles of one disk, and what each call does to it.

use std::collections::BTreeMap;
use std::io;

use rustix::io::Errno;

use crate::disk::content::BLOCK_BYTES;
use crate::disk::faults::{DiskCounts, Fault, Faults};
use crate::disk::inode::{Inode, Survival};
use crate::disk::names::{Names, NodeId, ROOT};
use crate::random::Random;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) counts: DiskCounts,
    /// Bytes that the files of this disk may take; none is no limit.
    pub(crate) capacity: Option<u64>,
    /// Counts crashes and kills: a handle of an earlier boot is dead.
    pub(crate) boot: u64,
    /// Mutating calls until the machine stops by itself.
    pub(crate) fuse: Option<u64>,
    /// The machine stopped: every call fails until the next boot.
    pub(crate) stopped: bool,
    /// Faults to come, each at the next call of its kind.
    pub(crate) ordered: Vec<Fault>,
    pub(crate) names: Names,
    pub(crate) files: BTreeMap<NodeId, Inode>,
    pub(crate) next_node: NodeId,
    pub(crate) directory_syncs: u64,
}

impl State {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            random: Random::new(seed),
            faults,
            counts: DiskCounts::default(),
            capacity: None,
            boot: 0,
            fuse: None,
            stopped: false,
            ordered: Vec::new(),
            names: Names::new(),
            files: BTreeMap::new(),
            next_node: ROOT + 1,
            directory_syncs: 0,
        }
    }

    pub(crate) fn alive(&self, boot: u64) -> io::Result<()> {
        if self.stopped || boot != self.boot {
            return Err(dead());
        }
        Ok(())
    }

    /// Whether a call of this kind fails now.
    pub(crate) fn fails(&mut self, fault: Fault) -> bool {
        let per_million = match fault {
            Fault::Sync => self.faults.sync_per_million,
            Fault::SyncDirectory => self.faults.sync_directory_per_million,
            Fault::Write => self.faults.write_per_million,
            Fault::Read => self.faults.read_per_million,
            Fault::Name => self.faults.name_per_million,
        };
        let ordered = self.ordered.iter().position(|&other| other == fault);
        if let Some(at) = ordered {
            self.ordered.remove(at);
        } else if !self.random.per_million(per_million) {
            return false;
        }
        let count = match fault {
            Fault::Sync => &mut self.counts.syncs_failed,
            Fault::SyncDirectory => &mut self.counts.directory_syncs_failed,
            Fault::Write => &mut self.counts.writes_failed,
            Fault::Read => &mut self.counts.reads_failed,
            Fault::Name => &mut self.counts.names_failed,
        };
        *count += 1;
        true
    }

    /// Bytes that are left on the disk.
    pub(crate) fn free(&self) -> u64 {
        let Some(capacity) = self.capacity else {
            return u64::MAX;
        };
        let living = |inode: &&Inode| inode.links > 0 || inode.opens > 0;
        let blocks: u64 = self.files.values().filter(living).map(Inode::blocks).sum();
        capacity.saturating_sub(blocks * BLOCK_BYTES)
    }

    pub(crate) fn full(&mut self) -> io::Error {
        self.counts.full += 1;
        io::ErrorKind::StorageFull.into()
    }

    pub(crate) fn close(&mut self, node: NodeId, boot: u64) {
        if boot != self.boot {
            return;
        }
        if let Some(inode) = self.files.get_mut(&node) {
            inode.opens = inode.opens.saturating_sub(1);
        }
    }

    /// Power loss. The next boot finds what the medium holds.
    pub(crate) fn crash(&mut self) {
        self.counts.crashes += 1;
        let lost = self
            .names
            .crash(self.faults.names_survive, &mut self.random);
        self.counts.names_lost += lost;
        let survival = match self.random.below(6) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::Some {
                older_per_million: *self.random.pick(&[50_000, 500_000, 900_000]),
            },
        };
        for inode in self.files.values_mut() {
            let losses = inode.crash(survival, &mut self.random);
            self.counts.sectors_lost += losses.older;
            self.counts.sectors_torn += losses.torn;
        }
        self.boot_again();
        self.sweep();
    }

    /// The end of the process alone: what it wrote is all there, for a process to see.
    pub(crate) fn kill(&mut self) {
        self.counts.kills += 1;
        for inode in self.files.values_mut() {
            inode.evict(&mut self.random);
        }
        self.boot_again();
    }

    fn boot_again(&mut self) {
        self.boot += 1;
        self.fuse = None;
        self.stopped = false;
        self.ordered.clear();
        for inode in self.files.values_mut() {
            (inode.opens, inode.links) = (0, 0);
        }
        for node in self.names.seen() {
            if let Some(inode) = self.files.get_mut(&node) {
                inode.links += 1;
            }
        }
    }

    /// Drops what nothing leads to, now or after a power failure.
    pub(crate) fn sweep(&mut self) {
        let reachable = self.names.reachable();
        self.names.retain(&reachable);
        self.files
            .retain(|node, inode| inode.opens > 0 || reachable.contains(node));
    }

    pub(crate) fn change(&mut self, names: Vec<(NodeId, String, Option<NodeId>)>) {
        for (directory, name, node) in &names {
            let before = self.names.get(*directory, name);
            if let Some(inode) = before.and_then(|node| self.files.get_mut(&node)) {
                inode.links = inode.links.saturating_sub(1);
            }
            if let Some(inode) = node.and_then(|node| self.files.get_mut(&node)) {
                inode.links += 1;
            }
        }
        self.names.change(names);
    }

    pub(crate) fn file(&mut self, node: NodeId) -> io::Result<&mut Inode> {
        self.files.get_mut(&node).ok_or_else(|| Errno::NOENT.into())
    }

    pub(crate) fn file_and_random(
        &mut self,
        node: NodeId,
    ) -> io::Result<(&mut Inode, &mut Random)> {
        let file = self.files.get_mut(&node).ok_or(Errno::NOENT)?;
        Ok((file, &mut self.random))
    }
}

/// What every call says after the machine stopped.
pub(crate) fn dead() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}
