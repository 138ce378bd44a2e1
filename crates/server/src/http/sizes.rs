//! How large the body of a request may be, and its result: the smallest of what the node, the token and the database
//! allow.

use database::{DatabaseName, Settings};
use wire::{PgError, SizeLimit};

use super::Configured;
use super::caller::Caller;
use crate::blocking::blocking;
use crate::options::HttpOptions;
use crate::request_limits::RequestLimitOptions;

/// What to do about a body that is too large.
pub(super) const LESS: &str = "Send less at once";

/// What one request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Of its body.
    pub(super) body: SizeLimit,
    /// Of a message in a WebSocket, for which the node has another limit.
    pub(super) message: SizeLimit,
    /// Of the document of its result.
    pub(super) result: SizeLimit,
    /// Of a result that leaves as it is made, which takes no memory of the node: it has no limit for that.
    pub(super) stream: SizeLimit,
}

/// What a token or a database allows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OwnSizes {
    /// Of a body, in bytes.
    pub(crate) body: Option<u64>,
    /// Of a result.
    pub(crate) result: Option<u64>,
}

impl Configured {
    /// What a request of a caller for a database may be, by what the database's settings are now.
    ///
    /// # Errors
    /// 58030 or XX001 if the directory of databases cannot be read. A database that is not there allows all.
    pub(super) async fn sizes(
        &self,
        caller: &Caller,
        database: Option<&DatabaseName>,
    ) -> Result<Sizes, PgError> {
        let settings = match database {
            Some(name) => self.settings(name).await?,
            None => None,
        };
        let of_database = settings.as_ref().map_or_else(OwnSizes::default, own);
        let is_asked = database.is_some();
        Ok(Sizes::new(
            &self.options,
            &self.limits,
            caller.sizes,
            is_asked.then_some(of_database),
        ))
    }

    /// The same without a database, for which nothing is looked up.
    pub(super) fn sizes_of_node(&self, caller: &Caller) -> Sizes {
        Sizes::new(&self.options, &self.limits, caller.sizes, None)
    }

    /// What is set for a database alone; `None` if it is not there.
    async fn settings(&self, name: &DatabaseName) -> Result<Option<Settings>, PgError> {
        if let Some(known) = self.databases().known_settings(name) {
            return Ok(Some(known));
        }
        let (databases, name) = (self.databases().clone(), name.clone());
        blocking(move || databases.settings(&name)).await
    }
}

fn own(settings: &Settings) -> OwnSizes {
    OwnSizes {
        body: settings.body_bytes_max.map(Into::into),
        result: settings.result_bytes_max.map(Into::into),
    }
}

impl Sizes {
    fn new(
        node: &HttpOptions,
        all: &RequestLimitOptions,
        of_token: OwnSizes,
        of_database: Option<OwnSizes>,
    ) -> Self {
        let mut body = of_all(
            all.token_body_bytes_max,
            "limits.token_body_bytes_max",
            "raise limits.token_body_bytes_max in Dormouse's configuration",
        )
        .or_smaller(of_one(
            of_token.body,
            "bodyBytesMax of this token",
            "use a token that allows more",
        ));
        let mut result = of_all(
            all.token_result_bytes_max,
            "limits.token_result_bytes_max",
            "raise limits.token_result_bytes_max in Dormouse's configuration",
        )
        .or_smaller(of_one(
            of_token.result,
            "resultBytesMax of this token",
            "use a token that allows more",
        ));
        if let Some(own) = of_database {
            body = body
                .or_smaller(of_all(
                    all.database_body_bytes_max,
                    "limits.database_body_bytes_max",
                    "raise limits.database_body_bytes_max in Dormouse's configuration",
                ))
                .or_smaller(of_one(
                    own.body,
                    "bodyBytesMax of this database",
                    "raise bodyBytesMax in the settings of the database",
                ));
            result = result
                .or_smaller(of_all(
                    all.database_result_bytes_max,
                    "limits.database_result_bytes_max",
                    "raise limits.database_result_bytes_max in Dormouse's configuration",
                ))
                .or_smaller(of_one(
                    own.result,
                    "resultBytesMax of this database",
                    "raise resultBytesMax in the settings of the database",
                ));
        }
        Self {
            body: body_of_node(node.body_bytes_max).or_smaller(body),
            message: SizeLimit {
                bytes: node.websocket.message_bytes_max,
                name: "websocket.message_bytes_max",
                remedy: "raise websocket.message_bytes_max in Dormouse's configuration",
            }
            .or_smaller(body),
            result: SizeLimit {
                bytes: node.result_bytes_max,
                name: "http.result_bytes_max",
                remedy: "raise http.result_bytes_max in Dormouse's configuration",
            }
            .or_smaller(result),
            stream: result,
        }
    }
}

