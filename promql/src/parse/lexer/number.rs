//! Where numbers and durations end.

use super::is_alphanumeric;

/// What stands at the start of a text.
#[derive(Clone, Copy, Debug)]
pub(in crate::parse) struct Scan {
    /// How many bytes were looked at and accepted, or accepted until the mistake.
    pub(in crate::parse) length: usize,
    /// Whether it is what was looked for.
    pub(in crate::parse) valid: bool,
    /// For invalid ones: whether the mistake is only what follows.
    pub(super) complete: bool,
}

/// A number: decimal, hexadecimal or float, with `_` between digits. In the values of a series
/// (`series`) there are no hexadecimal ones, and an `x` may follow.
pub(in crate::parse) fn scan_number(text: &[u8], series: bool) -> Scan {
    let at = |index: usize| text.get(index).copied();
    let invalid = |length| Scan { length, valid: false, complete: false };
    let mut pos = 0;
    let mut hex = false;
    if !series && at(0) == Some(b'0') {
        pos = 1;
        if matches!(at(1), Some(b'x' | b'X')) {
            hex = true;
            pos = if at(2) == Some(b'_') { 3 } else { 2 };
        }
    }
    let is_digit = |byte: u8| if hex { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    let (mut dotted, mut powered) = (false, false);
    if pos == 0 && at(0) == Some(b'.') {
        pos = 1;
        if at(1).is_some_and(is_digit) {
            pos = 2;
        }
        dotted = false;
    }
    while let Some(byte) = at(pos) {
        match byte {
            byte if is_digit(byte) => pos += 1,
            b'.' => {
                pos += 1;
                if dotted {
                    return invalid(pos);
                }
                dotted = true;
                if matches!(at(pos), Some(b'_' | b'.')) {
                    return invalid(pos + 1);
                }
                if hex {
                    return invalid(pos);
                }
            }
            b'e' | b'E' => {
                pos += 1;
                if powered {
                    return invalid(pos);
                }
                powered = true;
                if matches!(at(pos), Some(b'+' | b'-')) {
                    pos += 1;
                }
                match at(pos) {
                    None => return invalid(pos),
                    Some(b'.' | b'_' | b'e' | b'E') => return invalid(pos + 1),
                    Some(_) => {}
                }
            }
            b'_' => {
                pos += 1;
                match at(pos) {
                    None => return invalid(pos),
                    Some(b'.' | b'_' | b'e' | b'E') => return invalid(pos + 1),
                    Some(_) => {}
                }
            }
            _ => break,
        }
    }
    let follows = at(pos).is_some_and(|byte| is_alphanumeric(byte) && !(series && byte == b'x'));
    Scan { length: pos, valid: pos > 0 && !follows, complete: false }
}

/// The units behind a duration's first number, and what comes after: `m30s`.
pub(super) fn scan_units(text: &[u8]) -> Scan {
    let at = |index: usize| text.get(index).copied();
    let mut pos = 0;
    let mut first = true;
    loop {
        let is_unit = match at(pos) {
            Some(b's' | b'm' | b'h' | b'd' | b'w') => true,
            Some(b'y') => first,
            _ => false,
        };
        if !is_unit {
            return Scan { length: pos, valid: false, complete: false };
        }
        first = false;
        pos += 1;
        if at(pos) == Some(b's') {
            pos += 1;
        }
        if !at(pos).is_some_and(|byte| byte.is_ascii_digit()) {
            break;
        }
        while at(pos).is_some_and(|byte| byte.is_ascii_digit()) {
            pos += 1;
        }
    }
    let follows = at(pos).is_some_and(is_alphanumeric);
    Scan { length: pos, valid: !follows, complete: true }
}
