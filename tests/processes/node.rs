//! The program in a process of its own, and the little of its API that the stories need.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

/// How long anything may take before a story fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, ready for arguments.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tillmesh"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end; gives its answer in JSON, or what it said on stderr.
pub(crate) fn run(arguments: &[&str]) -> Result<Value, String> {
    let output = program().arg("--json").args(arguments).output().unwrap();
    if output.status.success() {
        let text = String::from_utf8(output.stdout).unwrap();
        return Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)));
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a business in a folder.
pub(crate) fn init(folder: &Path) {
    run(&["init", "--data", text(folder), "--name", "Duka", "--currency", "KES"]).unwrap();
}

/// A running node; it is killed when this is dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) api: String,
    pub(crate) addresses: Vec<String>,
    folder: PathBuf,
}

impl Node {
    pub(crate) fn start(folder: &Path, more: &[&str]) -> Self {
        Self::start_as("run", folder, more)
    }

    pub(crate) fn start_as(command: &str, folder: &Path, more: &[&str]) -> Self {
        let mut child = program()
            .args([command, "--json", "--api", "127.0.0.1:0", "--no-mdns"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"])
            .args(["--data", text(folder)])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("the node did not start: {errors}");
        }
        let ready: Value = serde_json::from_str(&line).unwrap();
        let addresses = ready["addresses"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
        Self {
            api: format!("http://{}", ready["api"].as_str().unwrap()),
            addresses: addresses.collect(),
            folder: folder.to_owned(),
            child,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.clone()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = client().get(format!("{}{path}", self.api)).send().await.unwrap();
        (response.status(), response.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = client().post(format!("{}{path}", self.api)).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap_or(Value::Null))
    }

    /// Records a cash sale; gives its id.
    pub(crate) async fn sell(&self, key: &str) -> String {
        let (status, answer) = self.post("/api/sales", &sale(key)).await;
        assert!(status.is_success(), "{status}: {answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn sales(&self) -> u64 {
        self.get("/api/books").await.1["sales"].as_u64().unwrap()
    }

    /// Asks again and again until the answer fits.
    pub(crate) async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let (_, answer) = self.get(path).await;
            if fits(&answer) {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "{path} never fitted; the last answer was {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_sales(&self, wanted: u64) {
        self.until("/api/books", |books| books["sales"] == json!(wanted)).await;
    }

    /// Lets a new device join, which keeps its data in `folder`.
    pub(crate) async fn admit(&self, folder: &Path, role: &str) {
        let (status, answer) = self.post("/api/invitations", &json!({ "role": role })).await;
        assert!(status.is_success(), "{status}: {answer}");
        let invitation = answer["invitation"].as_str().unwrap().to_owned();
        let (folder, name) = (text(folder).to_owned(), role.to_owned());
        // The command blocks until this node has answered it.
        let joined = tokio::task::spawn_blocking(move || {
            run(&["join", "--data", &folder, "--device-name", &name, "--no-mdns", &invitation])
        });
        joined.await.unwrap().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A cash sale of one bread.
pub(crate) fn sale(key: &str) -> Value {
    json!({
        "operation_id": key,
        "currency": "KES",
        "lines": [{ "sku": "BREAD", "quantity_milli": 1000, "unit_price_minor": 6500 }],
        "tenders": [{ "kind": "cash", "amount_minor": 6500 }],
    })
}

/// Reads the logs of some nodes from now on until a line of one has this text. Of other nodes
/// nobody reads the log: a node must not mind that.
pub(crate) fn until_one_says(nodes: &mut [&mut Node], wanted: &'static str) {
    let (tell, told) = std::sync::mpsc::channel();
    for node in nodes {
        let errors = node.child.stderr.take().expect("the log is read once");
        let tell = tell.clone();
        std::thread::spawn(move || {
            let found = BufReader::new(errors).lines().map_while(Result::ok).any(|line| line.contains(wanted));
            if found {
                // Another may have said it first.
                tell.send(()).unwrap_or_default();
            }
        });
    }
    drop(tell);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(()), "none ever said that {wanted}");
}
