//! How a session gets a process: its own, one that nobody has, or what others let go of.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Backend, BackendLimits, SharedMemory};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};
use tokio::time::{Instant as Deadline, timeout_at};
use wire::PgError;

use super::{Further, Given, Shelf, lapsed};
use crate::counted::Counted;
use crate::database::Database;
use crate::node::Node;
use crate::seat::Seat;
use crate::slot::{Slot, start_error};
use crate::wake::aside;

/// How long a session keeps its process for itself, though it does nothing, if others could have one of
/// their own: longer than a client on the same machine takes from one statement to the next.
const STEAL_AFTER: Duration = Duration::from_millis(50);

/// A process for a session.
pub(crate) struct Taken {
    /// Its slot: that of the session's own process, or one to be vacated, or the first one, as it is.
    pub(crate) slot: OwnedMutexGuard<Slot>,
    pub(crate) shelf: Shelf,
    /// Whether others had all processes.
    pub(crate) waited: bool,
    /// The session's turn, for as long as it has the process.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// How good it is to take a slot, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    /// That of a session that used it a moment ago: better a further process, if there may be one.
    Busy(Reverse<Instant>),
    /// That of a session at rest.
    AtRest(Reverse<Instant>),
    /// Nobody's.
    Vacant,
    Own,
}

/// What a look at the slots that nobody has found.
#[derive(Default)]
struct Looked {
    best: Option<(Choice, Shelf, OwnedMutexGuard<Slot>)>,
    /// Slots whose process has ended: no session can have them, and they are none that there may be.
    empty: usize,
}

impl Looked {
    /// Looks at them; of the first, `first` is there if that was got by waiting for it.
    fn at(
        further: &Further,
        shelves: &[Shelf],
        mut first: Option<OwnedMutexGuard<Slot>>,
        seat: &Arc<Seat>,
    ) -> Self {
        let mut looked = Self::default();
        let mut usable = 0;
        for shelf in shelves {
            let got = first.take();
            let Some(slot) = got.or_else(|| Arc::clone(shelf).try_lock_owned().ok()) else {
                continue;
            };
            let works = slot.works();
            if slot.is_further && !works {
                looked.empty += 1;
                continue;
            }
            usable += 1;
            let choice = match slot.used_at {
                _ if works && slot.occupant.is(seat) => Choice::Own,
                Some(at) if works && !slot.occupant.is_none() => match at.elapsed() < STEAL_AFTER {
                    true => Choice::Busy(Reverse(at)),
                    false => Choice::AtRest(Reverse(at)),
                },
                _ => Choice::Vacant,
            };
            let best = looked.best.as_ref();
            if best.is_none_or(|(known, ..)| choice > *known) {
                looked.best = Some((choice, Arc::clone(shelf), slot));
            }
        }
        if usable > 1 {
            // Who looked meanwhile has found them taken. Not for those that are of no use: two who found no
            // other would wake each other for ever.
            further.freed();
        }
        looked
    }
}

