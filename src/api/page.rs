//! `GET /` and what it leads to: pages for people, made whole on the server, without scripts and without
//! anything from elsewhere.

use std::fmt::{self, Write as _};

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use stint_model::{Span, Timestamp};

mod budget;
mod labels;
mod query;
mod rules;
mod start;
mod targets;

pub(super) use budget::budget;
pub(super) use labels::labels;
pub(super) use query::{graph, query};
pub(super) use rules::{alerts, rules};
pub(super) use start::index;
pub(super) use targets::targets;

/// Nothing is loaded and nothing runs, whatever a label's value says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'self'";
/// How often the page is loaded again, in seconds.
const REFRESH_SECS: u32 = 30;

const STYLE: &str = include_str!("page/style.css");

/// A text as it stands between tags and in quoted attributes.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // No page may hold them.
                '\0'..='\x08' | '\x0b'..='\x1f' | '\x7f' => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A number with thin spaces between thousands.
struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// How long ago, in its largest unit or two.
fn ago(now: Timestamp, at: Timestamp) -> String {
    let span = now.since(at).max(Span::ZERO);
    let unit = match span {
        span if span < Span::from_secs(10) => Span(1),
        span if span < Span::HOUR => Span::SECOND,
        _ => Span::MINUTE,
    };
    format!("{} ago", Span(span.0 / unit.0 * unit.0))
}

/// A page with its frame; `prefix` is the path before everything.
fn page(title: &str, prefix: &str, refresh: bool, body: &str) -> Response {
    let refresh = if refresh {
        format!("<meta http-equiv=\"refresh\" content=\"{REFRESH_SECS}\">")
    } else {
        String::new()
    };
    let (title, prefix) = (Text(title), Text(prefix));
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">{refresh}<title>{title} · Stint</title>\
         <style>{STYLE}</style></head><body><header><nav aria-label=\"Pages\">\
         <a href=\"{prefix}/\">Stint</a> <a href=\"{prefix}/budget\">Budget</a> \
         <a href=\"{prefix}/query\">Query</a> <a href=\"{prefix}/alerts\">Alerts</a> \
         <a href=\"{prefix}/rules\">Rules</a> <a href=\"{prefix}/targets\">Targets</a> \
         <a href=\"{prefix}/labels\">Labels</a>\
         </nav></header><main>{body}</main></body></html>\n"
    );
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (headers, Html(html)).into_response()
}
