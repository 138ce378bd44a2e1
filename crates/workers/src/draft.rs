//! What an archive would deploy, before anything is compiled or run.

use crate::{
    Archive, DeployLimits, MANIFEST_FILE, Manifest, Refusal, limits::too_large, modules, site,
};
use serde::{Deserialize, Serialize};

/// Most host names of a `CNAME` file.
const DOMAINS_MAX: usize = 3;

/// Something that was left out of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What kind, for programs.
    pub code: String,
    /// What it is about.
    pub target: String,
    /// What happened and what to do, for people.
    pub message: String,
}

/// What an archive would deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it asks for.
    pub manifest: Manifest,
    /// The entry of its backend.
    pub entrypoint: Option<&'static str>,
    /// The folder of its site.
    pub site: Option<&'static str>,
    /// The host names of its `CNAME` file.
    pub domains: Vec<String>,
    /// What was left out.
    pub warnings: Vec<Warning>,
}

impl Draft {
    /// Reads an archive.
    ///
    /// # Errors
    /// 400 in the platform's words if there is nothing to deploy, or if what it asks for does not fit.
    pub fn read(archive: &Archive, limits: DeployLimits) -> Result<Self, Refusal> {
        let manifest = match archive.text(MANIFEST_FILE)? {
            Some(text) => Manifest::parse(text)?,
            None => Manifest::default(),
        };
        let roots = modules::roots(archive);
        let entrypoint = modules::entrypoint(archive);
        let site = site::root(archive, entrypoint.is_some());
        if entrypoint.is_none() && site.is_none() {
            return Err(nothing(&roots));
        }
        if entrypoint.is_none() && !manifest.hyperdrive.is_empty() {
            let message = "Hyperdrive bindings require a native backend deployment.";
            return Err(Refusal::bad(message));
        }
        if let Some(root) = site {
            let count = site::files(archive, root).count() as u64;
            let limit = limits.static_files();
            if limit.exceeded_by(count) {
                let what = format!("The static output {root}/ has {count} files");
                return Err(too_large(vec![limit.sentence(&what)]));
            }
        }
        let mut warnings: Vec<_> = manifest.unknown.warnings().collect();
        if entrypoint.is_none() && !roots.is_empty() {
            warnings.push(backend_skipped(&roots));
        }
        Ok(Self {
            domains: domains(archive)?,
            manifest,
            entrypoint,
            site,
            warnings,
        })
    }
}

fn nothing(roots: &[&str]) -> Refusal {
    if roots.is_empty() {
        return Refusal::bad(
            "Archive must contain worker/, backend/, dist/server/, or static frontend output.",
        );
    }
    let requirement = modules::requirement();
    Refusal::bad(format!("Native backend deploy requires {requirement}."))
}

fn backend_skipped(roots: &[&str]) -> Warning {
    let folders = roots.join("/, ");
    let requirement = modules::requirement();
    Warning {
        code: "native_backend_skipped".to_owned(),
        target: roots.join(", "),
        message: format!(
            "{folders}/ is there, but no backend was deployed: it has no entry. The static files are. \
             To deploy a backend add {requirement}."
        ),
    }
}

/// The host names of a `CNAME` file: one a line, `#` begins a comment.
fn domains(archive: &Archive) -> Result<Vec<String>, Refusal> {
    let mut domains = Vec::new();
    for line in archive.text("CNAME")?.unwrap_or_default().lines() {
        let name = line.split('#').next().unwrap_or_default();
        let name = name.trim().trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() || domains.contains(&name) {
            continue;
        }
        if !is_host(&name) {
            let shown = name.escape_debug();
            return Err(Refusal::bad(format!("CNAME: '{shown}' is no host name.")));
        }
        domains.push(name);
    }
    if domains.len() > DOMAINS_MAX {
        return Err(Refusal::bad(format!(
            "CNAME has {} host names, and {DOMAINS_MAX} are the most.",
            domains.len()
        )));
    }
    Ok(domains)
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(files: &[(&str, &str)]) -> Result<Draft, Refusal> {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        let archive = Archive::from_files(files, DeployLimits::default()).unwrap();
        Draft::read(
            &archive,
            DeployLimits {
                static_files_max: 2,
                ..DeployLimits::default()
            },
        )
    }

    #[test]
    fn a_backend_a_site_or_both() {
        let both = draft(&[("worker/index.ts", "x"), ("dist/index.html", "")]).unwrap();
        assert_eq!(both.entrypoint, Some("worker/index.ts"));
        assert_eq!(both.site, Some("dist"));
        let site = draft(&[("backend/readme", "x"), ("out/index.html", "")]).unwrap();
        assert_eq!(site.warnings[0].code, "native_backend_skipped");
        assert!(site.warnings[0].message.starts_with("backend/ is there"));
    }

    #[test]
    fn what_cannot_be_deployed_is_told_in_the_platforms_words() {
        let of = |files: &[(&str, &str)]| draft(files).unwrap_err().message;
        assert_eq!(
            of(&[("readme", "")]),
            "Archive must contain worker/, backend/, dist/server/, or static frontend output."
        );
        assert!(of(&[("worker/main.js", ""), ("x", "")]).starts_with(
            "Native backend deploy requires worker/index.ts, worker/index.mts, worker/index.js"
        ));
        let manifest = r#"{"bindings":{"hyperdrive":[{"binding":"DB","id":"x"}]}}"#;
        assert_eq!(
            of(&[("w7s.json", manifest), ("out/index.html", "")]),
            "Hyperdrive bindings require a native backend deployment."
        );
        assert!(of(&[("w7s.json", "{"), ("out/index.html", "")]).starts_with("Invalid w7s.json: "));
        assert!(
            of(&[("out/index.html", ""), ("out/a", ""), ("out/b", "")])
                .contains("static_files_max is 2")
        );
    }

    #[test]
    fn keys_that_nobody_knows_are_told() {
        let told = |manifest: &str| {
            let draft = draft(&[("w7s.json", manifest), ("worker/index.js", "x")]).unwrap();
            let warnings = draft.warnings.into_iter();
            let told = warnings.map(|warning| {
                assert_eq!(warning.code, "unknown_key");
                assert!(warning.message.contains(&warning.target), "{warning:?}");
                warning.target
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(
            told(
                r#"{"hyperdrive": [], "bindings": {"hyperdrve": [{"binding": "DB", "id": "x"}], "kv": []}}"#
            ),
            ["hyperdrive", "bindings.hyperdrve"]
        );
        assert_eq!(
            told(
                r#"{"$schema": "", "name": "a", "vars": [], "secrets": [], "routing": {}, "bindings": {"hyperdrive": [], "ai": null},
                    "queues": [], "schedules": [], "workflows": [], "queue": {}, "workflow": {}, "rpc": {}}"#
            ),
            [""; 0]
        );
        let many: Vec<String> = (0..30).map(|n| format!("\"k{n}\": 1")).collect();
        let told = told(&format!("{{{}}}", many.join(",")));
        assert_eq!((told.len(), told[10].as_str()), (11, "w7s.json"));
    }

    #[test]
    fn host_names_of_a_file() {
        let of =
            |text| draft(&[("out/index.html", ""), ("CNAME", text)]).map(|draft| draft.domains);
        assert_eq!(
            of("# mine\nApp.Example.\n\nb.c # x\nb.c").unwrap(),
            ["app.example", "b.c"]
        );
        for bad in ["localhost", "a b.c", "-a.b", "a..b", "https://a.b"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of("a.b\nb.b\nc.b\nd.b").is_err());
    }
}
