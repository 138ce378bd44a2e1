//! `dormouse binding`.

mod args;

use serde::Serialize;
use server::{BindingDocument, NewCredential};

pub(crate) use args::BindingArgs;
use args::BindingCommand;

use super::args::ServerArgs;
use super::failure::Failure;
use super::remote::Remote;
use super::table::Table;

/// Asks a server about its managed bindings.
pub(crate) async fn run(args: BindingArgs) -> Result<(), Failure> {
    let json = args.command.place().json;
    let said = answer(args.command).await;
    super::print(&said.map_err(|failure| failure.in_json(json))?);
    Ok(())
}

async fn answer(command: BindingCommand) -> Result<String, Failure> {
    let place = command.place();
    let json = place.json;
    let server = Remote::new(&place.server, &place.access)?;
    Ok(match command {
        BindingCommand::Create { name, fields, .. } => {
            let fields = fields.into_fields(Some(name))?;
            shown(&server.create_binding(&fields).await?, json)?
        }
        BindingCommand::List { .. } => {
            let bindings = server.bindings().await?;
            match json {
                true => document(&serde_json::json!({ "bindings": bindings }))?,
                false => listed(&bindings),
            }
        }
        BindingCommand::Show { id, .. } => shown(&server.binding(&id).await?, json)?,
        BindingCommand::Change {
            id, name, fields, ..
        } => {
            let fields = fields.into_fields(name)?;
            shown(&server.change_binding(&id, &fields).await?, json)?
        }
        BindingCommand::Delete { id, .. } => {
            server.delete_binding(&id).await?;
            done(json, format!("deleted {id}\n"))
        }
        BindingCommand::Check { id, .. } => {
            let checked = server.check_binding(&id).await?;
            match (json, &checked.server_version) {
                (true, _) => document(&checked)?,
                (false, Some(version)) => format!("{id} works: PostgreSQL {version}\n"),
                (false, None) => format!("{id} works: a database of this server\n"),
            }
        }
        BindingCommand::Restart { id, .. } => {
            server.restart_binding(&id).await?;
            done(json, format!("restarted {id}\n"))
        }
        BindingCommand::Credential { id, name, .. } => {
            let created = server
                .create_credential(&id, &NewCredential { name })
                .await?;
            match json {
                true => document(&created)?,
                false => {
                    eprintln!(
                        "The password of {} is not shown again:",
                        created.document.user
                    );
                    format!("{}\n", created.connection_string)
                }
            }
        }
        BindingCommand::Revoke { id, user, .. } => {
            server.revoke_credential(&id, &user).await?;
            done(json, format!("revoked {user}\n"))
        }
    })
}

impl BindingCommand {
    fn place(&self) -> &ServerArgs {
        match self {
            Self::Create { place, .. }
            | Self::List { place }
            | Self::Show { place, .. }
            | Self::Change { place, .. }
            | Self::Delete { place, .. }
            | Self::Check { place, .. }
            | Self::Restart { place, .. }
            | Self::Credential { place, .. }
            | Self::Revoke { place, .. } => place,
        }
    }
}

/// Programs hear of it by the exit code.
fn done(json: bool, said: String) -> String {
    match json {
        true => String::new(),
        false => said,
    }
}

fn document(document: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(document);
    let text = text.map_err(|error| Failure::unavailable(error.to_string()))?;
    Ok(format!("{text}\n"))
}

/// Where it leads, in a few words.
fn leads_to(binding: &BindingDocument) -> String {
    if let Some(origin) = &binding.origin {
        let hosts = origin.hosts.join(",");
        return format!("{}@{hosts}/{}", origin.user, origin.database);
    }
    match &binding.database {
        Some(name) => format!("database {name}"),
        None => "a database for each application".to_owned(),
    }
}

fn listed(bindings: &[BindingDocument]) -> String {
    let mut table = Table::default();
    for name in ["id", "name", "leads to", "used by"] {
        table.column(name, false);
    }
    for binding in bindings {
        table.row([
            binding.id.clone(),
            binding.name.clone(),
            leads_to(binding),
            binding.used_by.join(", "),
        ]);
    }
    table.render()
}

fn shown(binding: &BindingDocument, json: bool) -> Result<String, Failure> {
    if json {
        return document(binding);
    }
    let mut lines = vec![
        ("id", binding.id.clone()),
        ("name", binding.name.clone()),
        ("leads to", leads_to(binding)),
    ];
    if let Some(origin) = &binding.origin {
        lines.push(("sslmode", origin.sslmode.clone()));
    }
    let number = |limit: Option<u32>| limit.map(|limit| limit.to_string()).unwrap_or_default();
    let limits = &binding.limits;
    for (name, limit) in [
        ("connectionsMax", limits.connections_max),
        ("pinnedMax", limits.pinned_max),
        ("connectTimeoutMs", limits.connect_timeout_ms),
        ("waitMsMax", limits.wait_ms_max),
        ("idleMs", limits.idle_ms),
        ("statementTimeoutMs", limits.statement_timeout_ms),
    ] {
        lines.push((name, number(limit)));
    }
    let caching = &binding.caching;
    lines.push((
        "caching",
        match caching.disabled {
            Some(true) => "off".to_owned(),
            _ => format!(
                "{}, at most {} s old, {} s more while it is asked anew{}",
                caching.mode.as_deref().unwrap_or_default(),
                number(caching.max_age),
                number(caching.stale_while_revalidate),
                match caching.replication {
                    Some(true) => ", with replication",
                    _ => "",
                }
            ),
        },
    ));
    for allowed in &binding.allowed {
        let environment = allowed.environment.as_deref();
        let environment = environment
            .map(|name| format!("@{name}"))
            .unwrap_or_default();
        lines.push(("allowed", format!("{}{environment}", allowed.repository)));
    }
    for credential in &binding.credentials {
        lines.push((
            "credential",
            format!("{} ({})", credential.user, credential.name),
        ));
    }
    for user in &binding.used_by {
        lines.push(("used by", user.clone()));
    }
    if let Some(pool) = &binding.pool {
        lines.push((
            "pool",
            format!(
                "{} connections, {} idle, {} pinned; {} clients wait",
                pool.connections, pool.idle, pool.pinned, pool.waiting
            ),
        ));
    }
    let pool = binding.pool.as_ref();
    if let Some(replication) = pool.and_then(|pool| pool.replication.as_ref()) {
        let why = match (&replication.reason, &replication.message) {
            (Some(reason), Some(message)) => format!(" ({reason}): {message}"),
            _ => String::new(),
        };
        lines.push(("replication", format!("{}{why}", replication.state)));
    }
    if let Some(queries) = &binding.queries {
        let counts: Vec<_> = queries
            .iter()
            .map(|(status, count)| format!("{count} {status}"))
            .collect();
        lines.push(("queries", counts.join(", ")));
    }
    let line = |(name, text): &(&str, String)| format!("{name:<20}{text}\n");
    Ok(lines.iter().map(line).collect())
}
