//! Selector → series, cheapest condition first.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use stint_model::{MatchOp, Matcher, Selector};

use super::dictionary::Dictionary;
use super::reader::{Index, Name};
use super::regex;
use super::rows::RowReader;
use crate::codec::Corruption;

/// When there are this many values to walk, or series to decode, per series still in question,
/// looking at those series' own labels is cheaper; and it is cheaper than intersecting lists of series
/// with them for each value, unless there are so many series per value.
const WORK_PER_SERIES: u64 = 64;

/// The numbers of the series that meet all conditions of `selector`.
pub fn select(index: &Index, selector: &Selector) -> Result<RoaringBitmap, Corruption> {
    let mut matchers: Vec<&Matcher> = selector.matchers.iter().collect();
    matchers.sort_by_key(|matcher| cost(matcher));
    let mut found: Option<RoaringBitmap> = None;
    for matcher in matchers {
        if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
            break;
        }
        found = Some(narrow(index, matcher, found)?);
    }
    Ok(found.unwrap_or_else(|| index.all()))
}

/// Conditions that leave few series and look up few values come first.
fn cost(matcher: &Matcher) -> u8 {
    match matcher.op() {
        MatchOp::Equal if !matcher.value().is_empty() => 0,
        MatchOp::Regex if matcher.set_of_values().is_some() => 1,
        MatchOp::Equal | MatchOp::NotEqual => 2,
        MatchOp::Regex if !matcher.literal_prefix().is_empty() => 3,
        MatchOp::Regex => 4,
        MatchOp::NotRegex => 5,
    }
}

/// Those of `found` (of all series, when `None`) that meet the condition.
fn narrow(
    index: &Index,
    matcher: &Matcher,
    found: Option<RoaringBitmap>,
) -> Result<RoaringBitmap, Corruption> {
    let Some(name) = index.name(matcher.name())? else {
        // Nobody has the label: all have the empty value.
        let all = matcher.matches_empty();
        return Ok(if all { found.unwrap_or_else(|| index.all()) } else { RoaringBitmap::new() });
    };
    if let Some(found) = &found
        && found.len().saturating_mul(WORK_PER_SERIES) < work(&name, matcher)?
    {
        return filter(index, matcher, &name, found);
    }
    let named = named(index, &name, matcher)?;
    // What an expression says about the empty value decides about series without the label.
    let names_empty = matcher.matches_empty() != matcher.op().is_negative();
    let and = |bitmap: RoaringBitmap, found: Option<RoaringBitmap>| match found {
        Some(found) => found & bitmap,
        None => bitmap,
    };
    let from = |found: Option<RoaringBitmap>| found.unwrap_or_else(|| index.all());
    Ok(match (matcher.op().is_negative(), names_empty) {
        (false, false) => and(named, found),
        (true, false) => from(found) - named,
        (true, true) => and(index.any(&name)? - named, found),
        (false, true) => {
            let others = index.any(&name)? - named;
            from(found) - others
        }
    })
}

/// A value is walked in the time in which so many series of a list are decoded.
const WORK_OF_VALUE: u64 = 4;

/// How many series are decoded, or what walking values costs instead.
fn work(name: &Name<'_>, matcher: &Matcher) -> Result<u64, Corruption> {
    if matches!(matcher.op(), MatchOp::Regex | MatchOp::NotRegex) {
        return Ok(u64::from(name.values.len()).saturating_mul(WORK_OF_VALUE));
    }
    match name.values.find(matcher.value())? {
        Some(number) => name.lists.count(number),
        None => Ok(0),
    }
}

/// The series with a non-empty value that the matcher names.
fn named(index: &Index, name: &Name<'_>, matcher: &Matcher) -> Result<RoaringBitmap, Corruption> {
    let regular = matches!(matcher.op(), MatchOp::Regex | MatchOp::NotRegex);
    if regular && matches!(matcher.value(), ".+" | ".*") {
        return index.any(name);
    }
    let numbers = regex::named(&name.values, matcher)?;
    let others = name.values.len() as usize - numbers.len().min(name.values.len() as usize);
    if others >= numbers.len() {
        return index.union(name, &numbers);
    }
    // A series has one value: those that have another are fewer.
    let mut named = numbers.into_iter().peekable();
    let is_other = |number: &u32| named.next_if_eq(number).is_none();
    let others: Vec<u32> = (0..name.values.len()).filter(is_other).collect();
    Ok(index.any(name)? - index.union(name, &others)?)
}

