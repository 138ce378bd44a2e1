//! What of the options may change while the data directory is open. Each is read anew wherever it is used, without a lock.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::options::{Durability, Observe, Options};

/// What of [`Options`] may change, under the names that it has there.
#[derive(Debug)]
pub(crate) struct Adjustable {
    pub(crate) auto_create: Adjusted<bool>,
    pub(crate) durability: Adjusted<Durability>,
    pub(crate) maintenance: Adjusted<bool>,
    pub(crate) backend_memory_bytes_max: Adjusted<u64>,
    pub(crate) volume_bytes_max: Adjusted<u64>,
    pub(crate) dirty_bytes_max: Adjusted<u64>,
    pub(crate) wal_bytes_max: Adjusted<u64>,
    pub(crate) journal_bytes_max: Adjusted<u64>,
    pub(crate) session_wait_max: Adjusted<Duration>,
    pub(crate) idle_holder: Adjusted<Duration>,
    pub(crate) idle: Adjusted<Duration>,
    pub(crate) spares_max: Adjusted<usize>,
    pub(crate) wake_max: Adjusted<Duration>,
    pub(crate) checkpoint_wal_bytes: Adjusted<u64>,
    pub(crate) freeze_age: Adjusted<u32>,
    pub(crate) upkeep_statement_max: Adjusted<Duration>,
    slow_query: Adjusted<Option<Duration>>,
    slow_query_plan: Adjusted<bool>,
    query_bytes_max: Adjusted<usize>,
    query_text: Adjusted<bool>,
}

/// One value that may change.
pub(crate) struct Adjusted<T> {
    word: AtomicU64,
    is: PhantomData<fn() -> T>,
}

/// What fits a word.
pub(crate) trait Word: Copy {
    fn to_word(self) -> u64;
    fn of_word(word: u64) -> Self;
}

impl Adjustable {
    pub(crate) fn new(options: &Options) -> Self {
        let (limits, observe) = (&options.limits, &options.observe);
        Self {
            auto_create: Adjusted::new(options.auto_create),
            durability: Adjusted::new(options.durability),
            maintenance: Adjusted::new(options.maintenance),
            backend_memory_bytes_max: Adjusted::new(limits.backend_memory_bytes_max),
            volume_bytes_max: Adjusted::new(limits.volume_bytes_max),
            dirty_bytes_max: Adjusted::new(limits.dirty_bytes_max),
            wal_bytes_max: Adjusted::new(limits.wal_bytes_max),
            journal_bytes_max: Adjusted::new(limits.journal_bytes_max),
            session_wait_max: Adjusted::new(limits.session_wait_max),
            idle_holder: Adjusted::new(limits.idle_holder),
            idle: Adjusted::new(limits.idle),
            spares_max: Adjusted::new(limits.spares_max),
            wake_max: Adjusted::new(limits.wake_max),
            checkpoint_wal_bytes: Adjusted::new(limits.checkpoint_wal_bytes),
            freeze_age: Adjusted::new(limits.freeze_age),
            upkeep_statement_max: Adjusted::new(limits.upkeep_statement_max),
            slow_query: Adjusted::new(observe.slow_query),
            slow_query_plan: Adjusted::new(observe.slow_query_plan),
            query_bytes_max: Adjusted::new(observe.query_bytes_max),
            query_text: Adjusted::new(observe.query_text),
        }
    }