/// What the node allows the body of a request.
pub(super) fn body_of_node(bytes: usize) -> SizeLimit {
    SizeLimit {
        bytes,
        name: "http.body_bytes_max",
        remedy: "raise http.body_bytes_max in Dormouse's configuration",
    }
}

/// A setting for all tokens, or all databases; 0 is none.
fn of_all(bytes: usize, name: &'static str, remedy: &'static str) -> SizeLimit {
    match bytes {
        0 => SizeLimit::NONE,
        bytes => SizeLimit {
            bytes,
            name,
            remedy,
        },
    }
}

fn of_one(bytes: Option<u64>, name: &'static str, remedy: &'static str) -> SizeLimit {
    let bytes = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    bytes.map_or(SizeLimit::NONE, |bytes| SizeLimit {
        bytes,
        name,
        remedy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(
        all: &RequestLimitOptions,
        token: Option<u64>,
        database: Option<Option<u64>>,
    ) -> [(usize, &'static str); 4] {
        let own = |bytes| OwnSizes {
            body: bytes,
            result: bytes,
        };
        let node = HttpOptions {
            body_bytes_max: 100,
            result_bytes_max: 200,
            ..HttpOptions::default()
        };
        let sizes = Sizes::new(&node, all, own(token), database.map(own));
        [sizes.body, sizes.message, sizes.result, sizes.stream]
            .map(|limit| (limit.bytes, limit.name))
    }

    #[test]
    fn the_smallest_counts() {
        let none = RequestLimitOptions::default();
        let [body, message, result, stream] = names(&none, None, Some(None));
        assert_eq!(body, (100, "http.body_bytes_max"));
        assert_eq!(message, (16 << 20, "websocket.message_bytes_max"));
        assert_eq!(result, (200, "http.result_bytes_max"));
        assert_eq!(stream.0, usize::MAX);

        let of_token = names(&none, Some(50), Some(Some(60)));
        for (at, name) in [(0, "body"), (1, "body"), (2, "result"), (3, "result")] {
            let name = format!("{name}BytesMax of this token");
            assert_eq!(of_token[at], (50, &*name), "{at}");
        }
        let [body, .., result, stream] = names(&none, Some(150), Some(Some(160)));
        assert_eq!(body, (100, "http.body_bytes_max"));
        assert_eq!(result, (150, "resultBytesMax of this token"));
        assert_eq!(stream, result);
        let of_database = names(&none, Some(50), Some(Some(40)));
        assert_eq!(of_database[0], (40, "bodyBytesMax of this database"));
        assert_eq!(of_database[3], (40, "resultBytesMax of this database"));
    }

    #[test]
    fn settings_are_for_all() {
        let all = RequestLimitOptions {
            token_body_bytes_max: 30,
            token_result_bytes_max: 31,
            database_body_bytes_max: 20,
            database_result_bytes_max: 21,
            ..RequestLimitOptions::default()
        };
        // Without a database those of databases say nothing.
        let [body, message, result, stream] = names(&all, None, None);
        assert_eq!(body, (30, "limits.token_body_bytes_max"));
        assert_eq!(message, body);
        assert_eq!(result, (31, "limits.token_result_bytes_max"));
        assert_eq!(stream, result);
        let [body, .., stream] = names(&all, Some(25), Some(Some(1_000)));
        assert_eq!(body, (20, "limits.database_body_bytes_max"));
        assert_eq!(stream, (21, "limits.database_result_bytes_max"));
    }
}
