//! The real command in processes of its own, with what it logs kept, and its API.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Two adapters, linked by air.
pub(crate) const ADAPTERS: [&str; 2] = ["hci0", "hci1"];

/// A folder for everything of a story; gone with it.
pub(crate) struct Story {
    at: PathBuf,
}

impl Story {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let at = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&at)?;
        Ok(Self { at })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// A business with the first device in the folder `first`.
    pub(crate) async fn found(&self, first: &str, currency: &str) -> anyhow::Result<()> {
        let folder = self.path(first);
        command(&["init", "--name", "Duka", "--currency", currency], &folder).await?;
        configure(&folder, true)
    }

    /// Lets devices join, over the loopback; then all of them are off.
    pub(crate) async fn admit(&self, first: &str, others: &[(&str, &str)]) -> anyhow::Result<()> {
        let host = Node::start("run", &self.path(first), &[]).await?;
        for (name, role) in others {
            let answer = host.post("/api/invitations", &json!({ "role": role })).await?;
            let invitation = answer["invitation"].as_str().context("no invitation")?.to_owned();
            let folder = self.path(name);
            command(&["join", "--device-name", name, "--no-mdns", &invitation], &folder).await?;
            configure(&folder, true)?;
        }
        host.stop().await
    }

    /// Whether a device opens L2CAP channels, from its next start on.
    pub(crate) fn channels(&self, name: &str, on: bool) -> anyhow::Result<()> {
        configure(&self.path(name), on)
    }

    /// A device that has nothing but Bluetooth.
    pub(crate) async fn over_the_air(&self, name: &str, adapter: &str) -> anyhow::Result<Node> {
        Node::start("run", &self.path(name), &["--no-lan", "--bluetooth", adapter]).await
    }

    /// Records sales in a folder whose node is off.
    pub(crate) async fn sell(&self, name: &str, sales: usize, from: usize) -> anyhow::Result<()> {
        let mut file = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n".to_owned();
        for n in from..from + sales {
            // As different from each other as a shop's are (Knuth's multiplicative hash).
            let chance = n.wrapping_mul(2_654_435_761) >> 7;
            let (sku, pence, quantity) = (chance % 400, 50 + chance / 400 % 900, 1 + chance / 360_000 % 12);
            let minutes = n % 600;
            file.push_str(&format!(
                "{n},SKU{sku},ARTICLE {sku},{quantity},2011-05-03 {:02}:{:02}:00,{}.{:02},,United Kingdom\n",
                8 + minutes / 60,
                minutes % 60,
                pence / 100,
                pence % 100
            ));
        }
        let path = self.path("sales.csv");
        std::fs::write(&path, file)?;
        let path = path.to_str().context("a path")?.to_owned();
        command(&["import", "--format", "online-retail", &path], &self.path(name)).await
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.at) {
            crate::stories::say(&format!("a story's folder stays: {error}"));
        }
    }
}

/// btvirt reports an advertisement once a search, so that searches are short here.
fn configure(folder: &Path, channels: bool) -> anyhow::Result<()> {
    let config = format!("bluetooth_scan_seconds = 2\nbluetooth_pause_seconds = 1\nbluetooth_l2cap = {channels}\n");
    Ok(std::fs::write(folder.join("config.toml"), config)?)
}

async fn command(words: &[&str], folder: &Path) -> anyhow::Result<()> {
    output(Command::new("tillmesh").args(words), words, folder).await.map(drop)
}

/// What a command answers, by the folder's node if one is running.
pub(crate) async fn answer(words: &[&str], folder: &Path) -> anyhow::Result<Value> {
    let answered = output(Command::new("tillmesh").args(words).arg("--json"), words, folder).await?;
    Ok(serde_json::from_slice(&answered)?)
}

