//! Who sends: what a collector is told of this process.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use crate::cli::config::TelemetrySection;
use crate::cli::failure::Failure;

/// Names and values.
#[derive(Debug, Clone)]
pub(super) struct Attributes(pub(super) Vec<(String, String)>);

impl Attributes {
    pub(super) fn new(config: &TelemetrySection) -> Result<Self, Failure> {
        let mut all = Self(Vec::new());
        for attribute in config.resource_attributes.split(',') {
            let attribute = attribute.trim();
            if attribute.is_empty() {
                continue;
            }
            let (name, value) = attribute.split_once('=').ok_or_else(|| {
                Failure::Usage(format!(
                    "telemetry.resource_attributes: \"{attribute}\" is not name=value"
                ))
            })?;
            all.set(name.trim(), &unescape(value.trim()));
        }
        all.set("service.name", &config.service_name);
        all.set("service.version", env!("CARGO_PKG_VERSION"));
        all.set("service.instance.id", &std::process::id().to_string());
        if !config.environment.is_empty() {
            all.set("deployment.environment.name", &config.environment);
        }
        Ok(all)
    }

    pub(super) fn resource(&self) -> Resource {
        let attributes = self.0.iter();
        let attributes = attributes.map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        Resource::builder_empty()
            .with_attributes(attributes)
            .build()
    }

    fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }
}

/// Text that is escaped as in an address. What is no escape stays.
pub(super) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let escaped =
            digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (text, expected) in [
            ("a%20b", "a b"),
            ("100%", "100%"),
            ("%zz%2", "%zz%2"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(unescape(text), expected);
        }
    }
}
