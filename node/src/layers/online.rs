//! What needs a connection: a request of a device that is offline, or for a server that is away,
//! is answered 503 at once instead of waiting for a timeout.

use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

use super::device::DeviceStatus;
use super::{Answering, below};
use crate::api::{Code, Problem};
use crate::queue::Queue;

/// Lets only requests of devices that are online through, while the node can deliver.
#[derive(Debug, Clone)]
pub struct RequireOnline {
    queue: Queue,
}

/// The service of [`RequireOnline`].
#[derive(Debug, Clone)]
pub struct RequiringOnline<S> {
    inner: S,
    queue: Queue,
}

impl RequireOnline {
    /// Asks this queue whether the node can deliver.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

/// Why a request can't be taken now, if it can't.
async fn refused(queue: &Queue, request: Result<DeviceStatus, super::BadHeader>) -> Result<(), Problem> {
    if !request?.online {
        return Err(Problem::new(Code::Offline, "this needs a connection, and the device says that it has none"));
    }
    if !queue.is_online().await? {
        let detail = "this needs a connection, and the shop's server or relay is away: try again later";
        return Err(Problem::new(Code::Offline, detail));
    }
    Ok(())
}

impl<S> Layer<S> for RequireOnline {
    type Service = RequiringOnline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequiringOnline { inner, queue: self.queue.clone() }
    }
}

impl<S> Service<Request> for RequiringOnline<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (queue, status) = (self.queue.clone(), DeviceStatus::of_request(&request));
        let below = below(&self.inner, request);
        Box::pin(async move {
            match refused(&queue, status).await {
                Ok(()) => below.await,
                Err(problem) => Ok(problem.into_response()),
            }
        })
    }
}