async fn output(command: &mut Command, words: &[&str], folder: &Path) -> anyhow::Result<Vec<u8>> {
    let output = command.arg("--data").arg(folder).output().await?;
    if !output.status.success() {
        bail!("tillmesh {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Waits for a command of the system.
pub(crate) async fn system(words: &[&str]) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("no command")?;
    let status = Command::new(program).args(arguments).status().await?;
    if !status.success() {
        bail!("{} failed", words.join(" "));
    }
    Ok(())
}

/// The connections on the air, as the adapters and their handles.
pub(crate) async fn connections() -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    for adapter in ADAPTERS {
        let listed = Command::new("hcitool").args(["-i", adapter, "con"]).kill_on_drop(true).output().await?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let words: Vec<&str> = listed.split_whitespace().collect();
        for pair in words.windows(2) {
            if let ["handle", handle] = pair {
                all.push((adapter, (*handle).to_owned()));
            }
        }
    }
    Ok(all)
}

/// Ends every connection on the air, as when somebody walks away. (Taking an adapter down under a
/// connection with channels is a bug check in Linux 6.1.)
pub(crate) async fn cut_the_air() -> anyhow::Result<()> {
    let all = connections().await?;
    let Some((first, _)) = all.first() else { bail!("there was no connection to cut") };
    // The other adapter's connections are the same ones.
    for (adapter, handle) in all.iter().filter(|(adapter, _)| adapter == first) {
        system(&["hcitool", "-i", adapter, "ledc", handle]).await?;
    }
    Ok(())
}

/// How much both adapters have sent since they are there, as they count it themselves: asking a
/// busy till takes longer than what it is asked about.
pub(crate) async fn on_the_air() -> anyhow::Result<u64> {
    let mut all = 0;
    for adapter in ADAPTERS {
        let told = Command::new("hciconfig").arg(adapter).output().await?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let sent = told.split("TX bytes:").nth(1).and_then(|rest| rest.split_whitespace().next());
        all += sent.context("hciconfig tells no bytes")?.parse::<u64>()?;
    }
    Ok(all)
}

/// A running node; it is killed when this is dropped.
pub(crate) struct Node {
    child: Child,
    api: String,
    pub(crate) addresses: Vec<String>,
    log: PathBuf,
    /// Where in the log its own part begins.
    log_from: usize,
    http: reqwest::Client,
}

impl Node {
    pub(crate) async fn start(role: &str, folder: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let log = folder.with_extension("log");
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let log_from = usize::try_from(errors.metadata()?.len())?;
        let listen: &[&str] = match more.iter().any(|word| ["--no-lan", "--listen"].contains(word)) {
            true => &[],
            false => &["--listen", "/ip4/127.0.0.1/tcp/0"],
        };
        let mut child = Command::new("tillmesh")
            .args([role, "--json", "--api", "127.0.0.1:0", "--no-mdns", "--log-format", "json", "--data"])
            .arg(folder)
            .args(listen)
            .args(more)
            .env("TILLMESH_LOG", "info,transport::bluetooth=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let ready = lines.next_line().await?;
        let Some(ready) = ready else { bail!("a node did not start: {}", std::fs::read_to_string(&log)?) };
        let ready: Value = serde_json::from_str(&ready)?;
        let addresses = ready["addresses"].as_array().cloned().unwrap_or_default();
        Ok(Self {
            child,
            api: format!("http://{}", ready["api"].as_str().context("no API")?),
            addresses: addresses.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            log,
            log_from,
            http: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.api)).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.http.post(format!("{}{path}", self.api)).json(body).send().await?;
        let status = answer.status();
        let answer: Value = answer.json().await?;
        if !status.is_success() {
            bail!("{path}: {status} {answer}");
        }
        Ok(answer)
    }

    pub(crate) async fn sales(&self) -> anyhow::Result<u64> {
        self.get("/api/books").await?["sales"].as_u64().context("no sales in the books")
    }

    pub(crate) async fn until_sales(&self, wanted: u64) -> anyhow::Result<()> {
        let what = format!("{wanted} sales");
        crate::stories::until(&what, || async { Ok((self.sales().await? == wanted).then_some(())) }).await
    }

    /// Its links, all peers together.
    pub(crate) async fn links(&self) -> anyhow::Result<Vec<Value>> {
        let peers = self.get("/api/peers").await?;
        let peers = peers["items"].as_array().cloned().unwrap_or_default();
        Ok(peers.iter().flat_map(|peer| peer["links"].as_array().cloned().unwrap_or_default()).collect())
    }

    pub(crate) async fn until_link(&self, kind: &str) -> anyhow::Result<Value> {
        let what = format!("a link over {kind}");
        let found = crate::stories::until(&what, || async {
            Ok(self.links().await?.into_iter().find(|link| link["kind"] == kind))
        });
        found.await.with_context(|| self.log_end())
    }

    pub(crate) async fn until_no_link(&self, kind: &str) -> anyhow::Result<()> {
        let what = format!("no link over {kind}");
        crate::stories::until(&what, || async {
            Ok(self.links().await?.iter().all(|link| link["kind"] != kind).then_some(()))
        })
        .await
    }

    /// What it has logged with this message since it runs, as objects.
    pub(crate) fn logged(&self, message: &str) -> anyhow::Result<Vec<Value>> {
        let log = std::fs::read_to_string(&self.log)?;
        let lines = log
            .get(self.log_from..)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines
            .map(|line| line.get("fields").cloned().unwrap_or(line))
            .filter(|fields| fields["message"] == message)
            .collect())
    }

    pub(crate) fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("\"advertising\"")).collect();
        let from = lines.len().saturating_sub(25);
        format!("the log's end:\n{}", lines.get(from..).unwrap_or_default().join("\n"))
    }

    /// Ends it as a service manager would.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("it has ended")?.to_string();
        system(&["kill", &pid]).await?;
        self.child.wait().await?;
        Ok(())
    }

    /// Pulls its plug.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// Both hold the same entries, books and documents.
pub(crate) async fn same_books(one: &Node, other: &Node) -> anyhow::Result<()> {
    crate::stories::until("the same books", || async {
        let (one, other) = (one.get("/api/books").await?, other.get("/api/books").await?);
        let same = ["digest", "documents", "frontier", "sales", "total_minor"].iter().all(|key| one[key] == other[key]);
        Ok((same && one["digest"].is_string()).then_some(()))
    })
    .await
}
