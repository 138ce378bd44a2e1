//! The parameters of a statement over HTTP and in WebSockets.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use wire::{PgError, sqlstate};

/// What PostgreSQL's protocol can say the number of.
const PARAMS_MAX: usize = u16::MAX as usize;

/// Parameters as they were written: a parsed number would have lost digits. They are one text until they are run, however
/// many they are: each by itself would take 25 times the bytes that say it.
#[derive(Debug, Default)]
pub(super) struct Params(Option<Box<RawValue>>);

impl Params {
    /// Each of them.
    ///
    /// # Errors
    /// 54000 if they are more than a statement can have.
    pub(super) fn values(&self) -> Result<Vec<&RawValue>, PgError> {
        let Some(array) = &self.0 else {
            return Ok(Vec::new());
        };
        // It is an array, and JSON: nothing else can be wrong with it.
        let mut array = serde_json::Deserializer::from_str(array.get());
        array.deserialize_seq(Values).map_err(|_| {
            PgError::error(
                sqlstate::PROGRAM_LIMIT_EXCEEDED,
                format!("number of parameters must be between 0 and {PARAMS_MAX}"),
            )
            .hint("Send many values as one array: unnest($1::int[]).")
        })
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let params = Box::<RawValue>::deserialize(deserializer)?;
        let unexpected = match params.get().as_bytes().first() {
            Some(b'[') => return Ok(Self(Some(params))),
            Some(b'{') => Unexpected::Map,
            Some(b'"') => Unexpected::Other("string"),
            Some(b'n') => Unexpected::Other("null"),
            Some(b't' | b'f') => Unexpected::Other("boolean"),
            _ => Unexpected::Other("number"),
        };
        Err(D::Error::invalid_type(unexpected, &"a sequence"))
    }
}

/// Takes the elements of an array, if there are not too many.
struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at most {PARAMS_MAX} parameters")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element()? {
            if values.len() == PARAMS_MAX {
                return Err(A::Error::invalid_length(PARAMS_MAX + 1, &self));
            }
            values.push(value);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(json: &str) -> Vec<String> {
        let params: Params = serde_json::from_str(json).unwrap();
        let values = params.values().unwrap();
        values.iter().map(|value| value.get().to_owned()).collect()
    }

    #[test]
    fn they_are_as_they_were_written() {
        let json = " [ 1.50, \"]\\\"\", [1, [2]] ,{\"a\": null}, null] ";
        assert_eq!(
            texts(json),
            ["1.50", "\"]\\\"\"", "[1, [2]]", "{\"a\": null}", "null"]
        );
        assert!(texts("[]").is_empty());
        assert!(Params::default().values().unwrap().is_empty());
    }

    #[test]
    fn only_an_array_will_do() {
        for (json, what) in [
            ("1", "number"),
            ("\"[]\"", "string"),
            ("null", "null"),
            ("{}", "map"),
            ("true", "boolean"),
        ] {
            let error = serde_json::from_str::<Params>(json).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(what) && said.contains("a sequence"), "{said}");
        }
        assert!(serde_json::from_str::<Params>("[1").is_err());
    }

    #[test]
    fn there_are_not_more_than_the_protocol_can_count() {
        let some = |count| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(texts(&some(PARAMS_MAX)).len(), PARAMS_MAX);
        let params: Params = serde_json::from_str(&some(PARAMS_MAX + 1)).unwrap();
        assert_eq!(params.values().unwrap_err().code(), "54000");
    }
}
