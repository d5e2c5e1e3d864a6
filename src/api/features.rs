//! `/api/v1/features`: what this server can do, by category, so that clients need not know versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use stint_promql::parse::functions::FUNCTIONS;

use super::extract::Ready;
use super::json::Reply;
use super::{Api, Parts};

type Category = BTreeMap<&'static str, bool>;

/// Those without an experiment among them, which are always there.
const OPERATORS: [&str; 18] = [
    "!=", "%", "*", "+", "-", "/", "<", "<=", "==", ">", ">=", "^", "and", "atan2", "or", "unless",
    "</", ">/",
];
const AGGREGATIONS: [&str; 12] = [
    "avg",
    "bottomk",
    "count",
    "count_values",
    "group",
    "max",
    "min",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
];
const EXPERIMENTAL_AGGREGATIONS: [&str; 2] = ["limit_ratio", "limitk"];

pub(super) async fn features(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Reply {
    Reply::json(&all(&api, &parts))
}

fn all(api: &Api, parts: &Parts) -> BTreeMap<&'static str, Category> {
    let engine = parts.engine.options();
    let parser = &engine.features;
    let functions = FUNCTIONS
        .iter()
        .map(|function| (function.name, !function.experimental || parser.experimental_functions));
    let operators = OPERATORS
        .iter()
        .chain(&AGGREGATIONS)
        .map(|name| (*name, true))
        .chain(EXPERIMENTAL_AGGREGATIONS.map(|name| (name, parser.experimental_functions)));
    BTreeMap::from([
        (
            "api",
            Category::from([
                ("admin", api.options.admin),
                ("label_values_match", true),
                ("lifecycle", api.options.lifecycle),
                ("query_stats", true),
                ("query_warnings", true),
                ("remote_write_receiver", parts.receiver.is_some()),
                ("time_range_labels", true),
                ("time_range_series", true),
            ]),
        ),
        (
            "promql",
            Category::from([
                ("anchored", parser.extended_range_selectors),
                ("at_modifier", true),
                ("bool", true),
                ("by", true),
                ("delayed_name_removal", engine.delayed_name_removal),
                ("duration_expr", parser.duration_expr),
                ("fill", parser.fill_modifiers),
                ("group_left", true),
                ("group_right", true),
                ("ignoring", true),
                ("negative_offset", true),
                ("offset", true),
                ("on", true),
                ("per_query_lookback_delta", true),
                ("per_step_stats", engine.per_step_stats),
                ("smoothed", parser.extended_range_selectors),
                ("subqueries", true),
                ("type_and_unit_labels", engine.type_and_unit_labels),
                ("use_start_timestamps", engine.use_start_timestamps),
                ("without", true),
            ]),
        ),
        ("promql_functions", functions.collect()),
        ("promql_operators", operators.collect()),
        (
            "tsdb",
            Category::from([
                ("exemplar_storage", true),
                ("isolation", true),
                ("native_histograms", true),
            ]),
        ),
    ])
}
