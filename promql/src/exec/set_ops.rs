//! `and`, `or`, `unless`: series chosen by what the other side has at the same step.

use crate::column::Series;
use crate::error::QueryError;
use crate::exec::binary::Left;
use crate::exec::groups::GroupIndex;
use crate::exec::join::is_matched;
use crate::exec::push::{Pushed, with_matchers};
use crate::exec::{Evaluator, Sink};
use crate::parse::ast::{Binary, BinaryOp, VectorMatching};

/// For each signature, at which steps any series with it has a value.
#[derive(Default)]
struct Presence {
    index: GroupIndex,
    steps: Vec<Vec<bool>>,
}

impl Evaluator<'_> {
    /// The series of a set operation.
    pub(crate) fn set_operation(
        &self,
        binary: &Binary,
        left: Left<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let default = VectorMatching::default();
        let matching = binary.matching.as_ref().unwrap_or(&default);
        let mut presence = Presence::default();
        if binary.op == BinaryOp::Or {
            self.stream_left(left, &mut |series| {
                self.note(&mut presence, &series, matching);
                sink(series)
            })?;
            return self.stream(&binary.rhs, &mut |series| {
                self.choose(series, &mut presence, matching, false, sink)
            });
        }
        let pushed = match left {
            Left::Expr(_) => Pushed::of(binary, self.shared.options),
            Left::Series(_) => Pushed::default(),
        };
        // The left side is evaluated first, so that its errors come first.
        let lhs = match left {
            Left::Expr(expr) => self.asked(expr, &pushed.lhs)?,
            Left::Series(all) => all,
        };
        let asked = (!pushed.rhs.is_empty()).then(|| with_matchers(&binary.rhs, &pushed.rhs));
        self.stream(asked.as_ref().unwrap_or(&binary.rhs), &mut |series| {
            self.note(&mut presence, &series, matching);
            self.shared.recycle(series.column);
            Ok(())
        })?;
        let wanted = binary.op == BinaryOp::And;
        lhs.into_iter()
            .try_for_each(|series| self.choose(series, &mut presence, matching, wanted, sink))
    }

    fn note(&self, presence: &mut Presence, series: &Series, matching: &VectorMatching) {
        let (slot, _) = presence.index.number(&series.labels, |name| is_matched(matching, name));
        if slot == presence.steps.len() {
            presence.steps.push(vec![false; self.steps.count]);
        }
        let Some(steps) = presence.steps.get_mut(slot) else { return };
        for (at, step) in steps.iter_mut().enumerate() {
            *step = *step || series.column.has(at);
        }
    }

    /// Keeps the steps at which the presence of the series' signature is as `wanted`.
    fn choose(
        &self,
        mut series: Series,
        presence: &mut Presence,
        matching: &VectorMatching,
        wanted: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let slot = presence.index.find(&series.labels, |name| is_matched(matching, name));
        let steps = slot.and_then(|slot| presence.steps.get(slot));
        for at in 0..series.column.len() {
            let present = steps.and_then(|steps| steps.get(at)).copied().unwrap_or(false);
            if present != wanted {
                series.column.clear(at);
            }
        }
        self.emit(series, sink)
    }
}
