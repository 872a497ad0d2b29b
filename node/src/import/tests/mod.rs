//! What a file of sales may hold, one oddity a story.

use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

mod balance;

const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

#[derive(Default)]
struct Outcome {
    invoices: Vec<Invoice>,
    rejects: Vec<Reject>,
    tally: Tally,
}

impl Outcome {
    fn lines(&self) -> Vec<&RetailLine> {
        self.invoices.iter().flat_map(|i| &i.lines).collect()
    }

    fn reasons(&self) -> Vec<(u64, String)> {
        let reason = |reject: &Reject| (reject.line_number, reject.reason.to_string());
        self.rejects.iter().map(reason).collect()
    }
}

fn drain<R: Read>(reader: &mut Reader<R>) -> Outcome {
    let mut outcome = Outcome::default();
    for item in reader.by_ref() {
        match item.unwrap() {
            Item::Invoice(invoice) => outcome.invoices.push(invoice),
            Item::Reject(reject) => outcome.rejects.push(reject),
        }
    }
    outcome.tally = reader.tally();
    assert_eq!(outcome.tally.lines_accepted, u64::try_from(outcome.lines().len()).unwrap());
    assert_eq!(outcome.tally.lines_rejected, u64::try_from(outcome.rejects.len()).unwrap());
    outcome
}

fn read(file: &[u8]) -> Outcome {
    drain(&mut Reader::new(file).unwrap())
}

fn read_rows(rows: &str) -> Outcome {
    read(format!("{HEADER}{rows}").as_bytes())
}

#[test]
fn a_plain_line_is_read_whole() {
    let outcome = read_rows("536365,85123A,WHITE HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n");
    let expected = Invoice {
        number: "536365".into(),
        part: 0,
        kind: InvoiceKind::Sale,
        customer: Some("17850".into()),
        country: "United Kingdom".into(),
        at_ms: 1_291_191_960_000,
        lines: vec![RetailLine {
            line_number: 2,
            stock_code: "85123A".into(),
            description: "WHITE HOLDER".into(),
            quantity_milli: 6_000,
            unit_price_micro: 2_550_000,
            unit_price_minor: 255,
            amount_minor: 1_530,
        }],
    };
    assert_eq!(outcome.invoices, [expected]);
    assert_eq!(outcome.tally.total_minor, 1_530);
}

#[test]
fn every_oddity_that_a_shop_accepts() {
    let table: [(&str, &str, i64, i64); 12] = [
        ("zero price", "1,A,damaged,-5,2010-12-01 08:26:00,0.0,,UK", -5_000, 0),
        ("no description", "1,A,,5,2010-12-01 08:26:00,1,,UK", 5_000, 500),
        ("no country", "1,A,X,5,2010-12-01 08:26:00,1,,", 5_000, 500),
        ("return", "1,A,X,-5,2010-12-01 08:26:00,1.25,,UK", -5_000, -625),
        ("dear", "1,A,X,1,2010-12-01 08:26:00,11062.06,,UK", 1_000, 1_106_206),
        ("trailing zeros", "1,A,X,1,2010-12-01 08:26:00,2.5500000,,UK", 1_000, 255),
        ("quantity as float", "1,A,X,6.0,2010-12-01 08:26:00,2,,UK", 6_000, 1_200),
        ("part of a piece", "1,A,X,1.125,2010-12-01 08:26:00,8,,UK", 1_125, 900),
        ("blanks around", " 1 , A ,X, 6 , 12/1/2010 8:26 , 2.5 ,17850,UK", 6_000, 1_500),
        ("quoted", "\"1\",\"A\",\"X, \"\"Y\"\"\",\"6\",\"2010-12-01 08:26\",\"2\",\"\",\"UK\"", 6_000, 1_200),
        ("empty extra fields", "1,A,X,6,2010-12-01 08:26:00,2,,UK,,", 6_000, 1_200),
        ("inches", "1,A,12\" RULER,6,2010-12-01 08:26:00,2,,UK", 6_000, 1_200),
    ];
    for (name, row, quantity_milli, amount_minor) in table {
        let outcome = read_rows(row);
        assert_eq!(outcome.reasons(), [], "{name}");
        let [line] = outcome.lines()[..] else { panic!("{name}: one line") };
        assert_eq!(line.quantity_milli, quantity_milli, "{name}");
        assert_eq!(line.amount_minor, amount_minor, "{name}");
        assert_eq!(line.discount_minor(), 0, "{name}");
        assert_eq!(outcome.invoices[0].at_ms, 1_291_191_960_000, "{name}");
    }
}

