//! `dormouse reload`.

use super::args::ServerArgs;
use super::failure::Failure;
use super::remote::Remote;

/// Has a server read its configuration again, and says what came of it.
pub(crate) async fn run(args: ServerArgs) -> Result<(), Failure> {
    let changes = Remote::new(&args.server, &args.access)?.reload().await;
    let changes = changes.map_err(|failure| failure.in_json(args.json))?;
    if args.json {
        let document = serde_json::to_string(&changes);
        let document = document.map_err(|error| Failure::unavailable(error.to_string()))?;
        super::print(&format!("{document}\n"));
        return Ok(());
    }
    let mut said = String::new();
    for setting in &changes.applied {
        said.push_str(&format!("applied        {setting}\n"));
    }
    for setting in &changes.need_restart {
        said.push_str(&format!("needs restart  {setting}\n"));
    }
    if said.is_empty() {
        said.push_str("nothing has changed\n");
    }
    super::print(&said);
    Ok(())
}
