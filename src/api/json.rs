//! Answers as JSON: the envelope, strings escaped as Go does, labels, samples.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use stint_model::{Labels, Timestamp};

use super::error::{ApiError, ErrorKind};
use super::number::{push_time, push_value};
use super::pack::{Coding, Packed, Packer, tell};

/// Warnings and infos shown per answer; the rest is only counted.
const ANNOTATIONS_MAX: usize = 10;

/// What stands before `data`.
const OPENING: &[u8] = b"{\"status\":\"success\",\"data\":";

/// A successful answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The body up to the value of `data`; an answer without is 204 with an empty body.
    body: Option<Vec<u8>>,
    warnings: Vec<String>,
    infos: Vec<String>,
}

impl Reply {
    /// An answer whose `data` is `value`.
    pub fn json(value: &impl Serialize) -> Self {
        Self::raw(&Self::data(value))
    }

    /// What `data` is for `value`: JSON with numbers as Go writes them.
    pub fn data(value: &impl Serialize) -> Vec<u8> {
        let mut data = Vec::with_capacity(256);
        let mut serializer = serde_json::Serializer::with_formatter(&mut data, GoFormatter);
        // Only maps with keys that are no strings fail, and no answer has one.
        value.serialize(&mut serializer).expect("answers are valid JSON");
        data
    }

    /// An answer whose `data` is JSON already.
    pub fn raw(data: &[u8]) -> Self {
        let mut body = Self::open(data.len());
        body.extend_from_slice(data);
        Self::opened(body)
    }

    /// The start of a body, to which `data` of about so many bytes is to be appended.
    pub fn open(bytes: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(OPENING.len() + bytes + 16);
        body.extend_from_slice(OPENING);
        body
    }

    /// An answer that was begun by [`Reply::open`].
    pub fn opened(body: Vec<u8>) -> Self {
        Self { body: Some(body), ..Self::default() }
    }

    /// An answer that says nothing but success.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a warning.
    #[must_use]
    pub fn warn(mut self, text: impl Into<String>) -> Self {
        self.warnings.push(text.into());
        self
    }

    /// Adds several warnings and infos.
    #[must_use]
    pub fn annotate(
        mut self,
        warnings: impl IntoIterator<Item = String>,
        infos: impl IntoIterator<Item = String>,
    ) -> Self {
        self.warnings.extend(warnings);
        self.infos.extend(infos);
        self
    }

    /// The answer as it is sent to who wants it in a coding.
    pub(super) fn packed(self, packer: &Packer, wanted: Coding) -> PackedReply {
        PackedReply(self.into_body().map(|body| packer.pack(body, wanted)))
    }

    /// The whole body; `None` when there is none.
    pub fn into_body(self) -> Option<Vec<u8>> {
        let mut body = self.body?;
        push_annotations(&mut body, "warnings", "warning", &self.warnings);
        push_annotations(&mut body, "infos", "info", &self.infos);
        body.push(b'}');
        Some(body)
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self.into_body() {
            Some(body) => json_response(StatusCode::OK, body),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }
}

/// A successful answer as it is sent.
#[derive(Debug)]
pub(super) struct PackedReply(Option<Packed>);

impl IntoResponse for PackedReply {
    fn into_response(self) -> Response {
        let Some(Packed { body, coding }) = self.0 else {
            return StatusCode::NO_CONTENT.into_response();
        };
        let mut response = json_response(StatusCode::OK, body);
        if coding != Coding::Identity {
            tell(coding, response.headers_mut());
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.kind == ErrorKind::Internal {
            tracing::error!(error = self.message, "a request failed inside the server");
        }
        let mut body = Vec::with_capacity(self.message.len() + 64);
        body.extend_from_slice(b"{\"status\":\"error\",\"errorType\":\"");
        body.extend_from_slice(self.kind.as_str().as_bytes());
        body.extend_from_slice(b"\",\"error\":");
        push_html_string(&mut body, &self.message);
        body.push(b'}');
        json_response(self.kind.status(), body)
    }
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn push_annotations(out: &mut Vec<u8>, key: &str, noun: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":[");
    for (position, text) in texts.iter().take(ANNOTATIONS_MAX).enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push_html_string(out, text);
    }
    if texts.len() > ANNOTATIONS_MAX {
        let omitted = texts.len() - ANNOTATIONS_MAX;
        out.push(b',');
        push_html_string(out, &format!("{omitted} more {noun} annotations omitted"));
    }
    out.push(b']');
}

/// Writes compact JSON whose strings are safe inside HTML, as Go's encoder does by default.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let Some(character) = special.chars().next() else { break };
            write!(writer, "\\u{:04x}", u32::from(character))?;
            rest = special.get(character.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let mut text = Vec::with_capacity(24);
        super::number::push_json_float(&mut text, value);
        writer.write_all(&text)
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        match escape {
            serde_json::ser::CharEscape::Backspace => writer.write_all(b"\\u0008"),
            serde_json::ser::CharEscape::FormFeed => writer.write_all(b"\\u000c"),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

/// Appends a string that is safe inside HTML.
fn push_html_string(out: &mut Vec<u8>, text: &str) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoFormatter);
    text.serialize(&mut serializer).expect("a vector takes everything");
}

/// Appends a string as results have it: only what JSON demands is escaped.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Nearly all are plain. Without a way out of the loop, many bytes are looked at at once.
    let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    if !text.bytes().fold(false, |found, byte| found | is_special(byte)) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => &[],
            _ => continue,
        };
        out.extend_from_slice(text.as_bytes().get(plain_from..at).unwrap_or_default());
        plain_from = at + 1;
        if escape.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(text.as_bytes().get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

/// Appends a label set as an object, in order of names.
pub fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (position, (name, value)) in labels.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push_string(out, name);
        out.push(b':');
        push_string(out, value);
    }
    out.push(b'}');
}

