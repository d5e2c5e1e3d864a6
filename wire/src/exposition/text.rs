//! The Prometheus text format, 0.0.4 and 1.0.0.

use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

use super::number::{leading_decimal, parse_float};
use super::scan::{self, Fault};
use super::{Entry, FamilyLine, SeriesEntry};

/// Reads the Prometheus text format.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    body: &'a str,
    at: usize,
    kind: MetricType,
}

impl<'a> Text<'a> {
    pub(super) fn new(body: &'a str) -> Self {
        Self { body, at: 0, kind: MetricType::Unknown }
    }

    pub(super) fn body(&self) -> &'a str {
        self.body
    }

    pub(super) fn next(&mut self, expected: &str) -> Result<Option<Entry<'a>>, Fault> {
        let bytes = self.body.as_bytes();
        loop {
            self.at = scan::skip_blanks(bytes, self.at);
            match bytes.get(self.at) {
                None => return Ok(None),
                Some(b'\n') => self.at += 1,
                Some(b'#') => {
                    if let Some(entry) = self.comment()? {
                        return Ok(Some(entry));
                    }
                }
                Some(_) => return self.series(expected).map(|series| Some(Entry::Series(series))),
            }
        }
    }

    pub(super) fn pass_over(&mut self, mut known: impl FnMut(&str) -> FamilyLine) {
        while let Some((line, next)) = scan::family_line(self.body, self.at)
            // Which is a comment like any other here.
            && !line.starts_with("# UNIT ")
            && let FamilyLine::Known(kind) = known(line)
        {
            (self.at, self.kind) = (next, kind.unwrap_or(self.kind));
        }
    }

    /// A comment line; only `HELP` and `TYPE` mean something.
    fn comment(&mut self) -> Result<Option<Entry<'a>>, Fault> {
        let bytes = self.body.as_bytes();
        let start = self.at + 1;
        let end = self.line_end(start);
        self.at = end + 1;
        let word = scan::skip_blanks(bytes, start);
        let after = scan::token_end(bytes, word);
        let name_at = scan::skip_blanks(bytes, after);
        // A keyword needs blanks on both sides.
        if word == start || name_at == after {
            return Ok(None);
        }
        let is_type = match self.body.get(word..after) {
            Some("TYPE") => true,
            Some("HELP") => false,
            _ => return Ok(None),
        };
        let (name, name_end) = scan::family_name(self.body, name_at)?;
        // A quoted name may span lines.
        let end = if name_end > end { self.line_end(name_end) } else { end };
        self.at = end + 1;
        // One separating byte, then the text as it is.
        let text = self.body.get(name_end..end).unwrap_or_default();
        let text = text.get(1..).unwrap_or_default();
        if !is_type {
            return Ok(Some(Entry::Help { name, text: scan::unescape_help(text) }));
        }
        self.kind = match text {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            "histogram" => MetricType::Histogram,
            "summary" => MetricType::Summary,
            "untyped" => MetricType::Unknown,
            _ => {
                let message = format!("invalid metric type {}", scan::excerpt(text));
                return Err(Fault::new(name_at, message));
            }
        };
        Ok(Some(Entry::Type { name, kind: self.kind }))
    }

    fn line_end(&self, at: usize) -> usize {
        let rest = self.body.as_bytes().get(at..).unwrap_or_default();
        memchr::memchr(b'\n', rest).map_or(self.body.len(), |offset| at + offset)
    }

    #[inline]
    fn series(&mut self, expected: &str) -> Result<SeriesEntry<'a>, Fault> {
        let bytes = self.body.as_bytes();
        let start = self.at;
        let known = scan::expected_end(bytes, start, expected);
        let (name_end, raw_end) = match known {
            Some(end) => (start, end),
            None => series_end(bytes, start)?,
        };
        let (value, at) = self.value(scan::skip_blanks(bytes, raw_end))?;
        let (timestamp, at) = self.timestamp(at)?;
        self.at = at;
        Ok(SeriesEntry {
            raw: self.body.get(start..raw_end).unwrap_or_default(),
            value,
            timestamp,
            exemplar: None,
            started: None,
            kind: self.kind,
            name_len: name_end - start,
            is_expected: known.is_some(),
        })
    }

    #[inline]
    fn value(&self, at: usize) -> Result<(f64, usize), Fault> {
        let bytes = self.body.as_bytes();
        let rest = bytes.get(at..).unwrap_or_default();
        if let Some((value, length)) = leading_decimal(rest)
            && matches!(rest.get(length), None | Some(b'\n' | b' ' | b'\t'))
        {
            return Ok((value, at + length));
        }
        let end = scan::token_end(bytes, at);
        let text = self.body.get(at..end).unwrap_or_default();
        if text.is_empty() {
            return Err(Fault::new(at, "expected value after metric"));
        }
        match parse_float(text) {
            Some(value) => Ok((value, end)),
            None => Err(Fault::new(at, format!("invalid value {}", scan::excerpt(text)))),
        }
    }

    /// The timestamp at `at`, if there is one, and the start of the next line.
    #[inline]
    fn timestamp(&self, at: usize) -> Result<(Option<Timestamp>, usize), Fault> {
        let bytes = self.body.as_bytes();
        if bytes.get(at) == Some(&b'\n') {
            return Ok((None, at + 1));
        }
        let at = scan::skip_blanks(bytes, at);
        if matches!(bytes.get(at), None | Some(b'\n')) {
            return Ok((None, at + 1));
        }
        let end = scan::token_end(bytes, at);
        let text = self.body.get(at..end).unwrap_or_default();
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let ms = text.parse().ok().filter(|_| is_number).ok_or_else(|| {
            Fault::new(
                at,
                format!("expected timestamp in milliseconds, got {}", scan::excerpt(text)),
            )
        })?;
        let after = scan::skip_blanks(bytes, end);
        match bytes.get(after) {
            None | Some(b'\n') => Ok((Some(Timestamp(ms)), after + 1)),
            Some(_) => Err(Fault::new(after, "expected next line after timestamp")),
        }
    }
}

/// Where the name of the series that starts at `start` ends, and where the series itself does:
/// after its name, or after its labels.
#[inline]
fn series_end(bytes: &[u8], start: usize) -> Result<(usize, usize), Fault> {
    let name_end = scan::name_end(bytes, start);
    let at = scan::skip_blanks(bytes, name_end);
    if bytes.get(at) == Some(&b'{') {
        let end = scan::label_block::<false>(bytes, at + 1, name_end > start)?;
        return Ok((name_end, end));
    }
    if name_end == start {
        return Err(Fault::new(start, "expected metric name"));
    }
    if at == name_end {
        return Err(Fault::new(at, "expected value after metric"));
    }
    Ok((name_end, name_end))
}
