use super::*;

const CACHE_BYTES: usize = 1 << 20;

fn name(text: &str) -> DatabaseName {
    DatabaseName::parse(text).unwrap()
}

fn record(id: u64, text: &str) -> Record {
    Record {
        id,
        name: text.to_owned(),
        template: format!("{:032x}", 5),
        layer: None,
        created_ms: 9,
        parent: None,
        former_names: vec![],
        settings: Default::default(),
    }
}

fn id(number: u64) -> DatabaseId {
    DatabaseId::new(number).unwrap()
}

#[test]
fn records_survive_and_ids_are_not_reused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("directory.redb");
    let first = {
        let directory = Directory::open(&path, CACHE_BYTES).unwrap();
        directory.insert(&name("a"), &record(7, "a"), &[]).unwrap();
        directory
            .insert(&name("gone"), &record(8, "gone"), &[])
            .unwrap();
        let garbage = directory.remove(&name("gone"), id(8), &[]).unwrap();
        assert_eq!(garbage, [Garbage::Database(id(8))]);
        directory
            .rename(&name("a"), &name("b"), &record(7, "b"))
            .unwrap();
        directory.next_id().unwrap()
    };
    let directory = Directory::open(&path, CACHE_BYTES).unwrap();
    assert_eq!(
        directory.page(None, 10).unwrap(),
        [(name("b"), record(7, "b"))]
    );
    assert_eq!(directory.find(&name("b")).unwrap(), Some(record(7, "b")));
    assert_eq!(directory.find(&name("a")).unwrap(), None);
    assert_eq!(directory.name_of(7).unwrap(), Some(name("b")));
    assert_eq!(directory.name_of(8).unwrap(), None);
    assert_eq!(directory.count().unwrap(), 1);
    assert!(directory.next_id().unwrap().get() > first.get());
    // What a crash kept from being removed is still known.
    assert_eq!(directory.garbage().unwrap(), [Garbage::Database(id(8))]);
    directory.removed(&[Garbage::Database(id(8))]).unwrap();
    assert_eq!(directory.garbage().unwrap(), []);
}

#[test]
fn a_name_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&folder.path().join("directory.redb"), CACHE_BYTES).unwrap();
    directory.insert(&name("a"), &record(1, "a"), &[]).unwrap();
    directory.insert(&name("b"), &record(2, "b"), &[]).unwrap();
    let again = directory.insert(&name("a"), &record(3, "a"), &[]);
    assert_eq!(again.unwrap_err().code(), sqlstate::DUPLICATE_DATABASE);
    let onto = directory.rename(&name("b"), &name("a"), &record(2, "a"));
    assert_eq!(onto.unwrap_err().code(), sqlstate::DUPLICATE_DATABASE);
    assert_eq!(directory.find(&name("a")).unwrap(), Some(record(1, "a")));
    assert_eq!(directory.find(&name("b")).unwrap(), Some(record(2, "b")));
}

#[test]
fn pages_follow_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&folder.path().join("directory.redb"), CACHE_BYTES).unwrap();
    for number in 1..=5 {
        let text = format!("d{number}");
        directory
            .insert(&name(&text), &record(number, &text), &[])
            .unwrap();
    }
    let names = |after: Option<&str>| -> Vec<String> {
        let page = directory.page(after, 2).unwrap();
        page.into_iter().map(|(_, record)| record.name).collect()
    };
    assert_eq!(names(None), ["d1", "d2"]);
    assert_eq!(names(Some("d2")), ["d3", "d4"]);
    assert_eq!(names(Some("d4")), ["d5"]);
    assert_eq!(names(Some("d5")), [""; 0]);
}

#[test]
fn changes_from_many_threads_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&folder.path().join("directory.redb"), CACHE_BYTES).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let directory = &directory;
            scope.spawn(move || {
                for n in 0..20 {
                    let id = directory.next_id().unwrap().get();
                    let text = format!("d{thread}_{n}");
                    directory
                        .insert(&name(&text), &record(id, &text), &[])
                        .unwrap();
                    let again = directory.insert(&name(&text), &record(id + 1, &text), &[]);
                    assert_eq!(again.unwrap_err().code(), sqlstate::DUPLICATE_DATABASE);
                }
            });
        }
    });
    let page = directory.page(None, usize::MAX).unwrap();
    let ids: std::collections::HashSet<u64> = page.iter().map(|(_, record)| record.id).collect();
    assert_eq!((page.len(), ids.len()), (320, 320));
}

#[test]
fn layers_go_with_the_last_that_is_over_them() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&folder.path().join("directory.redb"), CACHE_BYTES).unwrap();
    let layer = |epoch| LayerId {
        origin: id(7),
        epoch,
    };
    let rebase = |before: &[LayerId], after: &[LayerId]| {
        let (before, after) = (before.to_vec(), after.to_vec());
        let moved = Record {
            layer: after.first().copied().map(key),
            ..record(7, "a")
        };
        directory.rebase(&moved, Rebase { before, after })
    };
    directory.insert(&name("a"), &record(7, "a"), &[]).unwrap();
    assert_eq!(rebase(&[], &[layer(0)]).unwrap(), []);
    let insert = |text: &str, number, chain: &[LayerId]| {
        let record = record(number, text);
        directory.insert(&name(text), &record, chain).unwrap();
    };
    insert("b", 8, &[layer(0)]);
    // Shared again: the new layer is over the old one, and takes the parent's place there.
    assert_eq!(rebase(&[layer(0)], &[layer(1), layer(0)]).unwrap(), []);
    // What it was over is let go once only.
    assert!(rebase(&[layer(0)], &[]).is_err());
    insert("c", 9, &[layer(1), layer(0)]);
    let remove = |text: &str, number, chain: &[LayerId]| {
        let garbage = directory.remove(&name(text), id(number), chain).unwrap();
        assert_eq!(garbage[0], Garbage::Database(id(number)));
        garbage[1..].to_vec()
    };
    assert_eq!(remove("b", 8, &[layer(0)]), []);
    assert_eq!(remove("a", 7, &[layer(1), layer(0)]), []);
    assert!(rebase(&[layer(1), layer(0)], &[]).is_err());
    assert_eq!(directory.referents(layer(0)).unwrap(), 1);
    let last = [Garbage::Layer(layer(1)), Garbage::Layer(layer(0))];
    assert_eq!(remove("c", 9, &[layer(1), layer(0)]), last);
    assert_eq!(directory.referents(layer(0)).unwrap(), 0);
    let all = directory.garbage().unwrap();
    assert!(last.iter().all(|garbage| all.contains(garbage)));
}
