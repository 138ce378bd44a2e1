//! The payloads of the two sealed files: a volume's manifest and a template's. `FORMAT.md` draws them.
//!
//! Invariants
//! 1. Decoding what was encoded gives the same tree; there is one encoding of a tree.
//! 2. Decoding never panics, whatever the bytes, and takes memory in proportion to them.
//! 3. What decoding lets pass refers only to pages and nodes that exist, and to no own page twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Base;
use crate::contents::Contents;
use crate::id::{BaseId, DatabaseId, LayerId, TemplateId, Version};
use crate::node::{Content, Entries, Ino, Mtime, Node};
use crate::page::{PageRef, TEMPLATE_DEPTH};
use crate::page_table::PageTable;
use crate::slots::slot_count;
use crate::tree::{Tree, check_name, check_target};

/// Kind of the sealed file that holds a volume's manifest.
pub(crate) const VOLUME_KIND: [u8; 8] = *b"manifest";
/// Kind of the sealed file that holds a template's manifest.
pub(crate) const TEMPLATE_KIND: [u8; 8] = *b"template";
/// Format version of both payloads.
pub(crate) const FORMAT: u16 = 2;

const BASE_TEMPLATE: u8 = 1;
const BASE_LAYER: u8 = 2;

const NODE_REMOVED: u8 = 0;
const NODE_DIRECTORY: u8 = 1;
const NODE_FILE: u8 = 2;
const NODE_SYMLINK: u8 = 3;

/// Bytes that are no manifest, and why.
#[derive(Debug, PartialEq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What a manifest says before its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) base: BaseId,
    /// Who wrote it.
    pub(crate) generation: u64,
    /// The journal that `applied` is a position of; 0 for none.
    pub(crate) journal: u64,
    /// The last entry of the journal that is in this version; 0 if none is.
    pub(crate) applied: u64,
    pub(crate) version: Version,
    /// LSN past the last byte of WAL in it.
    pub(crate) lsn: u64,
    /// Which of the volume's pages files the own pages are in.
    pub(crate) epoch: u32,
}

/// One durable version of a volume.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) tree: Tree,
    /// The own slots that the tree refers to, ascending.
    pub(crate) own_slots: Vec<u32>,
}

/// What a template consists of, besides its pages.
#[derive(Debug)]
pub(crate) struct TemplateManifest {
    pub(crate) id: TemplateId,
    pub(crate) page_count: u32,
    pub(crate) nodes: Arc<[Node]>,
}

/// Encodes the tree of a volume whose own pages are at `own_depth`.
pub(crate) fn encode(header: &Header, tree: &Tree, own_depth: u8) -> Vec<u8> {
    let changes = tree.changes();
    let mut out = Vec::new();
    match header.base {
        BaseId::Template(id) => {
            out.push(BASE_TEMPLATE);
            out.extend(id.to_bytes());
        }
        BaseId::Layer(id) => {
            out.push(BASE_LAYER);
            out.extend(id.origin.get().to_le_bytes());
            out.extend(u64::from(id.epoch).to_le_bytes());
        }
    }
    out.extend(header.generation.to_le_bytes());
    out.extend(header.journal.to_le_bytes());
    out.extend(header.applied.to_le_bytes());
    out.extend(header.version.get().to_le_bytes());
    out.extend(header.lsn.to_le_bytes());
    out.extend(header.epoch.to_le_bytes());
    out.extend(tree.next().to_le_bytes());
    out.extend(slot_count(&tree.slots_at(own_depth)).to_le_bytes());
    put_count(&mut out, changes.len());
    for (ino, node) in changes {
        out.extend(ino.get().to_le_bytes());
        match node {
            None => out.push(NODE_REMOVED),
            Some(node) => put_node(&mut out, node),
        }
    }
    out
}

/// What stands before the nodes; needed before the rest can be decoded.
pub(crate) fn header_of(payload: &[u8]) -> Result<Header, Malformed> {
    Reader(payload).header()
}

