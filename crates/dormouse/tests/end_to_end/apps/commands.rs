//! `dormouse deploy`, `apps`, `logs`, `rollback`, `undeploy` and `dev`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::stage::{Stage, saying, workerd};
use crate::harness::{Http, Output, dormouse, run_program, until};

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn ask(stage: &Stage, args: &[&str]) -> Output {
    let mut command = dormouse();
    command.args(args).env("A_SECRET", "from-here");
    run_program(command.env("DORMOUSE_SERVER", format!("http://{}", stage.server.http)))
}

fn git(folder: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(folder)
        .args(["-c", "user.name=x", "-c", "user.email=x@example.com"]);
    run_program(git.args(args)).done();
}

#[test]
fn a_folder_is_deployed_by_what_git_says() {
    let Some(stage) = Stage::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let code = "export default { fetch: (_, env) => { console.warn('asked'); return new Response(env.A + env.A_SECRET); } };";
    write(folder.path(), "backend/index.js", code);
    write(folder.path(), "node_modules/x/index.js", "left out");
    write(
        folder.path(),
        "w7s.json",
        r#"{"vars":["A","B"],"secrets":["A_SECRET"],"bindings":{"hyperdrve":[{"binding":"DB","id":"x"}]}}"#,
    );
    let path = folder.path().to_str().unwrap();
    let said = ask(&stage, &["deploy", path]).failed(2);
    assert!(
        said.contains("--repository OWNER/REPO --branch NAME --commit SHA"),
        "{said}"
    );
    git(folder.path(), &["init", "-q", "-b", "main"]);
    git(folder.path(), &["add", "backend"]);
    git(folder.path(), &["commit", "-q", "-m", "x"]);
    git(
        folder.path(),
        &["remote", "add", "origin", "git@github.com:Acme/shop.git"],
    );
    let output = ask(
        &stage,
        &["deploy", path, "--var", "A=1", "--secret", "A_SECRET"],
    );
    assert!(
        output.stderr.contains("warning: w7s.json names B"),
        "{}",
        output.stderr
    );
    assert!(
        output
            .stderr
            .contains("warning: w7s.json has bindings.hyperdrve, which Dormouse does not know"),
        "{}",
        output.stderr
    );
    let said = output.done();
    assert!(
        said.starts_with(
            "Acme/shop (production), version 1, serves\n  http://acme.apps.localhost:"
        ),
        "{said}"
    );
    assert_eq!(stage.get("/shop/").text(), "1from-here");

    let said = ask(&stage, &["apps"]).done();
    assert!(
        said.contains(" Acme/shop  | production  |       1 |"),
        "{said}"
    );
    let listed: Value = serde_json::from_str(&ask(&stage, &["apps", "--json"]).done()).unwrap();
    assert_eq!(
        listed["deployments"][0]["commitSha"]
            .as_str()
            .unwrap()
            .len(),
        40
    );
    let said = until(
        || {
            ask(
                &stage,
                &["logs", "acme/shop", "--level", "warn", "--kind", "console"],
            )
            .done()
        },
        |said| !said.is_empty(),
    );
    assert!(said.ends_with(" warn      asked\n"), "{said}");

    write(
        folder.path(),
        "backend/index.js",
        "throw new Error('early');",
    );
    let said = ask(&stage, &["deploy", path]).failed(1);
    assert!(
        said.contains("The backend does not start") && said.contains("early"),
        "{said}"
    );
    write(folder.path(), "backend/index.js", &saying("two"));
    ask(&stage, &["deploy", path]).done();
    assert_eq!(stage.get("/shop/").text(), "two");
    let said = ask(&stage, &["rollback", "acme/shop"]).done();
    assert!(
        said.starts_with("Acme/shop (production), version 1, serves"),
        "{said}"
    );
    assert_eq!(stage.get("/shop/").text(), "1from-here");
    let said = ask(&stage, &["rollback", "acme/shop", "--version", "7"]).failed(1);
    assert!(said.contains("has no version 7"), "{said}");
    ask(&stage, &["undeploy", "acme/shop"]).done();
    let said = ask(&stage, &["undeploy", "acme/shop"]).failed(1);
    assert!(
        said.contains("acme/shop (production) is not deployed."),
        "{said}"
    );
    let said = ask(&stage, &["logs", "acme"]).failed(2);
    assert!(said.contains("OWNER/REPO"), "{said}");
    let said = ask(&stage, &["deploy", path, "--secret", "NOT_THERE"]).failed(2);
    assert!(said.contains("NOT_THERE"), "{said}");
}

