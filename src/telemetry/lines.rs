//! How an event becomes a line: `key=value` with the keys and the quoting that Prometheus uses (Go's `log/slog`), or the
//! same as one JSON object.

use std::fmt::{self, Debug, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;

/// Writes events in a format.
pub(super) struct Lines(pub LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(writer, "{}", self.line(&time, event.metadata().level().as_str(), fields))
    }
}

impl Lines {
    fn line(&self, time: &str, level: &str, fields: Fields) -> String {
        match self.0 {
            LogFormat::Logfmt => {
                let mut line = format!("time={time} level={level} msg={}", quoted(&fields.message));
                for (name, value) in fields.others {
                    let value = value.as_str().map_or_else(|| value.to_string(), quoted);
                    // Writing to a text cannot fail.
                    let _ = write!(line, " {name}={value}");
                }
                line
            }
            LogFormat::Json => {
                let mut object = Map::new();
                let head = [("time", time), ("level", level), ("msg", &fields.message)];
                object.extend(head.map(|(name, value)| (name.to_owned(), Value::from(value))));
                // A field of the event never takes the place of these.
                for (name, value) in fields.others {
                    object.entry(name).or_insert(value);
                }
                Value::Object(object).to_string()
            }
        }
    }
}

/// A value as it stands in a line: quoted where a reader could not tell where it ends.
fn quoted(value: &str) -> String {
    let plain = |c: char| c > ' ' && !matches!(c, '"' | '=' | '\\') && !c.is_control();
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("{value:?}")
    }
}

/// What an event carries.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.others.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.add(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.add(field, value.into());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat) -> String {
        let fields = Fields {
            message: "store \"opened\"".into(),
            others: vec![
                ("path", "data/".into()),
                ("empty", "".into()),
                ("error", "line 1\nline 2".into()),
                ("samples", 3.into()),
                ("level", "none".into()),
            ],
        };
        Lines(format).line("2026-01-02T03:04:05.000006Z", "INFO", fields)
    }

    #[test]
    fn logfmt_is_that_of_prometheus() {
        assert_eq!(
            line(LogFormat::Logfmt),
            "time=2026-01-02T03:04:05.000006Z level=INFO msg=\"store \\\"opened\\\"\" path=data/ empty=\"\" \
             error=\"line 1\\nline 2\" samples=3 level=none"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = line(LogFormat::Json);
        assert!(!line.contains('\n'));
        let object: Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2026-01-02T03:04:05.000006Z", "level": "INFO", "msg": "store \"opened\"",
            "path": "data/", "empty": "", "error": "line 1\nline 2", "samples": 3,
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn an_event_becomes_a_line_with_its_fields() {
        use std::io;
        use std::sync::{Arc, Mutex};
        use tracing_subscriber::layer::SubscriberExt as _;

        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .event_format(Lines(LogFormat::Logfmt));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no room");
            tracing::warn!(%error, late = true, share = 0.5, "nothing {}", "stored");
        });
        let told = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let (time, rest) = told.split_once(' ').unwrap();
        assert!(time.starts_with("time=20") && time.ends_with('Z'), "{told}");
        assert_eq!(
            rest,
            "level=WARN msg=\"nothing stored\" error=\"no room\" late=true share=0.5\n"
        );
    }
}