/// Decodes a manifest over its base.
pub(crate) fn decode(payload: &[u8], base: &Base) -> Result<Manifest, Malformed> {
    let mut reader = Reader(payload);
    let header = reader.header()?;
    let next = reader.u32()?;
    let slot_limit = reader.u32()?;
    let count = reader.u32()?;
    ensure(header.base == base.id(), "it is over another base")?;
    ensure(
        header.version > Version::default(),
        "version zero is never written",
    )?;
    ensure(
        next >= base.tree().next(),
        "the next node number is below the base's",
    )?;
    let own_depth = base.depth() + 1;
    let mut limits: Vec<u32> = (TEMPLATE_DEPTH..own_depth)
        .map(|depth| base.slots_at(depth))
        .collect();
    limits.push(slot_limit);

    let mut tree = Tree::new(base.tree().clone());
    tree.restore_next(next);
    let mut last = 0;
    for _ in 0..count {
        let number = reader.u32()?;
        ensure(
            last < number && number < next,
            "a node number is out of order",
        )?;
        last = number;
        let ino = Ino::new(number);
        let node = reader.node(&limits)?;
        let removable = ino != Ino::ROOT && tree.base().contains(ino);
        ensure(
            node.is_some() || removable,
            "a removed node is not the base's",
        )?;
        tree.restore(ino, node);
    }
    reader.end()?;

    let root = tree
        .get(Ino::ROOT)
        .map_err(|_| Malformed("there is no root"))?;
    ensure(root.entries().is_ok(), "the root is not a directory")?;
    for (_, node) in tree.changes() {
        for ino in node
            .and_then(|node| node.entries().ok())
            .into_iter()
            .flat_map(Entries::values)
        {
            let leads_on = *ino != Ino::ROOT && tree.get(*ino).is_ok();
            ensure(leads_on, "a name leads to no node")?;
        }
    }
    let mut own_slots = tree.slots_at(own_depth);
    own_slots.sort_unstable();
    ensure(
        own_slots.windows(2).all(|pair| pair[0] < pair[1]),
        "two pages are in one slot",
    )?;
    ensure(
        slot_count(&own_slots) == slot_limit,
        "the number of own slots is wrong",
    )?;
    Ok(Manifest { tree, own_slots })
}

/// Encodes a template; node n stands at index n - 1.
pub(crate) fn encode_template(id: TemplateId, page_count: u32, nodes: &[Node]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(id.to_bytes());
    out.extend(page_count.to_le_bytes());
    put_count(&mut out, nodes.len());
    for node in nodes {
        put_node(&mut out, node);
    }
    out
}

pub(crate) fn decode_template(payload: &[u8]) -> Result<TemplateManifest, Malformed> {
    let mut reader = Reader(payload);
    let id = TemplateId::from_bytes(reader.array()?);
    let page_count = reader.u32()?;
    let count = reader.u32()?;
    let mut nodes = Vec::new();
    for _ in 0..count {
        let node = reader.node(&[page_count])?;
        nodes.push(node.ok_or(Malformed("a template has a removed node"))?);
    }
    reader.end()?;
    check_template(&nodes)?;
    Ok(TemplateManifest {
        id,
        page_count,
        nodes: nodes.into(),
    })
}

/// Whether every node but the root has exactly one name.
fn check_template(nodes: &[Node]) -> Result<(), Malformed> {
    let root = nodes.first().ok_or(Malformed("there is no root"))?;
    ensure(root.entries().is_ok(), "the root is not a directory")?;
    let mut named = vec![false; nodes.len()];
    named[0] = true;
    for ino in nodes
        .iter()
        .filter_map(|node| node.entries().ok())
        .flat_map(Entries::values)
    {
        let at = (ino.get() as usize)
            .checked_sub(1)
            .and_then(|at| named.get_mut(at));
        let at = at.ok_or(Malformed("a name leads to no node"))?;
        ensure(!std::mem::replace(at, true), "a node has two names")?;
    }
    ensure(named.iter().all(|named| *named), "a node has no name")
}

