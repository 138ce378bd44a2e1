//! Values of variables and secrets, which come in headers of a deployment.

use super::{PLATFORM_NAMES, is_environment_name};
use crate::Refusal;
use base64::{
    Engine as _,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// Values by name. Their `Debug` has the names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<String, String>);

impl Values {
    /// Reads a header: base64url of a JSON object of strings. `header` is its name, for the errors.
    ///
    /// # Errors
    /// 400 with what is wrong, which never has a value in it.
    pub fn from_header(header: &str, text: &str) -> Result<Self, Refusal> {
        let refused = || Refusal::bad(format!("{header} must be base64url-encoded JSON."));
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
        let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
        let bytes = engine.decode(text.trim()).map_err(|_| refused())?;
        let root: Value = serde_json::from_slice(&bytes).map_err(|_| refused())?;
        let root = root
            .as_object()
            .ok_or_else(|| Refusal::bad(format!("{header} must be a JSON object.")))?;
        let mut values = BTreeMap::new();
        for (name, value) in root {
            let shown = name.escape_debug();
            if !is_environment_name(name) {
                return Err(Refusal::bad(format!(
                    "{header} has '{shown}', which is no environment variable name."
                )));
            }
            if PLATFORM_NAMES.contains(&name.as_str()) {
                return Err(Refusal::bad(format!(
                    "{header} has {name}, which the platform sets itself."
                )));
            }
            let value = value
                .as_str()
                .ok_or_else(|| Refusal::bad(format!("{header}: {name} must be a string.")))?;
            values.insert(name.clone(), value.to_owned());
        }
        Ok(Self(values))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is a value of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// As JSON text, for a store that keeps it sealed.
    pub(crate) fn to_json(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// From what [`Values::to_json`] has written.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text).map(Self)
    }
}

impl FromIterator<(String, String)> for Values {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
