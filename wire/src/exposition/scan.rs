//! What the two text formats share: names, quoted strings, label blocks, faults.

use std::borrow::Cow;

use stint_model::labels::{BUCKET_BOUND, METRIC_NAME, QUANTILE};
use stint_model::metadata::MetricType;

use super::ParseError;
use super::number::{parse_float, push_bound};

/// Bytes of the offending text that an error shows.
const EXCERPT_BYTES: usize = 60;

/// Something wrong at a place of the body.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Fault {
    /// A fault whose message ends with the text around `at`.
    #[cold]
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// The fault with its line number and the beginning of the line.
    #[cold]
    pub(super) fn in_body(self, body: &str) -> ParseError {
        let bytes = body.as_bytes();
        let at = self.at.min(bytes.len());
        let before = bytes.get(..at).unwrap_or_default();
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        let rest = body.get(start..).unwrap_or_default();
        let text = rest.split('\n').next().unwrap_or_default();
        ParseError { line, message: format!("{}: {}", self.message, excerpt(text)) }
    }
}

/// `text` in quotes, shortened.
pub(super) fn excerpt(text: &str) -> String {
    if text.len() <= EXCERPT_BYTES {
        return format!("{text:?}");
    }
    let end = (0..=EXCERPT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{:?}…", text.get(..end).unwrap_or_default())
}

/// The body as text; says in which line it stops being UTF-8.
pub(super) fn utf8(body: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(body).map_err(|error| {
        let valid = body.get(..error.valid_up_to()).unwrap_or_default();
        let line = memchr::memchr_iter(b'\n', valid).count() + 1;
        let start = memchr::memrchr(b'\n', valid).map_or(0, |newline| newline + 1);
        let text = String::from_utf8_lossy(valid.get(start..).unwrap_or_default());
        ParseError { line, message: format!("invalid UTF-8 after {}", excerpt(&text)) }
    })
}

const NAME: u8 = 1;
const LABEL: u8 = 2;
const BLANK: u8 = 4;

/// What each byte may be part of.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'_' {
            classes[byte] = NAME | LABEL;
        }
        byte += 1;
    }
    classes[b':' as usize] = NAME;
    classes[b' ' as usize] = BLANK;
    classes[b'\t' as usize] = BLANK;
    classes
};

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

#[inline]
fn run_end(bytes: &[u8], mut at: usize, class: u8) -> usize {
    while bytes.get(at).is_some_and(|byte| is(*byte, class)) {
        at += 1;
    }
    at
}

/// Where the metric name at `at` ends; `at` itself when there is none.
#[inline]
pub(super) fn name_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at).is_some_and(u8::is_ascii_digit) { at } else { run_end(bytes, at, NAME) }
}

#[inline]
fn label_name_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at).is_some_and(u8::is_ascii_digit) { at } else { run_end(bytes, at, LABEL) }
}

/// Where the series at `start` ends if it is `expected`, a series that was taken apart before.
#[inline]
pub(super) fn expected_end(bytes: &[u8], start: usize, expected: &str) -> Option<usize> {
    let last = expected.as_bytes().last()?;
    if !bytes.get(start..)?.starts_with(expected.as_bytes()) {
        return None;
    }
    let end = start + expected.len();
    if *last != b'}' {
        // A bare name: it must not go on, and no labels may follow.
        let next = skip_blanks(bytes, end);
        if next == end || bytes.get(next) == Some(&b'{') {
            return None;
        }
    }
    Some(end)
}

/// The first place from `at` on that is neither space nor tab.
#[inline]
pub(super) fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    run_end(bytes, at, BLANK)
}

/// The end of the run of bytes from `at` on that are not blank and not a newline.
#[inline]
pub(super) fn token_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| !is(*byte, BLANK) && *byte != b'\n') {
        at += 1;
    }
    at
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// High bits where `word` has the byte `needle`; the lowest one set is exact.
#[inline]
fn byte_mask(word: u64, needle: u8) -> u64 {
    let zeroed = word ^ (LOW_BITS * needle as u64);
    zeroed.wrapping_sub(LOW_BITS) & !zeroed & HIGH_BITS
}

