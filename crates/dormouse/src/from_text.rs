//! Values read from PostgreSQL's text.

use std::fmt;

/// A value that can be read from PostgreSQL's text.
pub trait FromText: Sized {
    /// Reads a text, which is never NULL.
    fn from_text(text: &str) -> Result<Self, InvalidText>;

    /// What NULL is read as, if it can be.
    fn from_null() -> Result<Self, InvalidText> {
        Err(InvalidText::new(
            "it is NULL: ask for an Option to allow that",
        ))
    }
}

/// A text is not of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidText(String);

impl InvalidText {
    /// Says why, in words that follow "column x (int8) is not an i32:".
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for InvalidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidText {}

macro_rules! by_from_str {
    ($($type:ty),*) => {$(
        impl FromText for $type {
            fn from_text(text: &str) -> Result<Self, InvalidText> {
                text.parse().map_err(|error| InvalidText::new(format!("{text:?}: {error}")))
            }
        }
    )*};
}

// Rust reads PostgreSQL's `NaN` and `Infinity`.
by_from_str!(i16, i32, i64, u32, f32, f64);

impl FromText for String {
    fn from_text(text: &str) -> Result<Self, InvalidText> {
        Ok(text.to_owned())
    }
}

impl FromText for bool {
    fn from_text(text: &str) -> Result<Self, InvalidText> {
        match text {
            "t" => Ok(true),
            "f" => Ok(false),
            _ => Err(InvalidText::new(format!("{text:?} is neither t nor f"))),
        }
    }
}

/// `bytea`, as long as `bytea_output` is `hex`, its default.
impl FromText for Vec<u8> {
    fn from_text(text: &str) -> Result<Self, InvalidText> {
        let invalid = || InvalidText::new("it is not bytea in hexadecimal digits");
        let digits = text.strip_prefix("\\x").ok_or_else(invalid)?.as_bytes();
        if digits.len() % 2 != 0 {
            return Err(invalid());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        digits
            .chunks_exact(2)
            .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
            .collect::<Option<_>>()
            .ok_or_else(invalid)
    }
}

/// `json` and `jsonb`.
impl FromText for serde_json::Value {
    fn from_text(text: &str) -> Result<Self, InvalidText> {
        serde_json::from_str(text).map_err(|error| InvalidText::new(error.to_string()))
    }
}

impl<T: FromText> FromText for Option<T> {
    fn from_text(text: &str) -> Result<Self, InvalidText> {
        T::from_text(text).map(Some)
    }

    fn from_null() -> Result<Self, InvalidText> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        assert_eq!(i64::from_text("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(f64::from_text("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(f32::from_text("NaN").unwrap().is_nan());
        assert_eq!(bool::from_text("t"), Ok(true));
        assert_eq!(Vec::from_text("\\x00fF"), Ok(vec![0_u8, 255]));
        assert_eq!(Option::<i32>::from_null(), Ok(None));
        assert_eq!(
            serde_json::Value::from_text("[1]"),
            Ok(serde_json::json!([1]))
        );
    }

    #[test]
    fn errors_say_why() {
        assert!(
            i16::from_text("40000")
                .unwrap_err()
                .to_string()
                .contains("40000")
        );
        assert!(i32::from_null().unwrap_err().to_string().contains("Option"));
        for text in ["00", "\\x0", "\\x0g", "\\xé"] {
            Vec::<u8>::from_text(text).unwrap_err();
        }
    }
}
