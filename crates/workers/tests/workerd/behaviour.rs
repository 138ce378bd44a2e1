//! What a backend sees and does.

use crate::harness::{Stage, answering, get, logged, program};
use dormouse_workers::{
    AddressRange, BindingAddress, NetworkRules, bindings::Grant, runtime::Level,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

#[tokio::test]
async fn modules_values_and_the_platforms_names() {
    let Some(stage) = Stage::new() else { return };
    let mut program = program(
        1,
        &[
            (
                "backend/index.ts",
                "import { greet, type Who } from './lib/greet';\nimport { Buffer } from 'node:buffer';\n\
                 export default { async fetch(request: Request, env: Record<string, string>) {\n\
                 const who: Who = { name: env.NAME }; const later = await import('./later');\n\
                 return Response.json([greet(who), later.two, Buffer.from('x').toString('hex'), env.W7S_OWNER, \
                 env.W7S_REPO, env.W7S_REPOSITORY, env.W7S_ENVIRONMENT, new URL(request.url).pathname]); } };",
            ),
            (
                "backend/lib/greet/index.ts",
                "export interface Who { name: string }\nexport const greet = (w: Who) => `hello ${w.name}`;",
            ),
            ("backend/later.mjs", "export const two = 2;"),
            (
                "backend/wrangler.json",
                r#"{"compatibility_flags":["nodejs_compat_v2"]}"#,
            ),
        ],
    );
    program.values = [("NAME".to_owned(), "d\u{f6}rmouse \"'\n".to_owned())]
        .into_iter()
        .collect();
    stage.supervisor.trial(&program).await.unwrap();
    let running = stage.supervisor.run(program).await.unwrap();
    let (status, body) = get(&running, "/a%20b?c=d").await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        body,
        r#"["hello dörmouse \"'\n",2,"78","owner","shop","owner/shop","production","/a%20b"]"#
    );
    running.stop().await;
}

/// Acceptance behaviour 14, its first half: the members of `env.DB`, and what `connect()` leads to.
#[tokio::test]
async fn a_binding_leads_to_its_socket_and_to_no_other() {
    let Some(stage) = Stage::new() else { return };
    let mut listeners = Vec::new();
    let mut program = answering(
        1,
        "if (request.url.endsWith('/members')) { const { host, ip, ...rest } = env.DB; \
         return Response.json([rest, /^[0-9a-f]{32}\\.hyperdrive\\.local$/.test(host), typeof ip, \
         env.DB.connectionString.replace(host, 'HOST'), typeof env.DB.connect, Object.keys(env).sort()]); }\n\
         const name = new URL(request.url).pathname.slice(1); const socket = env[name].connect();\n\
         const { value } = await socket.readable.getReader().read(); return new Response(value);",
    );
    for name in ["DB", "OTHER"] {
        let socket = stage.folder.path().join(format!("{name}.sock"));
        listeners.push((name, UnixListener::bind(&socket).unwrap()));
        let address = BindingAddress {
            socket,
            user: format!("b_{name}"),
            password: "p-._~1".to_owned(),
            database: "app".to_owned(),
            scheme: "postgres".to_owned(),
            grant: Grant::default(),
        };
        program.databases.push((name.to_owned(), address));
    }
    let running = stage.supervisor.run(program).await.unwrap();
    let (_, members) = get(&running, "/members").await.unwrap();
    let members: serde_json::Value = serde_json::from_str(&members).unwrap();
    assert_eq!(members[1], true, "{members}");
    assert_eq!(members[2], "string");
    assert_eq!(
        members[3],
        "postgres://b_DB:p-._~1@HOST:5432/app?sslmode=disable"
    );
    assert_eq!(members[4], "function");
    assert_eq!(members[0]["user"], "b_DB");
    assert_eq!(members[0]["password"], "p-._~1");
    assert_eq!(members[0]["database"], "app");
    assert_eq!(members[0]["port"], 5432);
    for (name, listener) in listeners {
        let path = format!("/{name}");
        let asked = get(&running, &path);
        let accept = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(name.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            // The request ends, and with it its connections.
            stream.read_to_end(&mut rest).await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked, accept);
        assert_eq!(answer.unwrap(), (200, name.to_owned()));
    }
    running.stop().await;
}

#[tokio::test]
async fn an_address_that_breaks_the_url_is_not_given_to_the_runtime() {
    let Some(stage) = Stage::new() else { return };
    let mut program = answering(1, "return new Response('x')");
    let address = BindingAddress {
        socket: stage.folder.path().join("s"),
        user: "u".to_owned(),
        password: "p@ss/w:rd".to_owned(),
        database: "app".to_owned(),
        scheme: "postgres".to_owned(),
        grant: Grant::default(),
    };
    program.databases.push(("DB".to_owned(), address));
    let refused = stage.supervisor.trial(&program).await.unwrap_err();
    assert!(refused.message.contains("password"), "{refused}");
    assert!(!format!("{refused:?}{program:?}").contains("p@ss"));
}

