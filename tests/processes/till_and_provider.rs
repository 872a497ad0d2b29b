//! A relay and the simulator as processes, with a wire between them that can stop either's words
//! at a chosen point.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::node::{Node, PATIENCE, init, program, text};

pub(crate) const PUSH: &str = "/mpesa/stkpush/v1/processrequest";
pub(crate) const REVERSAL: &str = "/mpesa/reversal/v1/request";

/// Where the wire stops: what comes then is held until the other end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A request to this path; the provider never hears of it.
    Before(&'static str),
    /// The provider's answer to a request to this path; the relay never hears it.
    After(&'static str),
}

struct Wire {
    stop: Mutex<Option<Stop>>,
    stopped: mpsc::UnboundedSender<Stop>,
    pushes: Mutex<Vec<Value>>,
    to: SocketAddr,
}

/// The simulator, behind the wire.
pub(crate) struct Provider {
    child: Child,
    wire: Arc<Wire>,
    stopped: mpsc::UnboundedReceiver<Stop>,
    direct: String,
    between: SocketAddr,
    carrying: Option<JoinHandle<()>>,
    pub(crate) credentials: PathBuf,
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Provider {
    pub(crate) async fn start(at: &Path) -> Self {
        let credentials = at.join("mpesa.toml");
        let callbacks = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut child = program()
            .args(["mpesa-simulator", "--json", "--listen", "127.0.0.1:0"])
            .args(["--credentials-out", text(&credentials)])
            .args(["--callback-base-url", &format!("http://{callbacks}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let direct = ready["base_url"].as_str().unwrap().to_owned();
        let to = direct.strip_prefix("http://").unwrap().parse().unwrap();
        let (sender, stopped) = mpsc::unbounded_channel();
        let wire = Arc::new(Wire { stop: Mutex::default(), stopped: sender, pushes: Mutex::default(), to });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let between = listener.local_addr().unwrap();
        let known = std::fs::read_to_string(&credentials).unwrap();
        std::fs::write(&credentials, known.replace(&direct, &format!("http://{between}"))).unwrap();
        let carrying = Some(tokio::spawn(carry_all(listener, Arc::clone(&wire))));
        Self { child, wire, stopped, direct, between, carrying, credentials }
    }

    /// The provider can't be reached from now on.
    pub(crate) async fn cut(&mut self) {
        let carrying = self.carrying.take().unwrap();
        carrying.abort();
        assert!(carrying.await.unwrap_err().is_cancelled());
    }

    /// The provider can be reached again.
    pub(crate) async fn mend(&mut self) {
        let listener = TcpListener::bind(self.between).await.unwrap();
        self.carrying = Some(tokio::spawn(carry_all(listener, Arc::clone(&self.wire))));
    }

    pub(crate) fn stop_at(&self, stop: Stop) {
        *self.wire.stop.lock().unwrap() = Some(stop);
    }

    /// Waits until the wire has stopped; it is whole again from then on.
    pub(crate) async fn stopped(&mut self) {
        tokio::time::timeout(PATIENCE, self.stopped.recv()).await.expect("the wire was never used like this").unwrap();
    }

    pub(crate) async fn behave(&self, behaviour: Value) {
        let (status, answer) = self.post("/simulator/behaviour", &json!({ "behaviour": behaviour })).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
    }

    pub(crate) async fn ledger(&self) -> Vec<Value> {
        let answer = client().get(format!("{}/simulator/ledger", self.direct)).send().await.unwrap();
        answer.json::<Value>().await.unwrap().as_array().unwrap().clone()
    }

    pub(crate) async fn get_text(&self, path: &str) -> String {
        client().get(format!("{}{path}", self.direct)).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn counts(&self) -> Value {
        let answer = client().get(format!("{}/simulator/counts", self.direct)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Asks for the counts until one of them is at least so high.
    pub(crate) async fn until(&self, count: &str, least: u64) {
        let started = Instant::now();
        while self.counts().await[count].as_u64() < Some(least) {
            assert!(started.elapsed() < PATIENCE, "{count} never reached {least}: {}", self.counts().await);
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = client().post(format!("{}{path}", self.direct)).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap_or(Value::Null))
    }

    /// Fetches a token with the shop's credentials, so that the relay's is no longer good.
    pub(crate) async fn take_token(&self) {
        let url = format!("{}/oauth/v1/generate?grant_type=client_credentials", self.direct);
        let asked = client().get(url).basic_auth("tillmesh-simulator", Some("not-a-secret"));
        assert!(asked.send().await.unwrap().status().is_success());
    }

    /// Where the provider was told to report on each push so far.
    pub(crate) fn callback_urls(&self) -> Vec<String> {
        let pushes = self.wire.pushes.lock().unwrap();
        pushes.iter().map(|push| push["CallBackURL"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn pushes(&self) -> usize {
        self.wire.pushes.lock().unwrap().len()
    }
}

async fn carry_all(listener: TcpListener, wire: Arc<Wire>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(carry(stream, Arc::clone(&wire)));
    }
}

async fn carry(mut relay: TcpStream, wire: Arc<Wire>) {
    let request = read_message(&mut relay).await;
    let head = String::from_utf8_lossy(&request).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    if path == PUSH
        && let Some((_, body)) = head.split_once("\r\n\r\n")
    {
        wire.pushes.lock().unwrap().push(serde_json::from_str(body).unwrap());
    }
    let is = |stop: Stop| {
        let mut wanted = wire.stop.lock().unwrap();
        let hit = match (*wanted, stop) {
            (Some(Stop::Before(one)), Stop::Before(_)) | (Some(Stop::After(one)), Stop::After(_)) => {
                path.starts_with(one)
            }
            _ => false,
        };
        if hit {
            wire.stopped.send(wanted.take().unwrap()).unwrap();
        }
        hit
    };
    if request.is_empty() {
        // The relay tried whether the provider is there.
        return;
    }
    if is(Stop::Before("")) {
        return hold(relay).await;
    }
    let Ok(mut provider) = TcpStream::connect(wire.to).await else { return };
    let closing = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    if provider.write_all(closing.as_bytes()).await.is_err() {
        return;
    }
    let mut answer = Vec::new();
    // A side that goes away ends the exchange.
    tokio::select! {
        read = provider.read_to_end(&mut answer) => drop(read),
        () = gone(&mut relay) => return,
    }
    if is(Stop::After("")) {
        return hold(relay).await;
    }
    drop(relay.write_all(&answer).await);
}

async fn hold(mut relay: TcpStream) {
    gone(&mut relay).await;
}

async fn gone(relay: &mut TcpStream) {
    let mut rest = [0; 64];
    while relay.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

/// A request with its whole body; nothing if the other side only connected.
async fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        message.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&message).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map(str::trim);
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return message;
            }
        }
        if count == 0 {
            return message;
        }
    }
}

/// A relay that collects for the shop.
pub(crate) struct Shop {
    _at: tempfile::TempDir,
    pub(crate) owner: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) provider: Provider,
    callbacks: String,
    relay: Option<Node>,
}

impl Shop {
    /// A shop whose relay reads the provider's list every second.
    pub(crate) async fn open() -> Self {
        let at = tempfile::tempdir().unwrap();
        let (owner, folder) = (at.path().join("owner"), at.path().join("relay"));
        init(&owner);
        let founding = Node::start(&owner, &[]);
        founding.admit(&folder, "relay").await;
        founding.kill();
        let provider = Provider::start(at.path()).await;
        let credentials = std::fs::read_to_string(&provider.credentials).unwrap();
        let line = credentials.lines().find(|line| line.starts_with("callback_base_url")).unwrap();
        let callbacks = line.split('"').nth(1).unwrap().strip_prefix("http://").unwrap().to_owned();
        let mut shop = Self { _at: at, owner, folder, provider, callbacks, relay: None };
        shop.start(&[]);
        shop.name_paying().await;
        shop
    }

    pub(crate) fn start(&mut self, more: &[&str]) {
        let credentials = text(&self.provider.credentials).to_owned();
        let mut arguments = vec!["--mpesa", &credentials, "--callbacks", &self.callbacks];
        if !more.contains(&"--trial-pull-seconds") {
            arguments.extend(["--trial-pull-seconds", "1"]);
        }
        if !more.contains(&"--trial-absent-seconds") {
            arguments.extend(["--trial-absent-seconds", "3600"]);
        }
        arguments.extend(more);
        self.relay = Some(Node::start_as("relay", &self.folder, &arguments));
    }

    pub(crate) fn relay(&self) -> &Node {
        self.relay.as_ref().unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.relay.take().unwrap().kill();
    }

    /// Kills it and starts it again.
    pub(crate) fn crash(&mut self, more: &[&str]) {
        self.kill();
        self.start(more);
    }

    /// Names this relay, in its epoch, as the one that asks customers.
    pub(crate) async fn name_paying(&self) {
        let (_, business) = self.relay().get("/api/business").await;
        let paying = json!({ "device": business["device"], "epoch": business["epoch"] });
        let body = json!({ "paying_relay": paying, "paying_shortcode": "174379" });
        let url = format!("{}/api/settings", self.relay().api);
        let answer = client().patch(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// Promises to ask for a payment; gives its id.
    pub(crate) async fn promise(&self, phone: &str) -> String {
        let body = json!({ "amount_minor": 6500, "currency": "KES", "phone": phone });
        let (status, answer) = self.relay().post("/api/payments", &body).await;
        assert!(status.is_success(), "{status}: {answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn until_shown(&self, payment: &str, shown: &str) -> Value {
        self.relay().until(&format!("/api/payments/{payment}"), |view| view["shown"] == shown).await
    }

    pub(crate) async fn call_back(&self, url: &str, body: &Value) -> StatusCode {
        client().post(url).json(body).send().await.unwrap().status()
    }

    /// What must be true after every story: charged once, and booked as charged.
    pub(crate) async fn is_charged_and_booked_once(&self, payment: &str) {
        let view = self.until_shown(payment, "paid").await;
        let ledger = self.provider.ledger().await;
        assert_eq!(ledger.len(), 1, "{ledger:?}");
        let receipts = view["receipts"].as_array().unwrap();
        assert_eq!(receipts.len(), 1, "{view}");
        assert_eq!(receipts[0]["number"], ledger[0]["receipt_number"]);
        assert_eq!(receipts[0]["amount_minor"], ledger[0]["amount_minor"]);
    }
}

/// A callback's body, as the provider would write it.
pub(crate) fn callback(checkout_id: &str, code: i64, receipt: Option<&str>) -> Value {
    let mut inside = json!({
        "MerchantRequestID": "by-hand", "CheckoutRequestID": checkout_id, "ResultCode": code, "ResultDesc": "by hand",
    });
    if let Some(receipt) = receipt {
        inside["CallbackMetadata"] = json!({ "Item": [
            { "Name": "Amount", "Value": 65 }, { "Name": "MpesaReceiptNumber", "Value": receipt },
        ] });
    }
    json!({ "Body": { "stkCallback": inside } })
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}
