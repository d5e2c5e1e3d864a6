//! `print` and `printf` as Go's `fmt` has them.

use super::number::{PRECISION_MAX, float, quote, quote_char};
use super::value::{Sample, Value};

/// The largest width, precision or argument number that is followed.
const NUMBER_MAX: usize = 1_000_000;

/// `print`: a blank stands between two values when neither is a text.
pub(super) fn print(values: &[Value]) -> String {
    let mut out = String::new();
    let mut before_is_text = true;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if !is_text && !before_is_text {
            out.push(' ');
        }
        value.push(&mut out);
        before_is_text = is_text;
    }
    out
}

/// `println`: blanks between all values, and a line feed.
pub(super) fn println(values: &[Value]) -> String {
    let mut out = values.iter().map(Value::show).collect::<Vec<_>>().join(" ");
    out.push('\n');
    out
}

/// What stands between `%` and the verb.
#[derive(Clone, Copy, Debug, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `printf`. Most bytes that one call makes are `bytes_max`.
///
/// # Errors
/// The text is longer.
pub(super) fn printf(format: &str, values: &[Value], bytes_max: usize) -> Result<String, String> {
    let chars: Vec<char> = format.chars().collect();
    let mut printer = Printer { chars, at: 0, values, next: 0, reordered: false, good: true };
    let mut out = String::with_capacity(format.len());
    while let Some(c) = printer.take() {
        if c == '%' {
            printer.directive(&mut out);
        } else {
            out.push(c);
        }
        if out.len() > bytes_max {
            return Err(format!("the text is longer than {bytes_max} bytes"));
        }
    }
    printer.extra(&mut out);
    Ok(out)
}

struct Printer<'a> {
    chars: Vec<char>,
    at: usize,
    values: &'a [Value],
    /// The number of the next value.
    next: usize,
    /// Whether a number of a value was given.
    reordered: bool,
    /// Whether the last number that was given is one.
    good: bool,
}

impl Printer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn directive(&mut self, out: &mut String) {
        let mut spec = Spec::default();
        while let Some(c) = self.peek() {
            match c {
                '#' => spec.sharp = true,
                '0' => spec.zero = true,
                '+' => spec.plus = true,
                '-' => spec.minus = true,
                ' ' => spec.space = true,
                _ => break,
            }
            self.at += 1;
        }
        self.good = true;
        let mut numbered = self.argument_number();
        if self.peek() == Some('*') {
            self.at += 1;
            match self.star() {
                Some(width) => {
                    spec.minus |= width < 0;
                    spec.width = Some(width.unsigned_abs() as usize);
                }
                None => out.push_str("%!(BADWIDTH)"),
            }
            numbered = false;
        } else {
            spec.width = self.digits();
            if numbered && spec.width.is_some() {
                self.good = false;
            }
        }
        if self.peek() == Some('.') {
            self.at += 1;
            if numbered {
                self.good = false;
            }
            numbered = self.argument_number();
            if self.peek() == Some('*') {
                self.at += 1;
                match self.star() {
                    Some(precision) => spec.precision = usize::try_from(precision).ok(),
                    None => out.push_str("%!(BADPREC)"),
                }
                numbered = false;
            } else {
                spec.precision = Some(self.digits().unwrap_or(0));
            }
        }
        if !numbered {
            self.argument_number();
        }
        let Some(verb) = self.take() else {
            out.push_str("%!(NOVERB)");
            return;
        };
        match (verb, self.values.get(self.next)) {
            ('%', _) => out.push('%'),
            (verb, _) if !self.good => push_all(out, &["%!", &verb.to_string(), "(BADINDEX)"]),
            (verb, None) => push_all(out, &["%!", &verb.to_string(), "(MISSING)"]),
            (verb, Some(value)) => {
                self.next += 1;
                push_value(out, value, verb, spec);
            }
        }
    }

    /// `[n]`: the value that is meant next. Whether there was one.
    fn argument_number(&mut self) -> bool {
        if self.peek() != Some('[') {
            return false;
        }
        self.reordered = true;
        let rest = self.chars.get(self.at + 1..).unwrap_or_default();
        let Some(length) = rest.iter().position(|c| *c == ']') else {
            self.good = false;
            self.at += 1;
            return false;
        };
        let text: String = rest.iter().take(length).collect();
        self.at += length + 2;
        match text.parse::<usize>() {
            Ok(number) if number >= 1 && number <= self.values.len() => {
                self.next = number - 1;
                true
            }
            _ => {
                self.good = false;
                true
            }
        }
    }

    /// The next value as a width or a precision.
    fn star(&mut self) -> Option<i64> {
        let value = self.values.get(self.next)?;
        self.next += 1;
        match value {
            Value::Int(number) if number.unsigned_abs() <= NUMBER_MAX as u64 => Some(*number),
            _ => None,
        }
    }

    fn digits(&mut self) -> Option<usize> {
        let begin = self.at;
        let mut number = 0;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            number = number * 10 + digit as usize;
            if number > NUMBER_MAX {
                return None;
            }
            self.at += 1;
        }
        (self.at > begin).then_some(number)
    }

    /// Tells of values that nothing asked for.
    fn extra(&self, out: &mut String) {
        let left = self.values.get(self.next..).unwrap_or_default();
        if self.reordered || left.is_empty() {
            return;
        }
        let shown = left.iter().map(|value| match value {
            Value::Nil => "<nil>".to_owned(),
            value => format!("{}={}", value.type_name(), value.show()),
        });
        push_all(out, &["%!(EXTRA ", &shown.collect::<Vec<_>>().join(", "), ")"]);
    }
}

