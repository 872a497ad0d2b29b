//! Data folders that are copied, restored or damaged.

use std::path::Path;
use std::process::Command;

use crate::node::{Node, init, program, run, text};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_copied_and_started_twice_loses_no_sale() {
    let at = tempfile::tempdir().unwrap();
    let (original, twin, relay) = (at.path().join("till"), at.path().join("twin"), at.path().join("relay"));
    init(&original);
    let till = Node::start(&original, &[]);
    till.admit(&relay, "relay").await;
    for number in 0..5 {
        till.sell(&format!("before-{number}")).await;
    }
    till.kill();
    copy(&original, &twin);

    let till = Node::start(&original, &[]);
    let copy = Node::start(&twin, &[]);
    for number in 0..4 {
        till.sell(&format!("till-{number}")).await;
        copy.sell(&format!("copy-{number}")).await;
    }
    let (_, business) = till.get("/api/business").await;
    let (_, other) = copy.get("/api/business").await;
    assert_eq!(business["device"], other["device"], "one device, twice");
    assert_ne!(business["journal"], other["journal"], "but each writes a journal of its own");

    // The two have one key, so a device links to one of them at a time.
    let listening = Node::start_as("relay", &relay, &["--peer", &till.addresses[0]]);
    listening.until_sales(9).await;
    till.kill();
    listening.kill();
    let listening = Node::start_as("relay", &relay, &["--peer", &copy.addresses[0]]);
    listening.until_sales(13).await;
    copy.until_sales(13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_restored_from_a_backup_goes_on_in_a_new_epoch_and_gets_its_sales_back() {
    let at = tempfile::tempdir().unwrap();
    let (folder, backup, relay) = (at.path().join("till"), at.path().join("backup"), at.path().join("relay"));
    init(&folder);
    let till = Node::start(&folder, &[]);
    till.admit(&relay, "relay").await;
    till.sell("before").await;
    till.kill();
    copy(&folder, &backup);
    let till = Node::start(&folder, &[]);
    let listening = Node::start_as("relay", &relay, &["--peer", &till.addresses[0]]);
    till.sell("after the backup").await;
    listening.until_sales(2).await;
    till.kill();
    listening.kill();

    let till = Node::start(&backup, &[]);
    till.sell("after the restore").await;
    let listening = Node::start_as("relay", &relay, &["--peer", &till.addresses[0]]);
    till.until_sales(3).await;
    listening.until_sales(3).await;
    assert_eq!(till.get("/api/business").await.1["epoch"], 2);
}

#[test]
fn a_damaged_file_is_refused_with_what_to_do_and_is_never_deleted() {
    let at = tempfile::tempdir().unwrap();
    let folder = at.path().join("till");
    init(&folder);
    let file = folder.join("shop.redb");
    let whole = std::fs::read(&file).unwrap();
    for damaged in [Vec::new(), b"this is no shop".to_vec(), whole[..whole.len() / 3].to_vec()] {
        std::fs::write(&file, &damaged).unwrap();
        let output = program().args(["status", "--data", text(&folder)]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("shop.redb"), "it names the file: {said}");
        assert!(said.contains("join"), "it says what to do: {said}");
        assert!(file.exists());
    }
}

#[test]
fn a_folder_without_a_business_says_how_to_make_one() {
    let at = tempfile::tempdir().unwrap();
    let said = run(&["status", "--data", text(&at.path().join("nothing"))]).unwrap_err();
    assert!(said.contains("init"), "{said}");
}
