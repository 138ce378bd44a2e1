//! `dormouse db`.

use std::num::NonZeroU64;

use database::Durability;
use serde_json::json;
use server::DatabaseDocument;

use super::args::{BytesArg, DbArgs, DbCommand, DurabilityArg, SwitchArg, TargetArgs};
use super::failure::Failure;
use super::table::Table;
use super::target::Target;

/// The units of sizes, each 1,024 of the one before.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Creates, lists, forks or deletes databases.
pub(crate) async fn run(args: DbArgs) -> Result<(), Failure> {
    let (DbCommand::Create { target: place, .. }
    | DbCommand::List { target: place }
    | DbCommand::Info { target: place, .. }
    | DbCommand::Fork { target: place, .. }
    | DbCommand::Set { target: place, .. }
    | DbCommand::Flush { target: place, .. }
    | DbCommand::Delete { target: place, .. }) = &args.command;
    let target = Target::open(place).await?;
    let done = perform(&target, &args.command).await;
    let closed = target.close().await;
    super::print(&done.map_err(|failure| failure.in_json(place.json))?);
    closed
}

/// Does it, and says so.
async fn perform(target: &Target, command: &DbCommand) -> Result<String, Failure> {
    match command {
        DbCommand::Create {
            name,
            from,
            target: place,
        } => {
            let document = target.create(name, from.as_ref()).await?;
            Ok(one(&document, place, &format!("created {name}\n")))
        }
        DbCommand::Fork {
            from,
            to,
            target: place,
        } => {
            let document = target.create(to, Some(from)).await?;
            Ok(one(
                &document,
                place,
                &format!("created {to} from {from}\n"),
            ))
        }
        DbCommand::Info {
            name,
            target: place,
        } => {
            let document = target.info(name).await?;
            Ok(one(&document, place, &described(&document)))
        }
        DbCommand::List { target: place } => {
            let documents = target.list().await?;
            if place.json {
                return Ok(format!("{}\n", json!({ "databases": documents })));
            }
            Ok(listed(&documents))
        }
        DbCommand::Set {
            name,
            durability,
            maintenance,
            bytes_max,
            bytes_warn,
            body_bytes_max,
            result_bytes_max,
            target: place,
        } => {
            // What is not mentioned stays as it is.
            let mut settings = target.info(name).await?.settings;
            if let Some(level) = durability {
                settings.durability = match level {
                    DurabilityArg::Local => Some(Durability::Local),
                    DurabilityArg::Relaxed => Some(Durability::Relaxed),
                    DurabilityArg::Default => None,
                };
            }
            if let Some(switch) = maintenance {
                settings.maintenance = match switch {
                    SwitchArg::On => Some(true),
                    SwitchArg::Off => Some(false),
                    SwitchArg::Default => None,
                };
            }
            if let Some(BytesArg(bytes)) = bytes_max {
                settings.bytes_max = *bytes;
            }
            if let Some(BytesArg(bytes)) = bytes_warn {
                settings.bytes_warn = *bytes;
            }
            if let Some(BytesArg(bytes)) = body_bytes_max {
                settings.body_bytes_max = some(*bytes)?;
            }
            if let Some(BytesArg(bytes)) = result_bytes_max {
                settings.result_bytes_max = some(*bytes)?;
            }
            let document = target.configure(name, settings).await?;
            Ok(one(&document, place, &described(&document)))
        }
        DbCommand::Flush {
            name,
            target: place,
        } => {
            target.flush(name).await?;
            Ok(if place.json {
                String::new()
            } else {
                format!("flushed {name}\n")
            })
        }
        DbCommand::Delete {
            name,
            force,
            target: place,
        } => {
            target.delete(name, *force).await?;
            Ok(if place.json {
                String::new()
            } else {
                format!("deleted {name}\n")
            })
        }
    }
}

/// # Errors
/// A limit that allows nothing.
fn some(bytes: Option<u64>) -> Result<Option<NonZeroU64>, Failure> {
    let wrong =
        || Failure::Usage("a request or a result of 0 bytes is none: from 1 byte".to_owned());
    let some = bytes.map(|bytes| NonZeroU64::new(bytes).ok_or_else(wrong));
    some.transpose()
}

fn one(document: &DatabaseDocument, place: &TargetArgs, text: &str) -> String {
    if place.json {
        format!("{}\n", json!(document))
    } else {
        text.to_owned()
    }
}

fn listed(documents: &[DatabaseDocument]) -> String {
    let mut table = Table::default();
    for (name, right) in [
        ("name", false),
        ("state", false),
        ("size", true),
        ("created", false),
        ("parent", false),
    ] {
        table.column(name, right);
    }
    for document in documents {
        table.row([
            document.name.clone(),
            document.state.clone(),
            size(document.own_bytes),
            document.created_at.clone(),
            document.parent.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

fn described(document: &DatabaseDocument) -> String {
    let lines = [
        ("name", document.name.clone()),
        ("id", document.id.clone()),
        ("state", document.state.clone()),
        ("created", document.created_at.clone()),
        (
            "parent",
            document.parent.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("size", size(document.own_bytes)),
        ("memory", size(document.memory_bytes)),
        ("durable", durability(document).to_owned()),
        ("upkeep", maintenance(document).to_owned()),
    ];
    lines
        .iter()
        .map(|(name, value)| format!("{name:8} {value}\n"))
        .collect()
}

fn durability(document: &DatabaseDocument) -> &'static str {
    match document.durability {
        Durability::Local => "local",
        Durability::Relaxed => "relaxed",
    }
}

fn maintenance(document: &DatabaseDocument) -> &'static str {
    if document.maintenance { "on" } else { "off" }
}

/// A number of bytes for people: `12 B`, `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(10 << 30), "10.0 GiB");
    }
}
