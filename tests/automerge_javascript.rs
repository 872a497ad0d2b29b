//! The records of a running node are real Automerge documents: the published JavaScript library
//! opens every one, reads what the node says is in it, and finds the same heads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

#[tokio::test]
async fn every_document_opens_in_javascript_with_the_heads_and_values_that_the_node_names() {
    if let Err(reason) = javascript_is_ready() {
        if env::var("TILLMESH_NO_SKIP").as_deref() == Ok("1") {
            panic!("the JavaScript library is needed here: {reason}");
        }
        // Not `eprintln!`, which a passing test keeps to itself.
        writeln!(std::io::stderr(), "SKIPPED: documents were not opened with JavaScript, because {reason}").unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let till = Till::start(&folder.path().join("till"));
    sell_a_morning(&till).await;

    let saves = folder.path().join("saves");
    fs::create_dir(&saves).unwrap();
    let count = till.save_documents(&saves).await;
    assert!(count >= 3, "a page, a catalogue and annotations at least, but {count} documents");

    let checked = Command::new("node").arg(scripts().join("check.mjs")).arg(&saves).output().unwrap();
    let (told, failed) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "{told}\n{failed}");
    let counts: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(counts["documents"], count);
    assert!(counts["facts"].as_u64() >= Some(5), "{counts}");
    assert!(counts["fields"].as_u64() >= Some(4), "{counts}");
}

async fn sell_a_morning(till: &Till) {
    till.post("/api/products", json!({"sku": "BREAD", "name": "Mkate", "price_minor": 6500})).await;
    till.post("/api/products", json!({"sku": "TEA", "name": "Chai ☕", "price_minor": 2000, "active": true})).await;
    till.post("/api/expenses", json!({"category": "transport", "amount_minor": 20_000, "currency": "KES"})).await;
    let mut last = Value::Null;
    for loaves in 1..=4 {
        let line = json!({"sku": "BREAD", "quantity_milli": loaves * 1000, "unit_price_minor": 6500});
        let tender = json!({"kind": "cash", "amount_minor": loaves * 6500});
        last = till.post("/api/sales", json!({"lines": [line], "currency": "KES", "tenders": [tender]})).await;
    }
    let sale = format!("/api/sales/{}", last["id"].as_str().unwrap());
    let answer = till.client.patch(till.url(&sale)).json(&json!({"note": "for the school"})).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/automerge_js")
}

/// Whether Node.js is there, and the library installed: `npm ci` installs what the lock file pins.
fn javascript_is_ready() -> Result<(), String> {
    if scripts().join("node_modules/@automerge/automerge").exists() {
        return runs("node", &["--version"]);
    }
    runs("npm", &["ci"])
}

fn runs(program: &str, arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new(program)
        .args(arguments)
        .current_dir(scripts())
        .output()
        .map_err(|error| format!("{program} could not be run: {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(format!("{program} failed: {}", String::from_utf8_lossy(&ran.stderr).trim())),
    }
}

/// A real node on loopback; it ends with the test.
struct Till {
    process: Child,
    api: String,
    client: reqwest::Client,
}

impl Till {
    fn start(data: &Path) -> Self {
        let tillmesh = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tillmesh"));
            command.arg("--data").arg(data).arg("--json").env("TILLMESH_LOG", "warn");
            command
        };
        let made = tillmesh().args(["init", "--name", "Duka", "--currency", "KES"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let arguments = ["run", "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"];
        let mut process = tillmesh().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let ready: Value = serde_json::from_str(&ready).expect("one line of JSON once the node is ready");
        let api = ready["api"].as_str().expect("the API's address").trim_start_matches("http://").to_owned();
        Self { process, api, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.api)
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.client.post(self.url(path)).json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        self.client.get(self.url(path)).send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }

    /// Writes each document's save into `folder`, and what the node says of it into index.json.
    async fn save_documents(&self, folder: &Path) -> usize {
        let mut index = Vec::new();
        let mut next = String::new();
        loop {
            // Few at a time, so that the cursor is used.
            let list = self.json(&format!("/api/documents?limit=2{next}")).await;
            for document in list["items"].as_array().unwrap() {
                index.push(self.save_document(document["id"].as_str().unwrap(), folder).await);
            }
            match list["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
        }
        fs::write(folder.join("index.json"), Value::from(index.clone()).to_string()).unwrap();
        index.len()
    }

    async fn save_document(&self, id: &str, folder: &Path) -> Value {
        let path = format!("/api/documents/{id}");
        let answer = self.client.get(self.url(&path)).send().await.unwrap().error_for_status().unwrap();
        let heads = answer.headers()["X-Automerge-Heads"].to_str().unwrap().to_owned();
        let file = format!("{id}.automerge");
        fs::write(folder.join(&file), answer.bytes().await.unwrap()).unwrap();
        let decoded = self.json(&format!("{path}?as=json")).await;
        json!({"file": file, "id": id, "heads": heads.split(',').collect::<Vec<_>>(), "decoded": decoded})
    }
}

impl Drop for Till {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
