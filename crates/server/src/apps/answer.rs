//! An app answers: a file that is exactly meant, then its backend, then, for what that does not know, the site's first page.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use workers::App;
use workers::routes::{fallback, file, gives_way};
use workers::store::{StoredFile, Version};

use super::file::Wanted;
use super::file_body;
use super::headers::{self, Origin};
use super::proxy::{self, Answer, Connection, Trouble};
use super::{Apps, Place};
use crate::http::{Peer, UpgradedPlace};
use crate::proxies::Proxies;
use crate::shutdown::Stopping;

/// What a request comes with, besides itself.
pub(crate) struct Visit {
    pub(crate) peer: Option<Peer>,
    /// Who is believed where it came from.
    pub(crate) proxies: Proxies,
    pub(crate) stopping: Stopping,
    /// Its place among connections that go on with another protocol, if it asks to be one.
    pub(crate) upgrade: Option<UpgradedPlace>,
    /// What stands for this request in a trace.
    pub(crate) trace: Option<HeaderValue>,
}

/// What a request is for.
struct Meant {
    version: Arc<Version>,
    /// The path from the app's root, encoded.
    path: String,
    /// Where the site's first page is to be asked for instead, as relative addresses in it need a slash.
    with_slash: Option<String>,
    /// The path as it was asked for.
    asked: String,
    /// Whether the host is the app's own.
    is_own: bool,
}

impl Meant {
    fn app(&self) -> &App {
        &self.version.app
    }
}

/// Whether a request asks to go on with another protocol.
pub(crate) fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    headers::upgrade(headers).is_some()
}

