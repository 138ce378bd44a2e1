use super::*;
use proptest::prelude::*;
use std::io::{Cursor, Write as _};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn paths(files: &[(&str, &[u8])]) -> Vec<String> {
    let archive = Archive::from_zip(&zip_of(files), DeployLimits::default()).unwrap();
    archive.files().map(|(path, _)| path.to_owned()).collect()
}

fn refused(bytes: &[u8]) -> String {
    let refused = Archive::from_zip(bytes, DeployLimits::default()).unwrap_err();
    assert_eq!(refused.status, 400);
    refused.message
}

#[test]
fn files_are_there_by_path() {
    let zip = zip_of(&[
        ("w7s.json", b"{}"),
        ("./dist//server/index.js", b"1"),
        ("dist\\client\\a.css", b""),
    ]);
    let archive = Archive::from_zip(&zip, DeployLimits::default()).unwrap();
    assert_eq!(archive.text("w7s.json").unwrap(), Some("{}"));
    assert_eq!(archive.file("dist/server/index.js"), Some(b"1".as_slice()));
    assert_eq!(archive.file("dist/client/a.css"), Some(b"".as_slice()));
    assert_eq!(archive.file("nothing"), None);
    let below: Vec<_> = archive.below("dist").map(|(path, _)| path).collect();
    assert_eq!(below, ["client/a.css", "server/index.js"]);
    assert!(archive.has_folder("dist/server") && !archive.has_folder("dist/serv"));
}

#[test]
fn one_wrapping_folder_is_taken_off() {
    assert_eq!(
        paths(&[
            ("app-main/w7s.json", b""),
            ("app-main/worker/index.js", b"")
        ]),
        ["w7s.json", "worker/index.js"]
    );
    assert_eq!(paths(&[("a/b/c", b"")]), ["b/c"]);
    for kept in [
        ["worker/b.js", "worker/index.js"],
        ["a/b", "c/d"],
        ["a/b", "readme"],
        ["app/x", "app2/x"],
    ] {
        assert_eq!(paths(&[(kept[0], b""), (kept[1], b"")]), kept);
    }
}

/// Acceptance behaviour 12, its second half: nothing leads outside, and each reason has its words.
#[test]
fn names_that_lead_elsewhere_are_refused() {
    for (name, why) in [
        ("../evil", "leads out of the archive"),
        ("a/../../evil", "leads out of the archive"),
        ("a/..\\..\\evil", "leads out of the archive"),
        ("/etc/passwd", "is an absolute path"),
        ("\\\\host\\share", "is an absolute path"),
        ("C:\\evil", "is an absolute path"),
        ("a\u{0}b", "has control characters"),
        ("a\nb", "has control characters"),
    ] {
        let message = refused(&zip_of(&[(name, b"x")]));
        assert!(message.contains(why), "{name:?}: {message}");
    }
    assert!(refused(&zip_of(&[(&"a/".repeat(600), b"")])).contains("is too long"));
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    writer.add_symlink("link", "/etc/passwd", options).unwrap();
    let zip = writer.finish().unwrap().into_inner();
    assert_eq!(
        refused(&zip),
        "Unable to read deploy archive: 'link' is a symbolic link."
    );

    // Bit 0 of the flags, in the local header and in the directory.
    let mut zip = zip_of(&[("secret", b"x")]);
    let directory = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    zip[6] |= 1;
    zip[directory + 8] |= 1;
    assert_eq!(
        refused(&zip),
        "Unable to read deploy archive: 'secret' is encrypted."
    );
}

#[test]
fn a_name_is_there_once() {
    let mut zip = zip_of(&[("aa", b"1"), ("ab", b"2")]);
    for at in 0..zip.len() - 1 {
        if &zip[at..at + 2] == b"ab" {
            zip[at + 1] = b'a';
        }
    }
    assert!(refused(&zip).contains("twice"));
    assert!(refused(&zip_of(&[("a/b", b"1"), ("a//b", b"2")])).contains("'a/b' is in it twice"));
}

