//! CSV records out of a byte stream, each bounded before it is looked at.
//!
//! Fields follow RFC 4180, with LF, CRLF or CR. A quote that runs astray costs the line that
//! opened it and no more: reading goes on at the next physical line.

use std::io::{self, Read};

use super::text;

/// The longest record that is read, in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024;

/// The fields of one record, unquoted, in buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Where a record stands, and why it could not be taken apart, if so.
#[derive(Debug)]
pub(super) struct Framed {
    /// The physical line it starts at, from 1.
    pub(super) line_number: u64,
    pub(super) broken: Option<Broken>,
    /// The start of its bytes as they are in the file.
    raw: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    QuoteNotClosed,
    TooLong,
    FieldCount { found: usize, expected: usize },
}

#[derive(Debug)]
pub(super) struct Records<R> {
    input: R,
    window: Vec<u8>,
    start: usize,
    ended: bool,
    line_number: u64,
    columns: Option<usize>,
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of field `index`; empty if there is none.
    pub(super) fn field(&self, index: usize) -> &[u8] {
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        };
        let end = self.ends.get(index).copied();
        let range = start.zip(end).map(|(start, end)| start..end);
        range.and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn close_field(&mut self) {
        self.ends.push(self.bytes.len());
    }

    fn are_for(&self, columns: usize) -> bool {
        self.len() >= columns && (columns..self.len()).all(|extra| self.field(extra).is_empty())
    }
}

impl Framed {
    pub(super) fn raw(&self) -> String {
        // A character that the bound cuts in two must not make the rest look like another encoding.
        let whole = match std::str::from_utf8(&self.raw) {
            Err(error) if error.error_len().is_none() && self.raw.len() == RAW_BYTES_MAX => {
                self.raw.get(..error.valid_up_to()).unwrap_or_default()
            }
            Ok(_) | Err(_) => &self.raw,
        };
        text::shortened(text::decoded(whole), RAW_CHARS_MAX)
    }
}