fn push_all(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
}

fn push_value(out: &mut String, value: &Value, verb: char, spec: Spec) {
    if verb == 'T' {
        return push_padded(out, value.type_name(), spec);
    }
    let own = if matches!(verb, 'v' | 's' | 'q' | 'x' | 'X') { value.own_text() } else { None };
    match value {
        _ if own.is_some() => push_text(out, &own.unwrap_or_default(), verb, spec, value),
        Value::Nil if verb == 'v' => push_padded(out, "<nil>", spec),
        Value::Bool(flag) if matches!(verb, 't' | 'v') => {
            push_padded(out, if *flag { "true" } else { "false" }, spec);
        }
        Value::Int(number) | Value::Duration(number) | Value::Named(_, number, _) => {
            push_int(out, *number, verb, spec, value);
        }
        Value::Float(number) => push_float(out, *number, verb, spec, value),
        Value::Text(text) => push_text(out, text, verb, spec, value),
        Value::Labels(labels) => {
            let values = labels.iter().map(|(name, text)| (name, Value::text(text)));
            push_map(out, values, verb, spec);
        }
        Value::Args(args) => {
            let values = args.iter().map(|(name, value)| (name.as_str(), value.clone()));
            push_map(out, values, verb, spec);
        }
        Value::Sample(sample) => {
            // Go shows that it is a pointer.
            out.push('&');
            push_sample(out, sample, verb, spec);
        }
        Value::Vector(samples) => {
            out.push('[');
            for (at, sample) in samples.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                push_sample(out, sample, verb, spec);
            }
            out.push(']');
        }
        Value::Root(_) if verb == 'v' => push_padded(out, &value.show(), spec),
        _ => push_wrong(out, verb, value),
    }
}

fn push_sample(out: &mut String, sample: &Sample, verb: char, spec: Spec) {
    out.push('{');
    push_value(out, &Value::Labels(sample.labels.clone()), verb, spec);
    out.push(' ');
    push_value(out, &Value::Float(sample.value), verb, spec);
    out.push('}');
}

/// A verb that the value does not have.
fn push_wrong(out: &mut String, verb: char, value: &Value) {
    let shown = match value {
        Value::Nil => "<nil>".to_owned(),
        value => format!("{}={}", value.type_name(), value.show()),
    };
    push_all(out, &["%!", &verb.to_string(), "(", &shown, ")"]);
}

