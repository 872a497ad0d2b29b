//! Benchmarks, each beside its floor.

use super::failure::Failure;
use super::{Context, output};
use crate::bench::BENCHES;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Measures the real node with real files and sockets in a temporary folder. Each figure comes with
its floor, what the same work costs without a shop around it, from the same run: compare ratios,
since machines differ. Use a release build.")]
pub(super) struct Args {
    /// Only this one; all if none is named
    name: Option<String>,
    /// List the names
    #[arg(long)]
    list: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if args.list {
        let rows: Vec<Vec<String>> =
            BENCHES.iter().map(|(name, about, _)| vec![(*name).to_owned(), (*about).to_owned()]).collect();
        return output::table(&["name", "what"], &rows);
    }
    let wanted = |name: &str| args.name.as_deref().is_none_or(|only| only == name);
    if !BENCHES.iter().any(|(name, _, _)| wanted(name)) {
        return Err(Failure::usage("there is no such benchmark: `tillmesh bench --list` names them").into());
    }
    let folder = tempfile::Builder::new().prefix("tillmesh-bench-").tempdir()?;
    let mut figures = Vec::new();
    for (name, _, run) in BENCHES.iter().filter(|(name, _, _)| wanted(name)) {
        tracing::info!(name, "measuring");
        let figure = run(folder.path()).await?;
        if !context.json {
            output::line(format!(
                "{:<26} {:>12.3} {:<8} floor {:>10.3}  ratio {:>7.3}  {} ({})",
                figure.name,
                figure.value,
                figure.unit,
                figure.floor.unwrap_or_default(),
                figure.ratio.unwrap_or_default(),
                if figure.met { "met   " } else { "MISSED" },
                figure.target
            ))?;
        }
        figures.push(figure);
    }
    if context.json {
        output::line(serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}
