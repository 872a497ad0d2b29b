//! A provider that takes few pushes a minute, and one that breaks connections, over real TCP.

use crdt_model::payment::{account_reference, callback_token};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::simulator::{Behaviour, Counts, SimulatorConfig, serve};
use super::{MpesaClient, MpesaConfig, NotSentReason, PaymentProvider, PushOutcome, PushRequest};

struct Server {
    base_url: String,
    client: MpesaClient,
    plain: reqwest::Client,
}

impl Server {
    async fn start(config: SimulatorConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let credentials = config.credentials_toml(&base_url, "http://127.0.0.1:1");
        let client = MpesaClient::new(MpesaConfig::from_toml(&credentials).unwrap()).unwrap();
        tokio::spawn(serve(config, listener, std::future::pending()));
        let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { base_url, client, plain }
    }

    async fn behave(&self, behaviour: Behaviour) {
        let url = format!("{}/simulator/behaviour", self.base_url);
        assert_eq!(self.plain.post(url).json(&json!({ "behaviour": behaviour })).send().await.unwrap().status(), 204);
    }

    async fn counts(&self) -> Counts {
        let url = format!("{}/simulator/counts", self.base_url);
        self.plain.get(url).send().await.unwrap().json().await.unwrap()
    }

    async fn push(&self, number: u128) -> PushOutcome {
        let intent = Uuid::from_u128(number);
        let request = PushRequest {
            intent,
            attempt: 1,
            currency: "KES".to_owned(),
            amount_minor: 6_500,
            phone: Some("254712345678".parse().unwrap()),
            account_reference: account_reference(intent, 1),
            callback_token: callback_token(&[7; 32], intent, 1),
            description: "Duka".to_owned(),
            at_ms: 1_576_740_075_000,
        };
        self.client.push(&request).await
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_in_doubt_whether_the_customer_was_charged_or_not() {
    for (charged, charges) in [(false, 0), (true, 1)] {
        let server = Server::start(SimulatorConfig::default()).await;
        server.behave(Behaviour { delay_ms: 5, ..Behaviour::reset(charged) }).await;
        let outcome = server.push(1).await;
        assert!(matches!(outcome, PushOutcome::Ambiguous { .. }), "{outcome:?}");
        let counts = server.counts().await;
        assert_eq!((counts.charges, counts.pushes), (charges, charges), "pushed once, never again by itself");
    }
}

#[tokio::test]
async fn the_connection_is_really_reset() {
    let server = Server::start(SimulatorConfig::default()).await;
    server.behave(Behaviour::reset(false)).await;
    let config = SimulatorConfig::default();
    let url = format!("{}/oauth/v1/generate?grant_type=client_credentials", server.base_url);
    let asked = server.plain.get(url).basic_auth(&config.consumer_key, Some(&config.consumer_secret));
    let token: serde_json::Value = asked.send().await.unwrap().json().await.unwrap();
    let body = json!({
        "BusinessShortCode": config.shortcode, "TransactionType": "CustomerPayBillOnline", "Amount": "65",
        "Password": super::mpesa::password(&config.shortcode, &config.passkey, "20191219102115"),
        "Timestamp": "20191219102115", "PartyA": "254712345678", "PartyB": config.shortcode,
        "PhoneNumber": "254712345678", "CallBackURL": "http://127.0.0.1:1/callbacks",
        "AccountReference": "ABCDEFGH2345", "TransactionDesc": "Duka",
    })
    .to_string();
    let authority = server.base_url.strip_prefix("http://").unwrap();
    let request = format!(
        "POST /mpesa/stkpush/v1/processrequest HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token["access_token"].as_str().unwrap(),
        body.len()
    );
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let broken = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!((broken.kind(), answer.len()), (std::io::ErrorKind::ConnectionReset, 0));
}

#[tokio::test]
async fn pushes_beyond_the_providers_rate_were_certainly_not_sent() {
    let server = Server::start(SimulatorConfig { pushes_a_minute: Some(2), ..SimulatorConfig::default() }).await;
    let mut refused = 0;
    // A minute may end in between: then two more are taken.
    for number in 1..=6 {
        match server.push(number).await {
            PushOutcome::Accepted(_) => {}
            PushOutcome::NotSent { reason, detail, .. } => {
                assert_eq!(reason, NotSentReason::RateLimited, "{detail}");
                refused += 1;
            }
            other @ (PushOutcome::Settled { .. } | PushOutcome::Ambiguous { .. }) => panic!("{other:?}"),
        }
    }
    let counts = server.counts().await;
    assert!((2..=4).contains(&refused), "{refused}");
    assert_eq!((counts.pushes, counts.limited), (6 - refused, refused));
}