fn push_map<'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a str, Value)>,
    verb: char,
    spec: Spec,
) {
    out.push_str("map[");
    for (at, (name, value)) in entries.enumerate() {
        if at > 0 {
            out.push(' ');
        }
        push_value(out, &Value::text(name), verb, spec);
        out.push(':');
        push_value(out, &value, verb, spec);
    }
    out.push(']');
}

fn push_int(out: &mut String, number: i64, verb: char, spec: Spec, value: &Value) {
    let magnitude = number.unsigned_abs();
    let (digits, prefix) = match verb {
        'd' | 'v' => (magnitude.to_string(), ""),
        'b' => (format!("{magnitude:b}"), if spec.sharp { "0b" } else { "" }),
        'o' => (format!("{magnitude:o}"), if spec.sharp { "0" } else { "" }),
        'O' => (format!("{magnitude:o}"), "0o"),
        'x' => (format!("{magnitude:x}"), if spec.sharp { "0x" } else { "" }),
        'X' => (format!("{magnitude:X}"), if spec.sharp { "0X" } else { "" }),
        'c' | 'q' | 'U' => return push_char(out, number, verb, spec),
        _ => return push_wrong(out, verb, value),
    };
    let sign = sign(number < 0, spec);
    if spec.precision == Some(0) && number == 0 {
        return push_padded(out, "", Spec { precision: None, zero: false, ..spec });
    }
    // Zeros fill the width unless a precision says how many digits there are.
    let fill = match (spec.precision, spec.width) {
        (Some(precision), _) => precision,
        (None, Some(width)) if spec.zero && !spec.minus => width.saturating_sub(sign.len()),
        _ => 0,
    };
    let zeros = "0".repeat(fill.saturating_sub(digits.len()));
    let text = format!("{sign}{prefix}{zeros}{digits}");
    push_padded(out, &text, Spec { zero: false, ..spec });
}

fn push_char(out: &mut String, number: i64, verb: char, spec: Spec) {
    let known = u32::try_from(number).ok().and_then(char::from_u32);
    let c = known.unwrap_or(char::REPLACEMENT_CHARACTER);
    let text = match verb {
        'c' => c.to_string(),
        'q' => quote_char(c),
        _ if spec.sharp && known.is_some() => format!("U+{number:04X} '{c}'"),
        _ => format!("U+{number:04X}"),
    };
    push_padded(out, &text, Spec { zero: false, ..spec });
}

fn sign(negative: bool, spec: Spec) -> &'static str {
    match (negative, spec.plus, spec.space) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