/// Tests the series of `found` one by one.
fn filter(
    index: &Index,
    matcher: &Matcher,
    name: &Name<'_>,
    found: &RoaringBitmap,
) -> Result<RoaringBitmap, Corruption> {
    let Some(number) = index.name_number(matcher.name())? else { return Ok(found.clone()) };
    let wanted = name.values.find(matcher.value())?;
    let mut reader = RowReader::new(index);
    let mut values = Vec::new();
    for series in found {
        values.push(reader.value(series, number)?);
    }
    let accepted = match matcher.op() {
        MatchOp::Equal | MatchOp::NotEqual => wanted.into_iter().collect(),
        MatchOp::Regex | MatchOp::NotRegex => accepted(&name.values, &values, matcher)?,
    };
    let negative = matcher.op().is_negative();
    let kept = found.iter().zip(values).filter(|(_, value)| match value {
        Some(value) => accepted.binary_search(value).is_ok() != negative,
        None => matcher.matches_empty(),
    });
    Ok(RoaringBitmap::from_sorted_iter(kept.map(|(series, _)| series)).unwrap_or_default())
}

/// The numbers, rising, of those of `values` that the expression names.
fn accepted(
    dictionary: &Dictionary<'_>,
    values: &[Option<u32>],
    matcher: &Matcher,
) -> Result<Vec<u32>, Corruption> {
    let negative = matcher.op().is_negative();
    let mut distinct: Vec<u32> = values.iter().flatten().copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let mut accepted = Vec::new();
    for value in distinct {
        if matcher.matches(&dictionary.get(value)?) != negative {
            accepted.push(value);
        }
    }
    Ok(accepted)
}

/// The series that any of `selectors` selects; `None` for all, when there are none.
fn select_any(index: &Index, selectors: &[Selector]) -> Result<Option<RoaringBitmap>, Corruption> {
    let mut found: Option<RoaringBitmap> = None;
    for selector in selectors {
        let selected = select(index, selector)?;
        found = Some(match found {
            Some(found) => found | selected,
            None => selected,
        });
    }
    Ok(found)
}

/// Sorted names of the labels of the series that any of `selectors` selects (of all series, when
/// there are none).
pub fn label_names(index: &Index, selectors: &[Selector]) -> Result<Vec<String>, Corruption> {
    let names = index.names();
    let Some(found) = select_any(index, selectors)? else {
        return names.collect(0..names.len());
    };
    let mut reader = RowReader::new(index);
    let mut schemas = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for series in &found {
        let (schema, names) = reader.names(series)?;
        if schemas.insert(schema) {
            numbers.extend(names);
        }
    }
    numbers.into_iter().map(|number| names.get(number)).collect()
}

/// Sorted values of label `name` in the series that any of `selectors` selects (in all series,
/// when there are none).
pub fn label_values(
    index: &Index,
    name: &str,
    selectors: &[Selector],
) -> Result<Vec<String>, Corruption> {
    let Some(number) = index.name_number(name)? else { return Ok(Vec::new()) };
    let info = index.name_at(number)?;
    let values = info.values;
    let Some(found) = select_any(index, selectors)? else {
        return values.collect(0..values.len());
    };
    let mut numbers = BTreeSet::new();
    if found.len() <= u64::from(values.len()).saturating_mul(WORK_PER_SERIES) {
        let mut reader = RowReader::new(index);
        for series in &found {
            numbers.extend(reader.value(series, number)?);
        }
    } else {
        for value in 0..values.len() {
            if !index.union(&info, &[value])?.is_disjoint(&found) {
                numbers.insert(value);
            }
        }
    }
    let mut out = Vec::with_capacity(numbers.len());
    for value in numbers {
        out.push(values.get(value)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
