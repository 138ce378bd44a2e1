//! Why a deployment is not taken.

use std::fmt;

/// A deployment that is not taken, in words for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The HTTP status: 400 for what is wrong with the deployment, 403 for what it may not have.
    pub status: u16,
    /// One sentence.
    pub message: String,
    /// What else there is to say, a line each: limits, the runtime's own words.
    pub details: Vec<String>,
}

impl Refusal {
    /// Something is wrong with the deployment: 400.
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self::with_status(400, message)
    }

    /// The deployment may not have what it asks for: 403.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::with_status(403, message)
    }

    /// A refusal with a status of its own.
    #[must_use]
    pub fn with_status(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// The same refusal with lines of detail.
    #[must_use]
    pub fn detailed(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// The body of the answer: `{"status":"error","error":..,"details":{..}}`. Lines of detail are `details.lines`.
    #[must_use]
    pub fn body(&self) -> serde_json::Value {
        let mut body = serde_json::json!({ "status": "error", "error": self.message });
        if !self.details.is_empty() {
            body["details"] = serde_json::json!({ "lines": self.details });
        }
        body
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.details
            .iter()
            .try_for_each(|line| write!(f, "\n{line}"))
    }
}