fn push_float(out: &mut String, number: f64, verb: char, spec: Spec, value: &Value) {
    let text = match verb {
        'v' => float(number.abs(), 'g', spec.precision),
        'g' | 'G' => float(number.abs(), verb, spec.precision),
        'e' | 'E' | 'f' | 'F' => float(number.abs(), verb, Some(spec.precision.unwrap_or(6))),
        _ => return push_wrong(out, verb, value),
    };
    let text = text.trim_start_matches('+');
    let sign = if number.is_infinite() && number > 0.0 && !spec.space {
        // Infinity has a sign where it is asked for, and by `%v`.
        if spec.plus || matches!(verb, 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F') { "+" } else { "" }
    } else {
        sign(number.is_sign_negative() && !number.is_nan(), spec)
    };
    let zeros = match spec.width {
        Some(width) if spec.zero && !spec.minus && number.is_finite() => {
            "0".repeat(width.saturating_sub(sign.len() + text.len()))
        }
        _ => String::new(),
    };
    push_padded(out, &format!("{sign}{zeros}{text}"), Spec { zero: false, ..spec });
}

fn push_text(out: &mut String, text: &str, verb: char, spec: Spec, value: &Value) {
    let cut = match spec.precision {
        Some(count) => text.char_indices().nth(count).and_then(|(end, _)| text.get(..end)),
        None => None,
    };
    let text = cut.unwrap_or(text);
    match verb {
        's' | 'v' if spec.sharp && verb == 'v' => push_padded(out, &quote(text), spec),
        's' | 'v' => push_padded(out, text, spec),
        'q' if spec.sharp && !text.contains(['`', '\r', '\u{7f}']) => {
            push_padded(out, &format!("`{text}`"), spec);
        }
        'q' => push_padded(out, &quote(text), spec),
        'x' | 'X' => {
            let between = if spec.space { " " } else { "" };
            let pairs = text.bytes().map(|byte| match verb {
                'x' => format!("{byte:02x}"),
                _ => format!("{byte:02X}"),
            });
            push_padded(out, &pairs.collect::<Vec<_>>().join(between), spec);
        }
        _ => push_wrong(out, verb, value),
    }
}

/// Fills up to the width, counted in characters.
fn push_padded(out: &mut String, text: &str, spec: Spec) {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = if spec.zero && !spec.minus { "0" } else { " " };
    if spec.minus {
        out.push_str(text);
        out.push_str(&fill.repeat(missing));
    } else {
        out.push_str(&fill.repeat(missing));
        out.push_str(text);
    }
}

const _: () =
    assert!(PRECISION_MAX <= NUMBER_MAX, "a float has no more digits than may be asked for");

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, values: &[Value], expected: &str) {
        assert_eq!(printf(format, values, 10_000).unwrap(), expected, "{format}");
    }

    #[test]
    fn verbs_print_as_go_does() {
        let (int, half) = (Value::Int, Value::Float(0.5));
        check("%d|%5d|%-5d|%05d|%+d|% d", &[42; 6].map(int), "42|   42|42   |00042|+42| 42");
        check(
            "%.3d|%x|%#x|%o|%b|%c|%q|%U",
            &[int(7), int(255), int(255), int(8), int(5), int(65), int(65), int(66)],
            "007|ff|0xff|10|101|A|'A'|U+0042",
        );
        check(
            "%v|%.2f|%8.3f|%-8.2f|%08.3f|%+.1f|%e",
            &[const { Value::Float(-1.5) }; 7],
            "-1.5|-1.50|  -1.500|-1.50   |-001.500|-1.5|-1.500000e+00",
        );
        check(
            "%s|%q|%6s|%-6s|%.2s|%x",
            &["hé\""; 6].map(Value::text),
            "hé\"|\"hé\\\"\"|   hé\"|hé\"   |hé|68c3a922",
        );
        check(
            "%t %v %v %T %T",
            &[Value::Bool(true), Value::Nil, half.clone(), half.clone(), int(1)],
            "true <nil> 0.5 float64 int",
        );
    }

    #[test]
    fn mistakes_are_told_in_the_text() {
        check("%d %d", &[Value::Int(1)], "1 %!d(MISSING)");
        check("%d", &[Value::Int(1), Value::text("x")], "1%!(EXTRA string=x)");
        check(
            "%d|%s|%t",
            &[Value::text("a"), Value::Int(1), Value::Float(2.0)],
            "%!d(string=a)|%!s(int=1)|%!t(float64=2)",
        );
        check("100%", &[], "100%!(NOVERB)");
        check("%!", &[], "%!!(MISSING)");
        check("%[3]d", &[Value::Int(1)], "%!d(BADINDEX)");
        check("%*d|%[1]d|%-*d", &[Value::Int(4), Value::Int(7)], "   7|4|%!d(MISSING)");
    }

    #[test]
    fn a_text_has_an_end() {
        assert!(printf("%1000000d", &[Value::Int(1)], 1000).is_err());
        check("%1000001d", &[Value::Int(1)], "%!1(int=1)d");
    }

    #[test]
    fn blanks_stand_between_values_that_are_no_texts() {
        let values =
            [Value::Int(1), Value::Int(2), Value::text("a"), Value::text("b"), Value::Int(3)];
        assert_eq!(print(&values), "1 2ab3");
        assert_eq!(println(&values), "1 2 a b 3\n");
    }
}
