//! What the faulty disk promises, and that it takes what it does not promise.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use store::{Disk, DiskFile, OpenHow};

use super::*;
use crate::random::Random;

fn disk(seed: u64) -> Arc<FaultyDisk> {
    Arc::new(FaultyDisk::new(seed, Faults::default()))
}

fn write(disk: &FaultyDisk, path: &str, data: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), OpenHow::Create).unwrap();
    file.write_all_at(data, 0).unwrap();
    file
}

fn read(disk: &FaultyDisk, path: &str) -> Option<Vec<u8>> {
    let file = match disk.open(Path::new(path), OpenHow::Read) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        file => file.unwrap(),
    };
    let mut content = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    Some(content)
}

fn sync_root(disk: &FaultyDisk) {
    disk.sync_directory(Path::new("/")).unwrap();
}

#[test]
fn what_was_synced_survives_and_what_was_not_may_be_lost_torn_or_reordered() {
    let (mut lost, mut kept, mut torn, mut reordered) = (0, 0, 0, 0);
    for seed in 0..300 {
        let before = disk(seed);
        let file = write(&before, "/file", &[1; 4 * 512]);
        file.sync_data().unwrap();
        sync_root(&before);
        file.write_all_at(&[2; 512], 1024).unwrap();
        file.write_all_at(&[3; 512], 2048).unwrap();
        let after = before.crash();
        let content = read(&after, "/file").unwrap();
        assert_eq!(content[..1024], [1; 1024], "synced and not written again");
        assert_eq!(
            content[1536..2048],
            [1; 512],
            "synced and not written again"
        );
        let first = &content[1024..1536];
        let second = content.get(2048..2560);
        kept += u32::from(first == [2; 512]);
        lost += u32::from(first == [1; 512]);
        torn += u32::from(first != [1; 512] && first != [2; 512]);
        reordered += u32::from(first == [1; 512] && second == Some(&[3; 512]));
        let written = after.open(Path::new("/file"), OpenHow::Write).unwrap();
        written.write_all_at(&[4; 512], 0).unwrap();
        written.sync_data().unwrap();
        let again = read(&after.crash(), "/file").unwrap();
        assert_eq!(again[..512], [4; 512]);
        assert_eq!(
            again[512..],
            content[512..],
            "a crash settles what was open"
        );
    }
    assert!(lost > 50 && kept > 50 && torn > 3 && reordered > 3);
}

#[test]
fn a_torn_write_harms_no_byte_that_was_not_written() {
    for seed in 0..300 {
        let before = disk(seed);
        let file = write(&before, "/file", &[1; 512]);
        file.sync_data().unwrap();
        sync_root(&before);
        file.write_all_at(&[2; 100], 200).unwrap();
        let content = read(&before.crash(), "/file").unwrap();
        assert_eq!(
            (&content[..200], &content[300..]),
            (&[1; 200][..], &[1; 212][..])
        );
    }
}

#[test]
fn an_older_version_of_an_unsynced_sector_may_survive_a_newer_one() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let before = disk(seed);
        let file = write(&before, "/file", &[1; 512]);
        file.sync_data().unwrap();
        sync_root(&before);
        for version in 2..5 {
            file.write_all_at(&[version; 512], 0).unwrap();
        }
        let content = read(&before.crash(), "/file").unwrap();
        if content.iter().all(|&byte| byte == content[0]) {
            seen.insert(content[0]);
        }
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3, 4]));
}

#[test]
fn an_unsynced_length_may_be_lost_and_a_cut_file_reads_zeros_when_it_grows() {
    let mut lengths = BTreeSet::new();
    for seed in 0..200 {
        let before = disk(seed);
        let file = write(&before, "/file", &[1; 600]);
        file.sync_data().unwrap();
        sync_root(&before);
        file.set_len(100).unwrap();
        file.set_len(700).unwrap();
        let seen = read(&before, "/file").unwrap();
        assert_eq!((&seen[..100], &seen[100..]), (&[1; 100][..], &[0; 600][..]));
        let content = read(&before.crash(), "/file").unwrap();
        lengths.insert(content.len());
        assert_eq!(content[..100], [1; 100]);
    }
    assert_eq!(lengths, BTreeSet::from([100, 600, 700]));
}