/// The first quote or backslash (or newline, if `STRICT`) from `at` on. Values are short, so
/// eight bytes at a time beat a vectorised search with its set-up cost.
#[inline]
fn find_special<const STRICT: bool>(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let mut mask = byte_mask(word, b'"') | byte_mask(word, b'\\');
        if STRICT {
            mask |= byte_mask(word, b'\n');
        }
        if mask != 0 {
            return Some(at + (mask.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let is_special = |b: &u8| matches!(b, b'"' | b'\\') || (STRICT && *b == b'\n');
    bytes.get(at..)?.iter().position(is_special).map(|offset| at + offset)
}

/// The place of the quote that closes the string whose text starts at `at`, and whether the text
/// has escapes. `None` when it is not closed (within the line, if `STRICT`).
#[inline]
pub(super) fn quoted_end<const STRICT: bool>(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let mut found = find_special::<STRICT>(bytes, at)?;
    let mut escaped = false;
    loop {
        match bytes.get(found)? {
            b'"' => return Some((found, escaped)),
            b'\\' if !matches!(bytes.get(found + 1), None | Some(b'\n')) => {
                escaped = true;
                found = find_special::<STRICT>(bytes, found + 2)?;
            }
            _ => return None,
        }
    }
}

/// Checks the label block whose first byte after `{` is at `at`, and returns the place after
/// its `}`. `named` says whether a metric name came before the brace (or is not wanted); without
/// one, a string alone in the block is the metric name.
///
/// The Prometheus text format (`STRICT` false) allows blanks around tokens and leaves commas
/// between labels optional; `OpenMetrics` allows neither. Both allow a comma at the end.
#[inline]
pub(super) fn label_block<const STRICT: bool>(
    bytes: &[u8],
    mut at: usize,
    mut named: bool,
) -> Result<usize, Fault> {
    let blanks = |at| if STRICT { at } else { skip_blanks(bytes, at) };
    loop {
        at = blanks(at);
        let first = bytes.get(at).copied();
        let quoted = first == Some(b'"');
        let name_end = match first {
            Some(b'}') => break,
            Some(b'"') => {
                quoted_end::<STRICT>(bytes, at + 1)
                    .ok_or_else(|| Fault::new(at, "string is not closed"))?
                    .0
                    + 1
            }
            _ => label_name_end(bytes, at),
        };
        if name_end == at {
            return Err(Fault::new(at, "expected label name"));
        }
        let next = blanks(name_end);
        match bytes.get(next) {
            Some(b'=') => at = blanks(next + 1),
            Some(b',' | b'}') if quoted => {
                if named {
                    return Err(Fault::new(at, "metric name already set"));
                }
                named = true;
                at = next + usize::from(bytes.get(next) == Some(&b','));
                continue;
            }
            _ => return Err(Fault::new(next, "expected equal after label name")),
        }
        if bytes.get(at) != Some(&b'"') {
            return Err(Fault::new(at, "expected label value in quotes"));
        }
        let (close, _) = quoted_end::<STRICT>(bytes, at + 1)
            .ok_or_else(|| Fault::new(at, "label value is not closed"))?;
        at = blanks(close + 1);
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => break,
            _ if STRICT => return Err(Fault::new(at, "expected comma or brace after label")),
            _ => {}
        }
    }
    if named { Ok(at + 1) } else { Err(Fault::new(at, "metric name not set")) }
}

/// Decodes the labels of `raw`, which has passed [`label_block`], and hands name and value of
/// each to `push`, the metric name among them. `name_len` is the length of the name before the
/// braces where it is known, else 0.
pub(super) fn decode_labels<'a>(
    raw: &'a str,
    name_len: usize,
    kind: MetricType,
    mut push: impl FnMut(Cow<'a, str>, Cow<'a, str>),
) {
    let bytes = raw.as_bytes();
    let bound = match kind {
        MetricType::Histogram => Some(BUCKET_BOUND),
        MetricType::Summary => Some(QUANTILE),
        _ => None,
    };
    let end = if name_len > 0 { name_len } else { name_end(bytes, 0) };
    if end > 0 {
        push(Cow::Borrowed(METRIC_NAME), slice(raw, 0, end));
    }
    let mut at = skip_blanks(bytes, end) + 1;
    loop {
        at = skip_blanks(bytes, at);
        let name = match bytes.get(at) {
            Some(b',') => {
                at += 1;
                continue;
            }
            Some(b'"') => take_quoted(raw, &mut at),
            Some(b'}') | None => return,
            Some(_) => {
                let start = at;
                at = label_name_end(bytes, at);
                Some(slice(raw, start, at))
            }
        };
        let Some(name) = name else { return };
        at = skip_blanks(bytes, at);
        match bytes.get(at) {
            Some(b'=') => at = skip_blanks(bytes, at + 1),
            Some(b',' | b'}') => {
                push(Cow::Borrowed(METRIC_NAME), name);
                continue;
            }
            _ => return,
        }
        let Some(value) = take_quoted(raw, &mut at) else { return };
        let value = if bound == Some(&*name) { normalised_bound(value) } else { value };
        push(name, value);
    }
}

/// The line at `at` and where the next one begins, if it tells of a family and ends where the line
/// does: what quoted names do they may do on several lines.
#[inline]
pub(super) fn family_line(body: &str, at: usize) -> Option<(&str, usize)> {
    let bytes = body.as_bytes().get(at..)?;
    let is_told = [b"# HELP ", b"# TYPE ", b"# UNIT "].iter().any(|it| bytes.starts_with(*it));
    if !is_told || bytes.get(7) == Some(&b'"') {
        return None;
    }
    let end = at + memchr::memchr(b'\n', bytes)?;
    Some((body.get(at..end)?, end + 1))
}

fn slice(text: &str, start: usize, end: usize) -> Cow<'_, str> {
    Cow::Borrowed(text.get(start..end).unwrap_or_default())
}

