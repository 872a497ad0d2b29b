//! HTTP as bytes, handed from router to router.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Url;
use tower::ServiceExt;

use super::crash::Steps;
use crate::payments::simulator::{Dice, Reset};
use crate::payments::wire::{Auth, Wire, WireAnswer, WireError, WireRequest};

/// As the client's own limit.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(30);
const RELAY_PATIENCE: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How often, in thousandths, an exchange breaks on the way there or back.
const BROKEN_PERMILLE: u64 = 10;

/// From the relay to the provider. Every exchange is two steps at which the relay may die; the
/// provider goes on all the same.
pub(super) struct ToProvider {
    pub(super) router: Router,
    pub(super) steps: Arc<Steps>,
    pub(super) dice: Mutex<Dice>,
}

/// From the provider to the relay, if one is running.
#[derive(Default)]
pub(super) struct ToRelay {
    pub(super) running: Mutex<Option<Router>>,
}

impl std::fmt::Debug for ToProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToProvider")
    }
}

impl std::fmt::Debug for ToRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToRelay")
    }
}

impl ToProvider {
    fn chance(&self, permille: u64) -> bool {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).permille(permille)
    }
}

impl Wire for ToProvider {
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        async move {
            self.steps.pass().await;
            if self.chance(BROKEN_PERMILLE) {
                return Err(WireError::NotSent("no connection".to_owned()));
            }
            let answer = exchange(self.router.clone(), request, PROVIDER_PATIENCE).await;
            self.steps.pass().await;
            if self.chance(BROKEN_PERMILLE) {
                return Err(WireError::Broken("the connection broke".to_owned()));
            }
            answer
        }
        .boxed()
    }

    fn reach<'a>(&'a self, _base: &'a Url) -> BoxFuture<'a, Result<(), String>> {
        async move {
            self.steps.pass().await;
            if self.chance(BROKEN_PERMILLE) { Err("no connection".to_owned()) } else { Ok(()) }
        }
        .boxed()
    }
}

impl Wire for ToRelay {
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        async move {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let router = running.ok_or_else(|| WireError::NotSent("nobody listens".to_owned()))?;
            exchange(router, request, RELAY_PATIENCE).await
        }
        .boxed()
    }

    fn reach<'a>(&'a self, _base: &'a Url) -> BoxFuture<'a, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}

/// What the other side does goes on when the caller is gone.
pub(super) async fn exchange(
    router: Router,
    request: WireRequest,
    patience: Duration,
) -> Result<WireAnswer, WireError> {
    let broken = |what: &str| WireError::Broken(what.to_owned());
    let url = Url::parse(&request.url).map_err(|_| WireError::NotSent("no such address".to_owned()))?;
    let mut building = Request::builder()
        .method(request.method)
        .uri(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())));
    building = match &request.auth {
        Auth::None => building,
        Auth::Basic(name, password) => {
            let shown = STANDARD.encode(format!("{name}:{password}"));
            building.header(header::AUTHORIZATION, format!("Basic {shown}"))
        }
        Auth::Bearer(token) => building.header(header::AUTHORIZATION, format!("Bearer {token}")),
    };
    building = building.header(header::CONTENT_TYPE, "application/json");
    for (name, value) in &request.headers {
        building = building.header(*name, value);
    }
    let asked = building
        .body(Body::from(request.body.unwrap_or_default()))
        .map_err(|_| WireError::NotSent("a request that can't be made".to_owned()))?;
    let served = tokio::spawn(async move {
        let response = match router.oneshot(asked).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.extensions().get::<Reset>().is_some() {
            return Err("the connection was reset".to_owned());
        }
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), BODY_BYTES_MAX).await;
        body.map(|body| (status, body.to_vec())).map_err(|error| error.to_string())
    });
    match tokio::time::timeout(patience, served).await {
        Ok(Ok(Ok((status, body)))) => Ok(WireAnswer { status, body }),
        Ok(_) => Err(broken("the connection broke")),
        Err(_) => Err(broken("timed out")),
    }
}
