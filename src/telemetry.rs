//! Log setup: level, format, and a panic hook that logs.

mod lines;

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event: `time`, `level`, `msg` and the event's fields as `key=value`.
    #[default]
    Logfmt,
    /// One JSON object per event.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format: {other}; use logfmt or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logfmt => "logfmt",
            Self::Json => "json",
        })
    }
}

/// The lowest level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" => LevelFilter::WARN,
            "error" => LevelFilter::ERROR,
            other => {
                return Err(format!("unknown log level: {other}; use debug, info, warn or error"));
            }
        }))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Starts logging to standard error. A second call changes nothing.
pub fn start(level: LogLevel, format: LogFormat) {
    // Dependencies talk at debug level about every connection; their word counts from warn up.
    let dependencies = std::cmp::min(level.0, LevelFilter::WARN);
    let targets = tracing_subscriber::filter::Targets::new()
        .with_default(dependencies)
        .with_target("stint", level.0);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if registry.with(layer.event_format(lines::Lines(format))).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            tracing::error!(%panic, %backtrace, "a thread panicked: this is a bug, please report it");
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_formats_are_read() {
        assert_eq!("warn".parse(), Ok(LogLevel(LevelFilter::WARN)));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        let error = "verbose".parse::<LogLevel>().unwrap_err();
        assert_eq!(error, "unknown log level: verbose; use debug, info, warn or error");
        assert!("text".parse::<LogFormat>().is_err());
    }
}
