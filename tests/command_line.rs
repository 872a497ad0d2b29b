//! The command line, as people and programs use it: the real binary in temporary folders, with
//! loopback ports that the system chooses.

// Everything here is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn tillmesh(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tillmesh"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TILLMESH_")) {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null());
    command
}

fn answer(words: &[&str]) -> Output {
    tillmesh(words).output().unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The JSON of a command that is expected to do it.
fn json(words: &[&str]) -> Value {
    let output = answer(&[words, &["--json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {}", told(&output)))
}

/// The error of a command that is expected to be refused.
fn refused(words: &[&str], exit: i32) -> Value {
    let output = answer(&[words, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(exit), "{words:?}: {}", told(&output));
    let last = String::from_utf8(output.stderr).unwrap();
    let last = last.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(last).unwrap_or_else(|error| panic!("{words:?}: {error}: {last}"))["error"].clone()
}

/// A folder with a business.
struct Duka {
    folder: TempDir,
}

impl Duka {
    fn new(currency: &str) -> Self {
        let duka = Self { folder: tempfile::tempdir().unwrap() };
        json(&["init", "--data", duka.data(), "--name", "Duka", "--currency", currency]);
        duka
    }

    fn data(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn total(&self) -> u64 {
        json(&["status", "--data", self.data()])["offline"]["total"].as_u64().unwrap()
    }
}

/// A node in a process of its own, killed when it is dropped.
struct Serving {
    child: Child,
    ready: Value,
    _out: BufReader<ChildStdout>,
}

const LOOPBACK: [&str; 5] = ["--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"];

impl Serving {
    fn start(words: &[&str]) -> Self {
        let mut child = tillmesh(words).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("{words:?} did not start: {errors}");
        }
        // Its log is not read any more; a full pipe would stop it.
        let mut log = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, ready: serde_json::from_str(&line).unwrap(), _out: out }
    }

    fn till(data: &str) -> Self {
        Self::start(&[&["run", "--data", data], LOOPBACK.as_slice()].concat())
    }

    /// As a service manager ends it.
    fn terminate(mut self) -> Option<i32> {
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(told.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_first_lines_a_new_user_types() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let data = data.to_str().unwrap();
    let made = answer(&["init", "--data", data, "--name", "Duka", "--currency", "KES"]);
    assert!(made.status.success(), "{}", told(&made));
    assert!(told(&made).contains("recovery phrase"));

    let node = Serving::till(data);
    let sale = ["sale", "--data", data, "--line", "BREAD:2:65.00", "--pay", "mpesa:254708374149"];
    let sold = json(&sale);
    assert_eq!(sold["total_minor"], 13_000);
    assert_eq!(sold["currency"], "KES");
    assert_eq!(sold["intents"].as_array().unwrap().len(), 1);
    let spent = json(&["expense", "--data", data, "--category", "rent", "--amount", "150.50"]);
    assert_eq!(spent["success"], true);
    let status = json(&["status", "--data", data]);
    assert_eq!(status["running"], true);
    assert_eq!(status["business"]["name"], "Duka");
    assert_eq!(node.ready["business"], status["business"]["id"]);
    assert_eq!(node.ready["device"], status["business"]["device"]);
    assert_eq!(node.terminate(), Some(0));
}

#[test]
fn a_command_does_the_same_with_and_without_a_running_node() {
    let duka = Duka::new("KES");
    let sale = ["sale", "--data", duka.data(), "--line", "BREAD:1:65", "--operation-id", "receipt-1"];
    let alone = json(&sale);
    assert_eq!(alone["repeated"], false);
    assert_eq!(json(&["status", "--data", duka.data()])["running"], false);

    let node = Serving::till(duka.data());
    let through_the_node = json(&sale);
    assert_eq!(through_the_node["repeated"], true, "the same id is the same sale");
    assert_eq!(through_the_node["id"], alone["id"]);
    json(&["sale", "--data", duka.data(), "--line", "MILK:0.5:120"]);
    assert_eq!(
        refused(&["sale", "--data", duka.data(), "--line", "B:1:1", "--operation-id", "receipt-1"], 1)["code"],
        "operation_id_reused"
    );
    let running = duka.total();
    assert_eq!(json(&["peers", "--data", duka.data()])["items"], Value::Array(Vec::new()));
    assert_eq!(json(&["conflicts", "--data", duka.data()]), Value::Array(Vec::new()));
    assert_eq!(node.terminate(), Some(0));

    assert!(!duka.folder.path().join("running.json").exists(), "it says that it is gone");
    assert_eq!(duka.total(), running);
    assert_eq!(running, 2);
}

#[test]
fn a_killed_node_leaves_the_folder_usable_and_every_sale_in_it() {
    let duka = Duka::new("KES");
    let mut node = Serving::till(duka.data());
    json(&["sale", "--data", duka.data(), "--line", "BREAD:1:65"]);
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    assert!(duka.folder.path().join("running.json").exists(), "nobody removed it");
    json(&["sale", "--data", duka.data(), "--line", "BREAD:1:65"]);
    assert_eq!(duka.total(), 2);
}

#[test]
fn sales_at_the_same_time_take_turns_at_the_folder() {
    let duka = Duka::new("KES");
    let tills: Vec<Child> = (0..4)
        .map(|_| {
            let sale = ["sale", "--data", duka.data(), "--line", "BREAD:1:65", "--json"];
            tillmesh(&sale).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for till in tills {
        let output = till.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
    }
    assert_eq!(duka.total(), 4);
}

#[test]
fn a_flag_goes_over_the_environment_and_that_over_the_file() {
    let duka = Duka::new("KES");
    let taken = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (of_file, of_environment) = (taken(), taken());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    duka.file("config.toml", &format!("api = '{}'\nmdns = false\nlisten = ['/ip4/127.0.0.1/tcp/0']", port(&of_file)));

    let run = ["run", "--data", duka.data(), "--json"];
    let file = tillmesh(&run).output().unwrap();
    assert_eq!(file.status.code(), Some(1));
    assert!(told(&file).contains(&port(&of_file)) && told(&file).contains("--api"), "{}", told(&file));
    let environment = tillmesh(&run).env("TILLMESH_API", port(&of_environment)).output().unwrap();
    assert_eq!(environment.status.code(), Some(1));
    assert!(told(&environment).contains(&port(&of_environment)), "{}", told(&environment));
    let node = Serving::start(&["run", "--data", duka.data(), "--api", "127.0.0.1:0"]);
    assert!(node.ready["api"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(node.ready["addresses"][0].as_str().unwrap().starts_with("/ip4/127.0.0.1/tcp/"), "the file's");
}

#[test]
fn an_unknown_key_is_refused_by_every_command() {
    let duka = Duka::new("KES");
    duka.file("config.toml", "apl = '127.0.0.1:0'");
    for words in [&["run"][..], &["status"], &["sale", "--line", "BREAD:1:65"]] {
        let error = refused(&[words, &["--data", duka.data()]].concat(), 2);
        assert!(error["message"].as_str().unwrap().contains("apl"), "{error}");
    }
    let other = duka.file("other.toml", "");
    assert_eq!(json(&["status", "--data", duka.data(), "--config", other.to_str().unwrap()])["running"], false);
}

#[test]
fn what_can_not_be_done_says_why_and_what_to_do() {
    let duka = Duka::new("KES");
    let data = duka.data();
    let taken = refused(&["init", "--data", data, "--name", "Again", "--currency", "KES"], 1);
    assert!(taken["message"].as_str().unwrap().contains("--data"), "{taken}");
    let empty = tempfile::tempdir().unwrap();
    let nothing = refused(&["status", "--data", empty.path().to_str().unwrap()], 1);
    assert!(nothing["message"].as_str().unwrap().contains("init or join"), "{nothing}");
    let till = refused(&["relay", "--data", data, "--api", "127.0.0.1:0", "--no-network"], 1);
    assert_eq!(till["code"], "not_a_relay");

    let sale = |words: &[&str]| refused(&[&["sale", "--data", data], words].concat(), 1);
    assert_eq!(sale(&["--line", "BREAD:1:65", "--pay", "cash:60"])["code"], "unbalanced");
    let phone = sale(&["--line", "BREAD:1:65", "--pay", "mpesa:12"]);
    assert_eq!((&phone["code"], &phone["field"]), (&"invalid_field".into(), &"tenders[0].phone".into()));
    assert_eq!(sale(&["--line", "BREAD:1:65.50", "--pay", "mpesa:0708374149"])["code"], "unsupported_tender");
    let price = refused(&["sale", "--data", data, "--line", "BREAD:1:65.001"], 2);
    assert_eq!(price["field"], "lines[0].unit_price_minor");
    assert_eq!(duka.total(), 0, "nothing was recorded");

    for words in [&["sale"][..], &["sale", "--line", "BREAD"], &["init", "--name", "x"], &["fly"]] {
        assert_eq!(answer(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn a_folder_held_by_a_node_is_not_opened_twice() {
    let duka = Duka::new("KES");
    let _node = Serving::till(duka.data());
    let second = refused(&[&["run", "--data", duka.data()], LOOPBACK.as_slice()].concat(), 1);
    assert!(second["message"].as_str().unwrap().contains("held by a running node"), "{second}");
}

#[test]
fn a_device_joins_with_an_invitation_once_and_sells_into_the_same_books() {
    let duka = Duka::new("KES");
    let new = tempfile::tempdir().unwrap();
    let folder = |name: &str| new.path().join(name).to_str().unwrap().to_owned();
    let join = |folder: &str, invitation: &str| {
        vec!["join", invitation, "--data", folder, "--device-name", "Till 2", "--no-mdns"]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let words = |owned: &[String]| owned.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
    let call = |owned: Vec<String>, exit: i32| {
        let owned = words(&owned);
        refused(&owned.iter().map(String::as_str).collect::<Vec<_>>(), exit)
    };

    assert_eq!(answer(&["join", "hello", "--device-name", "x"]).status.code(), Some(2));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{closed}");
    let early = json(&["invite", "--data", duka.data(), "--address", &address]);
    assert_eq!(early["addresses"], serde_json::json!([address]));
    let unreachable = call(join(&folder("a"), early["invitation"].as_str().unwrap()), 1);
    assert!(unreachable["message"].as_str().unwrap().contains("can't be reached"), "{unreachable}");

    let first = Serving::till(duka.data());
    let invited = json(&["invite", "--data", duka.data(), "--role", "relay"]);
    let invitation = invited["invitation"].as_str().unwrap();
    let relay_folder = folder("a");
    let joined = join(&relay_folder, invitation);
    let joined = json(&joined.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(joined["role"], "relay");
    assert_eq!(joined["business"], first.ready["business"]);
    let used = call(join(&folder("b"), invitation), 1);
    assert!(used["message"].as_str().unwrap().contains("used already"), "{used}");
    let again = call(join(&relay_folder, invitation), 1);
    assert!(again["message"].as_str().unwrap().contains("holds a business"), "{again}");

    let credentials = folder("mpesa.toml");
    let simulator = Serving::start(&["mpesa-simulator", "--listen", "127.0.0.1:0", "--credentials-out", &credentials]);
    assert!(simulator.ready["base_url"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    let with = ["--mpesa", credentials.as_str(), "--callbacks", "127.0.0.1:0"];
    let start = ["relay", "--data", relay_folder.as_str()];
    let relay = Serving::start(&[start.as_slice(), &LOOPBACK, &with].concat());
    assert_eq!(relay.ready["device"], joined["device"]);
    let sale = ["sale", "--data", duka.data(), "--line", "BREAD:1:65", "--wait", "30000"];
    assert_eq!(json(&sale)["queued"], false, "the relay has it");
    assert_eq!(json(&["peers", "--data", duka.data()])["items"][0]["role"], "relay");
    assert_eq!(relay.terminate(), Some(0));
    assert_eq!(simulator.terminate(), Some(0));
}

const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

fn retail(rows: &[&str]) -> String {
    format!("{HEADER}{}\n", rows.join("\n"))
}

#[test]
fn an_import_adds_once_and_names_what_it_refuses() {
    let duka = Duka::new("GBP");
    let file = duka.file(
        "shop.csv",
        &retail(&[
            "536365,85123A,A HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom",
            "536365,85123A,A HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom",
            "536365,22752,A BOX,-1,2010-12-01 08:26:00,7.65,17850,United Kingdom",
            "536366,71053,A LANTERN,0,2010-12-01 08:28:00,3.39,17850,United Kingdom",
            "536367,71053,A LANTERN,1,2010-12-01 08:28:00,-3.39,17850,United Kingdom",
            "536368,71053,,2,2010-12-01 08:34:00,0,,United Kingdom",
            "C536379,D,Discount,-1,2010-12-01 09:41:00,27.5,14527,United Kingdom",
        ]),
    );
    let rejects = duka.folder.path().join("rejects.csv");
    let import = ["import", "--data", duka.data(), "--format", "online-retail", file.to_str().unwrap()];
    let first = json(&[&import[..], &["--rejects", rejects.to_str().unwrap()]].concat());
    let total = 2 * 6 * 255 - 765 - 2_750;
    for (name, value) in [
        ("invoices", 3),
        ("lines_accepted", 5),
        ("lines_rejected", 2),
        ("total_minor", total),
        ("sales", 2),
        ("returns", 2),
        ("products", 4),
        ("customers", 2),
        ("added", 4),
        ("already_there", 0),
        ("products_added", 4),
        ("customers_added", 2),
    ] {
        assert_eq!(first[name], value, "{name}: {first}");
    }
    let refused_lines = std::fs::read_to_string(&rejects).unwrap();
    assert!(refused_lines.contains("5,Quantity is zero") && refused_lines.contains("6,UnitPrice is negative"));

    let operations = duka.total();
    let node = Serving::till(duka.data());
    let again = json(&import);
    assert_eq!((&again["added"], &again["already_there"]), (&0.into(), &4.into()));
    assert_eq!((&again["products_added"], &again["customers_added"]), (&0.into(), &0.into()));
    assert_eq!(node.terminate(), Some(0));
    assert_eq!(duka.total(), operations, "not one operation more");

    let other = retail(&["536365,85123A,A HOLDER,7,2010-12-01 08:26:00,2.55,17850,United Kingdom"]);
    std::fs::write(&file, other).unwrap();
    let differs = refused(&import, 1);
    assert!(differs["message"].as_str().unwrap().contains("536365"), "{differs}");
    assert_eq!(duka.total(), operations);
    assert_eq!(exported_total(&duka), total);
}

#[test]
fn a_file_that_can_not_be_imported_adds_nothing() {
    let pounds = Duka::new("GBP");
    let file = pounds.file("broken.csv", "InvoiceNo,StockCode\n1,2\n");
    let import = |duka: &Duka, file: &Path, exit| {
        let words = ["import", "--data", duka.data(), "--format", "online-retail", file.to_str().unwrap()];
        refused(&words, exit)
    };
    let header = import(&pounds, &file, 1);
    assert!(header["message"].as_str().unwrap().contains("Description"), "{header}");
    let missing = import(&pounds, Path::new("nowhere.csv"), 1);
    assert!(missing["message"].as_str().unwrap().contains("nowhere.csv"), "{missing}");
    assert_eq!(pounds.total(), 0);

    let shillings = Duka::new("KES");
    let good = shillings.file("good.csv", &retail(&["1,A,a,1,2010-12-01 08:26:00,1.00,,"]));
    assert_eq!(import(&shillings, &good, 1)["code"], "wrong_currency");
    assert_eq!(shillings.total(), 0);
}

#[test]
fn an_import_that_is_killed_half_way_is_completed_by_the_next() {
    let duka = Duka::new("GBP");
    let invoices = 6_000;
    let rows: Vec<String> = (0..invoices)
        .flat_map(|n| {
            (0..2).map(move |m| format!("{},SKU{m},thing {m},2,2010-12-01 08:26:00,1.25,{},UK", 536_000 + n, n % 50))
        })
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let file = duka.file("shop.csv", &retail(&rows));
    let import = ["import", "--data", duka.data(), "--format", "online-retail", file.to_str().unwrap()];

    let mut child = tillmesh(&import).arg("-v").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let told = log.lines().map_while(Result::ok).filter(|line| line.contains("imported so far")).nth(1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.is_some(), "it was killed before its end");

    let second = json(&import);
    let number = |name: &str| second[name].as_u64().unwrap();
    assert_eq!(number("added") + number("already_there"), invoices);
    assert!(number("already_there") > 0 && number("added") > 0, "{second}");
    let third = json(&import);
    assert_eq!((&third["added"], &third["already_there"]), (&0.into(), &invoices.into()));
    assert_eq!(exported_total(&duka), third["total_minor"].as_i64().unwrap());
}

/// The sales minus the refunds, from the exported books.
fn exported_total(duka: &Duka) -> i64 {
    let output = answer(&["export", "--data", duka.data(), "--format", "jsonl"]);
    assert!(output.status.success(), "{}", told(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cash = |record: &Value| -> i64 {
        record["tenders"].as_array().unwrap().iter().map(|tender| tender["amount_minor"].as_i64().unwrap()).sum()
    };
    records
        .map(|record| match record["type"].as_str().unwrap() {
            "sale" => cash(&record),
            "refund" => -cash(&record),
            _ => 0,
        })
        .sum()
}

#[test]
fn the_books_are_written_out_whole() {
    let duka = Duka::new("KES");
    json(&["sale", "--data", duka.data(), "--line", "BREAD:2:65", "--note", "=1+1"]);
    json(&["expense", "--data", duka.data(), "--category", "rent", "--amount", "100"]);
    let (books, saves) = (duka.folder.path().join("books.csv"), duka.folder.path().join("saves"));
    let out = ["--out", books.to_str().unwrap(), "--documents", saves.to_str().unwrap()];
    let exported = json(&[&["export", "--data", duka.data()], out.as_slice()].concat());
    assert_eq!(exported["records"], 2);
    let table = std::fs::read_to_string(&books).unwrap();
    assert_eq!(table.lines().count(), 3);
    assert!(table.contains("BREAD") && table.contains("'=1+1") && table.contains("rent"));
    let documents = std::fs::read_dir(&saves).unwrap().count();
    assert_eq!(exported["documents"], documents);
    assert!(documents > 0);
    let nowhere = refused(&["export", "--data", duka.data(), "--out", "/nowhere/books.csv"], 1);
    assert!(nowhere["message"].as_str().unwrap().contains("--out"), "{nowhere}");
}

#[test]
fn help_and_completions_are_there_for_every_command() {
    let help = told(&answer(&["--help"]));
    let completions = told(&answer(&["completions", "bash"]));
    for command in [
        "init",
        "invite",
        "join",
        "run",
        "relay",
        "mpesa-simulator",
        "status",
        "sale",
        "expense",
        "import",
        "export",
        "peers",
        "conflicts",
        "demo",
        "bench",
    ] {
        assert!(help.contains(command), "{command}");
        assert!(completions.contains(command), "{command}");
        assert!(answer(&[command, "--help"]).status.success(), "{command}");
    }
    assert!(told(&answer(&["--version"])).starts_with("tillmesh "));
}

#[test]
fn the_doctor_looks_says_what_to_do_and_changes_nothing() {
    let at = tempfile::tempdir().unwrap();
    let data = at.path().join("not-made-yet");
    // Whatever this machine has: what is wrong comes with what to do.
    let output = answer(&["doctor", "--data", data.to_str().unwrap(), "--no-mdns", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let of = |name: &str| checks.iter().find(|check| check["name"] == name);
    for name in ["clock", "disk", "multicast", "access point"] {
        assert!(of(name).is_some(), "{name} is missing: {report}");
    }
    assert!(checks.iter().any(|check| check["name"].as_str().unwrap().starts_with("bluetooth")), "{report}");
    assert_eq!(of("multicast").unwrap()["verdict"], "unknown", "it was told to send nothing");
    for check in checks {
        let troubled = ["warn", "fail"].contains(&check["verdict"].as_str().unwrap());
        assert!(!troubled || check["advice"].is_string(), "{check}");
    }
    let failed = checks.iter().any(|check| check["verdict"] == "fail");
    assert_eq!((report["ok"] == true, output.status.success()), (!failed, !failed), "{}", told(&output));
    assert!(!data.exists());
    let off = at.path().join("config.toml");
    std::fs::write(&off, "bluetooth = 'off'").unwrap();
    let off = ["doctor", "--config", off.to_str().unwrap(), "--data", data.to_str().unwrap(), "--no-mdns"];
    assert!(told(&answer(&off)).contains("Bluetooth is switched off"));
}
