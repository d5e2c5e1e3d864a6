//! The functions of the language: which exist is the parser's table, what they do is here.

pub(crate) mod calendar;
pub(crate) mod floats;
pub(crate) mod histogram;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod over_time;
pub(crate) mod plain_rate;
pub(crate) mod rate;

use std::fmt::Write as _;

use crate::exec::window::{Scope, Window};
use crate::value::SampleValue;

/// What a range function makes of a window; `None` leaves the step empty.
pub(crate) type RangeEval = fn(&Window<'_>, &Scope<'_>) -> Option<SampleValue>;

/// A function over range vectors.
#[derive(Clone, Copy)]
pub(crate) struct RangeFunction {
    /// Makes a value of a window that has at least one sample.
    pub(crate) eval: RangeEval,
    /// Whether the value no longer deserves the metric's name.
    pub(crate) drops_name: bool,
    /// How the same is done for all steps at once where the samples are plain floats.
    pub(crate) kernel: Option<Kernel>,
}

/// A function over whole columns of windows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    Rate(plain_rate::Kind),
    Summary(lanes::Summary),
    Floats(floats::Fold),
}

/// The range function of this name.
pub(crate) fn range_function(name: &str) -> Option<RangeFunction> {
    let eval: RangeEval = match name {
        "avg_over_time" => over_time::avg,
        "changes" => over_time::changes,
        "count_over_time" => over_time::count,
        "delta" => rate::delta,
        "deriv" => over_time::deriv,
        "double_exponential_smoothing" => over_time::smoothing,
        "first_over_time" => over_time::first,
        "idelta" => rate::idelta,
        "increase" => rate::increase,
        "irate" => rate::irate,
        "last_over_time" => over_time::last,
        "mad_over_time" => over_time::mad,
        "max_over_time" => over_time::max,
        "min_over_time" => over_time::min,
        "predict_linear" => over_time::predict_linear,
        "present_over_time" => over_time::present,
        "quantile_over_time" => over_time::quantile,
        "rate" => rate::rate,
        "resets" => over_time::resets,
        "stddev_over_time" => over_time::stddev,
        "stdvar_over_time" => over_time::stdvar,
        "sum_over_time" => over_time::sum,
        "ts_of_first_over_time" => over_time::ts_of_first,
        "ts_of_last_over_time" => over_time::ts_of_last,
        "ts_of_max_over_time" => over_time::ts_of_max,
        "ts_of_min_over_time" => over_time::ts_of_min,
        _ => return None,
    };
    let drops_name = !matches!(name, "first_over_time" | "last_over_time");
    Some(RangeFunction { eval, drops_name, kernel: kernel(name) })
}

fn kernel(name: &str) -> Option<Kernel> {
    let rate = |is_counter, is_rate| Kernel::Rate(plain_rate::Kind { is_counter, is_rate });
    Some(match name {
        "rate" => rate(true, true),
        "increase" => rate(true, false),
        "delta" => rate(false, false),
        "changes" => Kernel::Floats(floats::Fold::Changes),
        "count_over_time" => Kernel::Floats(floats::Fold::Count),
        "first_over_time" => Kernel::Floats(floats::Fold::First),
        "last_over_time" => Kernel::Floats(floats::Fold::Last),
        "max_over_time" => Kernel::Floats(floats::Fold::Max),
        "min_over_time" => Kernel::Floats(floats::Fold::Min),
        "present_over_time" => Kernel::Floats(floats::Fold::Present),
        "resets" => Kernel::Floats(floats::Fold::Resets),
        "sum_over_time" => Kernel::Summary(lanes::Summary::Sum),
        "avg_over_time" => Kernel::Summary(lanes::Summary::Avg),
        "stddev_over_time" => Kernel::Summary(lanes::Summary::Stddev),
        "stdvar_over_time" => Kernel::Summary(lanes::Summary::Stdvar),
        _ => return None,
    })
}

/// A string that may not be UTF-8 in Go's quotes.
pub(crate) fn quote_bytes(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = stint_model::labels::Quoted(chunk.valid()).to_string();
        text.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _: std::fmt::Result = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}
