//! Writing the books out: everything as JSON lines, or a CSV table with a row for each line sold.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use crdt_model::time::{Day, Timestamp};
use serde_json::{Value, json};

use super::sale::text;
use super::session::Session;
use super::{Context, output, session};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh export --out books.csv
  tillmesh export --format jsonl | jq 'select(.type == \"sale\")'
  tillmesh export --out books.csv --documents saves

Each file in the --documents folder is an Automerge save, which any Automerge library opens.")]
pub(super) struct Args {
    /// A CSV table, or JSON lines, which hold more
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// The file; - for stdout
    #[arg(long, default_value = "-", value_name = "FILE")]
    out: PathBuf,
    /// A folder for every document's Automerge save
    #[arg(long, value_name = "DIR")]
    documents: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

/// What is exported: each type, and where the API lists it.
const LISTS: [(&str, &str); 9] = [
    ("product", "/api/products"),
    ("customer", "/api/customers"),
    ("sale", "/api/sales"),
    ("expense", "/api/expenses"),
    ("record", "/api/records"),
    ("payment", "/api/payments"),
    ("stock_adjustment", "/api/stock/adjustments"),
    ("ticket", "/api/tickets"),
    ("shift", "/api/shifts"),
];
/// The facts that have no list of their own; they are read from the pages.
const FROM_PAGES: [&str; 3] = ["refund", "void", "custom"];

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let to_stdout = args.out == Path::new("-");
    let (records, documents) = session::with(context, async |session| {
        let records = if to_stdout {
            write_all(session, args.format, std::io::stdout().lock()).await?
        } else {
            into_file(session, args.format, &args.out).await?
        };
        let documents = match &args.documents {
            Some(folder) => Some(save_documents(session, folder).await?),
            None => None,
        };
        Ok((records, documents))
    })
    .await?;
    if to_stdout {
        return Ok(());
    }
    if context.json {
        return output::line(json!({"records": records, "out": args.out, "documents": documents}));
    }
    output::line(format!("{records} records in {}", args.out.display()))?;
    match (documents, &args.documents) {
        (Some(documents), Some(folder)) => output::line(format!("{documents} documents in {}", folder.display())),
        _ => Ok(()),
    }
}