#[test]
fn every_refusal_names_the_field_and_the_reason() {
    let table = [
        (",A,X,1,2010-12-01 08:26:00,1,,UK", "InvoiceNo is missing"),
        ("1, ,X,1,2010-12-01 08:26:00,1,,UK", "StockCode is missing"),
        ("1,A,X,,2010-12-01 08:26:00,1,,UK", "Quantity is missing"),
        ("1,A,X,1,,1,,UK", "InvoiceDate is missing"),
        ("1,A,X,1,2010-12-01 08:26:00,,,UK", "UnitPrice is missing"),
        (",,,,,,,", "InvoiceNo is missing"),
        ("1,A,X,0,2010-12-01 08:26:00,1,,UK", "Quantity is zero"),
        ("1,A,X,-0.0,2010-12-01 08:26:00,1,,UK", "Quantity is zero"),
        ("1,A,X,1,2010-12-01 08:26:00,-11062.06,,UK", "UnitPrice is negative"),
        (
            "1,A,X,six,2010-12-01 08:26:00,1,,UK",
            "Quantity is not a plain decimal number (digits and a point, no exponent, no thousands comma)",
        ),
        (
            "1,A,X,\"1,000\",2010-12-01 08:26:00,1,,UK",
            "Quantity is not a plain decimal number (digits and a point, no exponent, no thousands comma)",
        ),
        ("1,A,X,1.0005,2010-12-01 08:26:00,1,,UK", "Quantity has more than 3 decimals"),
        (
            "1,A,X,1,2010-12-01 08:26:00,1e2,,UK",
            "UnitPrice is not a plain decimal number (digits and a point, no exponent, no thousands comma)",
        ),
        ("1,A,X,1,2010-12-01 08:26:00,0.0000001,,UK", "UnitPrice has more than 6 decimals"),
        ("1,A,X,1,2010-12-01 08:26:00,99999999999999999999,,UK", "UnitPrice is beyond 1000000000"),
        ("1,A,X,1000000000,2010-12-01 08:26:00,1000000,,UK", "Quantity × UnitPrice is above 1000000000 pounds"),
        (
            "1,A,X,1,2011-02-29 08:26:00,1,,UK",
            "InvoiceDate names a day or time that does not exist, or a year before 1970",
        ),
        ("1,A,X,1,tomorrow,1,,UK", "InvoiceDate is not YYYY-MM-DD HH:MM[:SS] or M/D/YYYY H:MM[:SS]"),
        ("123456789012345678901234567890123,A,X,1,2010-12-01 08:26:00,1,,UK", "InvoiceNo is longer than 32 bytes"),
        ("1,A,X,1,2010-12-01 08:26:00,1", "the line has 6 fields where the header names 8"),
        ("1,A,X,Y,1,2010-12-01 08:26:00,1,,UK", "the line has 9 fields where the header names 8"),
        ("1,A,\"X,1,2010-12-01 08:26:00,1,,UK", "a quoted field is not closed, or text follows its closing quote"),
    ];
    for (row, reason) in table {
        let outcome = read_rows(&format!("{row}\n2,B,Y,1,2010-12-01 08:26:00,1,,UK\n"));
        assert_eq!(outcome.reasons(), [(2, reason.to_owned())], "{row}");
        assert_eq!(outcome.rejects[0].raw, row.trim());
        assert_eq!(outcome.lines()[0].line_number, 3, "the line after {row}");
    }
}

#[test]
fn columns_are_found_by_name_in_any_order() {
    let file = b"\xef\xbb\xbfCountry,Customer ID,,Price,invoicedate,Quantity,Description,StockCode,Invoice\r\n\
        UK,17850,9,2.55,12/1/2010 8:26,6,HOLDER,85123A,536365\r\n";
    let outcome = read(file);
    assert_eq!(outcome.invoices[0].number, "536365");
    assert_eq!(outcome.invoices[0].customer.as_deref(), Some("17850"));
    assert_eq!(outcome.tally.total_minor, 1_530);
}

