//! Taking in another system's sales: the file is read twice, first to check it whole and to
//! learn its catalogue, then to post it a batch at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::failure::Failure;
use super::session::Session;
use super::{Context, output, session, status};
use crate::import::convert::{self, ONLINE_RETAIL};
use crate::import::{
    Added, Batch, BatchCustomer, BatchInvoice, BatchProduct, Catalogue, Item, RejectsFile, Tally, open,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tillmesh import --format online-retail online-retail.csv.gz --rejects rejects.csv

The format is that of the public data set Online Retail (UCI, doi 10.24432/C5BW33, CC BY 4.0), in
a business in GBP. Importing again adds nothing; an import that was broken off goes on where it
was. Products and customers that are there already stay as they are.")]
pub(super) struct Args {
    /// The file's format
    #[arg(long, value_enum)]
    format: Format,
    /// The file, .csv or .gz
    file: PathBuf,
    /// Where to write the lines that were refused, each with its reason
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    OnlineRetail,
}

/// What a file holds, beside its invoices.
#[derive(Debug, Default)]
struct Survey {
    catalogue: Catalogue,
    /// Each customer's country.
    customers: BTreeMap<String, String>,
    tally: Tally,
    /// Different invoice numbers.
    invoices: u64,
    sales: u64,
    returns: u64,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let Format::OnlineRetail = args.format;
    let (survey, added) = session::with(context, async |session| {
        let currency = status::currency(session).await?;
        if currency.code() != CURRENCY {
            let message = format!(
                "the file's amounts are in {CURRENCY}, and this business's are in {currency}: import into a business \
                 in {CURRENCY}, made with tillmesh init --currency {CURRENCY} in another folder"
            );
            return Err(Failure::new("wrong_currency", message).at(Some("currency".to_owned())).into());
        }
        let survey = survey(&args.file, args.rejects.as_deref())?;
        let added = post_all(session, &args.file, &survey).await?;
        Ok((survey, added))
    })
    .await?;
    report(context, &survey, &added)?;
    let Some(first) = added.differing.first() else { return Ok(()) };
    let message = format!(
        "{} invoices were imported before with other lines and stay as they were, the first is {first}: correct them \
         by hand",
        added.differing.len()
    );
    Err(Failure::new("operation_id_reused", message).into())
}

/// Reads the file once.
fn survey(file: &Path, rejects: Option<&Path>) -> anyhow::Result<Survey> {
    let (mut reader, progress) = open(file)?;
    let bar = bar(progress.bytes_total(), "Reading");
    let mut rejects = rejects
        .map(|path| {
            let output = std::fs::File::create(path)
                .with_context(|| format!("{} can't be written: choose another --rejects", path.display()))?;
            Ok::<_, anyhow::Error>(RejectsFile::new(output)?)
        })
        .transpose()?;
    let mut survey = Survey::default();
    for item in reader.by_ref() {
        bar.set_position(progress.bytes_read());
        match item? {
            Item::Reject(reject) => {
                tracing::debug!(line = reject.line_number, reason = %reject.reason, "refused");
                if let Some(rejects) = &mut rejects {
                    rejects.write(&reject)?;
                }
            }
            Item::Invoice(invoice) => {
                survey.invoices += u64::from(invoice.part == 0);
                for line in &invoice.lines {
                    survey.catalogue.observe(line)?;
                }
                for piece in convert::invoices(&invoice) {
                    survey.sales += u64::from(!piece.sold.is_empty());
                    survey.returns += u64::from(!piece.returned.is_empty());
                }
                if let Some(customer) = invoice.customer {
                    survey.customers.entry(customer).or_insert(invoice.country);
                }
            }
        }
    }
    if let Some(rejects) = rejects {
        rejects.finish()?.sync_all()?;
    }
    bar.finish_and_clear();
    survey.tally = reader.tally();
    Ok(survey)
}

/// Posts everything; the file is read once more, so that it is never held whole.
async fn post_all(session: &Session, file: &Path, survey: &Survey) -> anyhow::Result<Added> {
    let mut post = Post::new(session, survey);
    for (stock_code, item) in survey.catalogue.items() {
        post.product(convert::product(stock_code, item)).await?;
    }
    for (number, country) in &survey.customers {
        post.customer(convert::customer(number, country)).await?;
    }
    let (reader, _) = open(file)?;
    for item in reader {
        match item? {
            Item::Reject(_) => {}
            Item::Invoice(invoice) => {
                for piece in convert::invoices(&invoice) {
                    post.invoice(piece).await?;
                }
            }
        }
    }
    post.flush().await?;
    post.bar.finish_and_clear();
    Ok(post.added)
}

/// Gathers batches that fit in a request, and posts them.
struct Post<'s> {
    session: &'s Session,
    batch: Batch,
    batch_bytes: usize,
    added: Added,
    bar: ProgressBar,
}

