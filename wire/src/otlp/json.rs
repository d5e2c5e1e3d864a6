//! The JSON encoding of a request: turned into the binary one, which is what is translated.
//!
//! Names are in camel case, 64-bit integers may be texts, bytes are Base64 but for trace and span
//! ids, which are hexadecimal (OTLP specification, "JSON Protobuf Encoding"). Unknown names are
//! left out, as the specification wants it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::proto::{
    put_bytes, put_double, put_double_always, put_sint, put_text, put_uint, put_uint_always,
};

/// How many times its own size a body takes at most while it is turned, about: what is empty takes
/// three bytes of it and a structure in memory.
pub const EXPANSION: usize = 40;

/// A body that is no such request.
#[derive(Debug, thiserror::Error)]
#[error("the body is no OTLP metrics request in JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// The binary encoding of a JSON `ExportMetricsServiceRequest`.
///
/// # Errors
/// It is no such request; says where.
pub fn to_protobuf(body: &[u8]) -> Result<Vec<u8>, JsonError> {
    let request: Request = serde_json::from_slice(body)?;
    let mut out = Vec::with_capacity(body.len() / 2);
    repeated(&mut out, 1, &request.resource_metrics, ResourceMetrics::put);
    Ok(out)
}

/// Appends every item as a message under `field`.
fn repeated<T>(out: &mut Vec<u8>, field: u32, items: &[T], put: impl Fn(&T, &mut Vec<u8>)) {
    let mut message = Vec::new();
    for item in items {
        message.clear();
        put(item, &mut message);
        put_bytes(out, field, &message);
    }
}

