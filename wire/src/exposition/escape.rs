//! How names beyond the classic character set are written for readers that do not know them.

use std::borrow::Cow;
use std::fmt::Write as _;

use stint_model::labels::{is_legacy_label_name, is_legacy_metric_name};

/// An escaping scheme, as negotiated by the `escaping` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escaping {
    /// Names stay as they are, in quotes (`allow-utf-8`).
    AllowUtf8,
    /// Every character outside the classic set becomes `_`. What a reader gets who asks for nothing.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`, others become `__`.
    Dots,
    /// `U__` and every unusual character as `_<hex>_`; the only scheme that can be undone.
    Values,
}

impl Escaping {
    /// The scheme of that name, as headers have it.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values];
        all.into_iter().find(|scheme| scheme.as_str() == name)
    }

    /// Its name in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// A metric name in this scheme.
    pub fn metric_name(self, name: &str) -> Cow<'_, str> {
        self.escape(name, is_legacy_metric_name(name), true)
    }

    /// A label name in this scheme.
    pub fn label_name(self, name: &str) -> Cow<'_, str> {
        self.escape(name, is_legacy_label_name(name), false)
    }

    fn escape(self, name: &str, is_legacy: bool, colon: bool) -> Cow<'_, str> {
        if name.is_empty() || self == Self::AllowUtf8 || (is_legacy && self != Self::Dots) {
            return Cow::Borrowed(name);
        }
        if self == Self::Dots && is_legacy && !name.contains('_') {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            out.push_str("U__");
        }
        for (at, c) in name.chars().enumerate() {
            let plain = c.is_ascii_alphabetic()
                || c == '_'
                || (c == ':' && colon)
                || (c.is_ascii_digit() && at > 0);
            match self {
                Self::AllowUtf8 => out.push(c),
                Self::Underscores => out.push(if plain { c } else { '_' }),
                Self::Dots | Self::Values if c == '_' => out.push_str("__"),
                Self::Dots if c == '.' => out.push_str("_dot_"),
                Self::Dots | Self::Values if plain => out.push(c),
                Self::Dots => out.push_str("__"),
                Self::Values => {
                    let written = write!(out, "_{:x}_", u32::from(c));
                    debug_assert!(written.is_ok(), "a string takes every write");
                }
            }
        }
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_writes_its_own_form() {
        let check = |name: &str, underscores: &str, dots: &str, values: &str| {
            assert_eq!(Escaping::AllowUtf8.metric_name(name), name);
            assert_eq!(Escaping::Underscores.metric_name(name), underscores);
            assert_eq!(Escaping::Dots.metric_name(name), dots);
            assert_eq!(Escaping::Values.metric_name(name), values);
        };
        check("up", "up", "up", "up");
        check("a_b", "a_b", "a__b", "a_b");
        check("http.status_ok", "http_status_ok", "http_dot_status__ok", "U__http_2e_status__ok");
        check("1é", "__", "____", "U___31__e9_");
        assert_eq!(Escaping::Underscores.label_name("a:b"), "a_b");
    }
}