#[test]
fn a_synced_name_survives_and_an_unsynced_one_may_not() {
    let mut survivors = BTreeSet::new();
    for seed in 0..200 {
        let before = disk(seed);
        before.create_directory(Path::new("/a/b")).unwrap();
        before.sync_directory(Path::new("/")).unwrap();
        before.sync_directory(Path::new("/a")).unwrap();
        for name in ["one", "two"] {
            write(&before, &format!("/a/b/{name}"), b"x")
                .sync_data()
                .unwrap();
            if name == "one" {
                before.sync_directory(Path::new("/a/b")).unwrap();
            }
        }
        let after = before.crash();
        assert_eq!(read(&after, "/a/b/one").unwrap(), b"x");
        survivors.insert(read(&after, "/a/b/two"));
    }
    assert_eq!(survivors, BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn a_directory_without_a_durable_name_takes_its_files_along() {
    let lost = (0..50).filter(|&seed| {
        let before = disk(seed);
        before.create_directory(Path::new("/a")).unwrap();
        write(&before, "/a/file", b"x").sync_data().unwrap();
        before.sync_directory(Path::new("/a")).unwrap();
        read(&before.crash(), "/a/file").is_none()
    });
    assert!((1..50).contains(&lost.count()));
}

#[test]
fn a_rename_leaves_the_old_file_or_the_new_and_never_neither() {
    for names_survive in [NameSurvival::Prefix, NameSurvival::Subset] {
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            let faults = Faults {
                names_survive,
                ..Faults::default()
            };
            let before = Arc::new(FaultyDisk::new(seed, faults));
            before.create_directory(Path::new("/d")).unwrap();
            for (path, data) in [("/a", b"new"), ("/b", b"old")] {
                write(&before, path, data).sync_data().unwrap();
            }
            sync_root(&before);
            before.rename(Path::new("/a"), Path::new("/b")).unwrap();
            assert_eq!(read(&before, "/b").unwrap(), b"new");
            write(&before, "/a", b"another").sync_data().unwrap();
            before.rename(Path::new("/b"), Path::new("/d/c")).unwrap();
            let after = before.crash();
            let found = ["/a", "/b", "/d/c"].map(|path| read(&after, path));
            assert!(
                found.contains(&Some(b"new".to_vec())),
                "seed {seed}: the file is under none of its names: {found:?}"
            );
            seen.insert(found);
        }
        assert!(seen.len() >= 3, "{seen:?}");
    }
}

#[test]
fn a_link_is_another_name_of_the_same_file() {
    let before = disk(1);
    let file = write(&before, "/a", b"first");
    before.link(Path::new("/a"), Path::new("/b")).unwrap();
    let exists = before.link(Path::new("/a"), Path::new("/b")).unwrap_err();
    assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
    file.write_all_at(b"again", 0).unwrap();
    file.sync_data().unwrap();
    before.remove(Path::new("/a")).unwrap();
    assert_eq!(read(&before, "/b").unwrap(), b"again");
    sync_root(&before);
    let after = before.crash();
    assert_eq!(after.names_in(Path::new("/")).unwrap(), ["b"]);
    assert_eq!(read(&after, "/b").unwrap(), b"again");
}

#[test]
fn a_removed_file_lives_as_long_as_it_is_open_and_may_come_back_after_a_crash() {
    let mut back = 0;
    for seed in 0..50 {
        let before = disk(seed);
        before.set_capacity(Some(4096));
        let file = write(&before, "/a", b"x");
        file.sync_data().unwrap();
        sync_root(&before);
        before.remove(Path::new("/a")).unwrap();
        assert_eq!(before.free(), 0);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(&byte, b"x");
        drop(file);
        assert_eq!(before.free(), 4096);
        back += u32::from(read(&before.crash(), "/a") == Some(b"x".to_vec()));
    }
    assert!((1..50).contains(&back));
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let before = disk(1);
    before.set_capacity(Some(3 * 4096));
    let file = write(&before, "/a", &[1; 4096]);
    file.allocate(2 * 4096).unwrap();
    let other = write(&before, "/b", &[2; 4096]);
    assert_eq!(before.free(), 0);
    let full = other.write_all_at(&[3; 8192], 0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(
        read(&before, "/b").unwrap(),
        [3; 4096],
        "what had room is written"
    );
    assert_eq!(
        other.allocate(8192).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    other.set_len(1 << 40).unwrap();
    other.write_all_at(&[4; 4096], 0).unwrap();
    file.write_all_at(&[5; 4096], 4096).unwrap();
    file.punch(0, 4096).unwrap();
    assert_eq!(before.free(), 4096);
    other.write_all_at(&[6; 1], 1 << 39).unwrap();
    assert_eq!(before.free(), 0);
    other.set_len(1).unwrap();
    before.remove(Path::new("/a")).unwrap();
    drop(file);
    assert_eq!(before.free(), 2 * 4096);
    assert_eq!(before.counts().full, 2);
}

#[test]
fn after_a_failed_sync_the_next_one_proves_nothing() {
    let mut lost = 0;
    for seed in 0..100 {
        let before = disk(seed);
        let file = write(&before, "/file", &[1; 2048]);
        file.sync_data().unwrap();
        sync_root(&before);
        file.write_all_at(&[2; 1024], 0).unwrap();
        before.fail_next(Fault::Sync);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        let seen = read(&before, "/file").unwrap();
        let content = read(&before.crash(), "/file").unwrap();
        assert_eq!(content[1024..], [1; 1024]);
        lost += u32::from(seen != content);
    }
    assert!(lost > 30, "{lost}");
}

#[test]
fn after_a_failed_sync_writing_again_and_syncing_is_durable() {
    for seed in 0..100 {
        let before = disk(seed);
        let file = write(&before, "/file", &[1; 2048]);
        sync_root(&before);
        before.fail_next(Fault::Sync);
        file.sync_data().unwrap_err();
        file.write_all_at(&[2; 2048], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(read(&before.crash(), "/file").unwrap(), [2; 2048]);
    }
}

#[test]
fn a_failed_write_may_have_written_its_beginning() {
    let mut lengths = BTreeSet::new();
    for seed in 0..50 {
        let disk = disk(seed);
        let file = write(&disk, "/file", b"");
        disk.fail_next(Fault::Write);
        file.write_all_at(b"abcd", 0).unwrap_err();
        let content = read(&disk, "/file").unwrap();
        assert!(b"abcd".starts_with(&content));
        lengths.insert(content.len());
    }
    assert_eq!(lengths, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn after_a_kill_all_is_seen_but_not_durable_and_old_handles_are_dead() {
    let mut lost = 0;
    for seed in 0..50 {
        let first = disk(seed);
        let file = write(&first, "/file", b"x");
        sync_root(&first);
        let second = first.kill();
        assert_eq!(read(&second, "/file").unwrap(), b"x");
        assert!(first.is_stopped() && !second.is_stopped());
        file.write_all_at(b"y", 0).unwrap_err();
        file.sync_data().unwrap_err();
        first.open(Path::new("/file"), OpenHow::Read).unwrap_err();
        first.sync_directory(Path::new("/")).unwrap_err();
        lost += u32::from(read(&second.crash(), "/file").unwrap() != b"x");
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn the_machine_stops_where_it_was_told_to() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let before = disk(seed);
        let file = write(&before, "/file", b"");
        before.stop_after(1);
        file.write_all_at(b"ab", 0).unwrap();
        assert!(!before.is_stopped());
        file.write_all_at(b"cd", 2).unwrap_err();
        assert!(before.is_stopped());
        file.len().unwrap_err();
        lengths.insert(read(&before.kill(), "/file").unwrap().len());
    }
    assert_eq!(lengths, BTreeSet::from([2, 3]));
}

#[test]
fn a_flipped_bit_is_read_and_stays() {
    let before = disk(1);
    let file = write(&before, "/file", b"a");
    file.sync_data().unwrap();
    sync_root(&before);
    assert!(before.flip(Path::new("/file"), 0, 1).unwrap());
    assert!(!before.flip(Path::new("/file"), 1, 1).unwrap());
    assert_eq!(read(&before, "/file").unwrap(), b"c");
    assert_eq!(read(&before.crash(), "/file").unwrap(), b"c");
}

#[test]
fn names_lead_where_a_file_system_says() {
    let disk = disk(1);
    let open = |path, how| disk.open(Path::new(path), how).map(|_| ());
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    write(&disk, "/file", b"x");
    disk.create_directory(Path::new("/d/e")).unwrap();
    disk.create_directory(Path::new("/d/e")).unwrap();
    assert_eq!(kind(open("/none", OpenHow::Write)), ErrorKind::NotFound);
    assert_eq!(
        kind(open("/none/file", OpenHow::Create)),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(open("/file/x", OpenHow::Create)),
        ErrorKind::NotADirectory
    );
    assert_eq!(kind(open("/d", OpenHow::Create)), ErrorKind::IsADirectory);
    let in_file = disk.create_directory(Path::new("/file/x"));
    assert_eq!(kind(in_file), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.remove(Path::new("/none"))), ErrorKind::NotFound);
    let onto_directory = disk.rename(Path::new("/file"), Path::new("/d"));
    assert_eq!(kind(onto_directory), ErrorKind::IsADirectory);
    assert!(disk.exists(Path::new("/d/e")).unwrap());
    assert!(!disk.exists(Path::new("/x/y")).unwrap());
    let mut names = disk.list(Path::new("/")).unwrap();
    names.sort();
    assert_eq!(names, ["d", "file"]);
    let read_only = disk.open(Path::new("/file"), OpenHow::Read).unwrap();
    read_only.write_all_at(b"y", 0).unwrap_err();
    assert_eq!(read(&disk, "/file").unwrap(), b"x");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let mut random = Random::new(seed);
        let faults = Faults {
            sync_per_million: 100_000,
            write_per_million: 100_000,
            ..Faults::default()
        };
        let mut disk = Arc::new(FaultyDisk::new(seed, faults));
        let mut results = Vec::new();
        for _ in 0..300 {
            let path = format!("/{}", random.below(4));
            if let Ok(file) = disk.open(Path::new(&path), OpenHow::Create) {
                let data = random.bytes(3000);
                results.push(file.write_all_at(&data, random.below(5000)).is_ok());
                results.push(file.sync_data().is_ok());
            }
            results.push(disk.sync_directory(Path::new("/")).is_ok());
            if random.one_in(10) {
                disk = disk.crash();
            }
        }
        let content: Vec<_> = (0..4).map(|n| read(&disk, &format!("/{n}"))).collect();
        (results, content, disk.counts())
    };
    assert_eq!(history(5), history(5));
    assert_ne!(history(5), history(6));
}
