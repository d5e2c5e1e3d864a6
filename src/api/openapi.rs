//! `/api/v1/openapi.yaml`: what can be asked, for programs that make clients.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::params::Params;

/// Of all endpoints; a test compares it with the router.
const DOCUMENT: &str = include_str!("openapi.yaml");
/// The line that names the version which the document is written for.
const WRITTEN_FOR: &str = "openapi: 3.1.0";

/// The document. Nothing in it means anything else in version 3.2.
pub(super) async fn openapi(params: Params) -> Result<Response, ApiError> {
    let document = match params.get("openapi_version") {
        None | Some("" | "3.1") => DOCUMENT.to_owned(),
        Some("3.2") => DOCUMENT.replacen(WRITTEN_FOR, "openapi: 3.2.0", 1),
        Some(other) => {
            let cause = format!("{other} is neither 3.1 nor 3.2");
            return Err(ApiError::invalid_parameter("openapi_version", cause));
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "application/yaml; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    ];
    Ok((headers, document).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_no_other() {
        let router = include_str!("../api.rs");
        let mut routes: Vec<&str> = router
            .split(".route(")
            .skip(1)
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
            .collect();
        let mut documented: Vec<&str> = DOCUMENT
            .lines()
            .filter_map(|line| line.strip_prefix("  /")?.strip_suffix(':').map(|_| line))
            .map(|line| line.trim().trim_end_matches(':'))
            .collect();
        routes.sort_unstable();
        documented.sort_unstable();
        assert_eq!(routes, documented);
    }

    #[test]
    fn the_version_can_be_chosen() {
        assert!(DOCUMENT.starts_with(WRITTEN_FOR));
    }
}
