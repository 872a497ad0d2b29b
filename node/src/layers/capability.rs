//! What answers say of what can be done offline: the capability headers of the node's own API.

use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use tower::{Layer, Service};

use super::{Answering, below};
use crate::api::capability::add_capabilities;
use crate::queue::Queue;

/// Adds the capability headers to answers; docs/api.md lists them.
#[derive(Debug, Clone)]
pub struct AddCapabilities {
    queue: Queue,
}

/// The service of [`AddCapabilities`].
#[derive(Debug, Clone)]
pub struct AddingCapabilities<S> {
    inner: S,
    queue: Queue,
}

impl AddCapabilities {
    /// As this queue's config has them.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

impl<S> Layer<S> for AddCapabilities {
    type Service = AddingCapabilities<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AddingCapabilities { inner, queue: self.queue.clone() }
    }
}

impl<S> Service<Request> for AddingCapabilities<S>
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
        let (queue, below) = (self.queue.clone(), below(&self.inner, request));
        Box::pin(async move {
            let mut answer = below.await?;
            add_capabilities(answer.headers_mut(), &queue.desk().offline().config());
            Ok(answer)
        })
    }
}
