//! Figures of databases that nothing in this process has to do with any more.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use volume::DatabaseId;

use super::packed::{self, Packed};
use super::{Counts, Figures};

/// Seconds since the data directory was opened: what a time takes in four bytes.
#[derive(Debug)]
pub(crate) struct Since(Instant);

impl Default for Since {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Since {
    pub(crate) fn at(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.0).as_secs()).unwrap_or(u32::MAX)
    }
}

/// What is kept of a database that sleeps.
#[derive(Debug)]
struct Kept {
    counts: Packed,
    used_at: u32,
}

/// What a sleeping database may cost.
const BYTES_MAX: usize = 256;

/// What the allocator may take for each piece of memory, to tell pieces apart and for their alignment.
const PIECE_BYTES: usize = 16;

/// Of so many places of the table as few as [`TAKEN_MIN`] may be taken.
const PLACES: usize = 16;
const TAKEN_MIN: usize = 6;

/// A table of so few is left as it is.
const FEW: usize = 64;

/// One is kept in a place of the table, a byte beside it.
const PLACE_BYTES: usize = (size_of::<(DatabaseId, Kept)>() + 1) * PLACES / TAKEN_MIN;

const _: () = assert!(PLACE_BYTES + packed::BYTES_MAX + PIECE_BYTES <= BYTES_MAX);

/// Figures of the databases that were used last, and the sum of all others.
#[derive(Debug)]
pub(crate) struct Ledger {
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<DatabaseId, Kept>,
    /// For how many the table has room: what it says itself is less where some were taken out.
    room: usize,
    /// Of those that are kept no longer.
    gone: Counts,
    /// How many times that was.
    forgotten: u64,
}

impl Ledger {
    /// Keeps those of `max` databases (`telemetry.figures_databases_max`).
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            inner: Mutex::default(),
        }
    }

    /// Takes the figures of a database, to go on with them.
    pub(crate) fn take(&self, id: DatabaseId) -> Figures {
        let mut inner = self.inner.lock();
        let kept = inner.kept.remove(&id);
        inner.tidy();
        drop(inner);
        kept.map_or_else(Figures::default, |kept| {
            Figures::of(&kept.counts.counts(), kept.used_at)
        })
    }

    /// Keeps the figures of a database that is let go of.
    pub(crate) fn keep(&self, id: DatabaseId, figures: &Figures) {
        let counts = figures.get();
        if counts == Counts::default() {
            return;
        }
        let mut inner = self.inner.lock();
        let kept = Kept {
            counts: Packed::of(&counts),
            used_at: figures.used_at(),
        };
        inner.kept.insert(id, kept);
        inner.room = inner.room.max(inner.kept.capacity());
        if inner.kept.len() > self.max {
            inner.forget(self.max);
        }
    }

    /// Adds the figures of a database that is deleted to the sum.
    pub(crate) fn bury(&self, figures: &Figures) {
        self.inner.lock().gone.add(&figures.get());
    }

    /// What there is: each database's, when it was used, and the sum of those that are kept no longer.
    pub(crate) fn look(&self, mut each: impl FnMut(DatabaseId, &Counts, u32)) -> (Counts, u64) {
        let inner = self.inner.lock();
        for (id, kept) in &inner.kept {
            each(*id, &kept.counts.counts(), kept.used_at);
        }
        (inner.gone, inner.forgotten)
    }
}

impl Inner {
    /// Makes room: those go that were used before the others, an eighth at once, so that it is seldom done.
    fn forget(&mut self, max: usize) {
        let mut used: Vec<(u32, DatabaseId)> = self
            .kept
            .iter()
            .map(|(id, kept)| (kept.used_at, *id))
            .collect();
        let count = (used.len() - max + max / 8).clamp(1, used.len());
        used.select_nth_unstable(count - 1);
        for (_, id) in &used[..count] {
            if let Some(kept) = self.kept.remove(id) {
                self.gone.add(&kept.counts.counts());
                self.forgotten += 1;
            }
        }
        self.tidy();
    }

    /// The places of the table: of 8 there is room for 7.
    fn places(&self) -> usize {
        self.room / 7 * 8
    }

    /// Gives memory back where too few places are taken. Afterwards many more must go before it is done again.
    fn tidy(&mut self) {
        if self.room > FEW && self.kept.len() * PLACES < self.places() * TAKEN_MIN {
            self.kept.shrink_to_fit();
            self.room = self.kept.capacity();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(wakes: u32, used_at: u32) -> Figures {
        let counts = Counts {
            wakes,
            ..Counts::default()
        };
        Figures::of(&counts, used_at)
    }

    fn kept(ledger: &Ledger) -> usize {
        let mut count = 0;
        ledger.look(|_, _, _| count += 1);
        count
    }

    fn id(number: u64) -> DatabaseId {
        DatabaseId::new(number).unwrap()
    }

    #[test]
    fn the_oldest_go_and_nothing_is_lost() {
        let ledger = Ledger::new(16);
        for number in 1..=100_u32 {
            ledger.keep(id(number.into()), &figures(1, number));
        }
        let (mut kept, mut oldest) = (0, u32::MAX);
        let (gone, forgotten) = ledger.look(|_, counts, used_at| {
            kept += counts.wakes;
            oldest = oldest.min(used_at);
        });
        assert!((14..=16).contains(&kept), "{kept}");
        assert_eq!(oldest, 100 - kept + 1);
        assert_eq!(gone.wakes + kept, 100);
        assert_eq!(forgotten, u64::from(gone.wakes));
    }

    #[test]
    fn what_is_taken_goes_on() {
        let ledger = Ledger::new(16);
        ledger.keep(id(1), &figures(3, 7));
        assert_eq!(kept(&ledger), 1);
        let taken = ledger.take(id(1));
        assert_eq!((taken.get().wakes, taken.used_at()), (3, 7));
        assert_eq!(kept(&ledger), 0);
        ledger.bury(&taken);
        assert_eq!(ledger.look(|_, _, _| {}).0.wakes, 3);
    }

    #[test]
    fn the_table_shrinks_with_what_is_taken() {
        let ledger = Ledger::new(100_000);
        let is_bounded = || {
            let inner = ledger.inner.lock();
            let taken = inner.kept.len() * PLACES;
            inner.places() <= 2 * FEW || taken >= inner.places() * TAKEN_MIN
        };
        for number in 1..=10_000 {
            ledger.keep(id(number), &figures(1, 0));
            assert!(is_bounded(), "{number}");
        }
        for number in 1..=10_000 {
            assert_eq!(ledger.take(id(number)).get().wakes, 1);
            assert!(is_bounded(), "{number}");
        }
        assert!(ledger.inner.lock().kept.capacity() <= 2 * FEW);
    }

    #[test]
    fn a_limit_of_none_keeps_none() {
        let ledger = Ledger::new(0);
        ledger.keep(id(1), &figures(3, 7));
        assert_eq!(kept(&ledger), 0);
        assert_eq!(ledger.look(|_, _, _| {}).0.wakes, 3);
    }
}
