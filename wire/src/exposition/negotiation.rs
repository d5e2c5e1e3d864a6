//! Which format a target is asked for, and which one its answer is in.

use std::fmt;

use super::escape::Escaping;

/// The three syntaxes; their versions differ in nothing that a reader must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The Prometheus text format, 0.0.4 and 1.0.0.
    PrometheusText,
    /// `OpenMetrics` text, 0.0.1 and 1.0.0.
    OpenMetrics,
    /// Length-delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

/// What a reader takes, as its `Accept` header says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The text format of Prometheus, or Protobuf where that is preferred.
    pub format: Format,
    /// How names are written.
    pub escaping: Escaping,
}

/// Clauses of a header that are looked at; more are no reader's.
const CLAUSES_MAX: usize = 64;

/// One clause of an `Accept` header.
struct Clause<'h> {
    media: (&'h str, &'h str),
    quality: f32,
    parameters: Vec<(&'h str, &'h str)>,
}

impl<'h> Clause<'h> {
    /// `None` for what names no type.
    fn parse(text: &'h str) -> Option<Self> {
        let mut parts = text.split(';');
        let media = parts.next()?;
        let (kind, subtype) = match media.split_once('/') {
            Some((_, subtype)) if subtype.contains('/') => return None,
            Some((kind, subtype)) => (kind.trim(), subtype.trim()),
            None if media.trim() == "*" => ("*", "*"),
            None => return None,
        };
        let mut clause = Self { media: (kind, subtype), quality: 1.0, parameters: Vec::new() };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match (name.trim(), value.trim()) {
                (_, value) if value.contains('=') => {}
                ("q", value) => clause.quality = value.parse().unwrap_or(0.0),
                parameter => clause.parameters.push(parameter),
            }
        }
        Some(clause)
    }

    fn parameter(&self, wanted: &str) -> Option<&'h str> {
        let mut found = self.parameters.iter().rev().filter(|(name, _)| *name == wanted);
        found.next().map(|(_, value)| *value)
    }

    /// The format that the clause names, if it is one that is written.
    fn format(&self) -> Option<Format> {
        match self.media {
            ("application", "vnd.google.protobuf") => {
                let is_known = self.parameter("proto") == Some("io.prometheus.client.MetricFamily")
                    && self.parameter("encoding") == Some("delimited");
                is_known.then_some(Format::Protobuf)
            }
            ("text", "plain") => {
                let is_known = matches!(self.parameter("version"), None | Some("" | "0.0.4"));
                is_known.then_some(Format::PrometheusText)
            }
            _ => None,
        }
    }
}

impl Accepted {
    /// The best of the formats that the header names and that are written, else text. The scheme of
    /// names is the last one told on the way there.
    pub fn from_header(header: &str) -> Self {
        let clauses = header.split(',').take(CLAUSES_MAX).filter_map(Clause::parse);
        let mut clauses: Vec<_> = clauses.collect();
        // Those of the same quality stay in order, but for those that take anything.
        let is_open = |clause: &Clause<'_>| (clause.media.0 == "*", clause.media.1 == "*");
        clauses.sort_by(|a, b| {
            b.quality.total_cmp(&a.quality).then_with(|| is_open(a).cmp(&is_open(b)))
        });
        let mut accepted = Self { format: Format::PrometheusText, escaping: Escaping::default() };
        for clause in &clauses {
            if let Some(scheme) = clause.parameter("escaping").and_then(Escaping::from_name) {
                accepted.escaping = scheme;
            }
            if let Some(format) = clause.format() {
                accepted.format = format;
                break;
            }
        }
        accepted
    }

    /// The header to answer with.
    pub fn content_type(self) -> String {
        format!("{}; escaping={}", self.format.content_type(), self.escaping.as_str())
    }
}

/// Why the format of an answer is unknown; the texts follow Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentTypeError {
    /// No content type.
    #[error(
        "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol \
         specified for target"
    )]
    Blank,
    /// Not of the form `type/subtype; parameters`.
    #[error("cannot parse Content-Type {0:?} and no fallback_scrape_protocol specified for target")]
    Malformed(String),
    /// A media type that is no exposition format.
    #[error(
        "received unsupported Content-Type {0:?} and no fallback_scrape_protocol specified for \
         target"
    )]
    Unsupported(String),
}

impl Format {
    /// The format named by a `Content-Type` header (empty when there is none), or `fallback`
    /// where the header names none. The version is of no account.
    pub fn from_content_type(
        header: &str,
        fallback: Option<Self>,
    ) -> Result<Self, ContentTypeError> {
        let mut parts = header.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        // A `;` at the end is common; a parameter without a value is none.
        let malformed = parts.any(|part| !part.is_empty() && !part.contains('='));
        let found = match media.to_ascii_lowercase().as_str() {
            _ if malformed => Err(ContentTypeError::Malformed(header.to_owned())),
            "text/plain" => Ok(Self::PrometheusText),
            "application/openmetrics-text" => Ok(Self::OpenMetrics),
            "application/vnd.google.protobuf" => Ok(Self::Protobuf),
            "" if header.trim().is_empty() => Err(ContentTypeError::Blank),
            media if media.split('/').filter(|part| !part.is_empty()).count() == 2 => {
                Err(ContentTypeError::Unsupported(header.to_owned()))
            }
            _ => Err(ContentTypeError::Malformed(header.to_owned())),
        };
        found.or_else(|error| fallback.ok_or(error))
    }

    /// The header to answer with when writing this format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::PrometheusText => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }
}