/// Appends an item that may be there as a message under `field`.
fn optional<T>(out: &mut Vec<u8>, field: u32, item: Option<&T>, put: impl Fn(&T, &mut Vec<u8>)) {
    repeated(out, field, item.map_or(&[], std::slice::from_ref), put);
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Request {
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ResourceMetrics {
    resource: Option<Resource>,
    scope_metrics: Vec<ScopeMetrics>,
    schema_url: String,
}

impl ResourceMetrics {
    fn put(&self, out: &mut Vec<u8>) {
        optional(out, 1, self.resource.as_ref(), |resource, out| {
            repeated(out, 1, &resource.attributes, KeyValue::put);
        });
        repeated(out, 2, &self.scope_metrics, ScopeMetrics::put);
        put_text(out, 3, &self.schema_url);
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ScopeMetrics {
    scope: Option<Scope>,
    metrics: Vec<Metric>,
    schema_url: String,
}

impl ScopeMetrics {
    fn put(&self, out: &mut Vec<u8>) {
        optional(out, 1, self.scope.as_ref(), |scope, out| {
            put_text(out, 1, &scope.name);
            put_text(out, 2, &scope.version);
            repeated(out, 3, &scope.attributes, KeyValue::put);
        });
        repeated(out, 2, &self.metrics, Metric::put);
        put_text(out, 3, &self.schema_url);
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Scope {
    name: String,
    version: String,
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Metric {
    name: String,
    description: String,
    unit: String,
    gauge: Option<Box<Data<Number>>>,
    sum: Option<Box<Data<Number>>>,
    histogram: Option<Box<Data<Histogram>>>,
    exponential_histogram: Option<Box<Data<Exponential>>>,
    summary: Option<Box<Data<Summary>>>,
}

impl Metric {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, 1, &self.name);
        put_text(out, 2, &self.description);
        put_text(out, 3, &self.unit);
        optional(out, 5, self.gauge.as_deref(), |data, out| data.put(out, Number::put));
        optional(out, 7, self.sum.as_deref(), |data, out| data.put(out, Number::put));
        optional(out, 9, self.histogram.as_deref(), |data, out| data.put(out, Histogram::put));
        optional(out, 10, self.exponential_histogram.as_deref(), |data, out| {
            data.put(out, Exponential::put);
        });
        optional(out, 11, self.summary.as_deref(), |data, out| data.put(out, Summary::put));
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<P> {
    #[serde(rename = "dataPoints", default = "Vec::new")]
    points: Vec<P>,
    #[serde(default)]
    aggregation_temporality: Temporality,
    #[serde(default)]
    is_monotonic: bool,
}

impl<P> Data<P> {
    fn put(&self, out: &mut Vec<u8>, point: impl Fn(&P, &mut Vec<u8>)) {
        repeated(out, 1, &self.points, point);
        put_uint(out, 2, self.aggregation_temporality.0);
        put_uint(out, 3, u64::from(self.is_monotonic));
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Number {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Unsigned,
    time_unix_nano: Unsigned,
    as_double: Option<Double>,
    as_int: Option<Signed>,
    exemplars: Vec<Exemplar>,
    flags: u32,
}

impl Number {
    fn put(&self, out: &mut Vec<u8>) {
        put_fixed(out, 2, self.start_time_unix_nano.0);
        put_fixed(out, 3, self.time_unix_nano.0);
        put_number(out, [4, 6], self.as_double, self.as_int);
        repeated(out, 5, &self.exemplars, Exemplar::put);
        repeated(out, 7, &self.attributes, KeyValue::put);
        put_uint(out, 8, u64::from(self.flags));
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Histogram {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Unsigned,
    time_unix_nano: Unsigned,
    count: Unsigned,
    sum: Option<Double>,
    bucket_counts: Vec<Unsigned>,
    explicit_bounds: Vec<Double>,
    exemplars: Vec<Exemplar>,
    flags: u32,
}

impl Histogram {
    fn put(&self, out: &mut Vec<u8>) {
        put_fixed(out, 2, self.start_time_unix_nano.0);
        put_fixed(out, 3, self.time_unix_nano.0);
        put_fixed(out, 4, self.count.0);
        if let Some(sum) = self.sum {
            put_double_always(out, 5, sum.0);
        }
        for count in &self.bucket_counts {
            put_double_always(out, 6, f64::from_bits(count.0));
        }
        for bound in &self.explicit_bounds {
            put_double_always(out, 7, bound.0);
        }
        repeated(out, 8, &self.exemplars, Exemplar::put);
        repeated(out, 9, &self.attributes, KeyValue::put);
        put_uint(out, 10, u64::from(self.flags));
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Exponential {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Unsigned,
    time_unix_nano: Unsigned,
    count: Unsigned,
    sum: Option<Double>,
    scale: i32,
    zero_count: Unsigned,
    positive: Option<Buckets>,
    negative: Option<Buckets>,
    flags: u32,
    exemplars: Vec<Exemplar>,
}

impl Exponential {
    fn put(&self, out: &mut Vec<u8>) {
        repeated(out, 1, &self.attributes, KeyValue::put);
        put_fixed(out, 2, self.start_time_unix_nano.0);
        put_fixed(out, 3, self.time_unix_nano.0);
        put_fixed(out, 4, self.count.0);
        if let Some(sum) = self.sum {
            put_double_always(out, 5, sum.0);
        }
        put_sint(out, 6, i64::from(self.scale));
        put_fixed(out, 7, self.zero_count.0);
        optional(out, 8, self.positive.as_ref(), Buckets::put);
        optional(out, 9, self.negative.as_ref(), Buckets::put);
        put_uint(out, 10, u64::from(self.flags));
        repeated(out, 11, &self.exemplars, Exemplar::put);
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Buckets {
    offset: i32,
    bucket_counts: Vec<Unsigned>,
}

impl Buckets {
    fn put(&self, out: &mut Vec<u8>) {
        put_sint(out, 1, i64::from(self.offset));
        for count in &self.bucket_counts {
            put_uint_always(out, 2, count.0);
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Summary {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Unsigned,
    time_unix_nano: Unsigned,
    count: Unsigned,
    sum: Double,
    quantile_values: Vec<Quantile>,
    flags: u32,
}

impl Summary {
    fn put(&self, out: &mut Vec<u8>) {
        put_fixed(out, 2, self.start_time_unix_nano.0);
        put_fixed(out, 3, self.time_unix_nano.0);
        put_fixed(out, 4, self.count.0);
        put_double(out, 5, self.sum.0);
        repeated(out, 6, &self.quantile_values, |value, out| {
            put_double(out, 1, value.quantile.0);
            put_double(out, 2, value.value.0);
        });
        repeated(out, 7, &self.attributes, KeyValue::put);
        put_uint(out, 8, u64::from(self.flags));
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Quantile {
    quantile: Double,
    value: Double,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Exemplar {
    filtered_attributes: Vec<KeyValue>,
    time_unix_nano: Unsigned,
    as_double: Option<Double>,
    as_int: Option<Signed>,
    span_id: Hex,
    trace_id: Hex,
}

impl Exemplar {
    fn put(&self, out: &mut Vec<u8>) {
        put_fixed(out, 2, self.time_unix_nano.0);
        put_number(out, [3, 6], self.as_double, self.as_int);
        put_bytes(out, 4, &self.span_id.0);
        put_bytes(out, 5, &self.trace_id.0);
        repeated(out, 7, &self.filtered_attributes, KeyValue::put);
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct KeyValue {
    key: String,
    value: Option<Box<AnyValue>>,
}

impl KeyValue {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, 1, &self.key);
        optional(out, 2, self.value.as_deref(), AnyValue::put);
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AnyValue {
    #[serde(rename = "stringValue")]
    string: Option<String>,
    #[serde(rename = "boolValue")]
    bool: Option<bool>,
    #[serde(rename = "intValue")]
    int: Option<Signed>,
    #[serde(rename = "doubleValue")]
    double: Option<Double>,
    #[serde(rename = "arrayValue")]
    array: Option<List<AnyValue>>,
    #[serde(rename = "kvlistValue")]
    kvlist: Option<List<KeyValue>>,
    #[serde(rename = "bytesValue")]
    bytes: Option<Base64>,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    values: Vec<T>,
}

impl AnyValue {
    fn put(&self, out: &mut Vec<u8>) {
        if let Some(text) = &self.string {
            put_bytes(out, 1, text.as_bytes());
        }
        if let Some(value) = self.bool {
            put_uint_always(out, 2, u64::from(value));
        }
        if let Some(value) = self.int {
            put_uint_always(out, 3, value.0 as u64);
        }
        if let Some(value) = self.double {
            put_double_always(out, 4, value.0);
        }
        optional(out, 5, self.array.as_ref(), |list, out| {
            repeated(out, 1, &list.values, Self::put);
        });
        optional(out, 6, self.kvlist.as_ref(), |list, out| {
            repeated(out, 1, &list.values, KeyValue::put);
        });
        if let Some(bytes) = &self.bytes {
            put_bytes(out, 7, &bytes.0);
        }
    }
}

/// Appends a fixed-size integer; zero takes no bytes.
fn put_fixed(out: &mut Vec<u8>, field: u32, value: u64) {
    put_double(out, field, f64::from_bits(value));
}

/// Appends the member of a `oneof` of a double and a signed integer.
fn put_number(out: &mut Vec<u8>, fields: [u32; 2], double: Option<Double>, int: Option<Signed>) {
    if let Some(value) = double {
        put_double_always(out, fields[0], value.0);
    } else if let Some(value) = int {
        put_double_always(out, fields[1], f64::from_bits(value.0 as u64));
    }
}

/// A number, or a text that reads as one.
struct Numeric<T>(std::marker::PhantomData<T>);

macro_rules! numeric {
    ($name:ident, $type:ty, $wanted:literal, $parse:expr) => {
        #[derive(Clone, Copy, Default)]
        struct $name($type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Numeric::<$name>(std::marker::PhantomData))
            }
        }

        impl Visitor<'_> for Numeric<$name> {
            type Value = $name;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($wanted)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<$name, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<$name, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<$name, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                let parse: fn(&str) -> Option<$type> = $parse;
                parse(text)
                    .map($name)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
    };
}

numeric!(Unsigned, u64, "a whole number of 64 bits", |text| text.parse().ok());
numeric!(Signed, i64, "a whole number of 64 bits with a sign", |text| text.parse().ok());
numeric!(Double, f64, "a number", |text| match text {
    "NaN" => Some(f64::NAN),
    "Infinity" => Some(f64::INFINITY),
    "-Infinity" => Some(f64::NEG_INFINITY),
    number => number.parse().ok().filter(|value: &f64| value.is_finite()),
});
numeric!(Temporality, u64, "an aggregation temporality", |text| match text {
    "AGGREGATION_TEMPORALITY_UNSPECIFIED" => Some(0),
    "AGGREGATION_TEMPORALITY_DELTA" => Some(1),
    "AGGREGATION_TEMPORALITY_CUMULATIVE" => Some(2),
    number => number.parse().ok(),
});

#[derive(Default)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(&text).map(Self).map_err(de::Error::custom)
    }
}

#[derive(Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs
            .iter()
            .map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8))
            .collect();
        bytes
            .filter(|_| rest.is_empty())
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not hexadecimal")))
    }
}
