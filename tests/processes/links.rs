//! Who links up with whom, over real sockets.

use serde_json::json;

use crate::node::{Node, init, until_one_says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_reaches_every_till_also_by_way_of_another() {
    let at = tempfile::tempdir().unwrap();
    let folders: Vec<_> = ["first", "second", "third"].iter().map(|name| at.path().join(name)).collect();
    init(&folders[0]);
    let first = Node::start(&folders[0], &[]);
    first.admit(&folders[1], "till").await;
    first.admit(&folders[2], "till").await;
    // A chain over TCP and QUIC: the third knows only the second. An introducer's address is
    // remembered, so the first is started anew elsewhere.
    first.kill();
    let first = Node::start(&folders[0], &[]);
    let quic = first.addresses.iter().find(|address| address.contains("quic")).unwrap();
    let second = Node::start(&folders[1], &["--peer", quic]);
    let tcp = second.addresses.iter().find(|address| address.contains("/tcp/")).unwrap();
    let third = Node::start(&folders[2], &["--peer", tcp]);
    first.sell("chain").await;
    third.until_sales(1).await;
    third.sell("back").await;
    first.until_sales(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_two_businesses_do_not_link() {
    let at = tempfile::tempdir().unwrap();
    let (ours, theirs) = (at.path().join("ours"), at.path().join("theirs"));
    init(&ours);
    init(&theirs);
    let mut one = Node::start(&ours, &[]);
    one.sell("secret").await;
    let mut other = Node::start(&theirs, &["--peer", &one.addresses[0]]);
    other.sell("own").await;
    // They have met, and one of them has parted; the other may see no more than that.
    until_one_says(&mut [&mut one, &mut other], "a link is refused");
    assert_eq!(one.get("/api/peers").await.1["items"], json!([]));
    assert_eq!(other.get("/api/peers").await.1["items"], json!([]));
    assert_eq!((one.sales().await, other.sales().await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_lets_one_device_in_once() {
    let at = tempfile::tempdir().unwrap();
    let founder = at.path().join("founder");
    init(&founder);
    let node = Node::start(&founder, &[]);
    let (_, answer) = node.post("/api/invitations", &json!({})).await;
    let invitation = answer["invitation"].as_str().unwrap().to_owned();
    let join = |name: &str| {
        let (folder, invitation) = (at.path().join(name), invitation.clone());
        tokio::task::spawn_blocking(move || {
            let folder = folder.to_str().unwrap().to_owned();
            crate::node::run(&["join", "--data", &folder, "--device-name", "till", "--no-mdns", &invitation])
        })
    };
    join("first").await.unwrap().unwrap();
    let refused = join("second").await.unwrap().unwrap_err();
    assert!(refused.contains("used already"), "{refused}");
    assert!(!at.path().join("second").join("shop.redb").exists());
}
