//! Durable sales through HTTP.

use std::net::SocketAddr;
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
    let node = ChildNode::start(&Launch::till(&world::stocked_till(at, "sale-p50").await?)).await?;
    let (api, disk) = (node.api, RawDisk::new(at)?);
    let (sales, floors) = tokio::task::spawn_blocking(move || sell_in_turn(api, disk)).await??;
    Ok(Figure::at_most_times("durable_sale_p50", median(sales), "µs", median(floors), 2.0))
}

/// Sales and raw writes in turn, so that both see the same machine.
fn sell_in_turn(api: SocketAddr, mut disk: RawDisk) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let mut client = Client::connect(api)?;
    let (mut sales, mut floors) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + SALES {
        let body = world::sale_json(number);
        let started = Instant::now();
        let status = client.post("/api/sales", &body)?;
        let spent = started.elapsed().as_secs_f64() * 1e6;
        anyhow::ensure!(status == 202, "a sale was answered {status}");
        let floor = disk.once_us()?;
        if number >= WARM_UP {
            sales.push(spent);
            floors.push(floor);
        }
    }
    Ok((sales, floors))
}

pub(super) async fn sales_64_callers(at: &Path) -> anyhow::Result<Figure> {
    let node = ChildNode::start(&Launch::till(&world::stocked_till(at, "sales-64").await?)).await?;
    let mut disk = RawDisk::new(at)?;
    let mut floors = Vec::new();
    for _ in 0..200 {
        floors.push(disk.once_us()?);
    }
    let api = node.api;
    let seconds = tokio::task::spawn_blocking(move || sell_at_once(api)).await??;
    #[expect(clippy::cast_precision_loss, reason = "a count of sales is small")]
    let rate = (CALLERS * SALES_A_CALLER) as f64 / seconds;
    // The floor has every caller pay a sync of its own, one after another.
    Ok(Figure::at_least("durable_sales_64_callers", rate, "sales/s", 1e6 / median(floors), 8_000.0))
}

/// Every caller on a thread and a connection of its own; gives the seconds until all are done.
fn sell_at_once(api: SocketAddr) -> anyhow::Result<f64> {
    let mut ready = Vec::new();
    for caller in 0..CALLERS {
        let bodies: Vec<String> =
            (0..SALES_A_CALLER).map(|number| world::sale_json(caller * 1_000_000 + number)).collect();
        ready.push((Client::connect(api)?, bodies));
    }
    let started = Instant::now();
    let callers: Vec<_> = ready
        .into_iter()
        .map(|(mut client, bodies)| {
            std::thread::spawn(move || {
                for body in bodies {
                    let status = client.post("/api/sales", &body)?;
                    anyhow::ensure!(status == 202, "a sale was answered {status}");
                }
                Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.join().map_err(|_| anyhow::anyhow!("a caller failed"))??;
    }
    Ok(started.elapsed().as_secs_f64())
}
