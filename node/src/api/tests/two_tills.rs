//! Two tills that were apart: edits merge, or stand against each other until a person decides.

use crdt_model::money::Currency;
use crdt_model::record::{Kind, Role};
use serde_json::json;

use crate::shop_loop::now;

use super::support::{Till, bread, request};

fn tills() -> (Till, Till) {
    (Till::new(), Till::of(2, Role::Till, Currency::KES))
}

#[tokio::test]
async fn edits_of_different_fields_merge_and_of_one_field_are_both_kept() {
    let (a, b) = tills();
    a.record("/api/products", &json!({ "sku": "BREAD", "name": "Bread", "price_minor": 6500 })).await;
    b.record("/api/products", &json!({ "sku": "BREAD", "name": "Bread", "price_minor": 7000 })).await;
    b.patch("/api/products/BREAD", &json!({ "category": "bakery" })).await;
    a.meet(&b);
    let conflicts = |shop: &crdt_model::shop::Shop| (shop.conflict_count() == 1).then_some(());
    a.until(conflicts).await;
    b.until(conflicts).await;

    let product = a.found("/api/products/BREAD").await;
    assert_eq!((product["name"].clone(), product["category"].clone()), (json!("Bread"), json!("bakery")));
    assert_eq!(product["conflicts"]["price_minor"], json!([6500, 7000]));
    let listed = a.found("/api/conflicts").await;
    assert_eq!(listed, b.found("/api/conflicts").await, "both tills see the same conflict");
    let conflict = listed["items"][0].clone();
    assert_eq!((conflict["kind"].clone(), conflict["field"].clone()), (json!("field"), json!("price_minor")));
    assert_eq!(conflict["sides"].as_array().unwrap().len(), 2);

    let path = format!("/api/conflicts/{}/resolve", conflict["id"].as_str().unwrap());
    assert_eq!(a.post(&path, &json!({ "choice": "9" })).await.problem().1.unwrap(), "choice");
    assert_eq!(a.post(&path, &json!({ "value": "cheap" })).await.problem().0, "invalid_field");
    let decided = a.post(&path, &json!({ "value": 6800 })).await;
    assert_eq!(decided.status, 202, "{}", decided.text());
    b.until(|shop| (shop.conflict_count() == 0).then_some(())).await;
    assert_eq!(b.found("/api/products/BREAD").await["price_minor"], 6800);
    assert_eq!(a.found("/api/conflicts").await["items"], json!([]));
}

#[tokio::test]
async fn one_id_with_two_bodies_is_a_conflict_that_a_person_decides() {
    let (a, b) = tills();
    for (till, note) in [(&a, "first"), (&b, "second")] {
        let mut sale = bread();
        sale["operation_id"] = json!("s-1");
        sale["note"] = json!(note);
        till.record("/api/sales", &sale).await;
    }
    a.meet(&b);
    a.until(|shop| (shop.conflict_count() == 1).then_some(())).await;
    let conflict = a.found("/api/conflicts").await["items"][0].clone();
    assert_eq!(conflict["kind"], "same_id_other_body");
    let notes = [&conflict["sides"][0]["value"]["note"], &conflict["sides"][1]["value"]["note"]];
    assert_eq!(notes, ["first", "second"]);
    assert_eq!(conflict["sides"][0]["counted"], true);

    let path = format!("/api/conflicts/{}/resolve", conflict["id"].as_str().unwrap());
    assert_eq!(a.post(&path, &json!({ "value": 1, "choice": "x" })).await.problem().1.unwrap(), "value");
    let choice = conflict["sides"][0]["label"].clone();
    let decided = a.post(&path, &json!({ "choice": choice, "note": "the other was a test" })).await;
    assert_eq!(decided.status, 202, "{}", decided.text());
    assert_eq!(a.found("/api/conflicts").await["items"], json!([]));
    let all = a.found("/api/conflicts?all=true").await;
    assert_eq!(all["items"][0]["resolution"]["note"], "the other was a test");
}

#[tokio::test]
async fn a_till_that_ran_twice_is_listed_and_nothing_of_it_is_lost() {
    let (twin, other) = (Till::new(), Till::of(2, Role::Till, Currency::KES));
    let till = Till::new();
    for (till, note) in [(&till, "here"), (&twin, "there")] {
        let mut sale = bread();
        sale["note"] = json!(note);
        till.record("/api/sales", &sale).await;
    }
    till.meet(&other);
    other.until(|shop| (shop.books().count_of(Kind::Sale) == 1).then_some(())).await;
    // Whoever finds a fork closes its links, and meets the others anew.
    let both = |shop: &crdt_model::shop::Shop| (shop.fork_conflicts().first()?.sides.len() == 2).then_some(());
    for meeting in 1.. {
        assert!(meeting < 20, "the fork is never found");
        twin.meet(&other);
        if tokio::time::timeout(std::time::Duration::from_secs(3), other.until(both)).await.is_ok() {
            break;
        }
    }
    let listed = other.found("/api/conflicts").await;
    let forked = listed["items"].as_array().unwrap().iter().find(|one| one["kind"] == "journal_forked").unwrap();
    assert_eq!(forked["sides"].as_array().unwrap().len(), 2, "{listed}");
    for side in forked["sides"].as_array().unwrap() {
        assert_eq!((&side["counted"], &side["value"]["lines"][0]["sku"]), (&json!(true), &json!("BREAD")), "{side}");
        assert!(side["recorded_at"].as_str().unwrap().starts_with("20"), "{side}");
    }
    let path = format!("/api/conflicts/{}/resolve", forked["id"].as_str().unwrap());
    let looked = other.post(&path, &json!({ "choice": "the copy is wiped" })).await;
    assert!(looked.status.is_success(), "{}", looked.text());
    let kinds = |listed: serde_json::Value| listed["items"].to_string().contains("journal_forked");
    assert!(!kinds(other.found("/api/conflicts").await) && kinds(other.found("/api/conflicts?all=true").await));
}