#[tokio::test]
async fn console_and_exceptions_reach_the_log() {
    let Some(stage) = Stage::new() else { return };
    let program = answering(
        3,
        "console.log('plain', { a: 1 }); console.info('i'); console.debug('d'); console.warn('w'); \
         console.error('two\\nlines'); console.log('x'.repeat(1e6)); throw new TypeError('boom');",
    );
    let running = stage.supervisor.run(program).await.unwrap();
    let (status, _) = get(&running, "/").await.unwrap();
    assert_eq!(status, 500);
    let log = running.log();
    logged(log, Level::Supervisor, "version 3 serves").await;
    logged(log, Level::Log, "plain { a: 1 }").await;
    logged(log, Level::Info, "i").await;
    logged(log, Level::Debug, "d").await;
    logged(log, Level::Warn, "w").await;
    logged(log, Level::Error, "two\nlines").await;
    logged(log, Level::Log, "cut: log_entry_bytes_max").await;
    assert_eq!(
        logged(log, Level::Exception, "boom").await,
        "TypeError: boom"
    );
    assert!(log.after(0, 99).iter().all(|entry| entry.version == 3));
    running.stop().await;
}

/// Nothing of this machine is in a backend's reach.
#[tokio::test]
async fn private_addresses_are_out_of_reach() {
    for network in [NetworkRules::public(), NetworkRules::nothing()] {
        let Some(stage) = Stage::with(|options| options.network = network) else {
            return;
        };
        let inside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = inside.local_addr().unwrap().port();
        let body = format!(
            "const tries = {{ fetch: () => fetch('http://127.0.0.1:{port}/'), local: () => fetch('http://localhost:{port}/'), \
             socket: () => connect('127.0.0.1:{port}').opened, unix: () => connect('unix:{}').opened, \
             env: () => {{ if (Object.keys(process.env).length) return 1; throw new Error('empty'); }},\
             file: async () => (await import('node:fs')).readFileSync('/etc/hostname') }};\n\
             const reached = []; for (const [name, run] of Object.entries(tries)) {{ \
             try {{ await run(); reached.push(name); }} catch {{}} }} return Response.json(reached);",
            stage.folder.path().display()
        );
        let text = format!(
            "import {{ connect }} from 'cloudflare:sockets'; import process from 'node:process';\n\
             export default {{ async fetch(request) {{ {body} }} }};"
        );
        let flags =
            r#"{"compatibility_flags":["nodejs_compat_v2"],"compatibility_date":"2026-05-23"}"#;
        let files = [
            ("worker/index.js", text.as_str()),
            ("worker/wrangler.json", flags),
        ];
        let running = stage.supervisor.run(program(1, &files)).await.unwrap();
        let (status, body) = get(&running, "/").await.unwrap();
        assert_eq!((status, body.as_str()), (200, "[]"));
        running.stop().await;
    }
}

/// Where addresses of this machine are allowed as such, those of its interfaces are not, and not what is denied.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_addresses_of_this_machine_are_denied() {
    let inside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = inside.local_addr().unwrap().port();
    let others = ["127.0.0.5", "127.0.0.6"];
    let _inside = others.map(|host| std::net::TcpListener::bind((host, port)).unwrap());
    let reached = async |deny: &[&str]| {
        let stage = Stage::with(|options| {
            options.network = NetworkRules {
                // As a public address of this machine is to a backend that reaches public ones.
                allow: vec!["local".to_owned()],
                deny: deny
                    .iter()
                    .map(|range| AddressRange::parse(range).unwrap())
                    .collect(),
            };
        })?;
        let body = format!(
            "const reached = []; for (const host of ['127.0.0.1', '[::ffff:127.0.0.1]', '127.0.0.5', '127.0.0.6']) {{ \
             try {{ const socket = connect(host + ':{port}'); await socket.opened; reached.push(host); \
             await socket.close(); }} catch {{}} }} return Response.json(reached);"
        );
        let text = format!(
            "import {{ connect }} from 'cloudflare:sockets';\n\
             export default {{ async fetch(request) {{ {body} }} }};"
        );
        let program = program(1, &[("worker/index.js", &text)]);
        let running = stage.supervisor.run(program).await.unwrap();
        let (status, body) = get(&running, "/").await.unwrap();
        running.stop().await;
        assert_eq!(status, 200, "{body}");
        Some(body)
    };
    // Only the first is an interface's.
    let Some(body) = reached(&[]).await else {
        return;
    };
    assert_eq!(body, r#"["127.0.0.5","127.0.0.6"]"#);
    let body = reached(&["127.0.0.6/31"]).await.unwrap();
    assert_eq!(body, r#"["127.0.0.5"]"#);
}
