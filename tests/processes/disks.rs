//! A disk that is full: clear words, and nothing acknowledged is lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::node::{sale, text};

/// Runs in a mount namespace of its own: a small disk, a node on it, and afterwards, with some
/// room again, an export of what it holds.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs -o size=6m none "$DISK"
dd if=/dev/zero of="$DISK/filler" bs=1M count=1 2>/dev/null
"$PROGRAM" init --data "$DISK/till" --name Duka --currency KES >/dev/null
set +e
"$PROGRAM" run --json --api 127.0.0.1:0 --no-network --data "$DISK/till"
echo "exit $?"
rm "$DISK/filler"
"$PROGRAM" export --format jsonl --data "$DISK/till" --out "$OUT"
echo "export $?"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_node_with_clear_words_and_keeps_every_acknowledged_sale() {
    let namespaces = Command::new("unshare").args(["-rm", "true"]).status();
    if !namespaces.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("TILLMESH_NO_SKIP").is_none(), "mount namespaces are needed here");
        let mut uncaptured = std::io::stderr();
        writeln!(uncaptured, "SKIPPED: mount namespaces are not permitted here").unwrap();
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let (disk, out) = (at.path().join("disk"), at.path().join("out.jsonl"));
    std::fs::create_dir(&disk).unwrap();
    let mut child = Command::new("unshare")
        .args(["-rm", "sh", "-c", SCRIPT])
        .env("DISK", text(&disk))
        .env("OUT", text(&out))
        .env("PROGRAM", env!("CARGO_BIN_EXE_tillmesh"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let url = format!("http://{}/api/sales", ready["api"].as_str().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut acknowledged = Vec::new();
    for number in 0..200_000 {
        let mut body = sale(&format!("full-{number}"));
        body["note"] = "x".repeat(1_500).into();
        let Ok(response) = client.post(&url).json(&body).send().await else { break };
        if !response.status().is_success() {
            assert_eq!(response.status(), 503);
            break;
        }
        let answer: serde_json::Value = response.json().await.unwrap();
        acknowledged.push(answer["id"].as_str().unwrap().to_owned());
    }
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(rest.contains(&"exit 1".to_owned()), "{rest:?} {said}");
    assert!(said.contains("disk is full"), "{said}");
    assert!(rest.contains(&"export 0".to_owned()), "{rest:?} {said}");
    assert!(!acknowledged.is_empty());
    let held = std::fs::read_to_string(&out).unwrap();
    for id in &acknowledged {
        assert!(held.contains(id), "the acknowledged sale {id} is lost");
    }
}
