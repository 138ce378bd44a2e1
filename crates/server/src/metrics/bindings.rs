//! What pools of bindings have counted.

use pooler::{CacheFigures, CacheStatus, Counts, Durations, Standing};

use super::{Family, Kind, Sample};
use crate::bindings::ManagedBindings;

/// The label of all bindings past those with samples of their own.
const OTHERS: &str = "other";

/// What is told of a binding, or of several.
#[derive(Default)]
struct Told {
    name: String,
    standing: Standing,
    caches: Vec<CacheFigures>,
}

/// Families of all bindings that somebody has used. At most `bindings.metrics_max` have samples of their own: the first by
/// their ids, so that they stay the same.
pub(super) fn families(bindings: &ManagedBindings) -> Vec<Family> {
    let max = bindings.options().metrics_max;
    let mut told: Vec<Told> = Vec::new();
    let mut others = Told {
        name: OTHERS.to_owned(),
        ..Told::default()
    };
    for (id, standing, cache) in bindings.bindings.standings() {
        if told.len() < max {
            told.push(Told {
                name: id,
                standing,
                caches: vec![cache],
            });
        } else {
            others.standing = sum(others.standing, standing);
            others.caches.push(cache);
        }
    }
    if !others.caches.is_empty() {
        told.push(others);
    }
    let clients = Family::one(
        Kind::Gauge,
        "dormouse_binding_clients",
        "Clients of managed bindings.",
        bindings.clients.count() as u64,
    );
    let mut families = vec![clients, connections(&told), waiting(&told)];
    families.extend(counts(&told));
    families.extend(durations(&told));
    families.push(queries(&told));
    families.extend(bytes(&told));
    families
}

fn sum(one: Standing, other: Standing) -> Standing {
    let mut sum = one;
    sum.connections += other.connections;
    sum.idle += other.idle;
    sum.pinned += other.pinned;
    sum.waiting += other.waiting;
    let (counts, more) = (&mut sum.counts, other.counts);
    counts.connected += more.connected;
    counts.failed += more.failed;
    counts.given += more.given;
    counts.waited += more.waited;
    counts.refused += more.refused;
    counts.abandoned += more.abandoned;
    counts.cancels += more.cancels;
    counts.cancels_failed += more.cancels_failed;
    counts.cancels_refused += more.cancels_refused;
    counts.cancels_unsent += more.cancels_unsent;
    counts.waits.add(&more.waits);
    counts.held.add(&more.held);
    counts.connects.add(&more.connects);
    sum
}

fn of_each(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    told: &[Told],
    value: impl Fn(&Told) -> u64,
) -> Family {
    let values = told.iter().map(|one| (one.name.clone(), value(one)));
    Family::labelled(kind, name, help, "binding", values.collect::<Vec<_>>())
}

/// A sample for each binding and each of some words.
fn by_word(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    told: &[Told],
    values: impl Fn(&Told) -> Vec<(&'static str, u64)>,
) -> Family {
    let samples = told.iter().flat_map(|one| {
        let values = values(one).into_iter();
        values.map(|(word, value)| Sample {
            labels: vec![("binding", one.name.clone()), (label, word.to_owned())],
            value: value.into(),
        })
    });
    Family {
        name,
        help,
        kind,
        samples: samples.collect(),
    }
}

fn connections(told: &[Told]) -> Family {
    by_word(
        Kind::Gauge,
        "dormouse_binding_connections",
        "Connections to the origin of a binding: idle, kept by a session between transactions, in use.",
        "state",
        told,
        |one| {
            let standing = &one.standing;
            let used = standing
                .connections
                .saturating_sub(standing.idle + standing.pinned);
            vec![
                ("idle", standing.idle as u64),
                ("pinned", standing.pinned as u64),
                ("used", used as u64),
            ]
        },
    )
}

fn waiting(told: &[Told]) -> Family {
    of_each(
        Kind::Gauge,
        "dormouse_binding_waiting",
        "Clients that wait for a connection to the origin.",
        told,
        |one| one.standing.waiting as u64,
    )
}

fn counts(told: &[Told]) -> [Family; 4] {
    [
        by_word(
            Kind::Counter,
            "dormouse_binding_connects_total",
            "Connections to the origin, by what became of them.",
            "outcome",
            told,
            |one| {
                let counts = &one.standing.counts;
                vec![("made", counts.connected), ("failed", counts.failed)]
            },
        ),
        by_word(
            Kind::Counter,
            "dormouse_binding_leases_total",
            "Clients that wanted a connection: got one at once, after a wait, or not at all.",
            "outcome",
            told,
            |one| {
                let counts = &one.standing.counts;
                let waited = counts.waited.saturating_sub(counts.refused);
                vec![
                    ("at_once", counts.given.saturating_sub(waited)),
                    ("waited", waited),
                    ("refused", counts.refused),
                ]
            },
        ),
        of_each(
            Kind::Counter,
            "dormouse_binding_abandoned_total",
            "Clients that left amid a transaction or a statement.",
            told,
            |one| one.standing.counts.abandoned,
        ),
        by_word(
            Kind::Counter,
            "dormouse_binding_cancels_total",
            "Statements that were to be cancelled, by what became of that: waiting are those that had no connection yet.",
            "outcome",
            told,
            |one| {
                let counts = &one.standing.counts;
                vec![
                    ("sent", counts.cancels),
                    ("failed", counts.cancels_failed),
                    ("refused", counts.cancels_refused),
                    ("waiting", counts.cancels_unsent),
                ]
            },
        ),
    ]
}

fn durations(told: &[Told]) -> [Family; 3] {
    let of_each = |name, help, of: fn(&Counts) -> Durations| {
        let values = told.iter();
        let values = values.map(|one| (one.name.clone(), of(&one.standing.counts)));
        let values = values.collect::<Vec<_>>();
        Family::labelled(Kind::Histogram, name, help, "binding", values)
    };
    [
        of_each(
            "dormouse_binding_wait_seconds",
            "How long clients waited for a connection to the origin, of those that had to.",
            |counts| counts.waits,
        ),
        of_each(
            "dormouse_binding_held_seconds",
            "How long clients had a connection: for a statement or a transaction, or as long as their session kept it.",
            |counts| counts.held,
        ),
        of_each(
            "dormouse_binding_connect_duration_seconds",
            "How long logins at the origin took, of those that were made.",
            |counts| counts.connects,
        ),
    ]
}

fn queries(told: &[Told]) -> Family {
    by_word(
        Kind::Counter,
        "dormouse_binding_queries_total",
        "Queries of a binding's clients, by what the cache made of them.",
        "cache_status",
        told,
        |one| {
            let of = |status| one.caches.iter().map(|cache| cache.with(status)).sum();
            let all = CacheStatus::ALL.into_iter();
            all.map(|status| (status.name(), of(status))).collect()
        },
    )
}

fn bytes(told: &[Told]) -> [Family; 2] {
    let sum = |one: &Told, of: fn(&CacheFigures) -> u64| one.caches.iter().map(of).sum();
    [
        of_each(
            Kind::Counter,
            "dormouse_binding_query_bytes_total",
            "Bytes of queries and their parameters.",
            told,
            |one| sum(one, |cache| cache.query_bytes),
        ),
        of_each(
            Kind::Counter,
            "dormouse_binding_cache_hit_bytes_total",
            "Bytes of answers that the cache gave.",
            told,
            |one| sum(one, |cache| cache.hit_bytes),
        ),
    ]
}
