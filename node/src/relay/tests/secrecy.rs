//! Logs hold nothing secret, at any level.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crdt_model::books::IntentState;
use tracing_subscriber::fmt::MakeWriter;

use super::rig::{CANCELS, NEVER_ANSWERS, PAYS, Rig, path};
use crate::payments::simulator::SimulatorConfig;

/// What was logged so far.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

// One thread runs everything, the simulator too, so that all of it writes to this log.
#[tokio::test]
async fn keys_tokens_whole_phone_numbers_and_bodies_are_in_no_log() {
    let log = Log::default();
    let everything = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    let _log = tracing::subscriber::set_default(everything.with_ansi(false).finish());
    let provider = super::rig::Provider::start().await;
    let config = provider.impatient();
    let rig = Rig::start_with(provider, config, crdt_model::money::Currency::KES).await;
    let paid = rig.device.promise("mpesa", 6500, PAYS).await;
    let declined = rig.device.promise("mpesa", 6600, CANCELS).await;
    let doubtful = rig.device.promise("mpesa", 6700, NEVER_ANSWERS).await;
    rig.device.until(paid, IntentState::Paid).await;
    rig.device.until(declined, IntentState::Declined).await;
    rig.status("doubt", |status| status.waiting.contains_key(&doubtful)).await;
    let wrong = format!("{}0", path(&rig.device.identity, paid, 1));
    assert_eq!(rig.provider.call_back(&rig.relay, &wrong, b"{\"secret\": 1}".to_vec()).await, 404);
    let callback = path(&rig.device.identity, paid, 1);
    let token = callback.rsplit_once('/').unwrap().1.to_owned();
    rig.relay.stop().await;

    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("settled") && text.contains("TRACE"), "the log was not caught");
    let config = SimulatorConfig::default();
    let basic = STANDARD.encode(format!("{}:{}", config.consumer_key, config.consumer_secret));
    let phones = [PAYS, CANCELS, NEVER_ANSWERS];
    let secrets = [config.consumer_secret.as_str(), &config.passkey, &basic, &token, "Bearer ", "CallbackMetadata"];
    for secret in secrets.into_iter().chain(phones) {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret:?} was logged");
    }
}
