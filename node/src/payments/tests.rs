//! The client against the simulator, over real HTTP on loopback.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use crdt_model::payment::{Attempt, AttemptState, Effect, account_reference, callback_token};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::simulator::{Behaviour, Counts, Kind, LedgerLine, SimulatorConfig, SimulatorError, serve};
use super::*;

const KEY: [u8; 32] = [7; 32];
const AMOUNT_MINOR: i64 = 6500;
const PAYS: &str = "254708374149";
const CANCELS: &str = "254700000001";
const THREE_CALLBACKS: &str = "254700000007";
const CALLBACK_FIRST: &str = "254700000008";

/// A simulator, a client of it, and a listener for its callbacks.
struct Rig {
    base_url: String,
    client: MpesaClient,
    plain: reqwest::Client,
    callbacks: mpsc::UnboundedReceiver<(String, Bytes)>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), SimulatorError>>,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(|text| text).await
    }

    async fn start_with(change: impl FnOnce(String) -> String) -> Self {
        let (callback_base_url, callbacks) = listen_for_callbacks().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let config = SimulatorConfig::default();
        let credentials = change(config.credentials_toml(&base_url, &callback_base_url));
        let client = MpesaClient::new(MpesaConfig::from_toml(&credentials).unwrap()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(serve(config, listener, async move {
            stopped.await.unwrap();
        }));
        let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { base_url, client, plain, callbacks, stop, running }
    }

    async fn stop(self) -> MpesaClient {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
        self.client
    }

    async fn behave(&self, behaviour: Behaviour) {
        let url = format!("{}/simulator/behaviour", self.base_url);
        let order = json!({ "behaviour": behaviour });
        let response = self.plain.post(url).json(&order).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    async fn charged(&self) -> Vec<LedgerLine> {
        let url = format!("{}/simulator/ledger", self.base_url);
        self.plain.get(url).send().await.unwrap().json().await.unwrap()
    }

    async fn counts(&self) -> Counts {
        let url = format!("{}/simulator/counts", self.base_url);
        self.plain.get(url).send().await.unwrap().json().await.unwrap()
    }

    async fn fetch_token(&self) -> String {
        let config = SimulatorConfig::default();
        let url = format!("{}/oauth/v1/generate?grant_type=client_credentials", self.base_url);
        let asked = self.plain.get(url).basic_auth(config.consumer_key, Some(config.consumer_secret));
        let answer: Value = asked.send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.base_url);
        let response = self.plain.post(url).bearer_auth(token).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// The next callback, attributed to `attempt` by its path.
    async fn callback_for(&mut self, attempt: &Attempt) -> CallbackReport {
        let (path, body) = self.callbacks.recv().await.unwrap();
        let token = callback_token(&KEY, attempt.intent(), attempt.number());
        assert_eq!(path, callback_path(attempt.intent(), attempt.number(), &token));
        self.client.parse_callback(&body).unwrap()
    }
}

async fn listen_for_callbacks() -> (String, mpsc::UnboundedReceiver<(String, Bytes)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let router = Router::new().fallback(move |uri: Uri, body: Bytes| {
        let sender = sender.clone();
        async move {
            sender.send((uri.path().to_owned(), body)).unwrap();
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, receiver)
}

fn request(phone: &str, intent: u128) -> PushRequest {
    let intent = Uuid::from_u128(intent);
    PushRequest {
        intent,
        attempt: 1,
        currency: "KES".to_owned(),
        amount_minor: AMOUNT_MINOR,
        phone: Some(phone.parse().unwrap()),
        account_reference: account_reference(intent, 1),
        callback_token: callback_token(&KEY, intent, 1),
        description: "Duka".to_owned(),
        at_ms: 1_576_740_075_000,
    }
}

fn claimed(request: &PushRequest) -> Attempt {
    let mut attempt = Attempt::new(request.intent, request.attempt, request.amount_minor, 0);
    let claim = AttemptEvent::Claimed { lease_until_ms: 60_000 };
    assert_eq!(attempt.apply(&claim, 0), Ok(Effect::Call));
    attempt
}

fn not_sent(outcome: &PushOutcome) -> Option<NotSentReason> {
    match outcome {
        PushOutcome::NotSent { reason, .. } => Some(*reason),
        PushOutcome::Accepted(_) | PushOutcome::Settled { .. } | PushOutcome::Ambiguous { .. } => None,
    }
}

fn is_open(outcome: &PushOutcome) -> bool {
    matches!(outcome, PushOutcome::Ambiguous { .. })
}

#[tokio::test]
async fn a_customer_pays_and_the_books_agree_with_what_was_charged() {
    let mut rig = Rig::start().await;
    let request = request(PAYS, 1);
    let mut attempt = claimed(&request);
    assert_eq!(rig.client.prepare().await, Ok(()));
    let outcome = rig.client.push(&request).await;
    attempt.apply(&outcome.event(), 1).unwrap();
    assert_eq!(attempt.state(), AttemptState::Accepted, "{outcome:?}");
    let report = rig.callback_for(&attempt).await;
    let effect = attempt.apply(&report.event(), 2).unwrap();
    let charged = rig.charged().await;
    assert_eq!(charged.len(), 1);
    assert_eq!(charged[0].amount_minor, AMOUNT_MINOR);
    assert_eq!(charged[0].account_reference, request.account_reference.as_str());
    assert_eq!(charged[0].phone, "2547*****149");
    assert!(charged[0].receipt_number.starts_with("TEST"));
    assert_eq!(effect, Effect::Book { receipt_number: charged[0].receipt_number.clone() });
    assert!(report.paid_at_ms.is_some());
    assert_eq!(rig.counts().await.tokens, 1);
}

#[tokio::test]
async fn a_customer_who_cancels_is_not_charged() {
    let mut rig = Rig::start().await;
    let request = request(CANCELS, 1);
    let mut attempt = claimed(&request);
    attempt.apply(&rig.client.push(&request).await.event(), 1).unwrap();
    let report = rig.callback_for(&attempt).await;
    assert_eq!(report.result.result_code, "1032");
    attempt.apply(&report.event(), 2).unwrap();
    assert_eq!(attempt.state(), AttemptState::Failed);
    assert_eq!(rig.charged().await, []);
}

#[tokio::test]
async fn three_callbacks_for_one_payment_are_booked_once() {
    let mut rig = Rig::start().await;
    let request = request(THREE_CALLBACKS, 1);
    let mut attempt = claimed(&request);
    attempt.apply(&rig.client.push(&request).await.event(), 1).unwrap();
    let mut booked = 0;
    for _ in 0..3 {
        let report = rig.callback_for(&attempt).await;
        let effect = attempt.apply(&report.event(), 2).unwrap();
        booked += u32::from(effect != Effect::Unchanged);
    }
    assert_eq!((booked, attempt.state()), (1, AttemptState::Paid));
    assert_eq!(rig.charged().await.len(), 1);
}

#[tokio::test]
async fn a_callback_that_overtakes_the_answer_is_booked() {
    let mut rig = Rig::start().await;
    let request = request(CALLBACK_FIRST, 1);
    let mut attempt = claimed(&request);
    let outcome = rig.client.push(&request).await;
    let (_, body) = rig.callbacks.try_recv().expect("the callback came first");
    let report = rig.client.parse_callback(&body).unwrap();
    attempt.apply(&report.event(), 1).unwrap();
    assert_eq!(attempt.state(), AttemptState::Paid);
    assert_eq!(attempt.apply(&outcome.event(), 2), Ok(Effect::Unchanged));
}

#[tokio::test]
async fn a_token_made_invalid_by_another_user_is_renewed_once_for_all_pushes() {
    let rig = Rig::start().await;
    assert_eq!(rig.client.prepare().await, Ok(()));
    rig.fetch_token().await;
    let requests: Vec<_> = (1..=8).map(|intent| request(PAYS, intent)).collect();
    let pushes = requests.iter().map(|request| rig.client.push(request));
    for outcome in futures::future::join_all(pushes).await {
        assert!(matches!(outcome, PushOutcome::Accepted(_)), "{outcome:?}");
    }
    let counts = rig.counts().await;
    assert_eq!((counts.tokens, counts.pushes), (3, 8));
}

#[tokio::test]
async fn an_error_after_the_charge_stays_open_and_its_callback_pays() {
    let mut rig = Rig::start_with(|text| format!("timeout_ms = 400\nconnect_timeout_ms = 300\n{text}")).await;
    let busy = Behaviour {
        code: Some("500.003.02".to_owned()),
        message: Some("System is busy. Please try again in few minutes.".to_owned()),
        ..Behaviour::new(Kind::Error)
    };
    let gateway = Behaviour { status: Some(502), ..Behaviour::new(Kind::Error) };
    let troubles = [busy, gateway, Behaviour::new(Kind::Malformed), Behaviour::new(Kind::Timeout)];
    for (number, trouble) in troubles.into_iter().enumerate() {
        rig.behave(Behaviour { charged: Some(true), ..trouble }).await;
        let request = request(PAYS, number as u128 + 1);
        let mut attempt = claimed(&request);
        let outcome = rig.client.push(&request).await;
        assert!(is_open(&outcome), "{outcome:?}");
        attempt.apply(&outcome.event(), 1).unwrap();
        assert_eq!(attempt.state(), AttemptState::Unknown);
        let report = rig.callback_for(&attempt).await;
        attempt.apply(&report.event(), 2).unwrap();
        assert_eq!(attempt.state(), AttemptState::Paid);
        assert_eq!(rig.charged().await.len(), number + 1);
    }
}

#[tokio::test]
async fn an_uncharged_push_without_an_answer_stays_open_too() {
    let rig = Rig::start_with(|text| format!("timeout_ms = 200\nconnect_timeout_ms = 200\n{text}")).await;
    rig.behave(Behaviour::timeout(false)).await;
    assert!(is_open(&rig.client.push(&request(PAYS, 1)).await));
    assert_eq!(rig.charged().await, []);
    assert_eq!(rig.counts().await.pushes, 1);
}

#[tokio::test]
async fn an_error_that_means_not_sent_frees_the_attempt() {
    let rig = Rig::start().await;
    for (status, code, message, reason) in [
        (400, "400.002.02", "Bad Request - Invalid Amount", NotSentReason::Rejected),
        (429, "429.001", "Too many", NotSentReason::RateLimited),
        (500, "500.003.02", "Error Occurred: Spike Arrest Violation", NotSentReason::RateLimited),
        (500, "500.001.1001", "Merchant does not exist", NotSentReason::Credentials),
    ] {
        rig.behave(Behaviour {
            status: Some(status),
            code: Some(code.to_owned()),
            message: Some(message.to_owned()),
            ..Behaviour::new(Kind::Error)
        })
        .await;
        let request = request(PAYS, 1);
        let mut attempt = claimed(&request);
        let outcome = rig.client.push(&request).await;
        assert_eq!(not_sent(&outcome), Some(reason), "{outcome:?}");
        attempt.apply(&outcome.event(), 1).unwrap();
        assert_eq!(attempt.state(), AttemptState::Failed);
    }
    assert_eq!(rig.charged().await, []);
}

#[tokio::test]
async fn with_the_provider_gone_attempts_wait_and_a_push_was_not_sent() {
    let rig = Rig::start().await;
    assert_eq!(rig.client.prepare().await, Ok(()));
    let client = rig.stop().await;
    let away = client.prepare().await;
    assert!(matches!(away, Err(NotReady::Unreachable(_))), "{away:?}");
    let outcome = client.push(&request(PAYS, 1)).await;
    assert_eq!(not_sent(&outcome), Some(NotSentReason::Unreachable), "{outcome:?}");
}

#[tokio::test]
async fn wrong_credentials_are_told_from_everything_else() {
    let secret = Rig::start_with(|text| text.replace("\"not-a-secret\"", "\"wrong\"")).await;
    let refused = secret.client.prepare().await;
    assert!(matches!(refused, Err(NotReady::Credentials(_))), "{refused:?}");
    let outcome = secret.client.push(&request(PAYS, 1)).await;
    assert_eq!(not_sent(&outcome), Some(NotSentReason::Credentials));
    let passkey = Rig::start_with(|text| text.replace("not-a-secret-either", "wrong")).await;
    let outcome = passkey.client.push(&request(PAYS, 1)).await;
    assert_eq!(not_sent(&outcome), Some(NotSentReason::Credentials), "{outcome:?}");
    assert_eq!(passkey.counts().await.pushes, 0);
}

#[tokio::test]
async fn what_mpesa_cannot_take_is_never_sent() {
    let rig = Rig::start().await;
    for (currency, amount_minor, field) in [
        ("GBP", 100, "currency"),
        ("KES", 6550, "amount_minor"),
        ("KES", 0, "amount_minor"),
        ("KES", -100, "amount_minor"),
        ("KES", 25_000_100, "amount_minor"),
        ("KES", i64::MAX, "amount_minor"),
    ] {
        let unsupported = rig.client.supports(currency, amount_minor).unwrap_err().to_string();
        assert!(unsupported.starts_with(field), "{unsupported}");
        let request = PushRequest { currency: currency.to_owned(), amount_minor, ..request(PAYS, 1) };
        let outcome = rig.client.push(&request).await;
        assert_eq!(not_sent(&outcome), Some(NotSentReason::Rejected));
    }
    let nobody = PushRequest { phone: None, ..request(PAYS, 1) };
    assert_eq!(not_sent(&rig.client.push(&nobody).await), Some(NotSentReason::Rejected));
    assert_eq!(rig.client.supports("KES", 25_000_000), Ok(()));
    assert_eq!(rig.client.supports("KES", 100), Ok(()));
    assert_eq!(rig.counts().await, Counts::default());
}

/// Answers the token request, then does `what` to the push. Counts the pushes it saw.
async fn broken_provider(what: &'static [u8]) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, pushes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0_u8; 4096];
            let length = socket.read(&mut head).await.unwrap();
            if head[..length].starts_with(b"GET /oauth") {
                let token = br#"{"access_token":"t","expires_in":"3599"}"#;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", token.len());
                socket.write_all(answer.as_bytes()).await.unwrap();
                socket.write_all(token).await.unwrap();
            } else {
                sender.send(()).unwrap();
                socket.write_all(what).await.unwrap();
            }
        }
    });
    (address, pushes)
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_never_tried_again() {
    let whats: [&'static [u8]; 5] = [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"Merchant",
        b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
    ];
    for what in whats {
        let (address, mut pushes) = broken_provider(what).await;
        let credentials =
            SimulatorConfig::default().credentials_toml(&format!("http://{address}"), "http://127.0.0.1:9");
        let client = MpesaClient::new(MpesaConfig::from_toml(&credentials).unwrap()).unwrap();
        let outcome = client.push(&request(PAYS, 1)).await;
        assert!(is_open(&outcome), "{outcome:?}");
        assert!(pushes.try_recv().is_ok());
        assert!(pushes.try_recv().is_err(), "pushed twice");
    }
}

#[tokio::test]
async fn the_simulator_checks_every_field_of_a_push() {
    let rig = Rig::start().await;
    let token = rig.fetch_token().await;
    let path = mpesa::STK_PUSH_PATH;
    let timestamp = "20191219102115";
    let config = SimulatorConfig::default();
    let good = json!({
        "BusinessShortCode": config.shortcode,
        "Password": mpesa::password(&config.shortcode, &config.passkey, timestamp),
        "Timestamp": timestamp,
        "TransactionType": "CustomerPayBillOnline",
        "Amount": "1",
        "PartyA": PAYS,
        "PartyB": config.shortcode,
        "PhoneNumber": PAYS,
        "CallBackURL": "http://127.0.0.1:9/x",
        "AccountReference": "ABC",
        "TransactionDesc": "Duka",
    });
    let (status, _) = rig.post(path, "wrong", &good).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for (field, wrong) in [
        ("Timestamp", json!("20191319102115")),
        ("TransactionType", json!("Gift")),
        ("Amount", json!(0)),
        ("Amount", json!(250_001)),
        ("Amount", json!("1.5")),
        ("Amount", Value::Null),
        ("PartyA", json!("254700000000")),
        ("PartyB", json!("1")),
        ("PhoneNumber", json!("0708374149")),
        ("CallBackURL", json!("http://192.0.2.1/x")),
        ("CallBackURL", json!("http://127.0.0.1:9/mpesa")),
        ("CallBackURL", json!("nonsense")),
        ("AccountReference", json!("ABCDEFGHIJKLM")),
        ("AccountReference", json!("A B")),
        ("AccountReference", json!("")),
        ("TransactionDesc", json!("fourteen chars")),
    ] {
        let mut body = good.clone();
        body[field] = wrong.clone();
        let (status, answer) = rig.post(path, &token, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{field} {wrong}");
        assert!(answer["errorMessage"].as_str().unwrap().contains(field), "{field}: {answer}");
    }
    for (field, message) in [("Password", "Wrong credentials"), ("BusinessShortCode", "Merchant does not exist")] {
        let mut body = good.clone();
        body[field] = json!("1");
        let (status, answer) = rig.post(path, &token, &body).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer["errorMessage"], message);
    }
    assert_eq!(rig.counts().await.pushes, 0);
    let (status, answer) = rig.post(path, &token, &good).await;
    assert_eq!((status, &answer["ResponseCode"]), (StatusCode::OK, &json!("0")));
}

#[tokio::test]
async fn a_query_tells_an_open_checkout_from_a_settled_one() {
    let mut rig = Rig::start().await;
    rig.behave(Behaviour { delay_ms: 600_000, ..Behaviour::new(Kind::Pay) }).await;
    let PushOutcome::Accepted(open) = rig.client.push(&request(PAYS, 1)).await else { panic!("not accepted") };
    let cancelled = request(CANCELS, 2);
    let PushOutcome::Accepted(settled) = rig.client.push(&cancelled).await else { panic!("not accepted") };
    rig.callback_for(&claimed(&cancelled)).await;
    let token = rig.fetch_token().await;
    let config = SimulatorConfig::default();
    let timestamp = "20191219102115";
    let query = |checkout_id: &str| {
        json!({
            "BusinessShortCode": config.shortcode,
            "Password": mpesa::password(&config.shortcode, &config.passkey, timestamp),
            "Timestamp": timestamp,
            "CheckoutRequestID": checkout_id,
        })
    };
    let path = "/mpesa/stkpushquery/v1/query";
    let (_, answer) = rig.post(path, &token, &query(&open.checkout_id)).await;
    assert_eq!(answer["errorMessage"], "The transaction is being processed");
    let (_, answer) = rig.post(path, &token, &query(&settled.checkout_id)).await;
    assert_eq!(answer["ResultCode"], "1032");
    assert_eq!(answer["MerchantRequestID"], settled.request_id);
    let (status, _) = rig.post(path, &token, &query("ws_CO_none")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    rig.stop().await;
}

#[tokio::test]
async fn the_control_calls_refuse_nonsense_by_name() {
    let rig = Rig::start().await;
    for (order, word) in [
        (json!({ "behaviour": { "kind": "pay", "repeat": 0 } }), "repeat"),
        (json!({ "behaviour": { "kind": "dance" } }), "dance"),
        (json!({ "behaviour": { "kind": "pay", "colour": 1 } }), "colour"),
        (json!({ "phone": "12", "behaviour": null }), "phone"),
    ] {
        let (status, answer) = rig.post("/simulator/behaviour", "", &order).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"].as_str().unwrap().contains(word), "{answer}");
    }
    let url = format!("{}/mpesa/stkpush/v1/processrequest", rig.base_url);
    let large = rig.plain.post(url).body(vec![b' '; 70_000]).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_mix_beyond_all_payments_is_refused() {
    let mix = simulator::Mix { decline_permille: 900, repeat_permille: 200, ..Default::default() };
    let config = SimulatorConfig { mix: Some(mix), ..SimulatorConfig::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = serve(config, listener, std::future::pending()).await;
    assert!(matches!(refused, Err(SimulatorError::Mix(1100))));
}

#[tokio::test]
async fn cash_settles_with_a_receipt_of_its_own_for_each_attempt() {
    let first = request(PAYS, 1);
    let mut attempt = claimed(&first);
    let outcome = Cash.push(&first).await;
    assert_eq!(outcome, Cash.push(&first).await);
    assert_ne!(outcome, Cash.push(&request(PAYS, 2)).await);
    attempt.apply(&outcome.event(), 1).unwrap();
    assert_eq!(attempt.state(), AttemptState::Paid);
    assert!(Cash.parse_callback(b"{}").is_err());
}

#[tokio::test]
async fn the_list_registration_and_status_queries_answer_as_the_provider_does() {
    let mut rig = Rig::start().await;
    rig.client.register("/confirmations/ab").await.unwrap();
    let by_hand = json!({ "phone": PAYS, "amount_minor": 6500, "account": "soda", "confirmations": 2 });
    let url = format!("{}/simulator/pay", rig.base_url);
    let paid: Value = rig.plain.post(url).json(&by_hand).send().await.unwrap().json().await.unwrap();
    assert_eq!(paid["confirmed"], 2);
    for _ in 0..2 {
        let (path, body) = rig.callbacks.recv().await.unwrap();
        assert_eq!(path, "/confirmations/ab");
        let Ok(Report::Paid(line)) = rig.client.parse_report(&body) else { panic!("{body:?}") };
        assert_eq!((line.amount_minor, line.account.as_str()), (6500, "soda"));
    }
    let now_ms = crate::clock::now().0;
    let window = PullWindow { from_ms: now_ms - 60_000, until_ms: now_ms + 1_000, offset: 0 };
    let PullOutcome::Listed(lines) = rig.client.pull(window).await else { panic!() };
    assert_eq!(json!(lines[0].receipt_number), paid["receipt_number"]);
    assert_eq!(rig.client.pull(PullWindow { offset: 1, ..window }).await, PullOutcome::Listed(Vec::new()));
    let asked = rig.client.ask_status(&lines[0].receipt_number, "/results/ab").await;
    assert!(matches!(asked, PushOutcome::Accepted(_)), "{asked:?}");
    let (path, body) = rig.callbacks.recv().await.unwrap();
    assert_eq!(path, "/results/ab");
    let Ok(Report::Result { code, amount_minor, status, .. }) = rig.client.parse_report(&body) else { panic!() };
    assert_eq!((code.as_str(), amount_minor, status.as_deref()), ("0", Some(6500), Some("Completed")));
}

#[tokio::test]
async fn a_payment_is_taken_back_once_and_a_second_time_counts_as_done() {
    let mut rig = Rig::start().await;
    let by_hand = json!({ "phone": PAYS, "amount_minor": 6500 });
    let url = format!("{}/simulator/pay", rig.base_url);
    let paid: Value = rig.plain.post(url).json(&by_hand).send().await.unwrap().json().await.unwrap();
    let reversal = ReversalRequest {
        receipt_number: paid["receipt_number"].as_str().unwrap().to_owned(),
        amount_minor: 6500,
        reason: "wrong goods".to_owned(),
        results: "/results/cd".to_owned(),
    };
    for expected in ["0", "R000001"] {
        let asked = rig.client.reverse(&reversal).await;
        assert!(matches!(asked, PushOutcome::Accepted(_)), "{asked:?}");
        let (_, body) = rig.callbacks.recv().await.unwrap();
        let Ok(Report::Result { code, .. }) = rig.client.parse_report(&body) else { panic!() };
        assert_eq!(code, expected);
    }
    assert_eq!(rig.counts().await.reversals, 1);
    assert!(rig.charged().await[0].reversed);
}
