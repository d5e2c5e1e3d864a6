//! `OpenMetrics` text, 0.0.1 and 1.0.0, as strictly as Prometheus reads it.

use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

use super::created::Created;
use super::number::{leading_decimal, parse_float};
use super::scan::{self, Fault};
use super::{Entry, ExemplarRef, FamilyLine, SeriesEntry};

/// Reads `OpenMetrics` text.
#[derive(Clone, Debug)]
pub(super) struct OpenMetrics<'a> {
    body: &'a str,
    at: usize,
    kind: MetricType,
    done: bool,
    created: Option<Created<'a>>,
}

impl<'a> OpenMetrics<'a> {
    pub(super) fn new(body: &'a str) -> Self {
        Self { body, at: 0, kind: MetricType::Unknown, done: false, created: None }
    }

    /// Takes `_created` lines as the start times of their series.
    pub(super) fn with_starts(body: &'a str) -> Self {
        Self { created: Some(Created::collect(body)), ..Self::new(body) }
    }

    pub(super) fn body(&self) -> &'a str {
        self.body
    }

    pub(super) fn next(&mut self, expected: &str) -> Result<Option<Entry<'a>>, Fault> {
        if self.done {
            return Ok(None);
        }
        loop {
            match self.body.as_bytes().get(self.at) {
                None => return Err(Fault::new(self.at, "data does not end with # EOF")),
                Some(b'#') => return self.descriptor(),
                Some(_) => {
                    let mut series = self.series(expected)?;
                    if let Some(created) = &self.created
                        && !created.apply(&mut series)
                    {
                        continue;
                    }
                    return Ok(Some(Entry::Series(series)));
                }
            }
        }
    }

    pub(super) fn pass_over(&mut self, mut known: impl FnMut(&str) -> FamilyLine) {
        // Start times are found by the families that were told.
        while self.created.is_none()
            && let Some((line, next)) = scan::family_line(self.body, self.at)
            && let FamilyLine::Known(kind) = known(line)
        {
            (self.at, self.kind) = (next, kind.unwrap_or(self.kind));
        }
    }

    /// `# TYPE`, `# HELP`, `# UNIT` or `# EOF`; there are no other comments.
    fn descriptor(&mut self) -> Result<Option<Entry<'a>>, Fault> {
        let start = self.at;
        let rest = self.body.get(start..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix("# EOF") {
            if !matches!(after, "" | "\n") {
                return Err(Fault::new(start, "unexpected data after # EOF"));
            }
            self.done = true;
            return Ok(None);
        }
        let keyword = rest.get(..7).unwrap_or_default();
        if !matches!(keyword, "# TYPE " | "# HELP " | "# UNIT ") {
            return Err(Fault::new(start, "expected # TYPE, # HELP, # UNIT or # EOF"));
        }
        let (name, name_end) = scan::family_name(self.body, start + 7)?;
        let bytes = self.body.as_bytes();
        let length = bytes
            .get(name_end..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
            .ok_or_else(|| Fault::new(start, "data does not end with # EOF"))?;
        let text = self.body.get(name_end..name_end + length).unwrap_or_default();
        let text = text
            .strip_prefix(' ')
            .ok_or_else(|| Fault::new(start, "expected one space and text after metric name"))?;
        self.at = name_end + length + 1;
        Ok(Some(match keyword {
            "# HELP " => Entry::Help { name, text: scan::unescape(text) },
            "# UNIT " => {
                let prefix = name.strip_suffix(text).and_then(|rest| rest.strip_suffix('_'));
                if !text.is_empty() && prefix.is_none() {
                    let message = format!("unit {text:?} is not a suffix of metric {name:?}");
                    return Err(Fault::new(start, message));
                }
                Entry::Unit { name, unit: text.into() }
            }
            _ => {
                self.kind = metric_type(text).ok_or_else(|| {
                    Fault::new(start, format!("invalid metric type {}", scan::excerpt(text)))
                })?;
                if let Some(created) = &mut self.created {
                    created.begin_family(name.clone());
                }
                Entry::Type { name, kind: self.kind }
            }
        }))
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
        let (value, mut at) = self.number(raw_end, "value")?;
        let mut timestamp = None;
        if bytes.get(at) == Some(&b' ') && bytes.get(at + 1) != Some(&b'#') {
            (timestamp, at) = self.time(at)?;
        }
        let mut exemplar = None;
        if bytes.get(at..at + 4) == Some(b" # {") {
            (exemplar, at) = self.exemplar(at + 3)?;
        }
        match bytes.get(at) {
            Some(b'\n') => self.at = at + 1,
            None => return Err(Fault::new(at, "data does not end with # EOF")),
            Some(_) => return Err(Fault::new(at, "expected timestamp, exemplar or next line")),
        }
        Ok(SeriesEntry {
            raw: self.body.get(start..raw_end).unwrap_or_default(),
            value,
            timestamp,
            exemplar,
            started: None,
            kind: self.kind,
            name_len: name_end - start,
            is_expected: known.is_some(),
        })
    }

    /// One space and a number; returns the place after it.
    #[inline]
    fn number(&self, at: usize, what: &str) -> Result<(f64, usize), Fault> {
        let bytes = self.body.as_bytes();
        if bytes.get(at) != Some(&b' ') {
            return Err(Fault::new(at, format!("expected one space and then the {what}")));
        }
        let rest = bytes.get(at + 1..).unwrap_or_default();
        if let Some((value, length)) = leading_decimal(rest)
            && matches!(rest.get(length), None | Some(b'\n' | b' '))
        {
            return Ok((value, at + 1 + length));
        }
        let length = memchr::memchr2(b' ', b'\n', rest).unwrap_or(rest.len());
        let end = at + 1 + length;
        let text = self.body.get(at + 1..end).unwrap_or_default();
        match parse_float(text) {
            Some(value) => Ok((value, end)),
            None => Err(Fault::new(at, format!("invalid {what} {}", scan::excerpt(text)))),
        }
    }

    /// One space and a time in seconds, cut to milliseconds.
    fn time(&self, at: usize) -> Result<(Option<Timestamp>, usize), Fault> {
        let (seconds, end) = self.number(at, "timestamp")?;
        if !seconds.is_finite() {
            return Err(Fault::new(at, format!("invalid timestamp {seconds}")));
        }
        Ok((Some(Timestamp((seconds * 1000.0) as i64)), end))
    }

    /// The exemplar whose brace is at `at`.
    fn exemplar(&self, at: usize) -> Result<(Option<ExemplarRef<'a>>, usize), Fault> {
        let bytes = self.body.as_bytes();
        let raw_end = scan::label_block::<true>(bytes, at + 1, true)?;
        let (value, mut end) = self.number(raw_end, "exemplar value")?;
        let mut timestamp = None;
        if bytes.get(end) == Some(&b' ') {
            (timestamp, end) = self.time(end)?;
        }
        let raw = self.body.get(at..raw_end).unwrap_or_default();
        Ok((Some(ExemplarRef { raw, value, timestamp }), end))
    }
}

/// Where the name of the series that starts at `start` ends, and where the series itself does:
/// after its name, or after its labels.
#[inline]
fn series_end(bytes: &[u8], start: usize) -> Result<(usize, usize), Fault> {
    let name_end = scan::name_end(bytes, start);
    if bytes.get(name_end) == Some(&b'{') {
        let end = scan::label_block::<true>(bytes, name_end + 1, name_end > start)?;
        return Ok((name_end, end));
    }
    if name_end == start {
        return Err(Fault::new(start, "expected metric name"));
    }
    Ok((name_end, name_end))
}

fn metric_type(text: &str) -> Option<MetricType> {
    Some(match text {
        "counter" => MetricType::Counter,
        "gauge" => MetricType::Gauge,
        "histogram" => MetricType::Histogram,
        "gaugehistogram" => MetricType::GaugeHistogram,
        "summary" => MetricType::Summary,
        "info" => MetricType::Info,
        "stateset" => MetricType::StateSet,
        "unknown" => MetricType::Unknown,
        _ => return None,
    })
}
