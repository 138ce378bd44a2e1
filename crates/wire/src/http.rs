//! SQL over HTTP: values, parameters and results as JSON.
//!
//! [`write_json`] and `VALUES.md` say how a value of PostgreSQL becomes JSON, [`encode_param`] how a
//! parameter comes back, and [`ResultWriter`] makes the document of a whole result.

mod array_type;
mod connection_string;
pub(crate) mod json;
mod lines;
pub mod neon;
mod param;
mod result;
mod row;
mod value;

pub use array_type::{Element, ElementOf, no_more_arrays};
pub use connection_string::ConnectionString;
pub use lines::LineWriter;
pub use param::encode_param;
pub use result::{ResultWriter, RowMode};
pub use value::write_json;
