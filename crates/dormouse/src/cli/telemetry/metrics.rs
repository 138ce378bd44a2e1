//! Metrics as messages of OTLP: those of `/metrics`, by the same names.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use server::{Family, Kind, Meter, Sample, Value};
use tokio::time::{MissedTickBehavior, interval};

use super::client::Client;
use super::resource::Attributes;

/// When what is sent was counted, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    started: u64,
    now: u64,
}

/// Sends what is counted, again and again. What the collector does not take is in the next message too.
pub(super) async fn send(
    meter: Meter,
    client: Arc<Client>,
    url: String,
    attributes: Attributes,
    every: Duration,
) {
    let started = nanoseconds();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reader = meter.clone();
        let Ok(families) = tokio::task::spawn_blocking(move || reader.read()).await else {
            continue;
        };
        let times = Times {
            started,
            now: nanoseconds(),
        };
        let body = request(&families, &attributes, times).encode_to_vec();
        if let Err(error) = client.post(&url, body).await {
            tracing::debug!(%error, "metrics were not sent");
        }
    }
}

fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

fn request(
    families: &[Family],
    attributes: &Attributes,
    times: Times,
) -> ExportMetricsServiceRequest {
    let attributes = attributes.0.iter();
    let resource = Resource {
        attributes: attributes.map(|(name, value)| text(name, value)).collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "dormouse".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics: families
                    .iter()
                    .map(|family| metric(family, times))
                    .collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn text(name: &str, value: &str) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn metric(family: &Family, times: Times) -> Metric {
    let name = family.name.trim_end_matches("_total");
    let unit = match () {
        () if name.ends_with("_bytes") => "By",
        () if name.ends_with("_seconds") => "s",
        () => "1",
    };
    let numbers = || {
        let numbers = family.samples.iter().map(|sample| number(sample, times));
        numbers.collect()
    };
    let temporality = AggregationTemporality::Cumulative as i32;
    let data = match family.kind {
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: numbers(),
        }),
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: family
                .samples
                .iter()
                .filter_map(|sample| histogram(sample, times))
                .collect(),
            aggregation_temporality: temporality,
        }),
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    let labels = sample.labels.iter();
    labels.map(|(name, value)| text(name, value)).collect()
}

fn number(sample: &Sample, times: Times) -> NumberDataPoint {
    let value = match &sample.value {
        Value::Integer(value) => {
            number_data_point::Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX))
        }
        Value::Float(value) => number_data_point::Value::AsDouble(*value),
        Value::Durations(durations) => {
            number_data_point::Value::AsDouble(durations.sum.as_secs_f64())
        }
    };
    NumberDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn histogram(sample: &Sample, times: Times) -> Option<HistogramDataPoint> {
    let Value::Durations(durations) = &sample.value else {
        return None;
    };
    Some(HistogramDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        count: durations.buckets.iter().sum(),
        sum: Some(durations.sum.as_secs_f64()),
        bucket_counts: durations.buckets.clone(),
        explicit_bounds: durations.bounds.clone(),
        ..HistogramDataPoint::default()
    })
}
