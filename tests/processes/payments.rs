//! Every row of the crash-point table in docs/payments.md: the relay is a process of its own and
//! is killed with SIGKILL, the provider is the simulator over HTTP, and its ledger is the truth.

use serde_json::json;

use crate::node::{Node, run, text};
use crate::till_and_provider::{PUSH, REVERSAL, Shop, Stop, callback};

const PAYS: &str = "0712345678";
const CANCELS: &str = "0700000001";
const CALLBACK_FIRST: &str = "0700000008";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_row_is_committed_nothing_happened_and_redelivery_makes_it() {
    let mut shop = Shop::open().await;
    // Recorded while no relay pays: there is no row.
    shop.kill();
    let offline = Node::start_as("run", &shop.folder, &[]);
    let body = json!({ "operation_id": "once", "amount_minor": 6500, "currency": "KES", "phone": PAYS });
    let (_, first) = offline.post("/api/payments", &body).await;
    offline.kill();
    assert_eq!(shop.provider.pushes(), 0);
    shop.start(&[]);
    let (_, again) = shop.relay().post("/api/payments", &body).await;
    assert_eq!((&first["id"], &again["repeated"]), (&again["id"], &json!(true)));
    shop.is_charged_and_booked_once(first["id"].as_str().unwrap()).await;
    assert_eq!(shop.provider.pushes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_attempt_without_a_claim_is_claimed_by_the_next_process() {
    let mut shop = Shop::open().await;
    shop.provider.cut().await;
    let payment = shop.promise(PAYS).await;
    let ready = |view: &serde_json::Value| view["attempts"][0]["state"] == "ready";
    shop.relay().until(&format!("/api/payments/{payment}"), ready).await;
    shop.kill();
    shop.provider.mend().await;
    shop.start(&[]);
    shop.is_charged_and_booked_once(&payment).await;
    assert_eq!(shop.provider.pushes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calling_before_the_send_is_unknown_and_the_list_clears_it_after_the_window() {
    let mut shop = Shop::open().await;
    shop.provider.stop_at(Stop::Before(PUSH));
    let payment = shop.promise(PAYS).await;
    shop.provider.stopped().await;
    shop.crash(&[]);
    let view = shop.until_shown(&payment, "unknown").await;
    assert_eq!(view["state"], "open");
    assert!(view["say"].as_str().unwrap().contains("don't pay again"));
    // The window passes, in seconds here.
    shop.crash(&["--trial-absent-seconds", "1"]);
    let view = shop.until_shown(&payment, "failed").await;
    assert_eq!(view["declines"][0]["code"], "not_paid");
    assert_eq!((shop.provider.ledger().await.len(), shop.provider.pushes()), (0, 1));
    // Only a person asks again.
    let (status, _) = shop.relay().post(&format!("/api/payments/{payment}/retry"), &json!({})).await;
    assert!(status.is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sent_before_the_response_the_callback_resolves_it() {
    let mut shop = Shop::open().await;
    shop.provider.behave(json!({ "kind": "pay", "delay_ms": 1500 })).await;
    shop.provider.stop_at(Stop::After(PUSH));
    let payment = shop.promise(PAYS).await;
    shop.provider.stopped().await;
    shop.crash(&[]);
    shop.is_charged_and_booked_once(&payment).await;
    assert_eq!(shop.provider.pushes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sent_before_the_response_and_never_called_back_the_list_resolves_it_by_reference() {
    let mut shop = Shop::open().await;
    shop.provider.behave(json!({ "kind": "silent" })).await;
    shop.provider.stop_at(Stop::After(PUSH));
    let payment = shop.promise(PAYS).await;
    shop.provider.stopped().await;
    shop.crash(&[]);
    shop.is_charged_and_booked_once(&payment).await;
    let view = shop.until_shown(&payment, "paid").await;
    assert_eq!(view["receipts"][0]["evidence"], "pull");
    assert_eq!(shop.provider.pushes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_before_the_response_is_booked_by_its_token() {
    let mut shop = Shop::open().await;
    shop.provider.stop_at(Stop::After(PUSH));
    let payment = shop.promise(CALLBACK_FIRST).await;
    // Booked while the answer is still on its way, which then never comes.
    shop.is_charged_and_booked_once(&payment).await;
    shop.provider.stopped().await;
    shop.crash(&[]);
    shop.is_charged_and_booked_once(&payment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_callback_is_made_up_for_by_the_list_or_the_statement() {
    let mut shop = Shop::open().await;
    shop.crash(&["--trial-pull-seconds", "3600"]);
    shop.provider.behave(json!({ "kind": "silent" })).await;
    let payment = shop.promise(PAYS).await;
    shop.until_shown(&payment, "asked").await;
    shop.provider.until("charges", 1).await;
    shop.kill();
    shop.start(&["--trial-pull-seconds", "3600"]);
    for style in ["", "?day_first=true&commas=true", "?windows=true"] {
        let statement = shop.folder.join("statement.csv");
        let csv = shop.provider.get_text(&format!("/simulator/statement{style}")).await;
        std::fs::write(&statement, csv).unwrap();
        let (folder, file) = (text(&shop.folder).to_owned(), text(&statement).to_owned());
        let reconciled = tokio::task::spawn_blocking(move || {
            run(&["payments", "reconcile", "--data", &folder, "--statement", &file])
        });
        let told = reconciled.await.unwrap().unwrap();
        assert_eq!((&told["difference_minor"], &told["paid"]["amount_minor"]), (&json!(0), &json!(6500)), "{told}");
    }
    shop.is_charged_and_booked_once(&payment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn double_concurrent_and_reordered_callbacks_are_one_booking() {
    let mut shop = Shop::open().await;
    shop.provider.behave(json!({ "kind": "pay", "repeat": 5, "first_code": "1037", "delay_ms": 400 })).await;
    let payment = shop.promise(PAYS).await;
    shop.is_charged_and_booked_once(&payment).await;
    let charged = shop.provider.ledger().await.remove(0);
    let (checkout, receipt) = (charged["checkout_request_id"].as_str(), charged["receipt_number"].as_str());
    let url = shop.provider.callback_urls().remove(0);
    let (paid, denied) = (callback(checkout.unwrap(), 0, receipt), callback(checkout.unwrap(), 1032, None));
    let answers = tokio::join!(
        shop.call_back(&url, &paid),
        shop.call_back(&url, &denied),
        shop.call_back(&url, &paid),
        shop.call_back(&url, &denied),
    );
    assert!(answers.0.is_success() && answers.1.is_success() && answers.2.is_success() && answers.3.is_success());
    shop.crash(&[]);
    shop.is_charged_and_booked_once(&payment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_says_failed_does_not_keep_the_callback_from_booking() {
    let shop = Shop::open().await;
    // The query comes 15 seconds after the call; the customer takes a little longer.
    shop.provider.behave(json!({ "kind": "pay", "delay_ms": 18000, "query_code": "1032" })).await;
    let payment = shop.promise(PAYS).await;
    shop.provider.until("queries", 1).await;
    let view = shop.until_shown(&payment, "asked").await;
    assert_eq!(view["state"], "open");
    shop.is_charged_and_booked_once(&payment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_of_payment_that_the_list_lacks_goes_to_review() {
    let mut shop = Shop::open().await;
    shop.provider.behave(json!({ "kind": "silent", "charged": false })).await;
    let payment = shop.promise(PAYS).await;
    shop.until_shown(&payment, "asked").await;
    // Whoever learns the address may forge a payment whose checkout is known.
    let url = shop.provider.callback_urls().remove(0);
    shop.kill();
    shop.start(&["--trial-dispute-seconds", "2"]);
    let checkout = shop.provider.counts().await;
    assert_eq!(checkout["charges"], 0);
    let forged = callback("ws_CO_forged", 0, Some("TESTFORGED0001AB"));
    assert!(shop.call_back(&url, &forged).await.is_success());
    let view = shop.until_shown(&payment, "in_review").await;
    assert_eq!(view["reviews"][0]["reason"], "other_checkout");
    assert_eq!(view["receipts"], json!([]));
    let (_, suspense) = shop.relay().get("/api/suspense").await;
    assert_eq!(suspense["items"][0]["number"], "TESTFORGED0001AB");

    // And one who does not even get a checkout id wrong, since the answer was lost.
    shop.provider.stop_at(Stop::Before(PUSH));
    let second = shop.promise("0712345679").await;
    shop.provider.stopped().await;
    shop.crash(&["--trial-dispute-seconds", "2"]);
    shop.until_shown(&second, "unknown").await;
    let url = shop.provider.callback_urls().pop().unwrap();
    assert!(shop.call_back(&url, &callback("ws_CO_any", 0, Some("TESTFORGED0002AB"))).await.is_success());
    let view = shop.until_shown(&second, "in_review").await;
    assert_eq!(view["reviews"][0]["reason"], "proof_disputed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_who_cancels_is_declined_and_a_person_may_ask_again() {
    let mut shop = Shop::open().await;
    let payment = shop.promise(CANCELS).await;
    let view = shop.until_shown(&payment, "failed").await;
    assert_eq!(view["declines"][0]["code"], "1032");
    shop.crash(&[]);
    shop.until_shown(&payment, "failed").await;
    let (status, _) = shop.relay().post(&format!("/api/payments/{payment}/retry"), &json!({})).await;
    assert!(status.is_success());
    // Two minutes have to pass first, and nothing is pushed before.
    shop.until_shown(&payment, "pending").await;
    assert_eq!(shop.provider.pushes(), 1);
    let (status, problem) = shop.relay().post(&format!("/api/payments/{payment}/retry"), &json!({})).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("payment_not_declined")));
    let (status, _) = shop.relay().post(&format!("/api/payments/{payment}/give-up"), &json!({"instead": "cash"})).await;
    assert!(status.is_success());
    let view = shop.until_shown(&payment, "given_up").await;
    assert_eq!(view["given_up"]["granted"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn success_after_failure_is_booked_late_and_reviewed_by_two_people() {
    let mut shop = Shop::open().await;
    shop.provider.behave(json!({ "kind": "pay", "first_code": "1032", "delay_ms": 400 })).await;
    let payment = shop.promise(PAYS).await;
    let view = shop.until_shown(&payment, "in_review").await;
    assert_eq!(view["reviews"][0]["reason"], "paid_after_failure");
    assert_eq!(view["receipts"][0]["number"], shop.provider.ledger().await[0]["receipt_number"]);
    shop.crash(&[]);
    shop.until_shown(&payment, "in_review").await;
    // The maker's own device can't check.
    let proposal = json!({ "subject": payment, "settlement": { "kind": "as_booked" }, "reason": "seen the message" });
    let (status, made) = shop.relay().post("/api/proposals", &proposal).await;
    assert!(status.is_success(), "{made}");
    let check = format!("/api/proposals/{}/check", made["id"].as_str().unwrap());
    let (status, problem) = shop.relay().post(&check, &json!({ "agreed": true })).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("same_person")));
    let address = shop.relay().addresses.iter().find(|one| one.contains("/tcp/")).unwrap().clone();
    let owner = Node::start(&shop.owner, &["--peer", &address]);
    owner.until("/api/proposals", |all| all["items"].as_array().is_some_and(|all| all.len() == 1)).await;
    let (status, checked) = owner.post(&check, &json!({ "agreed": true })).await;
    assert!(status.is_success(), "{checked}");
    let (_, problem) = owner.post(&check, &json!({ "agreed": false })).await;
    assert_eq!(problem["code"], "proposal_decided");
    shop.until_shown(&payment, "paid").await;
    let done = |all: &serde_json::Value| all["items"][0]["outcomes"][0]["state"] == "done";
    shop.relay().until("/api/proposals", done).await;
    owner.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booked_receipt_reaches_the_till_later_and_stays_the_same() {
    let mut shop = Shop::open().await;
    let payment = shop.promise(PAYS).await;
    shop.is_charged_and_booked_once(&payment).await;
    let view = shop.until_shown(&payment, "paid").await;
    shop.crash(&[]);
    let address = shop.relay().addresses.iter().find(|one| one.contains("/tcp/")).unwrap().clone();
    let till = Node::start(&shop.owner, &["--peer", &address]);
    let there = till.until(&format!("/api/payments/{payment}"), |there| there["state"] == "paid").await;
    assert_eq!(there["receipts"], view["receipts"]);
    till.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_restored_from_a_backup_freezes_and_is_rebuilt_from_callback_and_list() {
    let mut shop = Shop::open().await;
    shop.provider.behave(json!({ "kind": "silent" })).await;
    shop.crash(&["--trial-pull-seconds", "3600"]);
    let payment = shop.promise(PAYS).await;
    let body = json!({ "amount_minor": 100, "currency": "KES", "phone": "0712345679" });
    shop.until_shown(&payment, "asked").await;
    shop.kill();
    let backup = shop.folder.with_file_name("backup");
    copy(&shop.folder, &backup);
    shop.start(&["--trial-pull-seconds", "3600"]);
    shop.provider.until("charges", 1).await;
    shop.kill();
    // The disk dies; the backup takes its place, without the marker's half beside it.
    std::fs::remove_dir_all(&shop.folder).unwrap();
    copy(&backup, &shop.folder);
    shop.start(&[]);
    let (_, business) = shop.relay().get("/api/business").await;
    assert_eq!(business["epoch"], 2, "{business}");
    // What the list has is booked although nothing may be pushed.
    shop.is_charged_and_booked_once(&payment).await;
    let (_, promised) = shop.relay().post("/api/payments", &body).await;
    shop.crash(&[]);
    let promised = promised["id"].as_str().unwrap();
    let view = shop.until_shown(promised, "pending").await;
    assert_eq!((view["receipts"].as_array().unwrap().len(), shop.provider.pushes()), (0, 1));

    // The owner gives what the first epoch was asked for to the second; the gap is read first.
    shop.provider.behave(json!({ "kind": "pay" })).await;
    shop.crash(&["--trial-absent-seconds", "1"]);
    let address = shop.relay().addresses.iter().find(|one| one.contains("/tcp/")).unwrap().clone();
    let owner = Node::start(&shop.owner, &["--peer", &address]);
    owner.until(&format!("/api/payments/{promised}"), |view| view["ledger"]["epoch"] == 1).await;
    let (folder, device) = (text(&shop.owner).to_owned(), business["device"].as_str().unwrap().to_owned());
    let moved = tokio::task::spawn_blocking(move || {
        let moved = run(&["payments", "move", "--data", &folder, "--to", &device, "--to-epoch", "2"]);
        moved.and_then(|_| run(&["payments", "moves", "--data", &folder]))
    });
    let moves = moved.await.unwrap().unwrap();
    assert_eq!((&moves["items"][0]["from"]["epoch"], &moves["items"][0]["to"]["epoch"]), (&json!(1), &json!(2)));
    let view = shop.until_shown(promised, "paid").await;
    assert_eq!((&view["ledger"]["epoch"], shop.provider.ledger().await.len()), (&json!(2), 2), "{view}");
    assert_eq!(shop.provider.pushes(), 2);
    owner.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_taken_away_mid_flight_is_renewed_once() {
    let mut shop = Shop::open().await;
    let first = shop.promise(PAYS).await;
    shop.is_charged_and_booked_once(&first).await;
    let tokens = shop.provider.counts().await["tokens"].as_u64().unwrap();
    // Somebody else fetches a token with the same credentials.
    shop.provider.take_token().await;
    let second = shop.promise("0712345679").await;
    shop.until_shown(&second, "paid").await;
    let counts = shop.provider.counts().await;
    assert_eq!(counts["tokens"].as_u64().unwrap(), tokens + 2, "{counts}");
    assert_eq!((&counts["pushes"], &counts["charges"]), (&json!(2), &json!(2)));
    shop.crash(&[]);
    shop.until_shown(&second, "paid").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_who_paid_by_hand_shows_the_receipt_number_and_it_pays_once() {
    let mut shop = Shop::open().await;
    let payment = shop.promise(CANCELS).await;
    shop.until_shown(&payment, "failed").await;
    let by_hand = json!({ "phone": PAYS, "amount_minor": 6500, "account": "soda" });
    let (_, paid) = shop.provider.post("/simulator/pay", &by_hand).await;
    let code = paid["receipt_number"].as_str().unwrap();
    let (_, suspense) = shop.relay().get("/api/suspense").await;
    assert!(suspense["items"].as_array().unwrap().len() <= 1);
    let (status, answer) = shop.relay().post(&format!("/api/payments/{payment}/code"), &json!({ "code": code })).await;
    assert!(status.is_success(), "{answer}");
    let view = shop.until_shown(&payment, "paid").await;
    assert_eq!(view["receipts"][0]["number"], code);
    let other = shop.promise("0700000002").await;
    shop.until_shown(&other, "failed").await;
    let (status, problem) = shop.relay().post(&format!("/api/payments/{other}/code"), &json!({ "code": code })).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("code_claimed")));
    shop.crash(&[]);
    shop.until_shown(&payment, "paid").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_take_a_payment_back_and_its_receipt_is_revoked() {
    let shop = Shop::open().await;
    let payment = shop.promise(PAYS).await;
    shop.is_charged_and_booked_once(&payment).await;
    let view = shop.until_shown(&payment, "paid").await;
    let proposal =
        json!({ "subject": view["receipts"][0]["id"], "settlement": { "kind": "reverse" }, "reason": "wrong goods" });
    let (status, made) = shop.relay().post("/api/proposals", &proposal).await;
    assert!(status.is_success(), "{made}");
    let address = shop.relay().addresses.iter().find(|one| one.contains("/tcp/")).unwrap().clone();
    let owner = Node::start(&shop.owner, &["--peer", &address]);
    owner.until("/api/proposals", |all| all["items"].as_array().is_some_and(|all| all.len() == 1)).await;
    assert_eq!(shop.provider.counts().await["reversals"], 0);
    let check = format!("/api/proposals/{}/check", made["id"].as_str().unwrap());
    assert!(owner.post(&check, &json!({ "agreed": true })).await.0.is_success());
    let view =
        shop.relay().until(&format!("/api/payments/{payment}"), |view| view["receipts"][0]["revoked"] == true).await;
    assert_eq!((&view["state"], &view["shown"]), (&json!("void"), &json!("given_up")));
    assert_eq!(shop.provider.ledger().await[0]["reversed"], true);
    let there = owner.until(&format!("/api/payments/{payment}"), |view| view["receipts"][0]["revoked"] == true).await;
    assert_eq!(there["receipts"], view["receipts"]);
    owner.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reversal_whose_result_was_lost_is_found_by_asking_and_never_made_twice() {
    let mut shop = Shop::open().await;
    let payment = shop.promise(PAYS).await;
    shop.is_charged_and_booked_once(&payment).await;
    let view = shop.until_shown(&payment, "paid").await;
    let proposal = json!({ "subject": view["receipts"][0]["id"], "settlement": { "kind": "reverse" } });
    let (_, made) = shop.relay().post("/api/proposals", &proposal).await;
    let address = shop.relay().addresses.iter().find(|one| one.contains("/tcp/")).unwrap().clone();
    let owner = Node::start(&shop.owner, &["--peer", &address]);
    owner.until("/api/proposals", |all| all["items"].as_array().is_some_and(|all| all.len() == 1)).await;
    shop.provider.behave(json!({ "kind": "pay", "delay_ms": 3000 })).await;
    shop.provider.stop_at(Stop::After(REVERSAL));
    let check = format!("/api/proposals/{}/check", made["id"].as_str().unwrap());
    assert!(owner.post(&check, &json!({ "agreed": true })).await.0.is_success());
    shop.provider.stopped().await;
    // The relay is away when the provider has done it and says so.
    shop.kill();
    owner.kill();
    shop.provider.until("reversals", 1).await;
    shop.provider.until("results_lost", 1).await;
    shop.start(&[]);
    let view =
        shop.relay().until(&format!("/api/payments/{payment}"), |view| view["receipts"][0]["revoked"] == true).await;
    assert_eq!(view["state"], "void");
    let done = |all: &serde_json::Value| {
        all["items"][0]["outcomes"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "done"))
    };
    shop.relay().until("/api/proposals", done).await;
    assert_eq!(shop.provider.counts().await["reversals"], 1);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
