//! The HTTP API that a till's app talks to: JSON on loopback, one resource a file. Handlers turn
//! a request into an operation, record it, and answer once it is durable. docs/api.md has the
//! headers and codes; the OpenAPI document is made from the code.

mod analytics;
mod answer;
mod audit;
mod body;
mod books;
mod business;
mod caller;
pub mod capability;
mod conflicts;
mod control;
mod customers;
mod documents;
mod events;
mod expenses;
mod exposition;
mod fact_json;
mod guard;
mod handoffs;
mod health;
mod imports;
mod ledger_moves;
mod list;
mod metrics;
mod offline;
mod offline_config;
mod offline_queue;
mod offline_sync;
mod openapi;
mod payment_care;
mod payments;
mod peers;
mod problem;
mod products;
mod records;
mod reports;
mod sales;
mod settings;
mod shards;
mod shifts;
mod state;
mod stock;
mod stored;
#[cfg(test)]
mod tests;
mod tickets;
mod values;
mod wipe;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use control::{ControlError, Moved, NodeControl};
pub use problem::Code;
pub(crate) use problem::Problem;
pub use state::ApiState;

use body::BODY_BYTES_MAX;

/// The API of a running shop. Serve it on loopback only.
pub fn router(state: ApiState) -> Router {
    let (router, _) = paths().split_for_parts();
    let guarded = guard::Guarded { state: state.clone(), methods: Arc::new(openapi::methods(&openapi())) };
    router
        .fallback(|| async { Problem::new(Code::NotFound, "there is no such path: see /openapi.json") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "this path does not take this method: see /openapi.json")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(guarded, guard::guard))
        .with_state(state)
}

/// The OpenAPI 3.1 document of the API.
#[must_use]
pub fn openapi() -> serde_json::Value {
    openapi::complete(paths().into_openapi())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tillmesh",
        description = "A till's own API, on loopback. docs/api.md has its headers and codes.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(answer::Recorded, problem::ProblemDocument))
)]
struct Document;

fn paths() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(sales::create, sales::list))
        .routes(routes!(sales::one, sales::correct))
        .routes(routes!(sales::void))
        .routes(routes!(sales::refund))
        .routes(routes!(expenses::create, expenses::list))
        .routes(routes!(expenses::one, expenses::correct))
        .routes(routes!(records::create, records::list))
        .routes(routes!(records::one, records::correct))
        .routes(routes!(payments::create, payments::list))
        .routes(routes!(payments::one))
        .routes(routes!(payments::confirm))
        .routes(routes!(payment_care::retry))
        .routes(routes!(payment_care::give_up))
        .routes(routes!(payment_care::code))
        .routes(routes!(payment_care::statement))
        .routes(routes!(ledger_moves::list, ledger_moves::create))
        .routes(routes!(payment_care::suspense))
        .routes(routes!(payment_care::proposals, payment_care::propose))
        .routes(routes!(payment_care::check))
        .routes(routes!(stock::levels))
        .routes(routes!(stock::level))
        .routes(routes!(stock::adjust, stock::adjustments))
        .routes(routes!(stock::adjustment))
        .routes(routes!(products::create, products::list))
        .routes(routes!(products::one, products::replace, products::correct, products::delete))
        .routes(routes!(customers::create, customers::list))
        .routes(routes!(customers::one, customers::correct, customers::delete))
        .routes(routes!(tickets::create, tickets::list))
        .routes(routes!(tickets::one, tickets::correct))
        .routes(routes!(tickets::close))
        .routes(routes!(shifts::open, shifts::list))
        .routes(routes!(shifts::one))
        .routes(routes!(shifts::close))
        .routes(routes!(handoffs::offer, handoffs::list))
        .routes(routes!(handoffs::one))
        .routes(routes!(handoffs::accept))
        .routes(routes!(handoffs::withdraw))
        .routes(routes!(handoffs::decide))
        .routes(routes!(reports::z))
        .routes(routes!(books::books))
        .routes(routes!(documents::list))
        .routes(routes!(documents::one))
        .routes(routes!(conflicts::list))
        .routes(routes!(conflicts::resolve))
        .routes(routes!(wipe::verdict))
        .routes(routes!(peers::list))
        .routes(routes!(peers::invite))
        .routes(routes!(business::business))
        .routes(routes!(settings::settings, settings::correct))
        .routes(routes!(imports::create))
        .routes(routes!(offline::status))
        .routes(routes!(offline::pending))
        .routes(routes!(offline::history))
        .routes(routes!(offline_sync::sync))
        .routes(routes!(offline_sync::sync_one))
        .routes(routes!(offline_sync::retry))
        .routes(routes!(offline_queue::queue))
        .routes(routes!(offline_queue::cleanup))
        .routes(routes!(offline_config::config, offline_config::correct))
        .routes(routes!(audit::calls))
        .routes(routes!(audit::verify))
        .routes(routes!(analytics::figures))
        .routes(routes!(events::events))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(openapi::document))
}
