//! What may be done offline, by type of operation, as the business's config says: 403 for a type
//! that may not, 503 where nothing may, 507 where too much waits already.

use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

use super::device::DeviceStatus;
use super::{Answering, below};
use crate::api::Problem;
use crate::queue::Queue;

/// Lets requests of a type of operation through that may be recorded now.
#[derive(Debug, Clone)]
pub struct CheckOffline {
    queue: Queue,
    operation_type: String,
}

/// The service of [`CheckOffline`].
#[derive(Debug, Clone)]
pub struct CheckingOffline<S> {
    inner: S,
    layer: CheckOffline,
}

impl CheckOffline {
    /// What is below records operations of this type: `sale`, `expense`, `record`, `payment`,
    /// `stock_adjustment`, or a word of the app's own.
    #[must_use]
    pub fn new(queue: Queue, operation_type: impl Into<String>) -> Self {
        Self { queue, operation_type: operation_type.into() }
    }

    async fn check(&self, status: Result<DeviceStatus, super::BadHeader>) -> Result<(), Problem> {
        if status?.online && self.queue.is_online().await? {
            return Ok(());
        }
        Ok(self.queue.may_record_offline(&self.operation_type).await?)
    }
}

impl<S> Layer<S> for CheckOffline {
    type Service = CheckingOffline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CheckingOffline { inner, layer: self.clone() }
    }
}

impl<S> Service<Request> for CheckingOffline<S>
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
        let (layer, status) = (self.layer.clone(), DeviceStatus::of_request(&request));
        let below = below(&self.inner, request);
        Box::pin(async move {
            match layer.check(status).await {
                Ok(()) => below.await,
                Err(problem) => Ok(problem.into_response()),
            }
        })
    }
}
