//! Expressions that were parsed lately: dashboards ask the same again and again, and compiling a
//! regular expression takes longer than many a query.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::parse::ast::Expr;

/// Texts that are remembered.
const COUNT_MAX: usize = 512;
/// Longer texts are parsed every time.
const TEXT_MAX: usize = 8 << 10;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_text: HashMap<String, (Arc<Expr>, u64)>,
    uses: u64,
}

impl Parsed {
    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing inside panics half-way.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `parse` makes of `text`, now or earlier. Errors are not remembered.
    pub(crate) fn get<E>(
        &self,
        text: &str,
        parse: impl FnOnce(&str) -> Result<Expr, E>,
    ) -> Result<Arc<Expr>, E> {
        if text.len() > TEXT_MAX {
            return parse(text).map(Arc::new);
        }
        if let Some(known) = self.lock().find(text) {
            return Ok(known);
        }
        let expr = Arc::new(parse(text)?);
        self.lock().add(text, &expr);
        Ok(expr)
    }
}

impl Held {
    fn find(&mut self, text: &str) -> Option<Arc<Expr>> {
        self.uses += 1;
        let (expr, used) = self.by_text.get_mut(text)?;
        *used = self.uses;
        Some(Arc::clone(expr))
    }

    fn add(&mut self, text: &str, expr: &Arc<Expr>) {
        if self.by_text.len() >= COUNT_MAX {
            // Half goes at once, so that this is rare.
            let mut uses: Vec<u64> = self.by_text.values().map(|(_, used)| *used).collect();
            uses.sort_unstable();
            let middle = uses.get(uses.len() / 2).copied().unwrap_or_default();
            self.by_text.retain(|_, (_, used)| *used > middle);
        }
        self.by_text.insert(text.to_owned(), (Arc::clone(expr), self.uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Options, parse};

    #[test]
    fn a_text_is_parsed_once_while_it_is_in_use() {
        let parsed = Parsed::default();
        let get = |text: &str| parsed.get(text, |text| parse(text, &Options::all())).unwrap();
        let first = get("up");
        for number in 0..COUNT_MAX * 2 {
            get(&format!("up + {number}"));
            assert!(Arc::ptr_eq(&first, &get("up")));
        }
        assert!(parsed.lock().by_text.len() <= COUNT_MAX);
        let long = format!("up{}", " ".repeat(TEXT_MAX));
        assert!(!Arc::ptr_eq(&get(&long), &get(&long)));
        assert!(parsed.get("up(", |text| parse(text, &Options::all())).is_err());
    }
}