#[test]
fn what_is_cut_or_no_zip_is_refused() {
    let zip = zip_of(&[("a", &[7; 5_000]), ("b", b"2")]);
    for length in 0..zip.len() {
        let message = refused(&zip[..length]);
        assert!(
            length == 0 || message.starts_with("Unable to read deploy archive: "),
            "{message}"
        );
    }
    assert_eq!(refused(b""), "Deploy archive is empty.");
    // A byte of the content that is not what it was.
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("a", stored).unwrap();
    zip.write_all(b"content").unwrap();
    let mut zip = zip.finish().unwrap().into_inner();
    let at = zip.windows(7).position(|w| w == b"content").unwrap();
    zip[at] = b'C';
    assert!(refused(&zip).starts_with("Unable to read deploy archive: 'a': "));
}

#[test]
fn limits_are_named_and_hold() {
    let limits = DeployLimits {
        archive_bytes_max: 2_000,
        expanded_bytes_max: 1_000_000,
        file_bytes_max: 600_000,
        entries_max: 3,
        ..DeployLimits::default()
    };
    let of = |files: &[(&str, &[u8])]| {
        let refused = Archive::from_zip(&zip_of(files), limits).unwrap_err();
        assert!(refused.message.starts_with("Deploy exceeds the limits"));
        refused.details.join("\n")
    };
    let zeros = vec![0; 600_001];
    assert!(of(&[("a", &zeros)]).contains("the limit file_bytes_max is 600000"));
    let zeros = vec![0; 500_001];
    assert!(
        of(&[("a", &zeros), ("b", &zeros)]).contains("the limit expanded_bytes_max is 1000000")
    );
    assert!(
        of(&[("a", b""), ("b", b""), ("c", b""), ("d", b"")])
            .contains("the limit entries_max is 3")
    );
    let mut state = 1_u32;
    let mut mix = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mixed: Vec<u8> = (0..3_000).map(|_| mix()).collect();
    assert!(of(&[("a", &mixed)]).contains("the limit archive_bytes_max is 2000"));
}

/// A header that says a small size does not make a bomb small.
#[test]
fn a_bomb_is_stopped_by_what_it_unpacks_to() {
    let bomb = zip_of(&[("a", &vec![0; 12 << 20])]);
    assert!(bomb.len() < 64 << 10);
    assert!(refused(&bomb).contains("file_bytes_max"));
    // The sizes in the directory, changed to 1.
    let mut lying = bomb;
    let directory = lying.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    for at in [22, directory + 24] {
        lying[at..at + 4].copy_from_slice(&1_u32.to_le_bytes());
    }
    let refused = Archive::from_zip(&lying, DeployLimits::default()).unwrap_err();
    assert_eq!(refused.status, 400);
}

#[test]
fn a_folder_keeps_the_same_rules() {
    let files = [("../x".to_owned(), Vec::new())];
    assert!(Archive::from_files(files, DeployLimits::default()).is_err());
    let files = [("a/x".to_owned(), b"1".to_vec()), ("b".to_owned(), vec![])];
    let archive = Archive::from_files(files, DeployLimits::default()).unwrap();
    assert_eq!(archive.file("a/x"), Some(b"1".as_slice()));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(Archive::from_zip(&bytes, DeployLimits::default()));
    }

    #[test]
    fn any_change_of_a_zip_is_read_or_refused(at in 0..400_usize, byte in any::<u8>()) {
        let mut zip = zip_of(&[("w7s.json", b"{}"), ("worker/index.js", &[b'x'; 300])]);
        let length = zip.len();
        zip[at % length] = byte;
        if let Ok(archive) = Archive::from_zip(&zip, DeployLimits::default()) {
            for (path, _) in archive.files() {
                prop_assert!(!path.split('/').any(|part| part.is_empty() || part == "."  || part == ".."));
            }
        }
    }
}