#[tokio::test]
async fn what_was_sold_twice_from_one_shelf_is_listed() {
    let (a, b) = tills();
    a.record("/api/products", &json!({ "sku": "BREAD", "name": "Bread", "price_minor": 6500 })).await;
    let counted = json!({ "sku": "BREAD", "counted_milli": 3000 });
    a.record("/api/stock/adjustments", &counted).await;
    // What was sold in the very millisecond of a count may have come before it.
    let counted_at = now();
    while now() == counted_at {
        tokio::task::yield_now().await;
    }
    for till in [&a, &b] {
        till.record("/api/sales", &bread()).await;
    }
    a.meet(&b);
    b.until(|shop| (shop.conflict_count() == 1).then_some(())).await;
    let conflict = b.found("/api/conflicts").await["items"][0].clone();
    assert_eq!((conflict["kind"].clone(), conflict["sku"].clone()), (json!("oversold"), json!("BREAD")));
}

#[tokio::test]
async fn a_caller_that_waits_is_told_when_the_relay_has_it() {
    let till = Till::new();
    let relay = Till::of(3, Role::Relay, Currency::KES);
    till.meet(&relay);
    let connected = |shop: &crdt_model::shop::Shop| {
        shop.peers().iter().any(|peer| !peer.links.is_empty() && peer.certificate.is_some()).then_some(())
    };
    till.until(connected).await;
    let answered = till.call(request("POST", "/api/sales?wait=20000", &bread().to_string())).await;
    assert_eq!(answered.status, 201, "{}", answered.text());
    assert_eq!(answered.json()["queued"], false);
    let peers = till.found("/api/peers").await["items"].clone();
    assert_eq!((peers[0]["role"].clone(), peers[0]["connected"].clone()), (json!("relay"), json!(true)));
    assert_eq!(peers[0]["links"][0]["kind"], "memory");
    assert_eq!(till.found("/api/offline/pending").await["items"], json!([]));
}

#[tokio::test]
async fn a_till_behind_another_hears_the_relays_word_and_is_safe_to_wipe() {
    let (owner, till) = tills();
    let relay = Till::of(3, Role::Relay, Currency::KES);
    till.record("/api/sales", &bread()).await;
    let alone = till.found("/api/safe-to-wipe").await;
    assert_eq!(alone["reasons"], json!(["only_here", "not_at_relay"]));
    owner.meet(&till);
    owner.meet(&relay);
    till.until(|shop| (shop.peers().len() == 1).then_some(())).await;
    // The relay has recorded nothing, so the till hears of it by the owner's word that it belongs.
    let enrolment =
        crdt_model::record::Fact::Enrolment(relay.shop.ask(|shop| shop.certificate().clone()).await.unwrap());
    owner.shop.record(crdt_model::shop::Operation { facts: vec![enrolment], ..Default::default() }).await.unwrap();
    till.until(|shop| (shop.members().count() == 3).then_some(())).await;
    relay.until(|shop| (shop.books().count_of(crdt_model::record::Kind::Sale) == 1).then_some(())).await;

    let safe = till.found("/api/safe-to-wipe?wait=20000").await;
    assert_eq!((safe["safe"].clone(), safe["reasons"].clone()), (json!(true), json!([])), "{safe}");
    let own = safe["journals"].as_array().unwrap().iter().find(|held| held["author"]["name"] == "till 2").unwrap();
    assert!(own["holders"].as_array().unwrap().iter().any(|holder| holder["relay"] == true), "{own}");
    let status = till.found("/api/offline/status").await;
    assert_eq!((status["pending"].clone(), status["synced"].clone()), (json!(0), json!(1)));
    assert!(status["lastSync"].is_string());
    let bytes = data_encoding::BASE64.decode(safe["verdict"].as_str().unwrap().as_bytes()).unwrap();
    let signature = data_encoding::HEXLOWER.decode(safe["signature"].as_str().unwrap().as_bytes()).unwrap();
    let read = crdt_model::shop::SignedVerdict::read(&bytes, &signature.try_into().unwrap()).unwrap();
    assert!(read.verdict.safe && read.verdict.device == till.device);
    let keeper = owner.found("/api/safe-to-wipe?wait=20000").await;
    assert_eq!(keeper["reasons"], json!(["owner_key"]), "whoever has the owner's key must not be wiped");
}