/// The host and port that a request is for.
pub(crate) fn authority<B>(request: &Request<B>) -> Option<&str> {
    // HTTP/2 has it in the address of the request.
    let named = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    named.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

impl Apps {
    /// Answers a request to a host of apps.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        place: Place,
        request: Request<Incoming>,
        visit: Visit,
    ) -> Response<Body> {
        let nothing = nothing_at(&place);
        let Some(meant) = self.meant(place, request.uri().path()) else {
            return page(StatusCode::NOT_FOUND, &nothing);
        };
        let app = meant.app().clone();
        let response = self.serve(meant, request, visit).await;
        self.usage.answered(&app, response.status());
        response
    }

    fn meant(&self, place: Place, asked: &str) -> Option<Meant> {
        let routes = match place {
            Place::Own(app) => {
                return Some(Meant {
                    version: self.deployments.current(&app)?,
                    path: asked.to_owned(),
                    with_slash: None,
                    asked: asked.to_owned(),
                    is_own: true,
                });
            }
            Place::Below(routes) => routes,
        };
        routes.into_iter().find_map(|route| {
            let version = self.deployments.current(&route.app)?;
            // Without slashes before it: two of them would begin the name of a host.
            let with_slash = || format!("/{}/", asked.trim_matches('/'));
            version.routing.default_domain.then(|| Meant {
                with_slash: route.wants_slash(asked).then(with_slash),
                path: route.path,
                asked: asked.to_owned(),
                is_own: false,
                version,
            })
        })
    }

    async fn serve(
        self: &Arc<Self>,
        meant: Meant,
        request: Request<Incoming>,
        visit: Visit,
    ) -> Response<Body> {
        let method = request.method().clone();
        let reads = method == Method::GET || method == Method::HEAD;
        let wanted = Wanted::of(request.headers(), method == Method::HEAD);
        let exact = match reads {
            true => file(&meant.version, &meant.path).map(owned),
            false => None,
        };
        let has_backend = meant.version.backend.is_some();
        if let Some(found) = &exact
            && !(meant.is_own && has_backend)
        {
            if let Some(place) = &meant.with_slash {
                return elsewhere(place, request.uri());
            }
            return self.file(&meant, found, &wanted).await;
        }
        let first = fallback(&meant.version).map(owned);
        let other = exact.or_else(|| first.filter(|_| reads));
        if !has_backend {
            return match other {
                Some(found) => self.file(&meant, &found, &wanted).await,
                None if reads => page(StatusCode::NOT_FOUND, "There is no such page."),
                None => not_allowed(),
            };
        }
        let response = self.backend(&meant, request, visit).await;
        match other {
            Some(found) if gives_way(method.as_str(), response.status().as_u16()) => {
                self.file(&meant, &found, &wanted).await
            }
            _ => response,
        }
    }

    async fn file(
        &self,
        meant: &Meant,
        (path, file): &(String, StoredFile),
        wanted: &Wanted,
    ) -> Response<Body> {
        let (mut response, range) = wanted.answer(path, &file.sha256, file.bytes);
        let Some(range) = range else {
            return response;
        };
        let reading = async {
            let version = Arc::clone(&meant.version);
            let opened = self.deployments.open_file(version, file.clone()).await;
            let parts = opened.map_err(io::Error::other)?.parts(range);
            file_body::body(parts).await
        };
        match reading.await {
            Ok(body) => {
                *response.body_mut() = body;
                response
            }
            Err(error) => {
                tracing::error!(app = %meant.app(), %error, "a file of a site cannot be read");
                page(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The file cannot be read.",
                )
            }
        }
    }

    /// What the backend answers, or what is answered for it.
    async fn backend(
        self: &Arc<Self>,
        meant: &Meant,
        mut request: Request<Incoming>,
        visit: Visit,
    ) -> Response<Body> {
        if request.method() == Method::CONNECT || request.method() == Method::TRACE {
            return page(
                StatusCode::NOT_IMPLEMENTED,
                "Apps do not answer this method.",
            );
        }
        let app = meant.app();
        let leasing = tokio::time::timeout(self.request_max, self.deployments.lease(app));
        let lease = match leasing.await.unwrap_or_else(|_| Err(still_starting())) {
            Ok(Some(lease)) => lease,
            Ok(None) => return page(StatusCode::BAD_GATEWAY, "The backend is gone."),
            Err(refusal) => {
                // Why is for who deploys it, not for who visits it.
                tracing::warn!(%app, error = %refusal, "a backend does not start");
                return page(StatusCode::BAD_GATEWAY, "The backend does not run.");
            }
        };
        let protocol = headers::upgrade(request.headers());
        let client = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        let peer = visit.peer.map(|peer| (peer, &visit.proxies));
        let request = to_backend(meant, request, protocol, peer, visit.trace);
        let process = self
            .deployments
            .standing(app)
            .and_then(|standing| standing.process);
        match proxy::send(lease.clone(), request, self.request_max).await {
            Ok((mut response, connection)) => {
                if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), client)
                {
                    let backend = hyper::upgrade::on(&mut response);
                    goes_on(client, backend, connection, visit.upgrade, &visit.stopping);
                    return switched(response);
                }
                from_backend(Answer::new(response, connection))
            }
            Err(Trouble::Slow) => {
                self.look_after(app.clone(), lease, process);
                let ms = self.request_max.as_millis();
                let message = format!(
                    "The backend did not begin to answer within workers.request_ms_max ({ms} ms)."
                );
                page(StatusCode::GATEWAY_TIMEOUT, &message)
            }
            Err(Trouble::Unreachable(error)) => {
                tracing::warn!(%app, %error, "a backend cannot be reached");
                page(StatusCode::BAD_GATEWAY, "The backend cannot be reached.")
            }
            Err(Trouble::Broken(error)) => {
                tracing::info!(%app, %error, "a backend broke off");
                page(
                    StatusCode::BAD_GATEWAY,
                    "The backend ended before it answered.",
                )
            }
        }
    }

    /// A backend that was slow is restarted if it does nothing at all any more, as one does that runs in a circle.
    fn look_after(
        self: &Arc<Self>,
        app: App,
        lease: workers::runtime::Lease,
        process: Option<u32>,
    ) {
        let Some(process) = process else { return };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if proxy::is_alive(&lease).await {
                return;
            }
            let ms = this.request_max.as_millis();
            let why = format!(
                "the backend was killed: it answered nobody within request_ms_max ({ms} ms), as one does that \
                 runs in a circle"
            );
            this.deployments.restart(&app, process, &why).await;
        });
    }
}