impl<R: Read> Records<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, window: Vec::new(), start: 0, ended: false, line_number: 1, columns: None }
    }

    /// Passes over `mark` if the stream starts with it.
    pub(super) fn skip_mark(&mut self, mark: &[u8]) -> io::Result<bool> {
        self.fill()?;
        let marked = self.ahead().starts_with(mark);
        if marked {
            self.start += mark.len();
        }
        Ok(marked)
    }

    /// From here on a record must have this many fields; more only if they are empty.
    pub(super) fn expect_columns(&mut self, columns: usize) {
        self.columns = Some(columns);
    }

    pub(super) fn line_number(&self) -> u64 {
        self.line_number
    }

    /// The next record, its fields in `fields`; blank lines are passed over. `None` at the end.
    pub(super) fn next(&mut self, fields: &mut Fields) -> io::Result<Option<Framed>> {
        loop {
            self.fill()?;
            if self.ahead().is_empty() {
                return Ok(None);
            }
            let scan = scan(self.ahead(), fields);
            let record = self.ahead().get(..scan.bytes).unwrap_or_default();
            if scan.lines == 1 && record.trim_ascii().is_empty() && scan.broken.is_none() {
                self.pass(&scan);
                continue;
            }

            let broken = scan.broken.or(self.miscounted(fields));
            let astray = scan.lines > 1 && (broken.is_some() || scan.text_after_quote);
            let resumes_at_next_line = astray || scan.broken.is_some();
            let raw_until =
                if resumes_at_next_line { line_end(self.ahead()).unwrap_or(RAW_BYTES_MAX) } else { scan.bytes };
            let framed = Framed {
                line_number: self.line_number,
                broken: broken.or(astray.then_some(Broken::QuoteNotClosed)),
                raw: self.ahead().iter().take(raw_until.min(RAW_BYTES_MAX)).copied().collect(),
            };
            if resumes_at_next_line {
                self.skip_line()?;
            } else {
                self.pass(&scan);
            }
            return Ok(Some(framed));
        }
    }

    fn miscounted(&self, fields: &Fields) -> Option<Broken> {
        let expected = self.columns?;
        let found = fields.len();
        (!fields.are_for(expected)).then_some(Broken::FieldCount { found, expected })
    }

    fn ahead(&self) -> &[u8] {
        self.window.get(self.start..).unwrap_or_default()
    }

    fn pass(&mut self, scan: &Scan) {
        self.start += scan.bytes;
        self.line_number += scan.lines;
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            self.fill()?;
            if let Some(end) = line_end(self.ahead()) {
                // The LF of a CRLF may not have been read yet.
                if end < self.ahead().len() || self.ended {
                    self.start += end;
                    self.line_number += 1;
                    return Ok(());
                }
                self.start += end - 1;
                continue;
            }
            self.start = self.window.len();
            if self.ended {
                self.line_number += 1;
                return Ok(());
            }
        }
    }

    /// Reads until a whole record of the largest size, and the byte after its CR, is in the
    /// window, or the input has ended.
    fn fill(&mut self) -> io::Result<()> {
        while !self.ended && self.ahead().len() < RECORD_BYTES_MAX + 2 {
            self.window.drain(..self.start);
            self.start = 0;
            let read = (&mut self.input).take(CHUNK_BYTES).read_to_end(&mut self.window)?;
            self.ended = read == 0;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Scan {
    bytes: usize,
    lines: u64,
    broken: Option<Broken>,
    text_after_quote: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote inside a quoted field: it closed the field, or is half of a doubled quote.
    AfterQuote,
}

/// Takes the first record of `bytes` apart.
fn scan(bytes: &[u8], fields: &mut Fields) -> Scan {
    fields.clear();
    let mut place = Place::FieldStart;
    let mut scan = Scan { bytes: 0, lines: 1, broken: None, text_after_quote: false };
    let mut ahead = bytes.iter().copied().peekable();
    while let Some(byte) = ahead.next() {
        if scan.bytes >= RECORD_BYTES_MAX {
            scan.broken = Some(match place {
                Place::Quoted => Broken::QuoteNotClosed,
                Place::FieldStart | Place::Plain | Place::AfterQuote => Broken::TooLong,
            });
            return scan;
        }
        scan.bytes += 1;
        let half_of_crlf = byte == b'\r' && ahead.peek() == Some(&b'\n');
        match (place, byte) {
            (Place::Quoted, b'"') => place = Place::AfterQuote,
            (Place::Quoted, _) => {
                let ends_line = byte == b'\n' || (byte == b'\r' && !half_of_crlf);
                scan.lines += u64::from(ends_line);
                fields.bytes.push(byte);
            }
            (Place::AfterQuote, b'"') => {
                place = Place::Quoted;
                fields.bytes.push(byte);
            }
            (Place::FieldStart, b'"') => place = Place::Quoted,
            (Place::FieldStart | Place::Plain | Place::AfterQuote, b',') => {
                fields.close_field();
                place = Place::FieldStart;
            }
            (Place::FieldStart | Place::Plain | Place::AfterQuote, b'\r' | b'\n') => {
                fields.close_field();
                scan.bytes += usize::from(half_of_crlf);
                return scan;
            }
            (Place::FieldStart | Place::Plain | Place::AfterQuote, _) => {
                scan.text_after_quote |= place == Place::AfterQuote;
                fields.bytes.push(byte);
                place = Place::Plain;
            }
        }
    }
    if place == Place::Quoted {
        scan.broken = Some(Broken::QuoteNotClosed);
    }
    fields.close_field();
    scan
}

/// Where the first physical line of `bytes` ends, its terminator included.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let crlf = bytes.get(at..at + 2) == Some(b"\r\n");
    Some(at + 1 + usize::from(crlf))
}

const CHUNK_BYTES: u64 = 256 * 1024;
const RAW_CHARS_MAX: usize = 500;
const RAW_BYTES_MAX: usize = RAW_CHARS_MAX * 4;
