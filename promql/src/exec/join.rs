//! Joins: the series of two vectors matched by labels, an operator applied to each pair.

use hashbrown::HashMap;
use stint_model::labels::METRIC_NAME;
use stint_model::{Labels, Matcher};

use crate::column::{Column, SAME_LABELSET, Series, is_metadata};
use crate::error::QueryError;
use crate::exec::binary::{Left, Outcome, drops_name, float_operator};
use crate::exec::groups::GroupIndex;
use crate::exec::push::{Pushed, is_unique, with_matchers};
use crate::exec::{Evaluator, Sink};
use crate::parse::ast::{Binary, BinaryOp, Cardinality, Expr, VectorMatching};
use crate::value::SampleValue;

impl Evaluator<'_> {
    /// Matches the series of two vectors by labels and applies the operator to each pair.
    pub(crate) fn join(
        &self,
        binary: &Binary,
        left: Left<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let default = VectorMatching::default();
        let matching = binary.matching.as_ref().unwrap_or(&default);
        let swapped = matching.card == Cardinality::OneToMany;
        let (lhs, rhs) = self.both_sides(binary, matching, left)?;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let mut join = Join {
            eval: self,
            binary,
            matching,
            swapped,
            many_any: any(&many, self.steps.count),
            outputs: Vec::new(),
            index: HashMap::default(),
            group: 0,
        };
        let groups = join.groups(&many, &one);
        for group in &groups {
            join.match_group(group, &many, &one)?;
        }
        let outputs = join.outputs;
        for series in many.into_iter().chain(one) {
            self.shared.recycle(series.column);
        }
        outputs.into_iter().try_for_each(|output| self.emit(output.series, sink))
    }
}

impl Evaluator<'_> {
    /// The series of both sides, as far as they can matter.
    fn both_sides(
        &self,
        binary: &Binary,
        matching: &VectorMatching,
        left: Left<'_>,
    ) -> Result<(Vec<Series>, Vec<Series>), QueryError> {
        let Left::Expr(lhs) = left else {
            return Ok((self.vector_left(left)?, self.side(&binary.rhs)?));
        };
        let rhs = &binary.rhs;
        let pushed = Pushed::of(binary, self.shared.options);
        if matching.card == Cardinality::OneToMany {
            let one = self.asked(lhs, &pushed.lhs)?;
            let is_safe = pushed.rhs.is_empty() || is_unique(&one, matching);
            let many = self.asked(rhs, if is_safe { &pushed.rhs } else { &[] })?;
            return Ok((one, many));
        }
        if pushed.lhs.is_empty() {
            return Ok((self.side(lhs)?, self.asked(rhs, &pushed.rhs)?));
        }
        // Of what is on the left nothing is remarked, and nothing fails: it can wait.
        let one = self.asked(rhs, &pushed.rhs)?;
        let is_safe = is_unique(&one, matching);
        let many = self.asked(lhs, if is_safe { &pushed.lhs } else { &[] })?;
        Ok((many, one))
    }

    /// The series of a side that match these too, where that saves anything.
    pub(crate) fn asked(
        &self,
        side: &Expr,
        matchers: &[Matcher],
    ) -> Result<Vec<Series>, QueryError> {
        // What stands in several places is read once and whole.
        if matchers.is_empty() || self.shared.common.times(side).is_some() {
            return self.side(side);
        }
        self.vector(&with_matchers(side, matchers))
    }
}

/// At which steps any series has a value.
fn any(all: &[Series], count: usize) -> Vec<bool> {
    let mut any = vec![false; count];
    for series in all {
        for (at, slot) in any.iter_mut().enumerate() {
            *slot = *slot || series.column.has(at);
        }
    }
    any
}

/// Whether the label of this name is one of those by which series find each other.
pub(crate) fn is_matched(matching: &VectorMatching, name: &str) -> bool {
    let is_named = matching.labels.iter().any(|label| label == name);
    if matching.on { is_named } else { !is_named && name != METRIC_NAME }
}

/// The text of the error for a join that needs `group_left` or `group_right`.
const EXPLICIT: &str = "multiple matches for labels: many-to-one matching must be explicit \
                        (group_left/group_right)";

/// Series with the same signature: indexes into both sides.
struct Group {
    signature: Labels,
    many: Vec<usize>,
    one: Vec<usize>,
}

struct Output {
    series: Series,
    /// The group that wrote all steps, as long as there was only one pair.
    writer: u32,
    /// The group that last wrote each step, to tell apart two kinds of conflict.
    writers: Vec<u32>,
}

