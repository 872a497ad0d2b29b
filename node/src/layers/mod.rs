//! What a node does for its own API, for other axum services beside it, one layer a file: who asks
//! and whether they are online, what needs a connection, what may be done without one, what
//! answers say of that, and queueing what can't reach the shop's server. Problems are answered
//! as documents (RFC 9457), with the codes of docs/api.md.

mod capability;
mod device;
mod failure;
mod online;
mod permission;
mod queueing;
#[cfg(test)]
mod tests;

pub use capability::{AddCapabilities, AddingCapabilities};
pub(crate) use device::text;
pub use device::{BadHeader, DeviceStatus, Devices, Seen, TrackDevice, Tracking};
pub use failure::is_the_networks;
pub use online::{RequireOnline, RequiringOnline};
pub use permission::{CheckOffline, CheckingOffline};
pub use queueing::{QueueOnFailure, QueueingOnFailure};

use std::future::Future;
use std::pin::Pin;

use axum::extract::Request;
use axum::response::Response;
use tower::{Service, ServiceExt};

/// What a layer's service answers in time.
type Answering<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

/// Asks what is below a layer, once it is ready.
fn below<S>(inner: &S, request: Request) -> impl Future<Output = Result<Response, S::Error>> + Send + use<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    inner.clone().oneshot(request)
}
