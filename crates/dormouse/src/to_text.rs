//! Parameters as PostgreSQL's text.

/// A value that can be a parameter. PostgreSQL reads the text by the parameter's type.
pub trait ToText {
    /// The text, or `None` for NULL.
    fn to_text(&self) -> Option<String>;
}

macro_rules! by_display {
    ($($type:ty),*) => {$(
        impl ToText for $type {
            fn to_text(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}

by_display!(bool, i16, i32, i64, u32, str, String, serde_json::Value);

impl ToText for f32 {
    fn to_text(&self) -> Option<String> {
        f64::from(*self)
            .is_finite()
            .then(|| self.to_string())
            .or_else(|| not_finite(f64::from(*self)))
    }
}

impl ToText for f64 {
    fn to_text(&self) -> Option<String> {
        self.is_finite()
            .then(|| self.to_string())
            .or_else(|| not_finite(*self))
    }
}

/// PostgreSQL's words for what Rust calls `inf` and `NaN`.
fn not_finite(value: f64) -> Option<String> {
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    Some(text.to_owned())
}

impl ToText for [u8] {
    fn to_text(&self) -> Option<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(2 + 2 * self.len());
        text.push_str("\\x");
        for byte in self {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        Some(text)
    }
}

impl<const N: usize> ToText for [u8; N] {
    fn to_text(&self) -> Option<String> {
        self[..].to_text()
    }
}

impl ToText for Vec<u8> {
    fn to_text(&self) -> Option<String> {
        self[..].to_text()
    }
}

impl<T: ToText> ToText for Option<T> {
    fn to_text(&self) -> Option<String> {
        self.as_ref().and_then(ToText::to_text)
    }
}

impl<T: ToText + ?Sized> ToText for &T {
    fn to_text(&self) -> Option<String> {
        (**self).to_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &dyn ToText, text: Option<&str>) {
        assert_eq!(value.to_text().as_deref(), text);
    }

    #[test]
    fn values_become_postgres_text() {
        check(&true, Some("true"));
        check(&i64::MIN, Some("-9223372036854775808"));
        check(&0.1_f32, Some("0.1"));
        check(&1e300_f64, Some(&format!("1{}", "0".repeat(300))));
        check(&f64::NEG_INFINITY, Some("-Infinity"));
        check(&f32::NAN, Some("NaN"));
        check(&"it's", Some("it's"));
        check(&b"\0\xff".to_vec(), Some("\\x00ff"));
        check(
            &serde_json::json!({"a": [1, null]}),
            Some(r#"{"a":[1,null]}"#),
        );
        check(&Some(1_i32), Some("1"));
        check(&None::<String>, None);
    }
}
