//! Families in the text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use super::{Durations, Family, Kind, Sample, Value};

/// The whole page.
pub(crate) fn render(families: &[Family]) -> String {
    let mut page = String::new();
    for family in families {
        push_family(&mut page, family);
    }
    page
}

fn push_family(page: &mut String, family: &Family) {
    let Family { name, help, .. } = family;
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for sample in &family.samples {
        match &sample.value {
            Value::Integer(value) => push(page, name, sample, None, value),
            Value::Float(value) => push(page, name, sample, None, value),
            Value::Durations(durations) => push_durations(page, name, sample, durations),
        }
    }
}

fn push_durations(page: &mut String, name: &str, sample: &Sample, durations: &Durations) {
    let bounds = durations.bounds.iter().map(f64::to_string);
    let bounds = bounds.chain(["+Inf".to_owned()]);
    let bucket = format!("{name}_bucket");
    let mut count = 0;
    for (bound, in_bucket) in bounds.zip(&durations.buckets) {
        count += in_bucket;
        push(page, &bucket, sample, Some(&bound), &count);
    }
    let sum = durations.sum.as_secs_f64();
    push(page, &format!("{name}_sum"), sample, None, &sum);
    push(page, &format!("{name}_count"), sample, None, &count);
}

fn push(
    page: &mut String,
    name: &str,
    sample: &Sample,
    bound: Option<&str>,
    value: &dyn std::fmt::Display,
) {
    page.push_str(name);
    let own = sample.labels.iter().map(|(name, value)| (*name, &**value));
    let mut before = '{';
    for (label, value) in own.chain(bound.map(|bound| ("le", bound))) {
        page.push(before);
        before = ',';
        page.push_str(label);
        page.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' | '"' => page.extend(['\\', character]),
                '\n' => page.push_str("\\n"),
                _ => page.push(character),
            }
        }
        page.push('"');
    }
    if before == ',' {
        page.push('}');
    }
    // Writing to a string does not fail.
    let _ = writeln!(page, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use database::Histogram;
    use std::time::Duration;

    #[test]
    fn a_page() {
        let histogram = Histogram::default();
        histogram.took(Duration::from_micros(200));
        histogram.took(Duration::from_secs(9));
        let families = [
            Family::labelled(
                Kind::Counter,
                "a_total",
                "How many.",
                "of",
                [("x\"y".to_owned(), 3), ("z".to_owned(), 4_u64)],
            ),
            Family::one(Kind::Gauge, "b_seconds", "How long.", 1.5),
            Family::one(
                Kind::Histogram,
                "c_seconds",
                "How long each.",
                histogram.get(),
            ),
        ];
        let page = render(&families);
        let expected = "# HELP a_total How many.\n# TYPE a_total counter\na_total{of=\"x\\\"y\"} 3\n\
                        a_total{of=\"z\"} 4\n# HELP b_seconds How long.\n# TYPE b_seconds gauge\n\
                        b_seconds 1.5\n# HELP c_seconds How long each.\n# TYPE c_seconds histogram\n\
                        c_seconds_bucket{le=\"0.0001\"} 0\nc_seconds_bucket{le=\"0.00025\"} 1\n";
        assert!(page.starts_with(expected), "{page}");
        let end = "c_seconds_bucket{le=\"5\"} 1\nc_seconds_bucket{le=\"+Inf\"} 2\n\
                   c_seconds_sum 9.0002\nc_seconds_count 2\n";
        assert!(page.ends_with(end), "{page}");
    }
}