struct Join<'e, 'a> {
    eval: &'e Evaluator<'a>,
    binary: &'e Binary,
    matching: &'e VectorMatching,
    /// Whether the "many" side is the right one.
    swapped: bool,
    many_any: Vec<bool>,
    outputs: Vec<Output>,
    index: HashMap<Labels, usize, foldhash::fast::FixedState>,
    group: u32,
}

impl Join<'_, '_> {
    fn groups(&self, many: &[Series], one: &[Series]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut index = GroupIndex::default();
        let mut slot = |labels: &Labels| {
            let (slot, new) = index.number(labels, |name| is_matched(self.matching, name));
            if let Some(signature) = new {
                groups.push(Group { signature, many: Vec::new(), one: Vec::new() });
            }
            slot
        };
        let many: Vec<usize> = many.iter().map(|series| slot(&series.labels)).collect();
        let one: Vec<usize> = one.iter().map(|series| slot(&series.labels)).collect();
        for (at, group) in many.into_iter().enumerate() {
            if let Some(group) = groups.get_mut(group) {
                group.many.push(at);
            }
        }
        for (at, group) in one.into_iter().enumerate() {
            if let Some(group) = groups.get_mut(group) {
                group.one.push(at);
            }
        }
        groups
    }

    fn match_group(
        &mut self,
        group: &Group,
        many: &[Series],
        one: &[Series],
    ) -> Result<(), QueryError> {
        self.eval.shared.check()?;
        self.group += 1;
        // As in Prometheus, `fill_right` stands for the "one" side even when that is the left one.
        let (fill_one, fill_many) = (self.matching.fill_rhs, self.matching.fill_lhs);
        if group.one.len() > 1 {
            self.check_one_side(group, one)?;
        }
        let ones: Vec<&Series> = group.one.iter().filter_map(|at| one.get(*at)).collect();
        let manys: Vec<&Series> = group.many.iter().filter_map(|at| many.get(*at)).collect();
        if self.matching.card == Cardinality::OneToOne && manys.len() > 1 {
            self.check_many_side(&manys, &ones)?;
        }
        for many in &manys {
            for one in &ones {
                self.pair(many, one)?;
            }
            if let Some(fill) = fill_one {
                let filled = self.filled(&ones, fill, &group.signature);
                self.pair(many, &filled)?;
            }
        }
        if let Some(fill) = fill_many {
            let filled = self.filled(&manys, fill, &group.signature);
            for one in &ones {
                self.pair(&filled, one)?;
            }
        }
        Ok(())
    }

    /// An error when two series meet a single one at the same step, whether or not a comparison
    /// then holds.
    fn check_many_side(&self, manys: &[&Series], ones: &[&Series]) -> Result<(), QueryError> {
        let filled = self.matching.fill_rhs.is_some();
        for at in 0..self.eval.steps.count {
            let meets = filled || ones.iter().any(|one| one.column.has(at));
            if meets && manys.iter().filter(|many| many.column.has(at)).nth(1).is_some() {
                return Err(QueryError::execution(EXPLICIT));
            }
        }
        Ok(())
    }

