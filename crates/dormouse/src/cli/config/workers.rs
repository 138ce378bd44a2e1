//! The sections `workers` and `secrets`: what is deployed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use server::{
    AppsOptions, KeySource, NodeKey, RefPattern, RepositoryPattern, RoutingOptions, Workflow,
    WorkflowOptions,
};
use workers::domains::DomainRules;
use workers::modules::Compiler;
use workers::runtime::{LogOptions, NoWorkerd, RuntimeOptions, find_workerd};
use workers::{AddressRange, DeployLimits, NetworkRules};

use super::{Config, ms};
use crate::cli::apps::{self, Compiling, Launching};
use crate::cli::failure::Failure;

/// Who issues the tokens of GitHub's workflows, and for whom the platform's action asks for them.
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const AUDIENCES: [&str; 2] = ["w7s.cloud", "https://w7s.cloud"];

/// The branches that the platform deploys to production.
const PRODUCTION: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkersSection {
    base_domain: String,
    domains: Vec<String>,
    hosts_reserved: Vec<String>,
    repositories: Vec<String>,
    production_refs: Vec<String>,
    workerd: Option<PathBuf>,
    public_network: bool,
    network_deny: Vec<String>,
    request_ms_max: u64,
    upload_ms_max: u64,
    deploys_max: usize,
    versions_max: usize,
    compile_ms_max: u64,
    start_ms_max: u64,
    drain_ms_max: u64,
    restart_ms_min: u64,
    restart_ms_max: u64,
    heap_mib_max: u64,
    memory_bytes_max: u64,
    memory_check_ms: u64,
    log_entries_max: usize,
    log_bytes_max: usize,
    log_entry_bytes_max: usize,
    archive_bytes_max: u64,
    expanded_bytes_max: u64,
    file_bytes_max: u64,
    entries_max: u64,
    static_files_max: u64,
    modules_max: u64,
    oidc: OidcSection,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OidcSection {
    issuer: String,
    jwks: Option<String>,
    audience: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretsSection {
    key_file: Option<PathBuf>,
}

impl Default for WorkersSection {
    fn default() -> Self {
        let runtime = RuntimeOptions::new(PathBuf::new(), PathBuf::new());
        let limits = DeployLimits::default();
        Self {
            base_domain: "apps.localhost".to_owned(),
            domains: Vec::new(),
            hosts_reserved: Vec::new(),
            repositories: Vec::new(),
            production_refs: PRODUCTION.map(str::to_owned).to_vec(),
            workerd: None,
            public_network: true,
            network_deny: Vec::new(),
            request_ms_max: 30_000,
            upload_ms_max: 300_000,
            deploys_max: 4,
            versions_max: 10,
            compile_ms_max: 10_000,
            start_ms_max: ms(runtime.start_max),
            drain_ms_max: ms(runtime.drain_max),
            restart_ms_min: ms(runtime.restart_min),
            restart_ms_max: ms(runtime.restart_max),
            heap_mib_max: runtime.heap_mib_max,
            memory_bytes_max: runtime.memory_bytes_max,
            memory_check_ms: ms(runtime.memory_check),
            log_entries_max: runtime.log.entries_max,
            log_bytes_max: runtime.log.bytes_max,
            log_entry_bytes_max: runtime.log.entry_bytes_max,
            archive_bytes_max: limits.archive_bytes_max,
            expanded_bytes_max: limits.expanded_bytes_max,
            file_bytes_max: limits.file_bytes_max,
            entries_max: limits.entries_max,
            static_files_max: limits.static_files_max,
            modules_max: limits.modules_max,
            oidc: OidcSection {
                issuer: GITHUB.to_owned(),
                jwks: None,
                audience: AUDIENCES.map(str::to_owned).to_vec(),
            },
        }
    }
}

impl WorkersSection {
    /// Whether requests to apps and to databases can be told apart.
    pub(super) fn check(&self, routing: &RoutingOptions) -> Result<(), Failure> {
        if let Some(wildcard) = DomainRules::wildcard(&self.domains)
            && self.hosts_reserved.is_empty()
        {
            return Err(Failure::Usage(format!(
                "workers.domains has \"{wildcard}\", which may cover a name of this server: an app that claims it gets \
                 what is meant for the server. Name all host names at which the server itself is asked in \
                 workers.hosts_reserved, such as \"db.example.com\""
            )));
        }
        let (Some(apps), Some(databases)) = (self.base_domain(), &routing.base_domain) else {
            return Ok(());
        };
        let is_below = |host: &str, domain: &str| {
            let above = host.strip_suffix(domain);
            above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if is_below(&apps, databases) || is_below(databases, &apps) {
            return Err(Failure::Usage(format!(
                "workers.base_domain = \"{apps}\" and routing.base_domain = \"{databases}\" overlap: a host would \
                 be an app's and a database's"
            )));
        }
        Ok(())
    }

    fn base_domain(&self) -> Option<String> {
        let domain = self
            .base_domain
            .trim()
            .trim_matches('.')
            .to_ascii_lowercase();
        Some(domain).filter(|domain| !domain.is_empty())
    }

    fn limits(&self) -> DeployLimits {
        DeployLimits {
            archive_bytes_max: self.archive_bytes_max,
            expanded_bytes_max: self.expanded_bytes_max,
            file_bytes_max: self.file_bytes_max,
            entries_max: self.entries_max,
            static_files_max: self.static_files_max,
            modules_max: self.modules_max,
        }
    }

    /// What of the network backends reach.
    fn network(&self) -> Result<NetworkRules, Failure> {
        let deny = self
            .network_deny
            .iter()
            .map(|range| AddressRange::parse(range));
        let deny = deny
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failure::Usage(format!("workers.network_deny: {error}")))?;
        Ok(match self.public_network {
            true => NetworkRules {
                deny,
                ..NetworkRules::public()
            },
            false => NetworkRules::nothing(),
        })
    }

    fn runtime(
        &self,
        workerd: PathBuf,
        launching: Launching,
        sockets: &Path,
        network: NetworkRules,
    ) -> RuntimeOptions {
        let time = Duration::from_millis;
        RuntimeOptions {
            launcher: launching.0,
            network,
            start_max: time(self.start_ms_max),
            drain_max: time(self.drain_ms_max),
            restart_min: time(self.restart_ms_min.max(1)),
            restart_max: time(self.restart_ms_max),
            heap_mib_max: self.heap_mib_max,
            memory_bytes_max: self.memory_bytes_max,
            memory_check: time(self.memory_check_ms.max(1)),
            log: LogOptions {
                entries_max: self.log_entries_max,
                bytes_max: self.log_bytes_max,
                entry_bytes_max: self.log_entry_bytes_max,
            },
            ..RuntimeOptions::new(workerd, sockets.to_owned())
        }
    }
}

impl Config {
    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The node's own key: that of `secrets.key_file`, or the one in the data directory, which is made if it is not there.
    pub(crate) fn node_key(&self) -> Result<NodeKey, Failure> {
        match &self.secrets.key_file {
            Some(path) => NodeKey::of_file(path)
                .map_err(|error| Failure::Usage(format!("secrets.key_file: {error}"))),
            None => NodeKey::of_data(&self.data)
                .map_err(|error| Failure::unavailable(error.to_string())),
        }
    }

    /// The program that runs backends.
    pub(crate) fn workerd(&self) -> Result<PathBuf, NoWorkerd> {
        let set = self.workers.workerd.as_deref();
        let packaged = || apps::packaged_workerd().ok_or(NoWorkerd::NotFound);
        match find_workerd(set, std::env::var_os("PATH").as_deref()) {
            Err(NoWorkerd::NotFound) => packaged(),
            found => found,
        }
    }

    /// What apps are told. `sockets` is a folder for the sockets of backends.
    pub(crate) fn apps(&self, sockets: &Path) -> Result<AppsOptions, Failure> {
        let section = &self.workers;
        let workerd = match self.workerd() {
            Ok(workerd) => Some(workerd),
            // Sites need none; who deploys a backend is told.
            Err(error @ NoWorkerd::NotFound) => {
                tracing::info!(%error, "no backends can be run");
                None
            }
            Err(error) => return Err(Failure::Usage(error.to_string())),
        };
        let (compiling, launching) = (Compiling::here()?, Launching::here()?);
        let network = section.network()?;
        Ok(AppsOptions {
            folder: self.data.join("apps"),
            base_domain: section.base_domain(),
            domains: section.domains.clone(),
            databases_domain: self.routing.options()?.base_domain,
            hosts_reserved: self.hosts_reserved(),
            request_max: Duration::from_millis(section.request_ms_max),
            upload_max: Duration::from_millis(section.upload_ms_max),
            deploys_max: section.deploys_max,
            versions_max: section.versions_max,
            limits: section.limits(),
            compiler: Compiler {
                program: compiling.program,
                args: compiling.args,
                deadline: Duration::from_millis(section.compile_ms_max),
            },
            runtime: workerd.map(|workerd| section.runtime(workerd, launching, sockets, network)),
        })
    }

    /// Names at which the server itself is asked, as far as they are known here.
    fn hosts_reserved(&self) -> Vec<String> {
        let listens = [&self.http.listen, &self.pgwire.listen];
        let host = |listen: &&String| Some(listen.rsplit_once(':')?.0.to_owned());
        let listened = listens.iter().filter_map(host);
        let named = self.workers.hosts_reserved.iter().cloned();
        named.chain(listened).collect()
    }

    /// Which workflows may deploy, if any may.
    pub(super) fn workflow(&self) -> Result<Option<Arc<Workflow>>, Failure> {
        let section = &self.workers;
        let patterns = section.repositories.iter();
        let repositories = patterns
            .map(|pattern| RepositoryPattern::parse(pattern))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failure::Usage(format!("workers.repositories: {error}")))?;
        if repositories.is_empty() {
            return Ok(None);
        }
        let production_refs = section.production_refs.iter();
        let production_refs = production_refs
            .map(|name| RefPattern::parse(name))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failure::Usage(format!("workers.production_refs: {error}")))?;
        let keys = match &section.oidc.jwks {
            None => KeySource::Discovery,
            Some(jwks) if jwks.contains("://") => KeySource::Url(jwks.clone()),
            Some(jwks) => KeySource::File(jwks.into()),
        };
        let provider = self.auth.provider();
        let workflow = Workflow::new(WorkflowOptions {
            issuer: section.oidc.issuer.clone(),
            keys,
            audience: section.oidc.audience.clone(),
            ca: provider.ca,
            provider_timeout: provider.timeout,
            refetch_min: provider.refetch_min,
            repositories,
            production_refs,
        });
        workflow
            .map(|workflow| Some(Arc::new(workflow)))
            .map_err(Failure::Usage)
    }
}
