//! What stands between the network and the databases, over HTTP.

use std::sync::Arc;

use crate::audit::Audit;
use crate::identity::{Gatekeeper, Passwords, Tokens};
use crate::options::Options;
use crate::request_limits::RequestLimits;

/// What stands between the network and the databases, over HTTP.
pub(crate) struct Security {
    pub(crate) gatekeeper: Gatekeeper,
    pub(crate) limits: Arc<RequestLimits>,
    pub(crate) audit: Arc<Audit>,
    /// The static tokens, if there are any.
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// Whether requests must name a host that is ours, where nobody is asked: not if the server is to be reached from anywhere.
    pub(crate) own_hosts_only: bool,
}

impl Security {
    pub(crate) fn new(options: &Options, passwords: Arc<Passwords>) -> Self {
        let (auth, identity) = (options.auth.clone(), options.identity.clone());
        Self {
            gatekeeper: Gatekeeper::new(auth, identity, passwords),
            limits: Arc::default(),
            audit: Arc::clone(&options.audit),
            tokens: options.identity.tokens.clone(),
            own_hosts_only: !options.insecure_listen,
        }
    }
}
