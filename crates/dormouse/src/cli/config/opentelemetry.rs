//! The variables that OpenTelemetry gives every program: between our own and the file.

use figment::value::Value;

use crate::cli::failure::Failure;

/// Variables that are a setting's value as they are.
const TEXTS: [(&str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "telemetry.otlp_headers"),
    ("OTEL_SERVICE_NAME", "telemetry.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "telemetry.resource_attributes"),
];
const DISABLED: &str = "OTEL_SDK_DISABLED";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

/// What they set: the variable, the setting and its value. Empty ones are as good as not there.
pub(super) fn settings(
    variables: &[(String, String)],
) -> Result<Vec<(String, &'static str, Value)>, Failure> {
    let find = |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| &**value)
            .filter(|value| !value.is_empty())
    };
    if find(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(Vec::new());
    }
    let mut settings = Vec::new();
    for (name, key) in TEXTS {
        if let Some(value) = find(name) {
            settings.push((name.to_owned(), key, Value::from(value)));
        }
    }
    if let Some(value) = find(INTERVAL) {
        let interval = value.parse::<u64>().map_err(|_| {
            Failure::Usage(format!(
                "{INTERVAL} is \"{value}\": it must be milliseconds"
            ))
        })?;
        let key = "telemetry.metrics_interval_ms";
        settings.push((INTERVAL.to_owned(), key, Value::from(interval)));
    }
    if let Some(sampler) = find(SAMPLER) {
        let ratio = ratio(sampler, find(SAMPLER_ARGUMENT))?;
        let key = "telemetry.sample_ratio";
        settings.push((SAMPLER.to_owned(), key, Value::from(ratio)));
    }
    Ok(settings)
}

/// The share that a sampler records of what no caller has decided. What a caller has decided always counts
/// here, also with those whose name does not say so.
fn ratio(sampler: &str, argument: Option<&str>) -> Result<f64, Failure> {
    match sampler {
        "always_on" | "parentbased_always_on" => Ok(1.0),
        "always_off" | "parentbased_always_off" => Ok(0.0),
        "traceidratio" | "parentbased_traceidratio" => {
            let argument = argument.unwrap_or("1");
            argument.parse().map_err(|_| {
                Failure::Usage(format!(
                    "{SAMPLER_ARGUMENT} is \"{argument}\": it must be a number from 0 to 1"
                ))
            })
        }
        other => Err(Failure::Usage(format!(
            "{SAMPLER} is \"{other}\": known are always_on, always_off, traceidratio, and these with \
             parentbased_ before them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(variables: &[(&str, &str)]) -> Result<Vec<(&'static str, String)>, Failure> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<_> = variables.iter().map(own).collect();
        let settings = settings(&variables)?;
        let shown = |value: &Value| {
            let text = value.as_str().map(str::to_owned);
            text.or_else(|| value.to_f64().map(|number| number.to_string()))
                .unwrap_or_default()
        };
        Ok(settings
            .iter()
            .map(|(_, key, value)| (*key, shown(value)))
            .collect())
    }

    #[test]
    fn variables_of_opentelemetry() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_SERVICE_NAME", ""),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ];
        let expected = [
            ("telemetry.otlp_endpoint", "http://c:4318".to_owned()),
            ("telemetry.sample_ratio", "0.5".to_owned()),
        ];
        assert_eq!(given(&variables).unwrap(), expected);
        let mut disabled = variables.to_vec();
        disabled.push(("OTEL_SDK_DISABLED", "True"));
        assert!(given(&disabled).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1s"),
        ] {
            assert!(matches!(given(&[wrong]), Err(Failure::Usage(text)) if text.contains(wrong.0)));
        }
    }
}
