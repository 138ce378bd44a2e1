//! The body of a deployment: as long as an archive may be, and as slow as it may be.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use workers::{DeployLimits, Refusal};

/// The longest body of a request that is no archive.
const SMALL_BYTES_MAX: u64 = 4_096;

/// The whole archive. Each part of it must come within `pause`, and all of it within `upload_max`: whoever sends one holds
/// one of `workers.deploys_max` places.
pub(super) async fn collect(
    body: Body,
    limits: DeployLimits,
    pause: Duration,
    upload_max: Duration,
) -> Result<Vec<u8>, Refusal> {
    let whole = whole(body, pause, |bytes| limits.check_archive(bytes));
    timeout(upload_max, whole).await.unwrap_or_else(|_| {
        Err(Refusal::with_status(
            408,
            format!(
                "The archive was not there within workers.upload_ms_max ({} ms).",
                upload_max.as_millis()
            ),
        ))
    })
}

/// The whole body of another request.
pub(super) async fn small(body: Body, pause: Duration) -> Result<Vec<u8>, Refusal> {
    let check = |bytes| match bytes > SMALL_BYTES_MAX {
        true => Err(Refusal::with_status(
            413,
            format!("The body has more than {SMALL_BYTES_MAX} bytes."),
        )),
        false => Ok(()),
    };
    whole(body, pause, check).await
}

async fn whole(
    mut body: Body,
    pause: Duration,
    check: impl Fn(u64) -> Result<(), Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let announced = hyper::body::Body::size_hint(&body).lower();
    check(announced)?;
    let mut all = Vec::with_capacity(usize::try_from(announced).unwrap_or_default());
    loop {
        let frame = timeout(pause, body.frame()).await.map_err(|_| {
            Refusal::with_status(
                408,
                format!(
                    "Nothing more of the body came within http.body_timeout_ms ({} ms).",
                    pause.as_millis()
                ),
            )
        })?;
        let Some(frame) = frame else { return Ok(all) };
        let frame =
            frame.map_err(|error| Refusal::bad(format!("The body cannot be read: {error}.")))?;
        if let Some(data) = frame.data_ref() {
            check((all.len() + data.len()) as u64)?;
            all.extend_from_slice(data);
        }
    }
}
