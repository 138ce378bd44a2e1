//! Which transactions a snapshot shows. Pure.

/// Which transactions everybody sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// All before are over.
    xmin: u64,
    /// None from here on is.
    xmax: u64,
    /// Those between that are not.
    open: Vec<u64>,
}

impl Snapshot {
    /// As `txid_current_snapshot` prints it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax, open) = (parts.next()?, parts.next()?, parts.next()?);
        let open = open.split(',').filter(|xid| !xid.is_empty());
        Some(Self {
            xmin: xmin.parse().ok()?,
            xmax: xmax.parse().ok()?,
            open: open.map(str::parse).collect::<Result<_, _>>().ok()?,
        })
    }

    /// Whether a transaction that has committed shows. Its number has lost its upper half.
    pub(super) fn shows(&self, xid: u32) -> bool {
        let low = |xid: u64| (xid & u64::from(u32::MAX)) as u32;
        // As Postgres compares: half of all numbers are before any.
        let is_before = |limit: u64| xid.wrapping_sub(low(limit)) > 1 << 31;
        is_before(self.xmin)
            || is_before(self.xmax) && !self.open.iter().any(|open| low(*open) == xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_snapshot_shows_what_is_over() {
        let snapshot = Snapshot::parse("10:20:10,15").unwrap();
        for (xid, shows) in [
            (9, true),
            (10, false),
            (14, true),
            (15, false),
            (19, true),
            (20, false),
        ] {
            assert_eq!(snapshot.shows(xid), shows, "{xid}");
        }
        assert!(Snapshot::parse("10:10:").unwrap().shows(9));
        assert!(!Snapshot::parse("10:10:").unwrap().shows(10));
        // Past the end of 32 bits.
        let round = Snapshot::parse("4294967296:4294967306:4294967300").unwrap();
        assert!(round.shows(u32::MAX) && round.shows(5) && !round.shows(4) && !round.shows(10));
        for wrong in ["", "1", "1:2", "a:b:c", "1:2:x"] {
            assert_eq!(Snapshot::parse(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn anything_may_be_printed(text in ".{0,40}", xid: u32) {
            if let Some(snapshot) = Snapshot::parse(&text) {
                snapshot.shows(xid);
            }
        }
    }
}
