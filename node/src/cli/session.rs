//! The node that a command talks to: the one that holds the folder, or else one that the command
//! starts itself for as long as it takes, without a network. Both are asked through the same API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::Context;
use super::failure::Failure;
use crate::folder::{self, FolderError};
use crate::node::{Node, NodeConfig};
use crate::storage::OpenError;

/// A way to ask a folder's node.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    data: PathBuf,
    marker: Option<PathBuf>,
    target: Mutex<Target>,
}

/// Who answers.
#[derive(Debug)]
struct Target {
    api: SocketAddr,
    /// The node that this command started itself.
    own: Option<Node>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
    field: Option<String>,
}

/// Does `work` with the folder's node. Ctrl-C ends it between two requests' commits, so nothing
/// is left half done.
pub(super) async fn with<T>(
    context: &Context,
    work: impl AsyncFnOnce(&Session) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let session = Session::open(context).await?;
    let outcome = tokio::select! {
        outcome = work(&session) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(Failure::new("interrupted", "interrupted: what was recorded so far is kept").into())
        }
    };
    session.close().await?;
    outcome
}

/// What the node that runs on the folder answers; `None` if none runs, or it does not answer.
/// Unlike [`with`], it starts nothing.
pub(super) async fn of_running_node(context: &Context, path: &str) -> Option<Value> {
    let running = folder::running(&context.data().ok()?)?;
    let client =
        Client::builder().no_proxy().connect_timeout(CONNECT_PATIENCE).timeout(CONNECT_PATIENCE).build().ok()?;
    client.get(format!("http://{}{path}", running.api)).send().await.ok()?.json().await.ok()
}

impl Session {
    async fn open(context: &Context) -> anyhow::Result<Self> {
        let (data, marker) = (context.data()?, context.config()?.marker);
        let client = Client::builder()
            // A proxy has no business between this machine and itself.
            .no_proxy()
            .connect_timeout(CONNECT_PATIENCE)
            .read_timeout(READ_PATIENCE)
            .build()?;
        let target = Target::find(&client, &data, marker.as_deref()).await?;
        Ok(Self { client, data, marker, target: Mutex::new(target) })
    }

    async fn close(self) -> anyhow::Result<()> {
        match self.target.into_inner().own {
            Some(node) => node.stop().await.map_err(anyhow::Error::msg),
            None => Ok(()),
        }
    }

    /// Whether another process's node answers.
    pub(super) async fn is_running_node(&self) -> bool {
        self.target.lock().await.own.is_none()
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.call(Method::GET, path, None).await?.json().await?)
    }

    pub(super) async fn get_bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        Ok(self.call(Method::GET, path, None).await?.bytes().await?.to_vec())
    }

    /// Posts what may safely be posted twice: it has an id of its own, or adds nothing again.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(self.call(Method::POST, path, Some(body)).await?.json().await?)
    }

    /// Every item of a list, the newest first.
    pub(super) async fn each_item(
        &self,
        path: &str,
        each: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.some_items(path, None, each).await
    }

    /// The first items of a list, or all.
    pub(super) async fn some_items(
        &self,
        path: &str,
        count_max: Option<usize>,
        mut each: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut cursor = String::new();
        let mut left = count_max.unwrap_or(usize::MAX);
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{mark}limit=200{cursor}")).await?;
            for item in page.get("items").and_then(Value::as_array).into_iter().flatten().take(left) {
                each(item.clone())?;
                left -= 1;
            }
            match page.get("next").and_then(Value::as_str).filter(|_| left > 0) {
                Some(next) => cursor = format!("&cursor={}", in_query(next)),
                None => return Ok(()),
            }
        }
    }

    /// Asks once; and again if the node that held the folder went away in the meantime.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Response> {
        let mut target = self.target.lock().await;
        let mut answer = self.send(target.api, &method, path, body).await;
        if answer.is_err() && target.own.is_none() {
            tracing::debug!("the node went away: looking for another");
            *target = Target::find(&self.client, &self.data, self.marker.as_deref()).await?;
            answer = self.send(target.api, &method, path, body).await;
        }
        refuse_problems(answer?).await
    }

    async fn send(
        &self,
        api: SocketAddr,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, reqwest::Error> {
        let mut request = self.client.request(method.clone(), format!("http://{api}{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await
    }
}

/// A query string of some fields, with its question mark; nothing without fields.
pub(super) fn query<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let fields = fields.enumerate().map(|(place, (name, value))| {
        let mark = if place == 0 { '?' } else { '&' };
        format!("{mark}{name}={}", in_query(value))
    });
    fields.collect()
}

/// A text as a query string carries it.
fn in_query(text: &str) -> String {
    let letters = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    letters.collect()
}

/// A problem document becomes the command's failure.
async fn refuse_problems(answer: Response) -> anyhow::Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let problem: Problem = answer.json().await.unwrap_or_default();
    if problem.code.is_empty() {
        anyhow::bail!("the node answered with status {status}: update the older of node and command");
    }
    Err(Failure::new(&problem.code, problem.detail).at(problem.field).into())
}

impl Target {
    /// Opens the file; if another process holds it, looks where that listens. A node that is
    /// starting or ending is waited for.
    async fn find(client: &Client, data: &Path, marker: Option<&Path>) -> anyhow::Result<Self> {
        let started = Instant::now();
        loop {
            match folder::open(data, marker) {
                Ok(opened) => {
                    let api = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
                    let marker = marker.map(Path::to_owned);
                    let node = Node::start_opened(NodeConfig { api, marker, ..NodeConfig::new(data) }, opened).await?;
                    let api = node.api().ok_or_else(|| anyhow::anyhow!("the node has no API"))?;
                    return Ok(Self { api, own: Some(node) });
                }
                Err(FolderError::Open(OpenError::Held { .. })) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(running) = folder::running(data)
                && client.get(format!("http://{}/healthz", running.api)).send().await.is_ok()
            {
                return Ok(Self { api: running.api, own: None });
            }
            if started.elapsed() > HELD_PATIENCE {
                let message = format!(
                    "{} is held by a process that does not answer: stop that process, and run this again",
                    data.display()
                );
                return Err(Failure::new("folder_held", message).into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// On one machine a connection is made at once or never.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// A busy disk may keep a large import waiting.
const READ_PATIENCE: Duration = Duration::from_secs(120);
/// A node replays its journals before it listens.
const HELD_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_any_letters_fits_in_a_query() {
        assert_eq!(in_query("a-1_2.z"), "a-1_2.z");
        let fields = [("type", "sale"), ("network", "4g & more")];
        assert_eq!(query(fields.into_iter()), "?type=sale&network=4g%20%26%20more");
        assert_eq!(query(std::iter::empty()), "");
        assert_eq!(in_query("50% & é"), "50%25%20%26%20%C3%A9");
    }
}
