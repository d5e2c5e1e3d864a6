//! Functions from one float to another.

/// The function of this name.
pub(crate) fn float_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sqrt" => f64::sqrt,
        "sgn" => sgn,
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => asinh,
        "acosh" => acosh,
        "atanh" => f64::atanh,
        _ => return None,
    })
}

/// From here on `2x` is as good as `x` plus the root of `x² ± 1`, and unlike it no overflow of the
/// largest floats, since its logarithm can be taken in two parts.
const HYPERBOLIC_LARGE: f64 = (1_u64 << 28) as f64;

fn asinh(value: f64) -> f64 {
    if value.abs() > HYPERBOLIC_LARGE {
        (value.abs().ln() + std::f64::consts::LN_2).copysign(value)
    } else {
        value.asinh()
    }
}

fn acosh(value: f64) -> f64 {
    if value > HYPERBOLIC_LARGE { value.ln() + std::f64::consts::LN_2 } else { value.acosh() }
}

fn sgn(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// The nearest multiple of `to`, halves rounded up.
pub(crate) fn round(value: f64, to: f64) -> f64 {
    // Multiplying with the inverse keeps more digits than dividing.
    let inverse = 1.0 / to;
    (value * inverse + 0.5).floor() / inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_hyperbolic_functions_do_not_overflow() {
        let largest = 710.475_860_073_943_9;
        assert_eq!(asinh(f64::MAX), largest);
        assert_eq!(asinh(-f64::MAX), -largest);
        assert_eq!(acosh(f64::MAX), largest);
        assert_eq!(asinh(f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(acosh(f64::INFINITY), f64::INFINITY);
        assert!(acosh(0.5).is_nan() && asinh(f64::NAN).is_nan());
        // Both ways agree where they meet.
        for value in [HYPERBOLIC_LARGE, HYPERBOLIC_LARGE * 2.0] {
            assert!((asinh(value) - value.asinh()).abs() < 1e-14);
            assert!((acosh(value) - value.acosh()).abs() < 1e-14);
        }
    }

    #[test]
    fn halves_round_up() {
        assert_eq!(round(2.5, 1.0), 3.0);
        assert_eq!(round(-2.5, 1.0), -2.0);
        assert_eq!(round(0.23, 0.1), 0.2);
        assert_eq!(round(7.0, 5.0), 5.0);
    }
}