#[test]
fn what_is_logged_is_followed() {
    let Some(stage) = Stage::start() else { return };
    let code = "export default { fetch: (request) => { console.log(new URL(request.url).pathname); return new Response(''); } };";
    stage.deploy(
        "acme/shop",
        &super::Archive::of(&[("worker/index.js", code)]),
    );
    stage.get("/shop/first");
    let mut command = dormouse();
    command.args(["logs", "acme/shop", "--follow", "--kind", "console"]);
    command.env("DORMOUSE_SERVER", format!("http://{}", stage.server.http));
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.next().unwrap().ends_with(" /first"));
    stage.get("/shop/second");
    assert!(lines.next().unwrap().ends_with(" /second"));
}

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn dev_serves_a_folder_and_what_it_becomes() {
    let Some(workerd) = workerd() else { return };
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("My Shop");
    write(&app, "backend/index.ts", &saying("one"));
    let mut command = dormouse();
    command
        .args(["dev", "--port", "0"])
        .arg(&app)
        .env("DORMOUSE_WORKERS__WORKERD", workerd);
    command.env("DORMOUSE_WORKERS__START_MS_MAX", "60000");
    let log = fs::File::create(folder.path().join("log")).unwrap();
    command.stderr(log);
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut until_line = |text: &str| lines.find(|line| line.contains(text)).unwrap();
    let address = until_line("HTTP: ");
    let address = address.rsplit('/').next().unwrap().parse().unwrap();
    assert!(until_line("serves").starts_with("dev/My-Shop (production), version 1"));
    let get = || {
        let host = [("host", "dev.apps.localhost")];
        Http::connect(address)
            .request_with("GET", "/my-shop/", &host, None)
            .text()
    };
    assert_eq!(get(), "one");
    write(&app, "backend/index.ts", &saying("two"));
    until_line("version 2, serves");
    assert_eq!(get(), "two");
    // What is broken is told, and what was there serves on.
    write(&app, "backend/index.ts", "const x: = 1;");
    until(
        || fs::read_to_string(folder.path().join("log")).unwrap(),
        |log| log.contains("TypeScript does not compile"),
    );
    assert_eq!(get(), "two");
    write(
        &app,
        "backend/index.ts",
        "export default { fetch: () => { console.log('three is asked'); return new Response('three'); } };",
    );
    until_line("version 3, serves");
    assert_eq!(get(), "three");
    until_line("three is asked");
    assert_eq!(
        fs::read_to_string(app.join(".dormouse/.gitignore")).unwrap(),
        "*\n"
    );
}

#[test]
fn doctor_looks_for_the_runtime() {
    let Some(workerd) = workerd() else { return };
    let folder = tempfile::tempdir().unwrap();
    let doctor = |workerd: &Path| {
        let mut command = dormouse();
        command
            .args(["doctor", "--server", "http://127.0.0.1:1"])
            .current_dir(folder.path());
        run_program(command.env("DORMOUSE_WORKERS__WORKERD", workerd))
    };
    let said = doctor(&workerd).done();
    assert!(
        said.contains("ok    workerd: ") && said.contains(" runs: workerd "),
        "{said}"
    );
    let said = doctor(Path::new("/nonexistent/workerd"));
    assert!(
        said.stdout
            .contains("FAIL  workerd: workers.workerd is /nonexistent/workerd"),
        "{}",
        said.stdout
    );
    said.failed(3);
}
