//! `/api/v1/parse_query` and `/api/v1/format_query`: an expression as a tree, and laid out.

use stint_promql::parse::ast::Expr;
use stint_promql::parse::pretty::LINE_MAX;
use stint_promql::parse::{pretty, to_json};

use super::Parts;
use super::error::ApiError;
use super::extract::Ready;
use super::json::Reply;
use super::params::Params;

/// Answers with the tree.
pub(super) async fn parse_query(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    let expr = read(&parts, &params)?;
    Ok(Reply::raw(to_json(&expr).as_bytes()))
}

/// Answers with the expression as people should write it.
pub(super) async fn format_query(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    Ok(Reply::json(&pretty(&read(&parts, &params)?, LINE_MAX)))
}

fn read(parts: &Parts, params: &Params) -> Result<Expr, ApiError> {
    let text = params.get("query").unwrap_or_default();
    stint_promql::parse::parse(text, &parts.engine.options().features)
        .map_err(|error| ApiError::invalid_parameter("query", error))
}