    /// An error when two series of the "one" side have a value at the same step, and the other
    /// side has any.
    fn check_one_side(&self, group: &Group, one: &[Series]) -> Result<(), QueryError> {
        for at in 0..self.eval.steps.count {
            if !self.many_any.get(at).copied().unwrap_or(false) {
                continue;
            }
            let present = group.one.iter().filter_map(|i| one.get(*i));
            let present = present.filter(|series| series.column.has(at));
            let mut labels: Vec<&Labels> = present.map(|series| &series.labels).collect();
            // The first two, in whatever order they were made.
            labels.sort_unstable();
            if let [a, b, ..] = labels.as_slice() {
                let side = if self.swapped { "left" } else { "right" };
                return Err(QueryError::Execution(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the \
                     operation: [{a}, {b}];many-to-many matching not allowed: matching labels \
                     must be unique on one side",
                    group.signature
                )));
            }
        }
        Ok(())
    }

    /// A constant at the steps where none of `others` has a value.
    fn filled(&self, others: &[&Series], fill: f64, signature: &Labels) -> Series {
        let mut column = Column::new(self.eval.steps.count);
        for at in 0..self.eval.steps.count {
            if !others.iter().any(|other| other.column.has(at)) {
                column.set_float(at, fill);
            }
        }
        Series::new(signature.clone(), column)
    }

    fn pair(&mut self, many: &Series, one: &Series) -> Result<(), QueryError> {
        let labels = self.result_labels(&many.labels, &one.labels);
        let drops = drops_name(self.binary.op, self.binary.return_bool);
        let mut template = Series::new(labels, Column::default());
        template.drop_name = many.drop_name;
        if drops {
            self.eval.drop_name(&mut template);
        }
        let known = self.outputs.len();
        let slot = self.output(template);
        let fast = !many.column.has_histograms()
            && !one.column.has_histograms()
            && !matches!(self.binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        let apply = float_operator(self.binary.op);
        let filter = self.binary.op.is_comparison() && !self.binary.return_bool;
        let by_column = self.eval.shared.options.rewrites.column_joins;
        if fast && !filter && slot == known && by_column {
            self.pair_columns(slot, &many.column, &one.column);
            return Ok(());
        }
        for at in 0..self.eval.steps.count {
            let value = if fast {
                let (Some(a), Some(b)) = (many.column.float(at), one.column.float(at)) else {
                    continue;
                };
                let (lhs, rhs) = if self.swapped { (b, a) } else { (a, b) };
                let value = apply(lhs, rhs);
                if filter {
                    if value == 0.0 {
                        continue;
                    }
                    SampleValue::Float(lhs)
                } else {
                    SampleValue::Float(value)
                }
            } else {
                let (Some(a), Some(b)) = (many.column.get(at), one.column.get(at)) else {
                    continue;
                };
                let (lhs, rhs) = if self.swapped { (b, a) } else { (a, b) };
                match self.eval.element(self.binary, lhs, rhs) {
                    Outcome::Value(_, keep) if self.binary.return_bool => {
                        SampleValue::Float(f64::from(keep))
                    }
                    Outcome::Value(value, true) => value,
                    Outcome::Value(_, false) | Outcome::Incompatible => continue,
                }
            };
            self.write(slot, at, value)?;
        }
        Ok(())
    }

    /// The first pair of an output, both sides floats only.
    fn pair_columns(&mut self, slot: usize, many: &Column, one: &Column) {
        let (lhs, rhs) = if self.swapped { (one, many) } else { (many, one) };
        let Some(output) = self.outputs.get_mut(slot) else { return };
        let column = &mut output.series.column;
        match self.binary.op {
            BinaryOp::Add => column.zip_floats(lhs, rhs, |a, b| a + b),
            BinaryOp::Sub => column.zip_floats(lhs, rhs, |a, b| a - b),
            BinaryOp::Mul => column.zip_floats(lhs, rhs, |a, b| a * b),
            BinaryOp::Div => column.zip_floats(lhs, rhs, |a, b| a / b),
            op => column.zip_floats(lhs, rhs, float_operator(op)),
        }
    }

    fn output(&mut self, template: Series) -> usize {
        let outputs = &mut self.outputs;
        let count = self.eval.steps.count;
        let slot = *self.index.entry(template.labels.clone()).or_insert_with(|| {
            let column = self.eval.shared.column(count);
            let series = Series { column, drop_name: false, labels: template.labels };
            outputs.push(Output { series, writer: self.group, writers: Vec::new() });
            outputs.len() - 1
        });
        if let Some(output) = outputs.get_mut(slot) {
            output.series.drop_name |= template.drop_name;
        }
        slot
    }

    fn write(&mut self, slot: usize, at: usize, value: SampleValue) -> Result<(), QueryError> {
        let count = self.eval.steps.count;
        let group = self.group;
        let Some(output) = self.outputs.get_mut(slot) else { return Ok(()) };
        if output.series.column.has(at) {
            let writer = output.writers.get(at).copied().unwrap_or(output.writer);
            let text = if writer != group {
                SAME_LABELSET
            } else if self.matching.card == Cardinality::OneToOne {
                EXPLICIT
            } else {
                "multiple matches for labels: grouping labels must ensure unique matches"
            };
            return Err(QueryError::execution(text));
        }
        output.writers.resize(count, output.writer);
        if let Some(writer) = output.writers.get_mut(at) {
            *writer = group;
        }
        output.series.column.set(at, value);
        Ok(())
    }

    /// The labels of a pair's result, the metric name not yet dropped.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = self.matching;
        let drops = drops_name(self.binary.op, self.binary.return_bool)
            && !self.eval.shared.options.delayed_name_removal;
        let is_one_to_one = matching.card == Cardinality::OneToOne;
        let keep = |name: &str| {
            let is_named = || matching.labels.iter().any(|label| label == name);
            !(drops && is_metadata(name)) && (!is_one_to_one || matching.on == is_named())
        };
        if matching.include.is_empty() {
            return many.retain(keep);
        }
        let is_included = |name: &str| matching.include.iter().any(|label| label == name);
        let own = many.iter().filter(|(name, _)| keep(name) && !is_included(name));
        let mut pairs: Vec<(&str, &str)> = own.collect();
        pairs.extend(one.iter().filter(|(name, _)| is_included(name)));
        pairs.sort_unstable();
        // Names are told apart above, so the order holds.
        Labels::from_sorted(pairs).unwrap_or_default()
    }
}