/// An entry of `scrape_protocols`: a format with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `PrometheusProto`
    Protobuf,
    /// `PrometheusText0.0.4`
    Text004,
    /// `PrometheusText1.0.0`
    Text100,
    /// `OpenMetricsText0.0.1`
    OpenMetrics001,
    /// `OpenMetricsText1.0.0`
    OpenMetrics100,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Protobuf, Self::OpenMetrics100, Self::OpenMetrics001, Self::Text100, Self::Text004];
    /// What is asked for, in order of preference, unless configured otherwise.
    pub const DEFAULT: [Self; 4] =
        [Self::OpenMetrics100, Self::OpenMetrics001, Self::Text100, Self::Text004];

    /// The protocol by its name in `prometheus.yml`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }

    /// Its name in `prometheus.yml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Protobuf => "PrometheusProto",
            Self::Text004 => "PrometheusText0.0.4",
            Self::Text100 => "PrometheusText1.0.0",
            Self::OpenMetrics001 => "OpenMetricsText0.0.1",
            Self::OpenMetrics100 => "OpenMetricsText1.0.0",
        }
    }

    /// The syntax it is written in.
    pub const fn format(self) -> Format {
        match self {
            Self::Protobuf => Format::Protobuf,
            Self::Text004 | Self::Text100 => Format::PrometheusText,
            Self::OpenMetrics001 | Self::OpenMetrics100 => Format::OpenMetrics,
        }
    }

    /// Media type with parameters, asking for UTF-8 names where the version has them.
    const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited"
            }
            Self::Text004 => "text/plain;version=0.0.4",
            Self::Text100 => "text/plain;version=1.0.0;escaping=allow-utf-8",
            Self::OpenMetrics001 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetrics100 => {
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
            }
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `Accept` header that asks for `protocols`, most wanted first, and for anything at last.
pub fn accept_header(protocols: &[Protocol]) -> String {
    use fmt::Write as _;
    let mut header = String::new();
    let mut weight = Protocol::ALL.len() + 1;
    for protocol in protocols.iter().take(Protocol::ALL.len()) {
        let written = write!(header, "{};q=0.{weight},", protocol.media_type());
        debug_assert!(written.is_ok(), "a string takes every write");
        weight -= 1;
    }
    header + &format!("*/*;q=0.{weight}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_get_what_they_prefer() {
        let protobuf = "application/vnd.google.protobuf;\
                        proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let accepted = |header: &str| {
            let Accepted { format, escaping } = Accepted::from_header(header);
            (format, escaping)
        };
        use Escaping::{AllowUtf8, Dots, Underscores, Values};
        for (header, format, escaping) in [
            (String::new(), Format::PrometheusText, Underscores),
            ("*/*".into(), Format::PrometheusText, Underscores),
            ("text/plain; escaping=dots".into(), Format::PrometheusText, Dots),
            (format!("{protobuf};q=0.5, text/plain;q=0.4"), Format::Protobuf, Underscores),
            (format!("{protobuf};q=0.5, text/plain"), Format::PrometheusText, Underscores),
            (
                format!("text/plain;version=1.0.0;q=0.9,{protobuf};q=0.1"),
                Format::Protobuf,
                Underscores,
            ),
            (protobuf.replace("delimited", "text"), Format::PrometheusText, Underscores),
            (format!("{protobuf};escaping=nonsense"), Format::Protobuf, Underscores),
            // What was told before the clause that counts holds, what comes after it does not.
            (
                format!("application/openmetrics-text;escaping=values,{protobuf};q=0.7"),
                Format::Protobuf,
                Values,
            ),
            (
                format!("text/plain;escaping=dots;q=0.1,{protobuf};escaping=allow-utf-8"),
                Format::Protobuf,
                AllowUtf8,
            ),
            ("a, b/c/d, ;;=, text/plain;q=x=y".into(), Format::PrometheusText, Underscores),
            (
                accept_header(&[Protocol::Protobuf, Protocol::Text100]),
                Format::Protobuf,
                Underscores,
            ),
        ] {
            assert_eq!(accepted(&header), (format, escaping), "{header}");
        }
        let text = Accepted { format: Format::PrometheusText, escaping: Dots };
        assert_eq!(text.content_type(), "text/plain; version=0.0.4; charset=utf-8; escaping=dots");
    }

    #[test]
    fn the_accept_header_is_that_of_prometheus() {
        assert_eq!(
            accept_header(&Protocol::DEFAULT),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(accept_header(&[Protocol::Text004]), "text/plain;version=0.0.4;q=0.6,*/*;q=0.5");
    }

    #[test]
    fn the_media_type_decides_and_the_version_does_not() {
        let check = |header, format| {
            assert_eq!(Format::from_content_type(header, None), Ok(format), "{header}");
        };
        check("text/plain", Format::PrometheusText);
        check("text/plain;", Format::PrometheusText);
        check("Text/Plain; version=9; charset=utf-8", Format::PrometheusText);
        check("application/openmetrics-text; version=1.0.0", Format::OpenMetrics);
        check(Format::Protobuf.content_type(), Format::Protobuf);
    }

    #[test]
    fn an_unknown_media_type_needs_a_fallback() {
        let error = |header| Format::from_content_type(header, None).unwrap_err();
        assert_eq!(error(" "), ContentTypeError::Blank);
        assert_eq!(error("text/html"), ContentTypeError::Unsupported("text/html".into()));
        assert_eq!(error("nonsense"), ContentTypeError::Malformed("nonsense".into()));
        let parameter = "text/plain; version";
        assert_eq!(error(parameter), ContentTypeError::Malformed(parameter.into()));
        for header in ["", "text/html", "nonsense"] {
            let format = Format::from_content_type(header, Some(Format::OpenMetrics));
            assert_eq!(format, Ok(Format::OpenMetrics), "{header}");
        }
    }

    #[test]
    fn protocols_are_found_by_their_configured_name() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_name(protocol.as_str()), Some(protocol));
        }
        assert_eq!(Protocol::from_name("PrometheusText"), None);
    }
}
