//! Laws of the parser, and the shapes of trees.

use proptest::prelude::*;

use super::ast::{Binary, BinaryOp, Cardinality, Duration, Unary};
use super::*;

fn all(text: &str) -> Expr {
    parse(text, &Options::all()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    parse(text, &Options::default()).unwrap_err().to_string()
}

/// `text` with every operation in parentheses.
fn grouped(expr: &Expr) -> String {
    match expr {
        Expr::Binary(node) => {
            let Binary { op, lhs, rhs, .. } = &**node;
            format!("({} {} {})", grouped(lhs), op.as_str(), grouped(rhs))
        }
        Expr::Unary(node) => {
            let Unary { negative, expr, .. } = &**node;
            format!("{}{}", if *negative { "-" } else { "+" }, grouped(expr))
        }
        other => other.to_string(),
    }
}

#[test]
fn operators_bind_as_in_prometheus() {
    for (text, groups) in [
        ("a + b * c ^ d ^ e", "(a + (b * (c ^ (d ^ e))))"),
        ("-a ^ 2 * b", "(-(a ^ 2) * b)"),
        ("a ^ -b * c", "((a ^ -b) * c)"),
        ("a or b and c unless d == e", "(a or ((b and c) unless (d == e)))"),
        ("a - b - c atan2 d", "((a - b) - (c atan2 d))"),
        ("a </ 1 == b", "((a </ 1) == b)"),
        ("foo offset -2^2", "(foo offset -2s ^ 2)"),
        ("-1 + -x", "(-1 + -x)"),
    ] {
        assert_eq!(grouped(&all(text)), groups, "{text}");
    }
}

#[test]
fn keywords_may_be_names() {
    for text in [
        "sum",
        "by",
        "offset",
        "fill",
        "start",
        "and",
        "anchored",
        "fill + fill_left",
        "step",
        "sum by (on, bool, atan2, fill) (x)",
        "min_of",
        "range{end=\"1\"}",
        "or or or",
    ] {
        all(text);
    }
    for text in ["bool", "on", "ignoring", "group_left", "atan2", "x{"] {
        assert!(parse(text, &Options::all()).is_err(), "{text}");
    }
    assert!(matches!(all("inf"), Expr::Number(number) if number.value == f64::INFINITY));
}

#[test]
fn nodes_know_where_they_stand() {
    let Expr::Binary(binary) = all("  rate(x[5m])  +  on(a)  -y offset 5m ") else {
        panic!("not an operation");
    };
    assert_eq!(binary.pos, PosRange::new(2, 37));
    assert_eq!(binary.lhs.pos(), PosRange::new(2, 13));
    assert_eq!(binary.rhs.pos(), PosRange::new(25, 37));
    let Expr::Aggregate(aggregate) = all("sum(x) by (a)") else { panic!("not an aggregation") };
    assert_eq!(aggregate.pos, PosRange::new(0, 13));
    let Expr::Paren(paren) = all("(sum(x))") else { panic!("no parentheses") };
    assert_eq!(paren.expr.pos(), PosRange::new(1, 7));
}

#[test]
fn matchings_are_completed() {
    let matching = |text: &str| match all(text) {
        Expr::Binary(binary) => binary.matching.map(|matching| matching.card),
        other => panic!("{other:?}"),
    };
    assert_eq!(matching("a and b"), Some(Cardinality::ManyToMany));
    assert_eq!(matching("a + on(x) group_right b"), Some(Cardinality::OneToMany));
    assert_eq!(matching("a + 1"), None);
    assert_eq!(BinaryOp::Or.as_str(), "or");
}

#[test]
fn what_is_experimental_has_to_be_switched_on() {
    for (text, error) in [
        ("mad_over_time(x[5m])", "1:1: parse error: function \"mad_over_time\" is not enabled"),
        (
            "limitk(2, x)",
            "1:1: parse error: limitk() is experimental and must be enabled with \
             --enable-feature=promql-experimental-functions",
        ),
        ("x[5m] anchored", "1:1: parse error: anchored modifier is experimental and not enabled"),
        ("x smoothed", "1:1: parse error: smoothed modifier is experimental and not enabled"),
        (
            "a + fill(0) b",
            "1:1: parse error: binop fill modifiers are experimental and not enabled",
        ),
    ] {
        assert_eq!(refused(text), error);
        all(text);
    }
    let options = Options { duration_expr: false, ..Options::default() };
    for text in ["x[5m+1m]", "x[step()]", "x offset (5m)"] {
        let error = parse(text, &options).unwrap_err();
        assert_eq!(error.first().message, "experimental duration expression is not enabled");
    }
    assert!(parse("x[5m] offset -5m", &options).is_ok());
}

#[test]
fn mistakes_are_told_with_their_line() {
    assert_eq!(
        refused("sum(\n  x y\n)"),
        "2:5: parse error: unexpected identifier \"y\" in aggregation"
    );
    assert_eq!(refused("a # b\n+ + *"), "2:5: parse error: unexpected <op:*>");
    assert_eq!(
        refused("x{a=~\"(\"}"),
        "1:3: parse error: error parsing regexp: missing closing ): `(`"
    );
    assert_eq!(
        refused("foo @ +Inf"),
        "1:1: parse error: timestamp out of bounds for @ modifier: +Inf"
    );
    assert_eq!(
        refused("foo @ 9223372036854775808"),
        "1:1: parse error: timestamp out of bounds for @ modifier: 9223372036854775808.000000"
    );
}

#[test]
fn selectors_are_read_alone() {
    let matchers = |text: &str| {
        parse_selector(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(matchers("up{a!=\"b\"}").unwrap(), [r#"a!="b""#, r#"__name__="up""#]);
    assert_eq!(matchers("{\"a b\"}").unwrap(), [r#"__name__="a b""#]);
    assert_eq!(matchers("{}").unwrap(), [""; 0]);
    for text in ["", "up + up", "rate(x[5m])", "1"] {
        assert!(parse_selector(text).is_err(), "{text}");
    }
}

#[test]
fn offsets_of_nothing_are_none() {
    let Expr::VectorSelector(selector) = all("x offset 0s") else { panic!("not a selector") };
    assert_eq!(selector.offset, Duration::ZERO);
}

/// Everything one does with a tree, in a thread with the usual two megabytes.
fn survives(text: String) -> Result<(), String> {
    let use_it = move || {
        let expr = parse(&text, &Options::all()).map_err(|error| error.to_string())?;
        let copy = expr.clone();
        assert!(copy == expr);
        let printed = expr.to_string();
        assert_eq!(all(&printed).to_string(), printed);
        assert!(!pretty(&expr, pretty::LINE_MAX).is_empty());
        assert!(!to_json(&expr).is_empty());
        assert!(!format!("{expr:?}").is_empty());
        Ok(())
    };
    let builder = std::thread::Builder::new().stack_size(2 << 20);
    builder.spawn(use_it).unwrap().join().unwrap()
}

#[test]
fn no_tree_is_too_deep_for_a_stack() {
    let chain = |count: usize| vec!["x"; count].join(" or ");
    assert_eq!(survives(chain(1_000)), Ok(()));
    assert!(survives(chain(1_001)).is_err_and(|error| error.contains("at most 1000 levels")));
    let nest = |open: &str, count: usize, close: &str| {
        format!("{}x{}", open.repeat(count), close.repeat(count))
    };
    for (open, close) in [("(", ")"), ("sum(", ")"), ("-", ""), ("abs(", ")"), ("x ^ ", "")] {
        assert_eq!(survives(nest(open, 190, close)), Ok(()), "{open}");
        let error = survives(nest(open, 100_000, close)).unwrap_err();
        assert!(error.contains("at most 400 levels"), "{open}: {error}");
    }
    for (open, close) in [("(", ")"), ("-", ""), ("min_of(1,", ")"), ("2^", "")] {
        for (count, fits) in [(190, true), (100_000, false)] {
            let duration = format!("x[{}5m{}]", open.repeat(count), close.repeat(count));
            assert_eq!(survives(duration).is_ok(), fits, "{open} {count}");
        }
    }
    assert!(survives(format!("x[{}]", vec!["1"; 5_000].join("+"))).is_err());
    assert!(survives(format!("x{}", "[5m:]".repeat(5_000))).is_err());
}

#[test]
fn long_texts_are_refused() {
    let options = Options { max_length: 10, ..Options::default() };
    let error = parse("x + x + x + x", &options).unwrap_err();
    assert_eq!(error.first().message, "query is 13 bytes long, at most 10 are allowed");
}

/// Queries that are mostly right.
fn query() -> impl Strategy<Value = String> {
    let duration = prop_oneof![
        Just("5m".to_owned()),
        Just("300".to_owned()),
        Just("step()+1m*2".to_owned()),
        Just("(max_of(1m,range()))".to_owned()),
        Just("1h30m".to_owned()),
    ];
    let matcher = prop_oneof![
        Just(r#"a="b""#.to_owned()),
        Just(r#""a b"!="\n\"""#.to_owned()),
        Just("c=~`x.*|y`".to_owned()),
        Just("d!~''".to_owned()),
    ];
    let shift = prop_oneof![
        Just(String::new()),
        Just(" offset 5m".to_owned()),
        Just(" offset -(1m+5)".to_owned()),
        Just(" @ 12.5".to_owned()),
        Just(" @ end() offset -1h".to_owned()),
        Just(" smoothed".to_owned()),
    ];
    let name = prop_oneof![Just("x"), Just("sum"), Just("a:b"), Just("offset"), Just("range")];
    let selector = (name, proptest::collection::vec(matcher, 0..3), shift.clone())
        .prop_map(|(name, matchers, shift)| format!("{name}{{{}}}{shift}", matchers.join(",")));
    let leaf = prop_oneof![
        4 => selector.clone(),
        1 => Just("1".to_owned()),
        1 => Just("0x1f".to_owned()),
        1 => Just("Inf".to_owned()),
        1 => Just("1h".to_owned()),
        1 => Just("time()".to_owned()),
        2 => (selector, duration.clone()).prop_map(|(s, d)| {
            let plain = s.split(" offset").next().unwrap().split(" @").next().unwrap().to_owned();
            format!("rate({plain}[{d}])")
        }),
    ];
    let ops = prop_oneof![
        Just("+"),
        Just("- on(a)"),
        Just("*"),
        Just("^"),
        Just("> bool"),
        Just("and"),
        Just("or"),
        Just("/ ignoring(a,\"b c\") group_left(c)"),
        Just("</"),
        Just("% fill(1)"),
        Just("atan2"),
    ];
    leaf.prop_recursive(5, 40, 3, move |inner| {
        prop_oneof![
            (inner.clone(), ops.clone(), inner.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("+ {a}")),
            inner.clone().prop_map(|a| format!("sum by (a, \"b c\") ({a})")),
            inner.clone().prop_map(|a| format!("topk without () (3, {a})")),
            inner.clone().prop_map(|a| format!("label_replace({a}, 'a', \"\\xff\", `\\d`, '')")),
            (inner, duration.clone(), shift.clone())
                .prop_map(|(a, d, s)| format!("max_over_time(({a})[{d}:]{s})")),
        ]
    })
}

/// `text` with one piece of it replaced.
fn mutated() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just(""),
        Just("("),
        Just(")"),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("`"),
        Just("@"),
        Just(" offset "),
        Just("#"),
        Just("\\"),
        Just("ü"),
        Just("\u{fffd}"),
        Just("=~"),
        Just(" by "),
        Just("1e"),
        Just("5m"),
        Just("step("),
        Just(" fill("),
        Just("!"),
        Just("\n"),
        Just("info("),
        Just(" bool "),
        Just("9e99"),
    ];
    (query(), any::<prop::sample::Index>(), 0..6_usize, pieces).prop_map(
        |(text, at, length, piece)| {
            let boundaries: Vec<usize> =
                text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let start = at.index(boundaries.len());
            let end = (start + length).min(boundaries.len() - 1);
            format!("{}{piece}{}", &text[..boundaries[start]], &text[boundaries[end]..])
        },
    )
}

#[test]
fn what_is_no_utf8_is_printed_so_that_it_can_be_read() {
    for text in
        [r#"a{x=~"\xee.+"}"#, r#"a{"\ufffd"="1"}"#, r#"f("\ufffd")"#, r#"sum by ("\ufffd") (a)"#]
    {
        let text = text.replace("f(", "label_replace(a, \"b\", \"c\", \"d\", ");
        let printed = all(&text).to_string();
        assert!(printed.contains("\\ufffd"), "{printed}");
        assert_eq!(all(&printed).to_string(), printed);
    }
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(text in query()) {
        if let Ok(expr) = parse(&text, &Options::all()) {
            for printed in [expr.to_string(), pretty(&expr, 100), pretty(&expr, 1)] {
                prop_assert_eq!(essence(&all(&printed)), essence(&expr));
            }
        }
    }

    #[test]
    fn broken_queries_are_refused_inside_the_text(text in mutated()) {
        if let Err(errors) = parse(&text, &Options::all()) {
            for error in errors.iter() {
                prop_assert!(error.pos.start as usize <= text.len());
                prop_assert!(error.line > 0);
                prop_assert!(!error.message.is_empty());
            }
        }
        // Neither of these may panic.
        let _ = parse(&text, &Options::default());
        let _ = parse_selector(&text);
        let _ = parse_series_description(&text);
        let _ = parse_start_times(&text);
    }

    #[test]
    fn any_text_is_an_answer_or_an_error(text in "\\PC{0,40}") {
        let _ = parse(&text, &Options::all());
        let _ = parse_series_description(&text);
    }

    #[test]
    fn strings_survive(text in any::<String>()) {
        let quoted = literal::quote(&text);
        // The lexer takes U+FFFD for broken UTF-8, as Prometheus does.
        if !text.contains('\u{fffd}') {
            prop_assert_eq!(all(&quoted).to_string(), quoted.clone());
            prop_assert_eq!(literal::unquote(&quoted), text.as_bytes());
        }
    }
}

/// An infinite number is written with its sign, also where Prometheus then reads the sign as one
/// of the whole power.
#[test]
fn an_infinite_base_gets_a_plus_that_means_nothing() {
    for (text, printed, read) in [
        ("x + Inf ^ x", "x + +Inf ^ x", "x + ++Inf ^ x"),
        ("x ^ Inf ^ x", "x ^ +Inf ^ x", "x ^ ++Inf ^ x"),
        ("-Inf ^ x", "-+Inf ^ x", "-++Inf ^ x"),
    ] {
        let expr = all(text);
        assert_eq!(expr.to_string(), printed);
        let again = all(printed);
        assert_eq!(again.to_string(), read);
        assert_eq!(essence(&again), essence(&expr));
    }
    // Everywhere else the sign is the number's.
    for text in ["+Inf + x", "x ^ +Inf", "(-Inf) ^ x", "x * -Inf"] {
        assert_eq!(all(text).to_string(), text);
    }
    assert_ne!(essence(&all("+x ^ x")), essence(&all("x ^ x")));
    assert_ne!(essence(&all("-Inf ^ x")), essence(&all("Inf ^ x")));
}

/// The JSON of a tree without what printing does not keep: the order of a selector's matchers,
/// which it sorts, and whether a power with an infinite base has a `+` before it, which it adds.
fn essence(expr: &Expr) -> serde_json::Value {
    fn is_plus_before_infinity(value: &serde_json::Value) -> bool {
        let power = &value["expr"];
        value["type"] == "unaryExpr"
            && value["op"] == "+"
            && power["type"] == "binaryExpr"
            && power["op"] == "^"
            && power["lhs"]["val"] == "+Inf"
    }
    fn reduce(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                if let Some(serde_json::Value::Array(matchers)) = fields.get_mut("matchers") {
                    matchers.sort_by_key(ToString::to_string);
                }
                fields.values_mut().for_each(reduce);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(reduce),
            _ => {}
        }
        if is_plus_before_infinity(value) {
            *value = value["expr"].take();
        }
    }
    let mut value = serde_json::from_str(&to_json(expr)).unwrap();
    reduce(&mut value);
    value
}
