//! `account` in a budget: where the account behind an endpoint tells its limits and its use.

use super::decode::Section;
use super::http::{self, HttpConfig};

/// What is asked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKind {
    /// The usage metrics of Grafana Cloud: limits and active series, by PromQL.
    Usage,
    /// Mimir's cardinality API: active series.
    Cardinality,
}

/// Where and how to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountApi {
    /// What is asked.
    pub kind: AccountKind,
    /// The address before `/api/v1/`.
    pub url: String,
    /// The `id` of the stack in the usage metrics; nothing where there is one alone.
    pub stack: Option<String>,
    /// How to reach it.
    pub http: HttpConfig,
}

impl AccountApi {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        if !section.has("url") {
            section.error("url", "`account` needs a `url`, the address before /api/v1/");
        }
        let url: String = section.parsed("url", http::read_url).unwrap_or_default();
        let kind = section.parsed("kind", |text| match text {
            "usage" => Ok(AccountKind::Usage),
            "cardinality" => Ok(AccountKind::Cardinality),
            _ => Err(format!("{text} is neither usage nor cardinality")),
        });
        let stack = section.parsed("stack", |text| {
            let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if is_id { Ok(text.to_owned()) } else { Err(format!("{text} is no number of a stack")) }
        });
        if stack.is_some() && kind == Some(AccountKind::Cardinality) {
            section.error("stack", "the cardinality API is that of one stack");
        }
        let kind = kind.unwrap_or(AccountKind::Usage);
        let url = url.trim_end_matches('/').to_owned();
        let api = Self { kind, url, stack, http: HttpConfig::read(&mut section, true) };
        section.finish();
        api
    }
}
