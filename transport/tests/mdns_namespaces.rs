//! Two tills find each other by multicast, in network namespaces of their own that vanish with
//! the test. Nothing is sent on the machine's own interfaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(clippy::wildcard_enum_match_arm, missing_debug_implementations)]

mod support;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use support::{Node, config, ended_or_frame, key, receive, send};
use transport::{LanConfig, LanEvent, Link};

const TEST: &str = "tills_find_each_other_by_multicast_and_survive_a_pulled_cable";
const ROLE: &str = "TILLMESH_MDNS_ROLE";
const TILL: u8 = 1;
const PHONE: u8 = 2;

#[test]
fn tills_find_each_other_by_multicast_and_survive_a_pulled_cable() {
    match env::var(ROLE).as_deref() {
        Ok("till") => be_the_till(),
        Ok("phone") => be_the_phone(),
        Ok(role) => panic!("unknown role {role}"),
        Err(_) => run_both(),
    }
}

fn run_both() {
    if let Err(reason) = namespaces_work() {
        if env::var("TILLMESH_NO_SKIP").as_deref() == Ok("1") {
            panic!("network namespaces are needed here: {reason}");
        }
        let mut uncaptured = std::io::stderr();
        writeln!(uncaptured, "SKIPPED: mDNS was not tested, because {reason}").unwrap();
        return;
    }
    let till = myself_in("till", &["--user", "--map-root-user", "--net"]).output().unwrap();
    let (told, failed) = (String::from_utf8_lossy(&till.stdout), String::from_utf8_lossy(&till.stderr));
    assert!(till.status.success(), "{told}\n{failed}");
    assert!(told.contains("all is well"), "the till did nothing: {told}\n{failed}");
}

fn namespaces_work() -> Result<(), String> {
    let made = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "ip", "link", "add", "a0", "type", "veth"])
        .output()
        .map_err(|error| format!("unshare could not be run: {error}"))?;
    match made.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&made.stderr).trim().to_owned()),
    }
}

/// This very test, as one of the two devices, in a namespace.
fn myself_in(role: &str, namespaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(namespaces)
        .arg(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(ROLE, role);
    command
}

fn be_the_till() {
    let mut phone = Phone(myself_in("phone", &["--net"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut told = BufReader::new(phone.0.stdout.take().unwrap());
    wait_for("the phone is on its own", &mut told);
    let phone_id = phone.0.id().to_string();
    ip(&["link", "add", "till0", "type", "veth", "peer", "name", "phone0", "netns", &phone_id]);
    ip(&["address", "add", "10.77.0.1/24", "dev", "till0"]);
    ip(&["link", "set", "till0", "up"]);
    phone.0.stdin.as_mut().unwrap().write_all(b"the cable is in\n").unwrap();

    runtime().block_on(async {
        let mut till = on_the_cable(TILL).await;
        let mut link = discovered_link(&mut till, PHONE).await;
        link.frames_in.raise_limit();
        send(&mut link, "mambo").await;
        assert_eq!(receive(&mut link).await, "poa");

        ip(&["link", "set", "till0", "down"]);
        let pulled = Instant::now();
        let ended = ended_or_frame(&mut link).await;
        assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
        assert!(pulled.elapsed() < Duration::from_secs(16), "{:?}", pulled.elapsed());

        ip(&["link", "set", "till0", "up"]);
        let mut link = loop {
            let mut link = till.link().await;
            send(&mut link, "mambo").await;
            if matches!(ended_or_frame(&mut link).await, Some(Ok(_))) {
                break link;
            }
        };
        send(&mut link, "kwaheri").await;
        assert_eq!(ended_or_frame(&mut link).await, None);
    });
    assert!(phone.0.wait().unwrap().success());
    println!("all is well");
}

fn be_the_phone() {
    println!("the phone is on its own");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "the cable is in\n");
    ip(&["address", "add", "10.77.0.2/24", "dev", "phone0"]);
    ip(&["link", "set", "phone0", "up"]);

    runtime().block_on(async {
        let mut phone = on_the_cable(PHONE).await;
        let mut link = discovered_link(&mut phone, TILL).await;
        loop {
            match ended_or_frame(&mut link).await {
                Some(Ok(frame)) if frame == "kwaheri" => break,
                Some(Ok(_)) => send(&mut link, "poa").await,
                Some(Err(_)) | None => link = phone.link().await,
            }
        }
        drop(link);
        phone.lan.shutdown().await;
    });
}

async fn on_the_cable(secret: u8) -> Node {
    let listen = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"];
    Node::start_with(LanConfig { mdns: true, ..config(secret, &listen) }).await
}

/// The first link, and the hint that must have come with it on the side that asked first.
async fn discovered_link(node: &mut Node, peer: u8) -> Link {
    let (mut hinted, mut link) = (false, None);
    loop {
        match node.event().await {
            LanEvent::Discovered { peer: found, address } => {
                assert_eq!(found, key(peer));
                assert!(address.starts_with("/ip4/10.77.0."), "{address}");
                hinted = true;
            }
            LanEvent::Link(new) => link = Some(new),
            LanEvent::Stream { .. } | LanEvent::Unreachable { .. } => {}
        }
        if hinted && let Some(link) = link.take() {
            assert_eq!(link.peer, key(peer));
            return link;
        }
    }
}

fn wait_for(words: &str, told: &mut BufReader<ChildStdout>) {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert_ne!(told.read_line(&mut line).unwrap(), 0, "the phone ended before {words:?}");
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The other device, gone with this one whatever happens.
struct Phone(Child);

impl Drop for Phone {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}
