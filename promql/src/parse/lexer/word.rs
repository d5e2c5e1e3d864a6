//! Words with a meaning, and what error messages call tokens.

use super::{Keyword, Kind};
use crate::parse::ast::{AggregateOp, BinaryOp};
use crate::parse::literal::quote;

/// What a word means, in any case of its letters; `None` for a plain identifier.
pub(super) fn keyword(word: &str) -> Option<Kind> {
    let mut buffer = [0_u8; 12];
    let lower = buffer.get_mut(..word.len())?;
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"inf" | b"nan" => Kind::Number,
        b"and" => Kind::Op(BinaryOp::And),
        b"or" => Kind::Op(BinaryOp::Or),
        b"unless" => Kind::Op(BinaryOp::Unless),
        b"atan2" => Kind::Op(BinaryOp::Atan2),
        b"sum" => Kind::Aggregate(AggregateOp::Sum),
        b"avg" => Kind::Aggregate(AggregateOp::Avg),
        b"count" => Kind::Aggregate(AggregateOp::Count),
        b"min" => Kind::Aggregate(AggregateOp::Min),
        b"max" => Kind::Aggregate(AggregateOp::Max),
        b"group" => Kind::Aggregate(AggregateOp::Group),
        b"stddev" => Kind::Aggregate(AggregateOp::Stddev),
        b"stdvar" => Kind::Aggregate(AggregateOp::Stdvar),
        b"topk" => Kind::Aggregate(AggregateOp::Topk),
        b"bottomk" => Kind::Aggregate(AggregateOp::Bottomk),
        b"count_values" => Kind::Aggregate(AggregateOp::CountValues),
        b"quantile" => Kind::Aggregate(AggregateOp::Quantile),
        b"limitk" => Kind::Aggregate(AggregateOp::Limitk),
        b"limit_ratio" => Kind::Aggregate(AggregateOp::LimitRatio),
        b"offset" => Kind::Keyword(Keyword::Offset),
        b"smoothed" => Kind::Keyword(Keyword::Smoothed),
        b"anchored" => Kind::Keyword(Keyword::Anchored),
        b"by" => Kind::Keyword(Keyword::By),
        b"without" => Kind::Keyword(Keyword::Without),
        b"on" => Kind::Keyword(Keyword::On),
        b"ignoring" => Kind::Keyword(Keyword::Ignoring),
        b"group_left" => Kind::Keyword(Keyword::GroupLeft),
        b"group_right" => Kind::Keyword(Keyword::GroupRight),
        b"fill" => Kind::Keyword(Keyword::Fill),
        b"fill_left" => Kind::Keyword(Keyword::FillLeft),
        b"fill_right" => Kind::Keyword(Keyword::FillRight),
        b"bool" => Kind::Keyword(Keyword::Bool),
        b"start" => Kind::Keyword(Keyword::Start),
        b"end" => Kind::Keyword(Keyword::End),
        b"step" => Kind::Keyword(Keyword::Step),
        b"range" => Kind::Keyword(Keyword::Range),
        b"max_of" => Kind::Keyword(Keyword::MaxOf),
        b"min_of" => Kind::Keyword(Keyword::MinOf),
        _ => return None,
    })
}

/// How an error message names a token of this kind with this text.
pub(in crate::parse) fn describe(kind: Kind, text: &str) -> String {
    use Keyword::{End, MaxOf, MinOf, Range, Start, Step};
    let short = || {
        let mut chars = text.chars();
        let mut shown: String = chars.by_ref().take(10).collect();
        let cut = text.len() > 10;
        shown = quote(&shown);
        if cut {
            shown.push_str("...");
        }
        shown
    };
    match kind {
        Kind::Eof => "end of input".to_owned(),
        Kind::Error => "error".to_owned(),
        Kind::Identifier => format!("identifier {}", quote(text)),
        Kind::MetricIdentifier => format!("metric identifier {}", quote(text)),
        Kind::Number => format!("number {}", short()),
        Kind::Duration => format!("duration {}", short()),
        Kind::String => format!("string {}", short()),
        Kind::At | Kind::EqualRegex | Kind::NotEqualRegex | Kind::Op(_) => format!("<op:{text}>"),
        Kind::Aggregate(_) => format!("<aggr:{text}>"),
        Kind::Keyword(Start | End | Step | Range | MinOf | MaxOf) => short(),
        Kind::Keyword(_) => format!("<{text}>"),
        _ => short(),
    }
}
