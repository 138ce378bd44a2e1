//! What is counted, as families of samples: for Prometheus' page, and for whoever exports them otherwise.

mod bindings;
mod collect;
mod labelled;
mod page;
mod process;

pub(crate) use collect::{Counted, collect};
pub(crate) use labelled::Labelled;
pub(crate) use page::render;

use std::fmt;
use std::sync::Arc;

use std::time::Duration;

use crate::http::Site;

/// What a family's samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for a new start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, by how long they were.
    Histogram,
}

/// Samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name, with its unit at the end and, of a counter, `_total` after that.
    pub name: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// What its samples mean.
    pub kind: Kind,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Names and values; no two samples of a family have the same.
    pub labels: Vec<(&'static str, String)>,
    /// What it is now.
    pub value: Value,
}

/// A number, or many.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A count.
    Integer(u64),
    /// Seconds.
    Float(f64),
    /// Of a histogram.
    Durations(Box<Durations>),
}

/// How many durations fell into each bucket, and their sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations {
    /// The longest duration that each bucket takes, in seconds, but for the last one, which takes all others.
    pub bounds: Vec<f64>,
    /// How many there are in each bucket: one more than bounds.
    pub buckets: Vec<u64>,
    /// All of them together.
    pub sum: Duration,
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<database::Durations> for Value {
    fn from(value: database::Durations) -> Self {
        Self::Durations(Box::new(Durations {
            bounds: database::Durations::bounds().to_vec(),
            buckets: value.buckets().to_vec(),
            sum: value.sum(),
        }))
    }
}

impl From<pooler::Durations> for Value {
    fn from(value: pooler::Durations) -> Self {
        Self::Durations(Box::new(Durations {
            bounds: pooler::Durations::bounds().collect(),
            buckets: value.buckets().to_vec(),
            sum: value.sum(),
        }))
    }
}

impl Family {
    /// One with a sample without labels.
    fn one(kind: Kind, name: &'static str, help: &'static str, value: impl Into<Value>) -> Self {
        Self::labelled(kind, name, help, "", [(String::new(), value)])
    }

    /// One with a sample for each value of a label; without a name of the label, of no label.
    fn labelled<V: Into<Value>>(
        kind: Kind,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, V)>,
    ) -> Self {
        let samples = values.into_iter().map(|(of, value)| Sample {
            labels: match label {
                "" => Vec::new(),
                label => vec![(label, of)],
            },
            value: value.into(),
        });
        Self {
            name,
            help,
            kind,
            samples: samples.collect(),
        }
    }
}

/// Tells what a server has counted. Cheap to clone.
#[derive(Clone)]
pub struct Meter(Arc<Site>);

impl Meter {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self(site)
    }

    /// All of it, as it is now. Blocks for a moment: files of the system are read.
    pub fn read(&self) -> Vec<Family> {
        collect(&self.0.app())
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Meter").finish_non_exhaustive()
    }
}