impl<'s> Post<'s> {
    fn new(session: &'s Session, survey: &Survey) -> Self {
        let bar = bar(Some(survey.sales + survey.returns), "Recording");
        Self { session, batch: empty(), batch_bytes: 0, added: Added::default(), bar }
    }

    async fn product(&mut self, product: BatchProduct) -> anyhow::Result<()> {
        self.room_for(&product).await?;
        self.batch.products.push(product);
        Ok(())
    }

    async fn customer(&mut self, customer: BatchCustomer) -> anyhow::Result<()> {
        self.room_for(&customer).await?;
        self.batch.customers.push(customer);
        Ok(())
    }

    async fn invoice(&mut self, invoice: BatchInvoice) -> anyhow::Result<()> {
        self.room_for(&invoice).await?;
        self.batch.invoices.push(invoice);
        Ok(())
    }

    async fn room_for(&mut self, item: &impl Serialize) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(item)?.len() + 1;
        if self.batch_bytes > 0 && self.batch_bytes + bytes > BATCH_BYTES_MAX {
            self.flush().await?;
        }
        self.batch_bytes += bytes;
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::replace(&mut self.batch, empty());
        self.batch_bytes = 0;
        let answer = self.session.post("/api/imports", &serde_json::to_value(batch)?).await?;
        let added: Added = serde_json::from_value(answer)?;
        self.added.facts += added.facts;
        self.added.already_there += added.already_there;
        self.added.products += added.products;
        self.added.customers += added.customers;
        self.added.differing.extend(added.differing);
        self.bar.set_position(self.added.facts + self.added.already_there);
        tracing::info!(added = self.added.facts, already_there = self.added.already_there, "imported so far");
        Ok(())
    }
}

fn empty() -> Batch {
    Batch {
        instance: ONLINE_RETAIL.to_owned(),
        currency: CURRENCY.to_owned(),
        products: Vec::new(),
        customers: Vec::new(),
        invoices: Vec::new(),
    }
}

/// A bar on a terminal; nothing elsewhere.
fn bar(total: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {percent:>3} %  {eta} to go");
    match style {
        Ok(style) => bar.with_style(style).with_prefix(what),
        Err(_) => bar.with_prefix(what),
    }
}

fn report(context: &Context, survey: &Survey, added: &Added) -> anyhow::Result<()> {
    let tally = &survey.tally;
    let (products, customers) = (survey.catalogue.items().len(), survey.customers.len());
    if context.json {
        return output::line(json!({
            "invoices": survey.invoices,
            "lines_accepted": tally.lines_accepted,
            "lines_rejected": tally.lines_rejected,
            "total_minor": tally.total_minor,
            "currency": CURRENCY,
            "sales": survey.sales,
            "returns": survey.returns,
            "products": products,
            "customers": customers,
            "added": added.facts,
            "already_there": added.already_there,
            "differing": added.differing.len(),
            "products_added": added.products,
            "customers_added": added.customers,
        }));
    }
    let total = crdt_model::money::Currency::GBP.format_minor(tally.total_minor);
    output::line(format!(
        "{} invoices with {} lines, {CURRENCY} {total}; {} lines refused",
        survey.invoices, tally.lines_accepted, tally.lines_rejected
    ))?;
    output::line(format!(
        "{} sales, {} returns, {products} products, {customers} customers",
        survey.sales, survey.returns
    ))?;
    output::line(format!("{} sales and returns added, {} were there already", added.facts, added.already_there))
}

/// The currency of the public data, which the file does not name.
const CURRENCY: &str = "GBP";
/// Below the API's 256 KiB, with room for what is around the items.
const BATCH_BYTES_MAX: usize = 200 * 1024;
