//! The text form of a histogram, as error messages, templates and `count_values` show it.

use std::fmt;

use super::FloatHistogram;

impl fmt::Display for FloatHistogram {
    /// `{count:20, sum:5, [-1,-0.5):1, [-0.001,0.001]:2, (0.5,1]:3}`; empty buckets are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", Short(self.count), Short(self.sum))?;
        // Unlike where observations are looked for, a bucket into which the zero bucket reaches shows
        // its own bounds.
        for bucket in self.whole_buckets() {
            if bucket.count == 0.0 {
                continue;
            }
            write!(
                f,
                ", {}{},{}{}:{}",
                if bucket.lower_inclusive { '[' } else { '(' },
                Short(bucket.lower),
                Short(bucket.upper),
                if bucket.upper_inclusive { ']' } else { ')' },
                Short(bucket.count),
            )?;
        }
        f.write_str("}")
    }
}

/// A float in Go's shortest `%g` form: the fewest digits that read back to it, with an exponent below
/// 1e-4 and from 1e6 on.
#[derive(Clone, Copy, Debug)]
pub struct Short(pub f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let magnitude = value.abs();
        if magnitude == 0.0 || (1e-4..1e6).contains(&magnitude) {
            return write!(f, "{value}");
        }
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{digits}e{sign}{:02}", exponent.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::BucketSpan;

    #[test]
    fn histograms_print_their_buckets() {
        let histogram = FloatHistogram {
            count: 20.0,
            sum: 5.0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_buckets: vec![3.0, 0.0],
            negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        assert_eq!(
            histogram.to_string(),
            "{count:20, sum:5, [-1,-0.5):1, [-0.001,0.001]:2, (0.5,1]:3}"
        );
    }

    #[test]
    fn floats_print_as_go_does() {
        for (value, text) in [
            (1e21, "1e+21"),
            (123_456_789.25, "1.2345678925e+08"),
            (1e6, "1e+06"),
            (-1_234_567.0, "-1.234567e+06"),
            (999_999.0, "999999"),
            (123_456.7, "123456.7"),
            (0.000_012_345, "1.2345e-05"),
            (0.000_1, "0.0001"),
            (-0.0, "-0"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(Short(value).to_string(), text);
        }
    }
}