/// The string whose opening quote is at `at`, which moves behind the closing one.
fn take_quoted<'a>(text: &'a str, at: &mut usize) -> Option<Cow<'a, str>> {
    let start = *at + 1;
    let (end, escaped) = quoted_end::<false>(text.as_bytes(), start)?;
    *at = end + 1;
    let inner = text.get(start..end)?;
    Some(if escaped { unescape(inner) } else { Cow::Borrowed(inner) })
}

/// A bound in the one form that series are stored under.
fn normalised_bound(value: Cow<'_, str>) -> Cow<'_, str> {
    let Some(number) = parse_float(&value) else { return value };
    let mut text = String::new();
    push_bound(&mut text, number);
    if text == value { value } else { Cow::Owned(text) }
}

/// Resolves `\\`, `\"` and `\n`; other backslashes stand for themselves.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    unescape_with(text, true)
}

/// Resolves `\\` and `\n`, the escapes of help texts in the Prometheus format.
pub(super) fn unescape_help(text: &str) -> Cow<'_, str> {
    unescape_with(text, false)
}

fn unescape_with(text: &str, quotes: bool) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let resolved = match after.as_bytes().first() {
            Some(b'\\') => Some('\\'),
            Some(b'n') => Some('\n'),
            Some(b'"') if quotes => Some('"'),
            _ => None,
        };
        out.push(resolved.unwrap_or('\\'));
        rest = if resolved.is_some() { after.get(1..).unwrap_or_default() } else { after };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The metric name after `# TYPE ` and its like, quoted or not, and the place after it.
pub(super) fn family_name(body: &str, at: usize) -> Result<(Cow<'_, str>, usize), Fault> {
    let bytes = body.as_bytes();
    if bytes.get(at) == Some(&b'"') {
        let mut end = at;
        return take_quoted(body, &mut end)
            .map(|name| (name, end))
            .ok_or_else(|| Fault::new(at, "string is not closed"));
    }
    let end = name_end(bytes, at);
    if end == at {
        Err(Fault::new(at, "expected metric name"))
    } else {
        Ok((slice(body, at, end), end))
    }
}
