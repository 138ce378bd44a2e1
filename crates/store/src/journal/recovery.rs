//! What stands in a journal's directory: read, verified, and put in order.
//!
//! Only the last group can be torn: each is synced before the next is written. So a bad group ends the
//! log if nothing comes after it; if anything does, it was durable, and its damage is an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;

use super::JournalError;
use super::format::Link;
use super::index::Index;
use super::scan::{FoundGroup, Scan, open_segment, read_batch, refuse_later_group, scan};
use super::segments::{Segment, is_spare, segment_number, segment_path};
use super::state::Batch;

/// A journal as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// None: there was no journal.
    pub(super) id: Option<u64>,
    /// Every entry but those of the last group, and the segments.
    pub(super) index: Index,
    /// The entries of the last group, if it has any. That it can be read does not prove that it is on
    /// the medium, so it is to be written again, in the next segment.
    pub(super) last: Option<Batch>,
    /// What the next group must carry: it takes the last one's place.
    pub(super) link: Link,
    /// Above every position in the journal, and not below where its last opening began to give them.
    pub(super) position: u64,
    /// Above the number of every segment.
    pub(super) next_number: u64,
    /// Segments that nobody needs, if the last group is durable.
    pub(super) idle_segments: Vec<PathBuf>,
    /// Where the groups of each segment end; the rest is room that can be given back.
    pub(super) ends: Vec<(Arc<Segment>, u64)>,
    /// What is left of spares.
    pub(super) spares: Vec<PathBuf>,
}

/// The segment before, where its groups end, and why there.
struct Previous {
    segment: Arc<Segment>,
    end: u64,
    reason: &'static str,
}

/// Reads the journal in `directory`, if there is one.
///
/// # Errors
/// [`JournalError::Io`], `Corrupt`, `MissingSegment`, `WrongJournal`, `WrongVersion`, `Fenced`.
pub(super) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    generation: u64,
) -> Result<Recovered, JournalError> {
    let failed = |source| JournalError::io("list", directory, source);
    let names = disk.list(directory).map_err(failed)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment_number(n)).collect();
    numbers.sort_unstable();
    let next_number = numbers.last().map_or(1, |number| number.saturating_add(1));

    // From the newest one back: the newest group says which is the oldest that is needed.
    let mut scans: Vec<Scan> = Vec::new();
    let mut oldest = None;
    while let Some(number) = numbers.pop_if(|number| oldest.is_none_or(|oldest| *number >= oldest))
    {
        let segment = open_segment(disk, directory, number)?;
        if let Some(newest) = scans.first() {
            let (expected, found) = (newest.segment.header.id, segment.header.id);
            if expected != found {
                let path = segment.path;
                return Err(JournalError::WrongJournal {
                    path,
                    expected,
                    found,
                });
            }
        }
        if segment.header.generation > generation {
            return Err(JournalError::Fenced {
                directory: directory.to_owned(),
                ours: generation,
                found: segment.header.generation,
            });
        }
        let scan = scan(segment)?;
        if oldest.is_none() {
            refuse_later_group(&scan)?;
            oldest = scan.groups.last().map(|group| group.header.oldest);
        }
        scans.push(scan);
    }
    scans.reverse();
    if let (Some(oldest), Some(first)) = (oldest, scans.first())
        && first.segment.number() != oldest
    {
        let path = segment_path(directory, oldest);
        return Err(JournalError::MissingSegment { path });
    }
    let idle_segments = numbers.iter().map(|n| segment_path(directory, *n));
    let idle_segments = idle_segments.collect();
    let spares = names.iter().filter(|name| is_spare(name));
    let spares = spares.map(|name| directory.join(name)).collect();
    let mut recovered = join(scans)?;
    recovered.next_number = next_number;
    recovered.idle_segments = idle_segments;
    recovered.spares = spares;
    Ok(recovered)
}

/// Makes one chain of the segments, which are ascending.
fn join(mut scans: Vec<Scan>) -> Result<Recovered, JournalError> {
    // An opening writes the last group that it finds once more. What of that, and of a torn one after
    // it, is still to be seen in the segment before is not looked at.
    let mut first_taken = u64::MAX;
    for scan in scans.iter_mut().rev() {
        scan.cut(first_taken);
        if !scan.groups.is_empty() {
            first_taken = scan.segment.header.link.group;
        }
    }
    let mut chain = Recovered {
        id: scans.first().map(|scan| scan.segment.header.id),
        index: Index::default(),
        last: None,
        link: scans.first().map_or(Link::FIRST, |s| s.segment.header.link),
        position: scans
            .last()
            .map_or(Link::FIRST.position, |s| s.segment.header.given_from),
        next_number: 0,
        idle_segments: Vec::new(),
        ends: Vec::new(),
        spares: Vec::new(),
    };
    let newest = scans.iter().rposition(|scan| !scan.groups.is_empty());
    let mut previous: Option<Previous> = None;
    let mut last_link = None;
    for (n, mut scan) in scans.into_iter().enumerate() {
        let begins = scan.segment.header.link;
        // The header was durable before its segment was used, so the groups before its first one were
        // there. Unless nothing came of it, and a later segment began with a lower one.
        let is_passed = scan.groups.is_empty() && newest.is_some_and(|newest| n < newest);
        if begins.group > chain.link.group && !is_passed {
            return Err(lost(previous, &scan.segment));
        }
        if !scan.groups.is_empty() && begins != chain.link {
            let reason = "its first group does not follow the segments before it";
            return Err(JournalError::corrupt(&scan.segment.path, 0, reason));
        }
        if !scan.groups.is_empty() {
            chain.link = scan.link;
        }
        let segment = Arc::new(scan.segment);
        chain.index.push_segment(Arc::clone(&segment), scan.end);
        chain.ends.push((Arc::clone(&segment), scan.end));
        previous = Some(Previous {
            segment: Arc::clone(&segment),
            end: scan.end,
            reason: scan.reason,
        });
        if Some(n) == newest
            && let Some(group) = scan.groups.pop()
        {
            scan.entries.truncate(group.entries_before);
            chain.last = read_batch(&segment, &group)?;
            last_link = Some(group.link);
        }
        for group in scan.groups {
            if group.header.entries > 0 {
                let FoundGroup { header, .. } = group;
                chain.index.set_generation(header.first, header.generation);
            }
        }
        for (owner, place) in scan.entries {
            chain.index.add(owner, place);
        }
    }
    chain.position = chain.position.max(chain.link.position);
    chain.link = last_link.unwrap_or(chain.link);
    Ok(chain)
}

/// Groups are missing between a segment and the next one.
fn lost(previous: Option<Previous>, segment: &Segment) -> JournalError {
    match previous {
        Some(previous) if previous.segment.number() + 1 == segment.number() => {
            JournalError::corrupt(&previous.segment.path, previous.end, previous.reason)
        }
        _ => {
            let directory = segment.path.parent().unwrap_or_else(|| Path::new("."));
            let path = segment_path(directory, segment.number().saturating_sub(1));
            JournalError::MissingSegment { path }
        }
    }
}