#[test]
fn a_header_that_is_not_the_formats_says_what_is_wrong() {
    let table: [(&[u8], &str); 6] = [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"\xff\xfeI\0n\0", "UTF-16"),
        (b"sku,price\n", "no column InvoiceNo"),
        (b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID\n", "no column Country"),
        (
            b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,Price,CustomerID,Country\n",
            "names UnitPrice twice",
        ),
    ];
    for (file, message) in table {
        let error = Reader::new(file).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_read_as_windows_1252() {
    let mut file = HEADER.as_bytes().to_vec();
    file.extend(b"1,A,CAF\xc9 \x80\xa35 \x81,1,2010-12-01 08:26:00,1,,UK\n");
    file.extend("1,B,CAFÉ £5,1,2010-12-01 08:26:00,1,,UK\n".bytes());
    let outcome = read(&file);
    let descriptions: Vec<&str> = outcome.lines().iter().map(|l| &*l.description).collect();
    assert_eq!(descriptions, ["CAFÉ €£5 \u{fffd}", "CAFÉ £5"]);
}

#[test]
fn line_numbers_hold_through_blank_lines_newlines_in_quotes_and_every_line_ending() {
    let rows = "1,A,\"TWO\nLINES\r\nTHREE\",1,2010-12-01 08:26:00,1,,UK\n\
        \n  \r\n\
        1,B,X,1,2010-12-01 08:26:00,1,,UK\r\n\
        1,C,X,1,2010-12-01 08:26:00,1,,UK\r\
        1,D,X,1,2010-12-01 08:26:00,1,,UK\n\n\n  ";
    let outcome = read_rows(rows);
    let placed: Vec<(u64, &str)> =
        outcome.lines().iter().map(|line| (line.line_number, line.stock_code.as_str())).collect();
    assert_eq!(placed, [(2, "A"), (7, "B"), (8, "C"), (9, "D")]);
    assert_eq!(outcome.lines()[0].description, "TWO LINES  THREE");
    assert_eq!(outcome.reasons(), []);
}

#[test]
fn a_quote_that_runs_astray_costs_one_line() {
    let good = "2,B,\"Y, Z\",1,2010-12-01 08:26:00,1,,UK\n";
    let stray = "1,A,\"X,1,2010-12-01 08:26:00,1,,UK\n";
    for goods_after in [0, 1, 2, 5_000] {
        let rows = [stray, &good.repeat(goods_after)].concat();
        let outcome = read_rows(&rows);
        assert_eq!(outcome.tally.lines_rejected, 1, "{goods_after}");
        assert_eq!(outcome.rejects[0].line_number, 2);
        assert_eq!(outcome.lines().len(), goods_after);
    }
}

#[test]
fn an_endless_record_is_one_refusal_and_no_memory() {
    let huge = "x".repeat(1_000_000);
    let good = "2,B,Y,1,2010-12-01 08:26:00,1,,UK";
    for ending in ["\n", "\r\n", "\r"] {
        for quote in ["", "\""] {
            let outcome = read_rows(&format!("1,A,{quote}{huge}{ending}{good}{ending}"));
            assert_eq!(outcome.rejects.len(), 1, "{ending:?} {quote}");
            assert_eq!(outcome.rejects[0].raw.chars().count(), 500);
            assert_eq!(outcome.lines()[0].line_number, 3);
        }
    }
    let outcome = read_rows(&huge);
    assert_eq!(outcome.rejects.len(), 1);
}

#[test]
fn long_texts_are_cut_and_long_codes_refused() {
    let long = "É".repeat(501);
    let outcome = read_rows(&format!("1,A,{long},1,2010-12-01 08:26:00,1,,UK\n"));
    assert_eq!(outcome.lines()[0].description.chars().count(), 500);
    assert!(outcome.lines()[0].description.ends_with("É…"));

    let outcome = read_rows(&format!("1,{long},X,1,2010-12-01 08:26:00,1,,UK\n"));
    assert_eq!(outcome.reasons(), [(2, "StockCode is longer than 64 bytes".to_owned())]);
    let raw = &outcome.rejects[0].raw;
    assert!(raw.starts_with("1,ÉÉ") && raw.ends_with('…'), "{raw}");
}

#[test]
fn lines_of_one_invoice_that_stand_apart_get_parts() {
    let outcome = read_rows(
        "1,A,X,1,2010-12-01 08:26:00,1,,UK\n\
         1,A,X,1,2010-12-01 08:27:00,1,17850,UK\n\
         ,bad,X,1,2010-12-01 08:27:00,1,17850,UK\n\
         1,A,X,1,2010-12-01 08:27:00,1,17851,UK\n\
         C2,A,X,-1,2010-12-01 08:28:00,1,,UK\n\
         1,B,X,1,2010-12-01 08:29:00,1,,UK\n\
         C2,B,X,-1,2010-12-01 08:30:00,1,,UK\n\
         1,C,X,1,2010-12-01 08:31:00,1,,UK\n",
    );
    let groups: Vec<(&str, u32, usize, InvoiceKind)> =
        outcome.invoices.iter().map(|i| (i.number.as_str(), i.part, i.lines.len(), i.kind)).collect();
    assert_eq!(
        groups,
        [
            ("1", 0, 3, InvoiceKind::Sale),
            ("C2", 0, 1, InvoiceKind::Cancellation),
            ("1", 1, 1, InvoiceKind::Sale),
            ("C2", 1, 1, InvoiceKind::Cancellation),
            ("1", 2, 1, InvoiceKind::Sale),
        ]
    );
    assert_eq!(outcome.invoices[0].customer.as_deref(), Some("17850"));
    assert_eq!(outcome.invoices[0].at_ms, 1_291_191_960_000);
}

#[test]
fn an_invoice_without_end_is_cut_into_parts() {
    let rows = "1,A,X,1,2010-12-01 08:26:00,1,,UK\n".repeat(Invoice::LINES_MAX + 1);
    let outcome = read_rows(&rows);
    let parts: Vec<(u32, usize)> = outcome.invoices.iter().map(|i| (i.part, i.lines.len())).collect();
    assert_eq!(parts, [(0, Invoice::LINES_MAX), (1, 1)]);
}

#[test]
fn sub_penny_prices_become_whole_pennies_with_a_discount() {
    let outcome = read_rows(
        "1,PADS,X,1,2011-01-01 08:26:00,0.001,,UK\n\
         1,PADS,X,7,2011-01-01 08:26:00,0.125,,UK\n\
         1,PADS,X,-7,2011-01-01 08:26:00,0.125,,UK\n\
         1,LOOSE,X,0.333,2011-01-01 08:26:00,0.05,,UK\n",
    );
    let paid: Vec<(i64, i64, i64)> =
        outcome.lines().iter().map(|l| (l.unit_price_minor, l.discount_minor(), l.amount_minor)).collect();
    // 0.1, then 87.6, then 0.1 again, then 1.765 pence in all.
    assert_eq!(paid, [(1, 1, 0), (13, 3, 88), (13, 3, -88), (7, 0, 2)]);
    assert_eq!(outcome.tally.total_minor, 2);
}

#[test]
fn a_cut_off_gzip_is_an_error_after_the_lines_before_it() {
    let rows = "1,A,X,1,2010-12-01 08:26:00,1,,UK\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.csv");
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    packed.write_all(HEADER.as_bytes()).unwrap();
    packed.write_all(rows.repeat(50_000).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();

    std::fs::write(&path, &packed[..packed.len() - 100_000]).unwrap();
    let (mut reader, _) = open(&path).unwrap();
    let last = reader.by_ref().last().unwrap();
    assert!(matches!(last, Err(ReadError::Input { .. })), "{last:?}");
    assert!(reader.next().is_none());
}

#[test]
fn gzip_is_known_by_its_bytes_and_read_to_its_last_member() {
    let rows = "1,A,X,1,2010-12-01 08:26:00,1,,UK\n";
    let member = |text: &str| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let packed = [member(HEADER), member(rows), member(rows)].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("month.csv");
    std::fs::write(&path, &packed).unwrap();

    let (mut reader, progress) = open(&path).unwrap();
    assert_eq!(drain(&mut reader).tally.lines_accepted, 2);
    assert_eq!(progress.bytes_total(), Some(progress.bytes_read()));
    assert_eq!(progress.bytes_read(), u64::try_from(packed.len()).unwrap());
}

#[test]
fn what_cannot_be_imported_is_refused_at_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Online Retail.xlsx");
    let message = |path: &Path| open(path).unwrap_err().to_string();
    assert!(message(&path).contains("cannot open"));
    std::fs::write(&path, b"PK\x03\x04rest").unwrap();
    assert!(message(&path).contains("spreadsheet"));
    assert!(message(folder.path()).contains("folder"));
    std::fs::write(&path, b"a,b\n1,2\n").unwrap();
    assert!(message(&path).contains("InvoiceNo"));
}

#[test]
fn the_catalogue_prefers_what_was_sold_over_what_was_noted() {
    let outcome = read_rows(
        "1,A,OLD NAME,1,2010-12-01 08:26:00,1,,UK\n\
         1,A,NEW NAME,1,2010-12-01 08:26:00,0.001,,UK\n\
         1,A,,1,2010-12-01 08:26:00,1.5,,UK\n\
         1,A,damaged,-1,2010-12-01 08:26:00,0,,UK\n\
         1,B,found,1,2010-12-01 08:26:00,0,,UK\n\
         1,B,lost,-1,2010-12-01 08:26:00,0,,UK\n",
    );
    let mut catalogue = Catalogue::default();
    for line in outcome.lines() {
        catalogue.observe(line).unwrap();
    }
    let items: Vec<(&str, &str, i64)> =
        catalogue.items().map(|(code, item)| (code, item.description.as_str(), item.unit_price_minor)).collect();
    assert_eq!(items, [("A", "NEW NAME", 150), ("B", "lost", 0)]);
}

#[test]
fn the_rejects_file_is_csv_that_reads_back() {
    let row = "1,A,\"X, Y\",0,2010-12-01 08:26:00,1,,UK";
    let mut file = RejectsFile::new(Vec::new()).unwrap();
    for reject in read_rows(row).rejects {
        file.write(&reject).unwrap();
    }
    let written = file.finish().unwrap();
    let mut back = csv::Reader::from_reader(written.as_slice());
    assert_eq!(back.headers().unwrap(), vec!["line", "reason", "raw"]);
    let rows: Vec<csv::StringRecord> = back.records().map(Result::unwrap).collect();
    assert_eq!(rows, [vec!["2", "Quantity is zero", row]]);
}