fn put_node(out: &mut Vec<u8>, node: &Node) {
    out.push(match node.content {
        Content::Directory(_) => NODE_DIRECTORY,
        Content::File(_) => NODE_FILE,
        Content::Symlink(_) => NODE_SYMLINK,
    });
    out.extend(node.mode.to_le_bytes());
    out.extend(node.mtime.seconds.to_le_bytes());
    out.extend(node.mtime.nanos.to_le_bytes());
    match &node.content {
        Content::Directory(entries) => {
            put_count(out, entries.len());
            for (name, ino) in entries {
                out.extend(ino.get().to_le_bytes());
                put_text(out, name);
            }
        }
        Content::File(contents) => {
            out.extend(contents.len().to_le_bytes());
            put_table(out, contents.table());
        }
        Content::Symlink(target) => put_text(out, target),
    }
}

/// Runs of consecutive pages; what is between them is holes.
fn put_table(out: &mut Vec<u8>, table: &PageTable) {
    let mut runs: Vec<(u32, Vec<PageRef>)> = Vec::new();
    for (page, reference) in table.iter() {
        match runs.last_mut() {
            Some((first, run)) if *first as usize + run.len() == page as usize => {
                run.push(reference);
            }
            _ => runs.push((page, vec![reference])),
        }
    }
    put_count(out, runs.len());
    for (first, run) in runs {
        out.extend(first.to_le_bytes());
        put_count(out, run.len());
        out.extend(
            run.iter()
                .flat_map(|reference| reference.to_bits().to_le_bytes()),
        );
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("BUG: a count beyond the volume's limits");
    out.extend(count.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = u16::try_from(text.len()).expect("BUG: a text beyond the volume's limits");
    out.extend(bytes.to_le_bytes());
    out.extend(text.as_bytes());
}

/// The bytes not yet decoded.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn header(&mut self) -> Result<Header, Malformed> {
        let [kind] = self.array()?;
        let base = match kind {
            BASE_TEMPLATE => BaseId::Template(TemplateId::from_bytes(self.array()?)),
            BASE_LAYER => {
                let origin = DatabaseId::new(self.u64()?);
                BaseId::Layer(LayerId {
                    origin: origin.ok_or(Malformed("a layer of no database"))?,
                    epoch: u32::try_from(self.u64()?).map_err(|_| Malformed("a layer's epoch"))?,
                })
            }
            _ => return Err(Malformed("a base of unknown kind")),
        };
        Ok(Header {
            base,
            generation: self.u64()?,
            journal: self.u64()?,
            applied: self.u64()?,
            version: Version::from_number(self.u64()?),
            lsn: self.u64()?,
            epoch: self.u32()?,
        })
    }

    /// A node, or `None` for a removed one. `limits`: slots of the pages files, from depth 1 on.
    fn node(&mut self, limits: &[u32]) -> Result<Option<Node>, Malformed> {
        let [kind] = self.array()?;
        if kind == NODE_REMOVED {
            return Ok(None);
        }
        let mode = self.u32()?;
        let mtime = Mtime {
            seconds: self.u64()?.cast_signed(),
            nanos: self.u32()?,
        };
        let content = match kind {
            NODE_DIRECTORY => Content::Directory(self.entries()?),
            NODE_FILE => Content::File(self.contents(limits)?),
            NODE_SYMLINK => {
                let target = self.text()?;
                check_target(target).map_err(|_| Malformed("not a link's target"))?;
                Content::Symlink(target.into())
            }
            _ => return Err(Malformed("a node of unknown kind")),
        };
        Ok(Some(Node {
            mode,
            mtime,
            content,
        }))
    }

    fn entries(&mut self) -> Result<Entries, Malformed> {
        let mut entries: Entries = BTreeMap::new();
        for _ in 0..self.u32()? {
            let ino = Ino::new(self.u32()?);
            let name = self.text()?;
            check_name(name).map_err(|_| Malformed("not a name"))?;
            let last = entries.last_key_value();
            ensure(
                last.is_none_or(|(last, _)| **last < *name),
                "names are out of order",
            )?;
            entries.insert(name.into(), ino);
        }
        Ok(entries)
    }

    fn contents(&mut self, limits: &[u32]) -> Result<Contents, Malformed> {
        let len = self.u64()?;
        let mut table = PageTable::default();
        let mut next: Option<u32> = None;
        for _ in 0..self.u32()? {
            let (first, count) = (self.u32()?, self.u32()?);
            let end = first
                .checked_add(count)
                .ok_or(Malformed("a run beyond all pages"))?;
            ensure(count > 0, "an empty run of pages")?;
            // Adjacent runs would be one: the encoding of a table is unique.
            ensure(
                next.is_none_or(|next| next < first),
                "runs of pages are out of order",
            )?;
            for page in first..end {
                let reference = PageRef::from_bits(self.u64()?);
                let reference = reference.ok_or(Malformed("not a page reference"))?;
                let limit = limits.get(usize::from(reference.depth() - TEMPLATE_DEPTH));
                let exists = limit.is_some_and(|limit| reference.slot() < *limit);
                ensure(exists, "a page is in a slot that does not exist")?;
                table.set(page, reference);
            }
            next = Some(end);
        }
        Contents::from_parts(len, table).ok_or(Malformed("a file's length and pages disagree"))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = usize::from(u16::from_le_bytes(self.array()?));
        let bytes = self.take(bytes)?;
        std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N)?;
        Ok(bytes
            .try_into()
            .expect("BUG: `take` gives as many bytes as asked"))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(&self) -> Result<(), Malformed> {
        ensure(self.0.is_empty(), "it goes on after its end")
    }
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), Malformed> {
    if holds {
        Ok(())
    } else {
        Err(Malformed(otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const TEMPLATE_PAGES: u32 = 9;
    const TEMPLATE: TemplateId = TemplateId::from_bytes([7; 16]);
    /// Depth of own pages over a template.
    const OWN: u8 = TEMPLATE_DEPTH + 1;

    fn base() -> Arc<[Node]> {
        let mut root = Node::directory(0o755, Mtime::default());
        let Content::Directory(entries) = &mut root.content else {
            unreachable!()
        };
        entries.extend([("a".into(), Ino::new(2)), ("b".into(), Ino::new(3))]);
        let file = Node::file(0o644, Mtime::default());
        Arc::new([root, file.clone(), file])
    }

    fn over() -> Arc<Base> {
        Base::template(Template::without_pages(TEMPLATE, base(), TEMPLATE_PAGES))
    }

    fn header(version: u64) -> Header {
        Header {
            base: BaseId::Template(TEMPLATE),
            generation: 3,
            journal: 4,
            applied: 5,
            version: Version::from_number(version),
            lsn: 6,
            epoch: 7,
        }
    }

    #[derive(Clone, Debug)]
    enum Change {
        File {
            mode: u32,
            seconds: i64,
            pages: Vec<(u32, bool, u32)>,
            extra: u64,
        },
        Symlink(String),
        Directory,
        Remove(bool),
    }

    fn change() -> impl Strategy<Value = Change> {
        let page = (0u32..300, any::<bool>(), any::<u32>());
        prop_oneof![
            (any::<u32>(), any::<i64>(), vec(page, 0..80), 0u64..9000).prop_map(
                |(mode, seconds, pages, extra)| Change::File {
                    mode,
                    seconds,
                    pages,
                    extra
                }
            ),
            "[a-zé/.]{1,20}".prop_map(Change::Symlink),
            Just(Change::Directory),
            any::<bool>().prop_map(Change::Remove),
        ]
    }

    /// A tree that went through these changes.
    fn build(changes: &[Change]) -> Tree {
        let mut tree = Tree::new(over().tree().clone());
        let mut slot = 0;
        for (number, change) in changes.iter().enumerate() {
            let name = format!("n{number}");
            let node = match change {
                Change::File {
                    mode,
                    seconds,
                    pages,
                    extra,
                } => {
                    let mut table = PageTable::default();
                    let mut end = 0;
                    for (page, own, crc) in pages {
                        if *own {
                            slot += 1;
                            table.set(*page, PageRef::new(OWN, slot, *crc));
                        } else {
                            table.set(
                                *page,
                                PageRef::new(TEMPLATE_DEPTH, crc % TEMPLATE_PAGES, *crc),
                            );
                        }
                        end = end.max(u64::from(*page + 1) * 8192);
                    }
                    let contents = Contents::from_parts(end + extra, table).unwrap();
                    let mtime = Mtime {
                        seconds: *seconds,
                        nanos: 5,
                    };
                    Node {
                        mode: *mode,
                        mtime,
                        content: Content::File(contents),
                    }
                }
                Change::Symlink(target) => {
                    let content = Content::Symlink(target.as_str().into());
                    Node {
                        mode: 0o777,
                        mtime: Mtime::default(),
                        content,
                    }
                }
                Change::Directory => Node::directory(0o700, Mtime::default()),
                Change::Remove(first) => {
                    if let Ok(ino) = tree.unlink(Ino::ROOT, if *first { "a" } else { "b" }) {
                        tree.remove(ino);
                    }
                    continue;
                }
            };
            tree.create(Ino::ROOT, &name, node).unwrap();
        }
        tree
    }

    fn encoded(changes: &[Change]) -> Vec<u8> {
        encode(&header(1), &build(changes), OWN)
    }

    proptest! {
        #[test]
        fn decoding_gives_the_tree_back(changes in vec(change(), 0..20)) {
            let tree = build(&changes);
            let bytes = encode(&header(77), &tree, OWN);
            let manifest = decode(&bytes, &over()).unwrap();
            prop_assert_eq!(header_of(&bytes).unwrap(), header(77));
            prop_assert_eq!(manifest.tree.next(), tree.next());
            prop_assert_eq!(manifest.tree.changes(), tree.changes());
        }

        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes, &over());
            let _ = decode_template(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(
            changes in vec(change(), 0..10),
            edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encoded(&changes);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())], &over()).is_err());
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            // What passes is a manifest: it encodes to the same bytes.
            if let Ok(manifest) = decode(&bytes, &over()) {
                let header = header_of(&bytes).unwrap();
                prop_assert_eq!(encode(&header, &manifest.tree, OWN), bytes);
            }
        }
    }

    #[test]
    fn pages_must_exist_and_own_pages_be_apart() {
        let reference = |reference| {
            let mut table = PageTable::default();
            table.set(0, PageRef::new(OWN, 0, 1));
            table.set(1, reference);
            let content = Content::File(Contents::from_parts(16384, table).unwrap());
            let mut tree = Tree::new(over().tree().clone());
            let node = Node {
                mode: 0,
                mtime: Mtime::default(),
                content,
            };
            tree.create(Ino::ROOT, "f", node).unwrap();
            encode(&header(1), &tree, OWN)
        };
        let refusal = |bytes: &[u8]| decode(bytes, &over()).unwrap_err();
        let missing = "a page is in a slot that does not exist";
        assert_eq!(
            refusal(&reference(PageRef::new(TEMPLATE_DEPTH, TEMPLATE_PAGES, 0))),
            Malformed(missing)
        );
        assert_eq!(
            refusal(&reference(PageRef::new(OWN, 0, 2))),
            Malformed("two pages are in one slot")
        );
        assert!(decode(&reference(PageRef::new(OWN, 1, 2)), &over()).is_ok());
    }

    #[test]
    fn templates_survive_and_need_one_name_a_node() {
        let id = TemplateId::from_bytes([7; 16]);
        let decoded = decode_template(&encode_template(id, 3, &base())).unwrap();
        assert_eq!((decoded.id, decoded.page_count), (id, 3));
        assert_eq!(decoded.nodes, base());
        let refusal = |nodes: &[Node]| decode_template(&encode_template(id, 3, nodes)).unwrap_err();
        assert_eq!(refusal(&base()[..2]), Malformed("a name leads to no node"));
        assert_eq!(refusal(&[]), Malformed("there is no root"));
        let extra = [&base()[..], &base()[1..2]].concat();
        assert_eq!(refusal(&extra), Malformed("a node has no name"));
    }
}
