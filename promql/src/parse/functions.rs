//! The functions: names, argument types, result types.

use super::ast::ValueType;
use ValueType::{Matrix, Scalar, String, Vector};

/// What a function takes and gives.
#[derive(Debug, PartialEq, Eq)]
pub struct FunctionSignature {
    /// The name in queries.
    pub name: &'static str,
    /// The types of arguments; the last repeats or may be missing when `variadic` is not 0.
    pub args: &'static [ValueType],
    /// 0: exactly `args`. Above 0: the last of `args` may occur 0 to `variadic` times. Below 0:
    /// any number of times.
    pub variadic: i32,
    /// The type of the result.
    pub returns: ValueType,
    /// Whether it needs [`super::Options::experimental_functions`].
    pub experimental: bool,
}

impl FunctionSignature {
    const fn new(name: &'static str, args: &'static [ValueType], returns: ValueType) -> Self {
        Self { name, args, variadic: 0, returns, experimental: false }
    }

    const fn variadic(mut self, variadic: i32) -> Self {
        self.variadic = variadic;
        self
    }

    const fn experimental(mut self) -> Self {
        self.experimental = true;
        self
    }
}

/// The function of this name.
pub fn function(name: &str) -> Option<&'static FunctionSignature> {
    FUNCTIONS.binary_search_by(|signature| signature.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
}

const fn math(name: &'static str) -> FunctionSignature {
    FunctionSignature::new(name, &[Vector], Vector)
}

const fn over_time(name: &'static str) -> FunctionSignature {
    FunctionSignature::new(name, &[Matrix], Vector)
}

const fn calendar(name: &'static str) -> FunctionSignature {
    FunctionSignature::new(name, &[Vector], Vector).variadic(1)
}

const fn query_scalar(name: &'static str) -> FunctionSignature {
    FunctionSignature::new(name, &[], Scalar).experimental()
}

/// All functions, sorted by name.
pub static FUNCTIONS: [FunctionSignature; 90] = {
    use FunctionSignature as F;
    [
        math("abs"),
        math("absent"),
        over_time("absent_over_time"),
        math("acos"),
        math("acosh"),
        math("asin"),
        math("asinh"),
        math("atan"),
        math("atanh"),
        over_time("avg_over_time"),
        math("ceil"),
        over_time("changes"),
        F::new("clamp", &[Vector, Scalar, Scalar], Vector),
        F::new("clamp_max", &[Vector, Scalar], Vector),
        F::new("clamp_min", &[Vector, Scalar], Vector),
        math("cos"),
        math("cosh"),
        over_time("count_over_time"),
        calendar("day_of_month"),
        calendar("day_of_week"),
        calendar("day_of_year"),
        calendar("days_in_month"),
        math("deg"),
        over_time("delta"),
        over_time("deriv"),
        F::new("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Vector).experimental(),
        query_scalar("end"),
        math("exp"),
        over_time("first_over_time"),
        math("floor"),
        math("histogram_avg"),
        math("histogram_count"),
        F::new("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
        F::new("histogram_quantile", &[Scalar, Vector], Vector),
        F::new("histogram_quantiles", &[Vector, String, Scalar, Scalar], Vector)
            .variadic(9)
            .experimental(),
        math("histogram_stddev"),
        math("histogram_stdvar"),
        math("histogram_sum"),
        calendar("hour"),
        over_time("idelta"),
        over_time("increase"),
        F::new("info", &[Vector, Vector], Vector).variadic(1).experimental(),
        over_time("irate"),
        F::new("label_join", &[Vector, String, String, String], Vector).variadic(-1),
        F::new("label_replace", &[Vector, String, String, String, String], Vector),
        over_time("last_over_time"),
        math("ln"),
        math("log10"),
        math("log2"),
        over_time("mad_over_time").experimental(),
        F::new("max_of", &[Scalar, Scalar], Scalar).experimental(),
        over_time("max_over_time"),
        F::new("min_of", &[Scalar, Scalar], Scalar).experimental(),
        over_time("min_over_time"),
        calendar("minute"),
        calendar("month"),
        F::new("pi", &[], Scalar),
        F::new("predict_linear", &[Matrix, Scalar], Vector),
        over_time("present_over_time"),
        F::new("quantile_over_time", &[Scalar, Matrix], Vector),
        math("rad"),
        query_scalar("range"),
        over_time("rate"),
        over_time("resets"),
        F::new("round", &[Vector, Scalar], Vector).variadic(1),
        F::new("scalar", &[Vector], Scalar),
        math("sgn"),
        math("sin"),
        math("sinh"),
        math("sort"),
        F::new("sort_by_label", &[Vector, String], Vector).variadic(-1).experimental(),
        F::new("sort_by_label_desc", &[Vector, String], Vector).variadic(-1).experimental(),
        math("sort_desc"),
        math("sqrt"),
        query_scalar("start"),
        math("start_timestamp").experimental(),
        over_time("stddev_over_time"),
        over_time("stdvar_over_time"),
        query_scalar("step"),
        over_time("sum_over_time"),
        math("tan"),
        math("tanh"),
        F::new("time", &[], Scalar),
        math("timestamp"),
        over_time("ts_of_first_over_time").experimental(),
        over_time("ts_of_last_over_time").experimental(),
        over_time("ts_of_max_over_time").experimental(),
        over_time("ts_of_min_over_time").experimental(),
        F::new("vector", &[Scalar], Vector),
        calendar("year"),
    ]
};
