//! Any rule is refused or run, and what it leaves are labels. Regular expressions match what the engine
//! behind their shortcuts matches.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::labels::{LabelsBuilder, NameScheme};
use stint_model::matcher::{MatchOp, Matcher, anchored_regex};
use stint_model::relabel::{Action, Rule, RuleSpec, Verdict, apply};

const ACTIONS: [Action; 11] = [
    Action::Replace,
    Action::Keep,
    Action::Drop,
    Action::KeepEqual,
    Action::DropEqual,
    Action::HashMod,
    Action::LabelMap,
    Action::LabelDrop,
    Action::LabelKeep,
    Action::Lowercase,
    Action::Uppercase,
];

fuzz_target!(|input: (u8, bool, u64, &str)| {
    let (action, legacy, modulus, texts) = input;
    let mut texts = texts.split('\0');
    let mut text = || texts.next().unwrap_or_default();
    let (regex, value, target, replacement, separator) = (text(), text(), text(), text(), text());
    let action = ACTIONS[usize::from(action) % ACTIONS.len()];
    let scheme = if legacy { NameScheme::Legacy } else { NameScheme::Utf8 };
    let spec = RuleSpec {
        source_labels: vec!["a".to_owned(), "none".to_owned()],
        separator: separator.to_owned(),
        regex: regex.to_owned(),
        modulus,
        target_label: target.to_owned(),
        replacement: replacement.to_owned(),
        action,
    };
    let only_regex = RuleSpec { regex: regex.to_owned(), action, ..RuleSpec::default() };
    for spec in [spec, only_regex] {
        let Ok(rule) = Rule::new(spec, scheme) else { continue };
        let mut labels = LabelsBuilder::default();
        for (name, value) in [("__name__", "m"), ("a", value), ("b.c", "x"), (target, "y")] {
            if !name.is_empty() {
                labels.set(name, value);
            }
        }
        let before = labels.clone().build();
        let verdict = apply(std::slice::from_ref(&rule), &mut labels);
        let after = labels.build();
        if matches!(action, Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual) {
            assert_eq!(before, after);
        } else {
            assert_eq!(verdict, Verdict::Keep);
        }
        let mut last = None;
        for (name, value) in after.iter() {
            assert!(!name.is_empty() && !value.is_empty() && last < Some(name), "{after}");
            last = Some(name);
        }
    }
    if let Ok(engine) = anchored_regex(regex) {
        let matches = |op| Matcher::new(op, "l", regex).map(|matcher| matcher.matches(value));
        assert_eq!(matches(MatchOp::Regex), Ok(engine.is_match(value)), "{regex:?} {value:?}");
        assert_eq!(matches(MatchOp::NotRegex), Ok(!engine.is_match(value)));
    } else {
        assert!(Matcher::new(MatchOp::Regex, "l", regex).is_err());
    }
});
