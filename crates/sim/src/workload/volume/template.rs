//! The template that all databases are made from.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use store::{Disk, OpenHow};
use volume::{Ino, Mtime, PAGE_BYTES, TemplateId, Volume};

use super::TEMPLATE;
use super::tree::{File, LOG, Node, SEGMENT_BYTES, Tree, place, segment_path};
use crate::disk::FaultyDisk;
use crate::random::Random;

pub(super) const ID: TemplateId = TemplateId::from_bytes(*b"sixteen bytes!!!");
const FILES: [&str; 2] = ["template.manifest", "template.pages"];

/// Its two files, and what it shows.
struct Image {
    files: [Vec<u8>; 2],
    tree: Tree,
}

/// What a new database shows.
pub(super) fn tree() -> Tree {
    image().tree.clone()
}

/// Puts the template onto a disk, durably but for the name of its directory.
pub(super) fn put(disk: &FaultyDisk) -> io::Result<()> {
    let directory = Path::new(TEMPLATE);
    for (name, bytes) in FILES.iter().zip(&image().files) {
        let file = disk.open(&directory.join(name), OpenHow::Create)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
    }
    disk.sync_directory(directory)
}

/// Made once a process, on the real disk: templates are never written to another.
fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        make().expect("the template cannot be made in the system's temporary directory")
    })
}

fn make() -> Result<Image, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let volume = Volume::scratch(folder.path())?;
    let tree = what_it_shows();
    let time = Mtime::default();
    for (path, node) in &tree.nodes {
        let (directory, name) = place(path);
        let directory = volume.resolve(directory)?;
        let Node::File(file) = node else {
            volume.mkdir(directory, name, 0o700, time)?;
            continue;
        };
        let ino = volume.create_file(directory, name, 0o600, time)?;
        fill(&volume, ino, file)?;
    }
    let directory = folder.path().join("template");
    volume.save_as_template(&directory, ID)?;
    let read = |name| std::fs::read(directory.join(name));
    Ok(Image {
        files: [read(FILES[0])?, read(FILES[1])?],
        tree,
    })
}

fn fill(volume: &Volume, ino: Ino, file: &File) -> volume::Result<()> {
    let time = Mtime::default();
    for page in 0..file.page_count() {
        volume.write(ino, (page * PAGE_BYTES) as u64, file.page(page), time)?;
    }
    volume.set_len(ino, file.len, time)
}

fn what_it_shows() -> Tree {
    let mut random = Random::new(1);
    let mut tree = Tree::default();
    for directory in ["/base", "/global", "/pg_xact", LOG] {
        tree.nodes.insert(directory.to_owned(), Node::Directory);
    }
    let log_bytes = 10_000;
    for (path, bytes, len) in [
        ("/base/1", 4 * PAGE_BYTES, 4 * PAGE_BYTES as u64),
        ("/base/2", 20_000, 20_000),
        ("/global/pg_control", 600, PAGE_BYTES as u64),
        ("/pg_xact/0000", 100, 2 * PAGE_BYTES as u64),
        (&segment_path(1), log_bytes, SEGMENT_BYTES),
    ] {
        let mut file = File::default();
        file.write(0, &random.bytes(bytes));
        file.set_len(len);
        tree.nodes.insert(path.to_owned(), Node::File(file));
    }
    tree.log_end = (1, log_bytes as u64);
    tree
}
