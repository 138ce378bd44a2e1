//! What git says of a folder; nothing where there is none.

use std::path::Path;
use std::process::{Command, Stdio};

/// `owner/repo` of the remote `origin`.
pub(super) fn repository(folder: &Path) -> Option<String> {
    named(&said(folder, &["remote", "get-url", "origin"])?)
}

/// The branch; none where a commit is checked out without one.
pub(super) fn branch(folder: &Path) -> Option<String> {
    said(folder, &["symbolic-ref", "--short", "HEAD"])
}

/// The commit.
pub(super) fn commit(folder: &Path) -> Option<String> {
    said(folder, &["rev-parse", "HEAD"])
}

fn said(folder: &Path, args: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(args);
    let output = git
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// The last two parts of an address: of a URL, or as of ssh.
fn named(address: &str) -> Option<String> {
    let address = address.trim_end_matches('/');
    let address = address.strip_suffix(".git").unwrap_or(address);
    let mut parts = address.rsplit(['/', ':']);
    let (name, owner) = (parts.next()?, parts.next()?);
    // There is a host before them, or else they are folders.
    parts.next()?;
    (!name.is_empty() && !owner.is_empty()).then(|| format!("{owner}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_repositories() {
        for address in [
            "https://github.com/acme/shop.git",
            "https://github.com/acme/shop/",
            "git@github.com:acme/shop.git",
            "ssh://git@github.com:22/acme/shop",
        ] {
            assert_eq!(named(address).as_deref(), Some("acme/shop"), "{address}");
        }
        for address in ["", "shop", "acme/shop", "https://"] {
            assert_eq!(named(address), None, "{address}");
        }
    }
}
