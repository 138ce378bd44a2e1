//! Spares: backends that are made before anybody waits for them.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use wire::PgError;

use crate::maintenance::{RETRY, pause_for, tick};
use crate::node::Node;
use crate::slot::start_error;
use crate::wake::aside;

/// Keeps `databases.spares_max` of them, and none while memory is short.
pub(crate) async fn run(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    while tick(&mut closing).await {
        let Some(node) = node.upgrade() else { return };
        if let Err(error) = stock(&node).await {
            tracing::warn!(%error, "a spare backend cannot be made");
            pause_for(RETRY, &mut closing).await;
        }
    }
}

async fn stock(node: &Arc<Node>) -> Result<(), PgError> {
    let wanted = match node.admission.is_over() {
        true => 0,
        false => node.adjustable.spares_max.get(),
    };
    loop {
        let there = node.current.image.spares();
        // Who wakes now needs the processors more than who may wake later.
        let wait = there < wanted && node.admission.is_waking();
        if there == wanted || wait || node.is_closing() {
            return Ok(());
        }
        let count = wanted.min(there + 1);
        let node = Arc::clone(node);
        aside(async move {
            let stocked = node.engine.stock(&node.current.image, count).await;
            stocked.map_err(|error| start_error(&error))
        })
        .await?;
    }
}