    /// Takes over what these options say.
    pub(crate) fn adjust(&self, options: &Options) {
        // Named one by one, so that none can be left out.
        let Self {
            auto_create,
            durability,
            maintenance,
            backend_memory_bytes_max,
            volume_bytes_max,
            dirty_bytes_max,
            wal_bytes_max,
            journal_bytes_max,
            session_wait_max,
            idle_holder,
            idle,
            spares_max,
            wake_max,
            checkpoint_wal_bytes,
            freeze_age,
            upkeep_statement_max,
            slow_query,
            slow_query_plan,
            query_bytes_max,
            query_text,
        } = self;
        let (limits, observe) = (&options.limits, &options.observe);
        auto_create.set(options.auto_create);
        durability.set(options.durability);
        maintenance.set(options.maintenance);
        backend_memory_bytes_max.set(limits.backend_memory_bytes_max);
        volume_bytes_max.set(limits.volume_bytes_max);
        dirty_bytes_max.set(limits.dirty_bytes_max);
        wal_bytes_max.set(limits.wal_bytes_max);
        journal_bytes_max.set(limits.journal_bytes_max);
        session_wait_max.set(limits.session_wait_max);
        idle_holder.set(limits.idle_holder);
        idle.set(limits.idle);
        spares_max.set(limits.spares_max);
        wake_max.set(limits.wake_max);
        checkpoint_wal_bytes.set(limits.checkpoint_wal_bytes);
        freeze_age.set(limits.freeze_age);
        upkeep_statement_max.set(limits.upkeep_statement_max);
        slow_query.set(observe.slow_query);
        slow_query_plan.set(observe.slow_query_plan);
        query_bytes_max.set(observe.query_bytes_max);
        query_text.set(observe.query_text);
    }

    /// What is told of statements.
    pub(crate) fn observe(&self) -> Observe {
        Observe {
            slow_query: self.slow_query.get(),
            slow_query_plan: self.slow_query_plan.get(),
            query_bytes_max: self.query_bytes_max.get(),
            query_text: self.query_text.get(),
        }
    }
}

impl<T: Word> Adjusted<T> {
    fn new(value: T) -> Self {
        Self {
            word: AtomicU64::new(value.to_word()),
            is: PhantomData,
        }
    }

    pub(crate) fn get(&self) -> T {
        // Nothing else is read because of it.
        T::of_word(self.word.load(Ordering::Relaxed))
    }

    fn set(&self, value: T) {
        self.word.store(value.to_word(), Ordering::Relaxed);
    }
}

impl<T: Word + fmt::Debug> fmt::Debug for Adjusted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(formatter)
    }
}

impl Word for u64 {
    fn to_word(self) -> u64 {
        self
    }

    fn of_word(word: u64) -> Self {
        word
    }
}

impl Word for u32 {
    fn to_word(self) -> u64 {
        self.into()
    }

    fn of_word(word: u64) -> Self {
        word as Self
    }
}

impl Word for usize {
    fn to_word(self) -> u64 {
        self as u64
    }

    fn of_word(word: u64) -> Self {
        word as Self
    }
}

impl Word for bool {
    fn to_word(self) -> u64 {
        self.into()
    }

    fn of_word(word: u64) -> Self {
        word != 0
    }
}

/// In whole microseconds.
impl Word for Duration {
    fn to_word(self) -> u64 {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX)
    }

    fn of_word(word: u64) -> Self {
        Self::from_micros(word)
    }
}

/// The longest time stands for none.
impl Word for Option<Duration> {
    fn to_word(self) -> u64 {
        self.map_or(u64::MAX, Word::to_word)
    }

    fn of_word(word: u64) -> Self {
        (word != u64::MAX).then(|| Duration::of_word(word))
    }
}

impl Word for Durability {
    fn to_word(self) -> u64 {
        (self == Self::Relaxed).into()
    }

    fn of_word(word: u64) -> Self {
        match word {
            0 => Self::Local,
            _ => Self::Relaxed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_taken_over() {
        let mut options = Options::new("data", "cache");
        let adjustable = Adjustable::new(&options);
        let before = format!("{adjustable:?}");
        options.auto_create = false;
        options.durability = Durability::Relaxed;
        options.limits.idle = Duration::from_millis(7);
        options.limits.freeze_age = 8;
        options.observe.slow_query = Some(Duration::from_millis(9));
        adjustable.adjust(&options);
        assert_ne!(format!("{adjustable:?}"), before);
        let anew = Adjustable::new(&options);
        assert_eq!(format!("{adjustable:?}"), format!("{anew:?}"));
        assert_eq!(adjustable.observe(), options.observe);
        assert_eq!(adjustable.idle.get(), options.limits.idle);
        assert_eq!(adjustable.durability.get(), Durability::Relaxed);
        options.observe.slow_query = None;
        adjustable.adjust(&options);
        assert_eq!(adjustable.observe().slow_query, None);
    }
}