/// Appends a sample as `[time,"value"]`.
pub fn push_sample(out: &mut Vec<u8>, at: Timestamp, value: f64) {
    out.push(b'[');
    push_time(out, at);
    out.extend_from_slice(b",\"");
    push_value(out, value);
    out.extend_from_slice(b"\"]");
}

/// Appends an array of strings.
pub fn push_strings<'a>(out: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a str>) {
    out.push(b'[');
    for (position, text) in texts.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push_string(out, text);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn body(reply: Reply) -> String {
        String::from_utf8(reply.into_body().unwrap()).unwrap()
    }

    #[test]
    fn the_envelope_has_only_what_there_is() {
        let plain = Reply::json(&["a"]);
        assert_eq!(body(plain), r#"{"status":"success","data":["a"]}"#);
        let warned = Reply::raw(b"[]").annotate(["w".into()], ["i".into()]);
        let expected = r#"{"status":"success","data":[],"warnings":["w"],"infos":["i"]}"#;
        assert_eq!(body(warned), expected);
        assert_eq!(Reply::empty().into_body(), None);
        assert_eq!(Reply::empty().into_response().status(), StatusCode::NO_CONTENT);
    }

    #[test]
    fn annotations_beyond_ten_are_counted() {
        let texts = (0..12).map(|number| number.to_string());
        let reply = Reply::raw(b"1").annotate(texts, []);
        assert!(body(reply).ends_with(r#""9","2 more warning annotations omitted"]}"#));
    }

    #[test]
    fn messages_are_safe_in_html_and_labels_are_plain() {
        assert_eq!(
            text(|out| push_html_string(out, "a<b>&\u{2028}\u{8}")),
            r#""a\u003cb\u003e\u0026\u2028\u0008""#
        );
        assert_eq!(
            text(|out| push_string(out, "a<b>&\"\\\n\u{1}é")),
            "\"a<b>&\\\"\\\\\\n\\u0001é\""
        );
    }

    #[test]
    fn samples_and_labels_are_written_in_order() {
        let labels = Labels::from_pairs([("job", "a"), ("__name__", "up")]);
        assert_eq!(text(|out| push_labels(out, &labels)), r#"{"__name__":"up","job":"a"}"#);
        assert_eq!(text(|out| push_labels(out, &Labels::default())), "{}");
        assert_eq!(text(|out| push_sample(out, Timestamp(1500), 2.0)), r#"[1.500,"2"]"#);
        assert_eq!(text(|out| push_strings(out, ["a", "b"])), r#"["a","b"]"#);
    }

    #[test]
    fn floats_inside_answers_look_like_gos() {
        assert_eq!(
            body(Reply::json(&[0.25, 1.0, 1e-7])),
            r#"{"status":"success","data":[0.25,1,1e-7]}"#
        );
    }

    proptest! {
        #[test]
        fn every_string_reads_back(original: String) {
            let plain = text(|out| push_string(out, &original));
            prop_assert_eq!(&serde_json::from_str::<String>(&plain).unwrap(), &original);
            let html = text(|out| push_html_string(out, &original));
            prop_assert_eq!(&serde_json::from_str::<String>(&html).unwrap(), &original);
        }
    }
}
