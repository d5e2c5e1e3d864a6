//! Selectors of Kubernetes, checked so that a slip is told when the configuration is read and not by the API server.

/// Checks a selector over fields: terms `path=value`, `path==value` and `path!=value` between commas.
pub(super) fn check_fields(text: &str) -> Result<String, String> {
    for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let path = term.split_once('=').map(|(path, _)| path.trim_end_matches('!').trim());
        if path.is_none_or(str::is_empty) {
            return Err(format!("{term:?} in a field selector is not of the form path=value"));
        }
    }
    Ok(text.to_owned())
}

/// Checks a selector over labels: terms `key`, `!key`, `key=value`, `key!=value`, `key>1`, `key<1`, `key in (a, b)` and
/// `key notin (a, b)` between commas.
pub(super) fn check_labels(text: &str) -> Result<String, String> {
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = term_end(rest);
        check_term(rest[..end].trim())?;
        rest = rest[end..].trim_start_matches(',').trim();
    }
    Ok(text.to_owned())
}

/// Where the first term ends: at a comma outside of parentheses.
fn term_end(text: &str) -> usize {
    let mut inside = false;
    for (at, character) in text.char_indices() {
        match character {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => return at,
            _ => {}
        }
    }
    text.len()
}

fn check_term(term: &str) -> Result<(), String> {
    let wrong = || format!("{term:?} in a label selector cannot be read");
    let (is_absent, term) =
        term.strip_prefix('!').map_or((false, term), |rest| (true, rest.trim()));
    let key_end =
        term.find(|c: char| c.is_whitespace() || "=!<>(".contains(c)).unwrap_or(term.len());
    let (key, rest) = term.split_at(key_end);
    let rest = rest.trim();
    if !is_key(key) || (is_absent && !rest.is_empty()) {
        return Err(wrong());
    }
    if rest.is_empty() {
        return Ok(());
    }
    let set = rest.strip_prefix("notin").or_else(|| rest.strip_prefix("in"));
    if let Some(set) = set {
        let values = set.trim().strip_prefix('(').and_then(|set| set.strip_suffix(')'));
        let mut values = values.ok_or_else(wrong)?.split(',');
        return if values.all(|value| is_value(value.trim())) { Ok(()) } else { Err(wrong()) };
    }
    if let Some(number) = rest.strip_prefix(['<', '>']) {
        return number.trim().parse::<i64>().map(|_| ()).map_err(|_| wrong());
    }
    let value = ["!=", "==", "="].iter().find_map(|sign| rest.strip_prefix(sign));
    if value.is_some_and(|value| is_value(value.trim())) { Ok(()) } else { Err(wrong()) }
}

/// Whether it is the key of a label: a name, and a domain before it.
fn is_key(text: &str) -> bool {
    let (domain, name) = text.split_once('/').map_or((None, text), |(a, b)| (Some(a), b));
    let is_domain = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c))
    };
    !name.is_empty() && is_value(name) && domain.is_none_or(is_domain)
}

/// Whether it may be the value of a label.
fn is_value(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_reads_is_read() {
        for text in [
            "",
            "app",
            "!app",
            "app=web",
            "app == web , tier!=db",
            "a.b/c in (x, y),d notin (z),e",
            "app in ()",
            "app=",
            "size>3,size<9",
        ] {
            assert!(check_labels(text).is_ok(), "{text}");
        }
        for text in ["status.phase=Running", "a!=b,c==d", "", "metadata.name=x,"] {
            assert!(check_fields(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn slips_are_told() {
        for text in
            ["a b", "=x", "app=we b", "a in (x", "a in x", "!a=b", "A/B/c", "-a", "a>x", "a=(b)"]
        {
            assert!(check_labels(text).is_err(), "{text}");
        }
        for text in ["Running", "=x", "a=b,c"] {
            assert!(check_fields(text).is_err(), "{text}");
        }
    }
}
