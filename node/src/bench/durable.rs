//! Durable sales through HTTP.

use std::path::Path;
use std::time::Instant;

use super::floors::RawDisk;
use super::http::Client;
use super::{Figure, median, world};

use crate::lab::{ChildNode, Launch};

const WARM_UP: u64 = 200;
const SALES: u64 = 2_000;
const CALLERS: u64 = 64;
const SALES_A_CALLER: u64 = 500;

pub(super) async fn sale_p50(at: &Path) -> anyhow::Result<Figure> {
    let node = ChildNode::start(&Launch::till(&world::till(at, "sale-p50")?)).await?;
    let mut client = Client::connect(node.api).await?;
    let mut disk = RawDisk::new(at)?;
    let (mut sales, mut floors) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + SALES {
        let body = world::sale_json(number);
        let started = Instant::now();
        let status = client.post("/api/sales", &body).await?;
        let spent = started.elapsed().as_secs_f64() * 1e6;
        anyhow::ensure!(status == 202 || status == 201, "a sale was answered {status}");
        // In turn, so that both see the same machine.
        let floor = disk.once_us()?;
        if number >= WARM_UP {
            sales.push(spent);
            floors.push(floor);
        }
    }
    Ok(Figure::at_most_times("durable_sale_p50", median(sales), "µs", median(floors), 2.0))
}

pub(super) async fn sales_64_callers(at: &Path) -> anyhow::Result<Figure> {
    let node = ChildNode::start(&Launch::till(&world::till(at, "sales-64")?)).await?;
    let mut disk = RawDisk::new(at)?;
    let mut floors = Vec::new();
    for _ in 0..200 {
        floors.push(disk.once_us()?);
    }
    let bodies: Vec<Vec<String>> = (0..CALLERS)
        .map(|caller| (0..SALES_A_CALLER).map(|number| world::sale_json(caller * 1_000_000 + number)).collect())
        .collect();
    let mut clients = Vec::new();
    for _ in 0..CALLERS {
        clients.push(Client::connect(node.api).await?);
    }
    let started = Instant::now();
    let callers = clients.into_iter().zip(bodies).map(|(mut client, bodies)| {
        tokio::spawn(async move {
            for body in bodies {
                let status = client.post("/api/sales", &body).await?;
                anyhow::ensure!(status == 202 || status == 201, "a sale was answered {status}");
            }
            Ok(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of sales is small")]
    let rate = (CALLERS * SALES_A_CALLER) as f64 / started.elapsed().as_secs_f64();
    // The floor has every caller pay a sync of its own, one after another.
    Ok(Figure::at_least("durable_sales_64_callers", rate, "sales/s", 1e6 / median(floors), 8_000.0))
}
