//! Products, customers and corrections of notes at the shop's own server, for a business that
//! wants them there.

use serde_json::json;

use crate::upstream::{patch, post, till_with, until_synced};
use crate::upstream_server::{Upstream, Whim};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrections_reach_the_server_as_changes_of_only_their_fields() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let till = till_with(&server, at.path(), "").await;
    // Unless the business wants it, the server hears of nothing but operations.
    post(&till, "/api/products", &json!({ "sku": "MILK", "name": "Milk", "price_minor": 6000 })).await;
    patch(&till, "/api/offline/config", &json!({ "send_corrections": true })).await;

    server.put("BREAD", json!({ "sku": "BREAD", "name": "Bread", "price_minor": 6500, "shelf": 3 }));
    post(&till, "/api/products", &json!({ "sku": "TEA", "name": "Tea", "price_minor": 2000 })).await;
    until_synced(&till, 1).await;
    assert_eq!(server.record("s-1").value["sku"], "TEA");
    post(&till, "/api/products", &json!({ "sku": "BREAD", "name": "Bread", "price_minor": 6500 })).await;
    patch(&till, "/api/products/BREAD", &json!({ "price_minor": 7000 })).await;

    // The sale is held up, and its note waits for it; the customer's number goes behind the customer.
    server.misbehave("sale-1", [Whim::Status(503, json!({}))]);
    let sale = till.sell("sale-1").await;
    patch(&till, &format!("/api/sales/{sale}"), &json!({ "note": "a gift" })).await;
    let amina = post(&till, "/api/customers", &json!({ "name": "Amina", "phone": "0700" })).await;
    let amina = amina["id"].as_str().unwrap();
    patch(&till, &format!("/api/customers/{amina}"), &json!({ "phone": "0711" })).await;
    until_synced(&till, 7).await;

    let bread = server.record("BREAD").value;
    assert_eq!((bread["price_minor"].clone(), bread["shelf"].clone()), (json!(7000), json!(3)), "{bread}");
    let id_of = async |name: &str| {
        let operation = till.get(&format!("/api/offline/history/{name}")).await.1["operation"].clone();
        operation["server_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(server.record(&id_of("sale-1").await).value["note"], "a gift");
    let customers = till.get("/api/offline/pending?status=synced&type=customer").await.1;
    let created = customers["items"].as_array().unwrap().iter().find(|one| one["method"] == json!("POST")).unwrap();
    let at_server = server.record(created["server_id"].as_str().unwrap()).value;
    assert_eq!((at_server["name"].clone(), at_server["phone"].clone()), (json!("Amina"), json!("0711")));
    let changed = customers["items"].as_array().unwrap().iter().find(|one| one["method"] == json!("PATCH")).unwrap();
    assert_eq!(changed["request_body"], json!({ "phone": "0711" }), "only what changed");
}