/// The file appears whole, or not at all.
async fn into_file(session: &Session, format: Format, path: &Path) -> anyhow::Result<u64> {
    let unwritable = || format!("{} can't be written: choose another --out", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(unwritable)?;
    let records = write_all(session, format, std::io::BufWriter::new(file.as_file_mut())).await?;
    file.as_file().sync_all()?;
    file.persist(path).with_context(unwritable)?;
    Ok(records)
}

async fn write_all(session: &Session, format: Format, out: impl Write) -> anyhow::Result<u64> {
    let mut sheet = Sheet::new(format, out)?;
    let business = session.get("/api/business").await?;
    let ahead = business.get("utc_offset_minutes").and_then(Value::as_i64).map(i32::try_from).transpose()?;
    for (kind, path) in LISTS {
        session.each_item(path, |item| sheet.write(kind, item)).await?;
    }
    let mut pages = Vec::new();
    session
        .each_item("/api/documents", |document| {
            if text(&document, "kind") == "page" {
                pages.push(document);
            }
            Ok(())
        })
        .await?;
    for page in pages {
        let decoded = session.get(&format!("/api/documents/{}?as=json", text(&page, "id"))).await?;
        for found in decoded.get("content").and_then(Value::as_array).into_iter().flatten() {
            let kind = text(found, "kind");
            if FROM_PAGES.contains(&kind) {
                sheet.write(kind, from_page(found, &page, ahead.unwrap_or_default()))?;
            }
        }
    }
    sheet.finish()
}

/// A fact of a page, in the shape of the lists.
fn from_page(found: &Value, page: &Value, utc_offset_minutes: i32) -> Value {
    let mut fields = found.get("fact").and_then(Value::as_object).cloned().unwrap_or_default();
    let happened = fields.get("occurred_at").and_then(Value::as_str);
    let day = happened.and_then(|at| business_day(at, utc_offset_minutes)).map(|day| day.to_string().into());
    let page_field = |name| page.get(name).cloned();
    for (name, value) in [
        ("id", found.get("id").cloned()),
        ("seq", found.get("seq").cloned()),
        // A page is of the day on which it was written.
        ("day", day.or_else(|| page_field("day"))),
        ("journal", page_field("journal")),
    ] {
        fields.insert(name.to_owned(), value.unwrap_or_default());
    }
    Value::Object(fields)
}

/// The shop's day of a moment as the API writes it, such as `2010-12-01T09:41:00.000Z`.
fn business_day(at: &str, utc_offset_minutes: i32) -> Option<Day> {
    let (date, clock) = at.split_once('T')?;
    let mut clock = clock.split(':');
    let minutes = clock.next()?.parse::<u64>().ok()? * 60 + clock.next()?.parse::<u64>().ok()?;
    let days = u64::try_from(Day::parse(date)?.0).ok()?;
    Some(Day::of(Timestamp((days * 24 * 60 + minutes) * 60_000), utc_offset_minutes))
}

async fn save_documents(session: &Session, folder: &Path) -> anyhow::Result<u64> {
    let unwritable = || format!("{} can't be written: choose another --documents", folder.display());
    std::fs::create_dir_all(folder).with_context(unwritable)?;
    let mut ids = Vec::new();
    let keep = |document: Value| {
        ids.push(text(&document, "id").to_owned());
        Ok(())
    };
    session.each_item("/api/documents", keep).await?;
    for id in &ids {
        let save = session.get_bytes(&format!("/api/documents/{id}")).await?;
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(unwritable)?;
        file.write_all(&save)?;
        file.persist(folder.join(format!("{id}.automerge"))).with_context(unwritable)?;
    }
    Ok(u64::try_from(ids.len())?)
}

/// Where records go, in one of the formats.
enum Sheet<W: Write> {
    Csv(Box<csv::Writer<W>>, u64),
    Jsonl(W, u64),
}

impl<W: Write> Sheet<W> {
    fn new(format: Format, out: W) -> anyhow::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl(out, 0),
            Format::Csv => {
                let mut table = csv::Writer::from_writer(out);
                table.write_record(COLUMNS)?;
                Self::Csv(Box::new(table), 0)
            }
        })
    }

    fn write(&mut self, kind: &str, mut item: Value) -> anyhow::Result<()> {
        if let Some(fields) = item.as_object_mut() {
            // A stock adjustment's own kind is movement or count.
            fields.insert("type".to_owned(), kind.into());
        }
        match self {
            Self::Jsonl(out, records) => {
                writeln!(out, "{item}")?;
                *records += 1;
            }
            Self::Csv(table, records) => {
                let lines = item.get("lines").and_then(Value::as_array).cloned().unwrap_or_default();
                if lines.is_empty() {
                    table.write_record(row(&item, &Value::Null))?;
                }
                for line in &lines {
                    table.write_record(row(&item, line))?;
                }
                *records += 1;
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<u64> {
        match self {
            Self::Jsonl(mut out, records) => {
                out.flush()?;
                Ok(records)
            }
            Self::Csv(mut table, records) => {
                table.flush()?;
                Ok(records)
            }
        }
    }
}

/// The columns of the table; those of a line come from the line.
const COLUMNS: [&str; 24] = [
    "type",
    "id",
    "day",
    "recorded_at",
    "occurred_at",
    "device",
    "status",
    "state",
    "currency",
    "total_minor",
    "amount_minor",
    "sku",
    "quantity_milli",
    "unit_price_minor",
    "discount_minor",
    "counted_milli",
    "price_minor",
    "name",
    "category",
    "description",
    "note",
    "customer_id",
    "sale_id",
    "reason",
];

fn row(item: &Value, line: &Value) -> Vec<String> {
    COLUMNS.iter().map(|column| cell(line.get(column).or_else(|| item.get(column)))).collect()
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => plain(text),
        Some(other) => other.to_string(),
    }
}

/// A spreadsheet would take a text that begins like this for a formula, and run it.
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, items: &[(&str, Value)]) -> String {
        let mut bytes = Vec::new();
        let mut sheet = Sheet::new(format, &mut bytes).unwrap();
        for (kind, item) in items {
            sheet.write(kind, item.clone()).unwrap();
        }
        assert_eq!(sheet.finish().unwrap(), u64::try_from(items.len()).unwrap());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_sale_is_a_row_for_each_line_and_a_line_of_json() {
        let lines = json!([{"sku": "BREAD", "quantity_milli": 2_000}, {"sku": "MILK", "quantity_milli": 500}]);
        let sale = ("sale", json!({"id": "x", "currency": "KES", "lines": lines, "note": null}));
        let table = written(Format::Csv, std::slice::from_ref(&sale));
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 3);
        assert!(rows[0].starts_with("type,id,day"));
        assert!(rows[1].starts_with("sale,x,") && rows[1].contains(",BREAD,2000,"));
        assert!(rows[2].contains(",MILK,500,"));
        let json = written(Format::Jsonl, &[sale]);
        assert_eq!(json.lines().count(), 1);
        assert!(json.contains("\"type\":\"sale\""));
    }

    #[test]
    fn the_day_is_the_shops_own() {
        let day = |at, offset| business_day(at, offset).map(|day| day.to_string());
        assert_eq!(day("2010-12-01T09:41:00.000Z", 0).as_deref(), Some("2010-12-01"));
        assert_eq!(day("2010-12-31T21:00:00.000Z", 180).as_deref(), Some("2011-01-01"));
        assert_eq!(day("2011-01-01T02:00:00.000Z", -180).as_deref(), Some("2010-12-31"));
        assert_eq!(day("yesterday", 0), None);
    }

    #[test]
    fn no_text_becomes_a_formula() {
        let table = written(Format::Csv, &[("expense", json!({"category": "=1+1", "amount_minor": -5}))]);
        assert!(table.contains(",'=1+1,") && table.contains(",-5,"));
    }
}