/// What is said where no app is: a host of a branch is never production's.
fn nothing_at(place: &Place) -> String {
    let environment = match place {
        Place::Below(routes) => routes.first().map(|route| &route.app.environment),
        Place::Own(app) => Some(&app.environment),
    };
    match environment.filter(|environment| !environment.is_production()) {
        Some(environment) => {
            format!("No app is deployed at this address: none in the environment {environment}.")
        }
        None => "No app is deployed at this address.".to_owned(),
    }
}

fn owned((path, file): (&str, &StoredFile)) -> (String, StoredFile) {
    (path.to_owned(), file.clone())
}

fn to_backend(
    meant: &Meant,
    request: Request<Incoming>,
    protocol: Option<HeaderValue>,
    peer: Option<(Peer, &Proxies)>,
    trace: Option<HeaderValue>,
) -> Request<Incoming> {
    let authority = authority(&request).unwrap_or_default().to_owned();
    let (mut head, body) = request.into_parts();
    headers::of_this_connection_only(&mut head.headers, protocol);
    let origin = Origin {
        came_from: peer.map(|(peer, proxies)| proxies.came_from(peer.address, &head.headers)),
        by_proxy: peer.is_some_and(|(peer, proxies)| proxies.has(peer.address.ip())),
        is_encrypted: peer.is_some_and(|(peer, _)| peer.is_encrypted),
        authority: &authority,
        asked: &meant.asked,
        app: meant.app(),
        trace,
    };
    headers::tell(&mut head.headers, origin);
    let path = match head.uri.query() {
        Some(query) => format!("{}?{query}", meant.path),
        None => meant.path.clone(),
    };
    // It is part of an address that was one.
    head.uri = Uri::try_from(path).unwrap_or_else(|_| Uri::from_static("/"));
    head.version = axum::http::Version::HTTP_11;
    head.extensions.clear();
    Request::from_parts(head, body)
}

fn from_backend(answer: Answer) -> Response<Body> {
    let Answer { head, body } = answer;
    let (mut head, ()) = head.into_parts();
    headers::of_this_connection_only(&mut head.headers, None);
    head.version = axum::http::Version::HTTP_11;
    head.extensions.clear();
    Response::from_parts(head, Body::new(body))
}

/// The answer after which client and backend go on with another protocol.
fn switched(response: Response<Incoming>) -> Response<Body> {
    let (mut head, _) = response.into_parts();
    let protocol = headers::upgrade(&head.headers);
    headers::of_this_connection_only(&mut head.headers, protocol);
    head.extensions.clear();
    Response::from_parts(head, Body::empty())
}

/// Hands bytes to and fro until one side ends, or the server does.
fn goes_on(
    client: hyper::upgrade::OnUpgrade,
    backend: hyper::upgrade::OnUpgrade,
    connection: Connection,
    place: Option<UpgradedPlace>,
    stopping: &Stopping,
) {
    let draining = stopping.draining();
    tokio::spawn(async move {
        let handing = async {
            let (client, backend) =
                tokio::try_join!(client, backend).map_err(std::io::Error::other)?;
            copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
        };
        tokio::select! {
            handed = handing => if let Err(error) = handed {
                tracing::debug!(%error, "a connection with a backend breaks off");
            },
            () = draining => {}
        }
        drop((connection, place));
    });
}

/// The same address with the path of a folder.
fn elsewhere(place: &str, uri: &Uri) -> Response<Body> {
    let place = match uri.query() {
        Some(query) => format!("{place}?{query}"),
        None => place.to_owned(),
    };
    let mut response = page(StatusCode::PERMANENT_REDIRECT, "");
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn not_allowed() -> Response<Body> {
    let mut response = page(
        StatusCode::METHOD_NOT_ALLOWED,
        "This app has no backend: there are files to be read alone.",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// An answer of the server's own.
pub(crate) fn page(status: StatusCode, text: &str) -> Response<Body> {
    let body = match text {
        "" => Body::empty(),
        text => Body::from(format!("{text}\n")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Of a backend that takes longer to start than a request may wait.
fn still_starting() -> workers::Refusal {
    workers::Refusal::with_status(503, "It is still starting.")
}
