//! The OpenAPI document and docs/api.md tell what the code does.

use std::collections::BTreeSet;

use super::support::Till;
use crate::api::capability::{CAPABILITY_HEADERS, OFFLINE_CAPABLE, OFFLINE_OPERATIONS};
use crate::api::{Code, openapi};

const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md"));

#[tokio::test]
async fn every_documented_path_is_served_and_every_route_is_documented() {
    let till = Till::new();
    let served = till.found("/openapi.json").await;
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1"), "{}", served["openapi"]);
    let document = openapi();
    assert_eq!(served, document);
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            operations.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let listed: BTreeSet<String> = DOCS
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split('`').next())
        .filter(|row| row.contains(" /"))
        .map(str::to_owned)
        .collect();
    assert_eq!(operations, listed, "docs/api.md lists every call");
}

#[tokio::test]
async fn every_answer_carries_the_capability_headers_which_the_docs_name() {
    let till = Till::new();
    till.patch("/api/offline/config", &serde_json::json!({ "allow_expenses_offline": false })).await;
    let answers = [
        till.get("/api/business").await,
        till.get("/api/sales/none").await,
        till.get("/nowhere").await,
        till.call(super::support::request("POST", "/api/sales", "{")).await,
    ];
    for (name, _) in CAPABILITY_HEADERS {
        for answer in &answers {
            assert!(answer.headers.contains_key(name), "{name}: {}", answer.text());
        }
        assert!(DOCS.to_lowercase().contains(&format!("| `{name}` |")), "docs/api.md names {name}");
    }
    assert_eq!(answers[0].headers[OFFLINE_OPERATIONS], "sale,record,payment,stock_adjustment,custom");
    let document = openapi();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let headers = &response["headers"];
                assert!(headers[OFFLINE_CAPABLE].is_object(), "{method} {path} {status}: {headers}");
            }
        }
    }
}

#[tokio::test]
async fn every_route_is_in_the_document_and_every_call_of_the_document_is_a_route() {
    // Routes come from handlers that describe themselves, so that none is left out.
    let source = include_str!("../mod.rs");
    assert!(![".route(", ".nest(", ".merge("].iter().any(|way| source.contains(way)), "add routes with routes!");
    let till = Till::new();
    let document = openapi();
    for (path, item) in document["paths"].as_object().unwrap() {
        let asked = path.replace(['{', '}'], "");
        for (method, operation) in item.as_object().unwrap() {
            let body = if operation["requestBody"].is_null() { "" } else { "{}" };
            let method = method.to_uppercase();
            let answer = till.send(super::support::request(&method, &asked, body)).await;
            assert_ne!(answer.status(), 405, "{method} {path}");
            if answer.status() == 404 {
                let bytes = axum::body::to_bytes(answer.into_body(), 100_000).await.unwrap();
                let said = String::from_utf8_lossy(&bytes).into_owned();
                assert!(!said.contains("no such path"), "{method} {path}: {said}");
            }
        }
        let answer = till.call(super::support::request("TRACE", &asked, "")).await;
        assert_eq!(answer.problem().0, "method_not_allowed", "{path}");
        let allowed = answer.headers["allow"].to_str().unwrap().to_owned();
        for method in item.as_object().unwrap().keys() {
            assert!(allowed.contains(&method.to_uppercase()), "{path}: {allowed}");
        }
    }
}

#[test]
fn no_two_types_share_a_name_in_the_document_and_nothing_is_named_in_vain() {
    let document = openapi();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(reference).is_some(), "{reference} is missing");
    }
    // A second type of one name would silently take the place of the first.
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api")).unwrap() {
        let path = file.unwrap().path();
        let Ok(source) = std::fs::read_to_string(&path) else { continue };
        for item in source.split("ToSchema)]").skip(1) {
            let (attributes, rest) = item.split_once("struct ").unwrap_or((item, ""));
            if attributes.contains('{') || attributes.contains("IntoParams") {
                continue;
            }
            let renamed = attributes.split("schema(as = ").nth(1).and_then(|rest| rest.split(')').next());
            let name = renamed.unwrap_or_else(|| rest.split(|letter: char| !letter.is_alphanumeric()).next().unwrap());
            assert!(
                names.insert(name.to_owned()),
                "{name} in {} is a name twice: give it schema(as = …)",
                path.display()
            );
        }
    }
    assert!(names.len() > 50, "{names:?}");
}

#[test]
fn the_docs_list_every_code_with_its_status() {
    let listed: Vec<(&str, &str)> = DOCS
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once("` | "))
        .filter_map(|(code, rest)| Some((code, rest.split(" | ").next()?)))
        .filter(|(_, status)| status.parse::<u16>().is_ok())
        .collect();
    let codes: Vec<(&str, String)> = Code::ALL.iter().map(|code| (code.text(), code.status().to_string())).collect();
    let codes: Vec<(&str, &str)> = codes.iter().map(|(code, status)| (*code, status.as_str())).collect();
    assert_eq!(listed, codes);
}