/// A process for a session: its own if nobody has taken it, or one that nobody has, or else, in the order in
/// which sessions ask, what others let go of. `None` if there was none `until` then.
pub(crate) async fn take(
    node: &Arc<Node>,
    database: &Arc<Database>,
    seat: &Arc<Seat>,
    home: Option<&Shelf>,
    until: Deadline,
) -> Result<Option<Taken>, PgError> {
    let further = &database.further;
    let limits = &node.options.limits;
    let turns = further.turns(limits.turns());
    let is_allowed = || limits.processes() > 1 && !node.admission.is_over();
    let mut waiting = None;
    let permit = match turns.try_take() {
        Some(permit) => permit,
        None => {
            waiting = Some(database.want());
            let taking = turns.take(limits.processes(), || {
                further.refused_for().is_none() && is_allowed()
            });
            match timeout_at(until, taking).await {
                Ok(permit) => permit,
                Err(_elapsed) => return Ok(None),
            }
        }
    };
    if let Some(shelf) = home {
        // Whoever has it now may only look at it, or be about to make the session leave it.
        let own = Arc::clone(shelf).lock_owned();
        let own = timeout_at(until, async {
            tokio::select! {
                biased;
                () = seat.left() => None,
                slot = own => Some(slot),
            }
        });
        let Ok(own) = own.await else {
            return Ok(None);
        };
        if let Some(slot) = own
            && slot.occupant.is(seat)
            && slot.works()
        {
            let shelf = Arc::clone(shelf);
            return Ok(Some(Taken {
                slot,
                shelf,
                waited: waiting.is_some(),
                permit,
            }));
        }
    }
    let mut wanting = None;
    let mut first = None;
    loop {
        // Others run in between, however often somebody lets go of something.
        tokio::task::coop::consume_budget().await;
        let changed = further.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let mut shelves = vec![Arc::clone(&database.slot)];
        shelves.extend(further.shelves());
        let Looked { best, empty } = Looked::at(further, &shelves, first.take(), seat);
        let refused_for = further.refused_for();
        let may_join = refused_for.is_none() && is_allowed();
        let has_room = shelves.len() - empty < turns.count();
        let found = match best {
            // Two that work at the same time had better have a process each.
            Some((Choice::Busy(_), shelf, mut slot)) if may_join && has_room => {
                further.share(&mut slot);
                match further.goes_on() {
                    true => {
                        drop(slot);
                        match joined(node, database).await {
                            Some(found) => Some(found),
                            None => continue,
                        }
                    }
                    false => Some((shelf, slot)),
                }
            }
            Some((_, shelf, slot)) => Some((shelf, slot)),
            None if may_join && further.goes_on() => match has_room {
                true => match joined(node, database).await {
                    Some(found) => Some(found),
                    None => continue,
                },
                false => None,
            },
            None if may_join => {
                // Whoever has the first slot may be another one than when it was last looked at.
                further.ask(wanting.get_or_insert_with(|| Counted::begin(&further.wanting)));
                None
            }
            None => None,
        };
        if let Some((shelf, slot)) = found {
            return Ok(Some(Taken {
                slot,
                shelf,
                waited: waiting.is_some(),
                permit,
            }));
        }
        if waiting.is_none() {
            waiting = Some(database.want());
        }
        // The first slot may be with maintenance, which gives no sign when it leaves. Who has got it by
        // waiting keeps it: let go, it would be the next waiter's, and in the end nobody's.
        let waited = timeout_at(until, async {
            tokio::select! {
                slot = Arc::clone(&database.slot).lock_owned() => Some(slot),
                () = changed => None,
                // Then it may be tried again.
                () = lapsed(refused_for) => None,
            }
        });
        match waited.await {
            Ok(got) => first = got,
            Err(_elapsed) => return Ok(None),
        }
    }
}

/// A further process; `None` if there can be none, which is not asked again for a while then.
async fn joined(
    node: &Arc<Node>,
    database: &Arc<Database>,
) -> Option<(Shelf, OwnedMutexGuard<Slot>)> {
    let max = database.further.turns(node.options.limits.turns()).count();
    let (shelf, slot, shared) = database.further.add(max.saturating_sub(1))?;
    match join(node, database, slot, shared).await {
        Ok(slot) => Some((shelf, slot)),
        // Then it waits like others before it.
        Err(error) => {
            tracing::warn!(database = %database.name(), %error, "a process could not join");
            None
        }
    }
}

/// Makes a process for a slot. If nobody waits for it any more when it is there, it is anybody's.
async fn join(
    node: &Arc<Node>,
    database: &Arc<Database>,
    slot: OwnedMutexGuard<Slot>,
    shared: SharedMemory,
) -> Result<OwnedMutexGuard<Slot>, PgError> {
    let mut given = Given::new(slot, database);
    let (on, of, memory) = (Arc::clone(node), Arc::clone(database), shared.clone());
    let joining = aside(async move {
        let backend = process(&on, &of, memory).await?;
        given.parameters = on.current.parameters.clone();
        given.begin_further(backend);
        Ok(given)
    });
    match joining.await {
        Ok(given) => Ok(given.keep()),
        Err(error) => {
            // Memory that has gone meanwhile says nothing of what comes after it.
            if !shared.is_stopped() {
                database.further.refuse();
            }
            Err(error)
        }
    }
}

/// A process that shares memory with others. What is begun is to come to its end, though nobody may wait for
/// it any more: a process that is dropped when it has joined takes the others with it.
pub(crate) async fn process(
    node: &Node,
    database: &Database,
    shared: SharedMemory,
) -> Result<Backend, PgError> {
    let volume = database.volume(node)?;
    let limits = BackendLimits {
        memory_bytes_max: node.adjustable.backend_memory_bytes_max.get(),
    };
    let image = &node.current.image;
    let joining = node.engine.join(image, &shared, volume, limits);
    joining.await.map_err(|error| start_error(&error))
}
