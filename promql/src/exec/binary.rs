//! Binary operators between vectors and scalars, and between vectors matched by labels.

use std::sync::Arc;

use hashbrown::HashMap;
use stint_model::Labels;
use stint_model::histogram::{Combined, FloatHistogram, ResetHint};
use stint_model::labels::METRIC_NAME;

use crate::column::{Column, Point, SAME_LABELSET, Scalar, Series, merge_equal};
use crate::error::QueryError;
use crate::exec::groups::GroupIndex;
use crate::exec::{Evaluator, Sink};
use crate::parse::ast::{Binary, BinaryOp, Cardinality, Expr, PosRange, ValueType, VectorMatching};
use crate::value::SampleValue;

/// The operator between two floats; comparisons give 1 or 0.
pub(crate) fn float_operator(op: BinaryOp) -> fn(f64, f64) -> f64 {
    match op {
        BinaryOp::Add => |a, b| a + b,
        BinaryOp::Sub => |a, b| a - b,
        BinaryOp::Mul => |a, b| a * b,
        BinaryOp::Div => |a, b| a / b,
        BinaryOp::Mod => |a, b| a % b,
        BinaryOp::Pow => f64::powf,
        BinaryOp::Atan2 => f64::atan2,
        BinaryOp::Eq => |a, b| f64::from(a == b),
        BinaryOp::Ne => |a, b| f64::from(a != b),
        BinaryOp::Gt => |a, b| f64::from(a > b),
        BinaryOp::Lt => |a, b| f64::from(a < b),
        BinaryOp::Ge => |a, b| f64::from(a >= b),
        BinaryOp::Le => |a, b| f64::from(a <= b),
        BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Unless
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => |_, _| f64::NAN,
    }
}

/// Whether the result is a new value that no longer deserves the metric's name.
fn drops_name(op: BinaryOp, return_bool: bool) -> bool {
    return_bool
        || matches!(
            op,
            BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Div
                | BinaryOp::Mod
                | BinaryOp::Pow
                | BinaryOp::Atan2
        )
}

/// Chains of operators at least this long are evaluated in a loop, so that they need no stack.
const LONG_CHAIN: usize = 64;

/// The left side of an operator.
pub(crate) enum Left<'e> {
    /// Yet to be evaluated.
    Expr(&'e Expr),
    /// Evaluated.
    Series(Vec<Series>),
}

/// The outcome of one pair of values.
enum Outcome {
    /// A value, and whether a comparison held.
    Value(SampleValue, bool),
    /// The operator means nothing for these types.
    Incompatible,
}

impl Evaluator<'_> {
    /// The series of a binary expression with at least one vector.
    pub(crate) fn binary(&self, binary: &Binary, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        // Long chains (`a or b or c …`) lean to the left; they are walked in a loop.
        let mut chain = vec![binary];
        let mut innermost = binary;
        while let Expr::Binary(lhs) = innermost.lhs.unparenthesized()
            && lhs.value_type() == ValueType::Vector
        {
            chain.push(lhs);
            innermost = lhs;
        }
        if chain.len() < LONG_CHAIN {
            return self.operate(binary, Left::Expr(&binary.lhs), sink);
        }
        let mut left = Left::Expr(&innermost.lhs);
        for link in chain.into_iter().rev() {
            let mut all = Vec::new();
            self.operate(link, left, &mut |series| {
                all.push(series);
                Ok(())
            })?;
            left = Left::Series(merge_equal(all)?);
        }
        self.stream_left(left, sink)
    }

    /// Hands on the series of a left side.
    pub(crate) fn stream_left(
        &self,
        left: Left<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        match left {
            Left::Expr(expr) => self.stream(expr, sink),
            Left::Series(all) => all.into_iter().try_for_each(sink),
        }
    }

    /// The series of a left side.
    pub(crate) fn vector_left(&self, left: Left<'_>) -> Result<Vec<Series>, QueryError> {
        match left {
            Left::Expr(expr) => self.vector(expr),
            Left::Series(all) => Ok(all),
        }
    }

    fn operate(
        &self,
        binary: &Binary,
        left: Left<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        if binary.op.is_set() {
            return self.set_operation(binary, left, sink);
        }
        let lhs_scalar = binary.lhs.value_type() == ValueType::Scalar;
        let rhs_scalar = binary.rhs.value_type() == ValueType::Scalar;
        match (lhs_scalar, rhs_scalar) {
            (false, true) => {
                let scalar = self.scalar(&binary.rhs)?;
                self.stream_left(left, &mut |series| {
                    self.with_scalar(binary, series, &scalar, false, sink)
                })
            }
            (true, false) => {
                let scalar = self.scalar(&binary.lhs)?;
                self.stream(&binary.rhs, &mut |series| {
                    self.with_scalar(binary, series, &scalar, true, sink)
                })
            }
            _ => self.join(binary, left, sink),
        }
    }

    fn with_scalar(
        &self,
        binary: &Binary,
        mut series: Series,
        scalar: &Scalar,
        swapped: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let op = binary.op;
        let is_trim = matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        if series.column.has_histograms() || is_trim {
            self.with_scalar_mixed(binary, &mut series.column, scalar, swapped);
        } else {
            let apply = float_operator(op);
            let value = |at: usize, value: f64| {
                if swapped { apply(scalar.at(at), value) } else { apply(value, scalar.at(at)) }
            };
            if op.is_comparison() && !binary.return_bool {
                series.column.filter_floats(|at, float| value(at, float) != 0.0);
            } else {
                series.column.map_floats(value);
            }
        }
        if drops_name(op, binary.return_bool) {
            self.drop_name(&mut series);
        }
        self.emit(series, sink)
    }

    fn with_scalar_mixed(
        &self,
        binary: &Binary,
        column: &mut Column,
        scalar: &Scalar,
        swapped: bool,
    ) {
        for at in 0..column.len() {
            let Some(point) = column.get(at) else { continue };
            let number = Point::Float(scalar.at(at));
            let (lhs, rhs) = if swapped { (number, point) } else { (point, number) };
            let own = point.to_value();
            let outcome = match self.element(binary, lhs, rhs) {
                // A comparison keeps the vector's value, whichever side it stands on.
                Outcome::Value(_, keep) if binary.return_bool => {
                    Some(SampleValue::Float(f64::from(keep)))
                }
                Outcome::Value(_, keep) if binary.op.is_comparison() => keep.then_some(own),
                Outcome::Value(value, _) => Some(value),
                Outcome::Incompatible => None,
            };
            column.clear(at);
            if let Some(value) = outcome {
                column.set(at, value);
            }
        }
    }

    /// One pair of values; annotations are noted.
    fn element(&self, binary: &Binary, lhs: Point<'_>, rhs: Point<'_>) -> Outcome {
        let op = binary.op;
        match (lhs, rhs) {
            (Point::Float(a), Point::Float(b))
                if !matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) =>
            {
                let value = float_operator(op)(a, b);
                if op.is_comparison() {
                    return Outcome::Value(SampleValue::Float(a), value != 0.0);
                }
                return Outcome::Value(SampleValue::Float(value), true);
            }
            (Point::Float(a), Point::Histogram(h)) if op == BinaryOp::Mul => {
                let mut scaled = (**h).clone();
                scaled.scale(a);
                return histogram(scaled);
            }
            (Point::Histogram(h), Point::Float(b)) => {
                let mut changed = (**h).clone();
                match op {
                    BinaryOp::Mul => changed.scale(b),
                    BinaryOp::Div => changed.divide(b),
                    BinaryOp::TrimUpper => changed.trim_above(b),
                    BinaryOp::TrimLower => changed.trim_below(b),
                    _ => return self.incompatible(binary, lhs, rhs),
                }
                return histogram(changed);
            }
            (Point::Histogram(a), Point::Histogram(b)) => match op {
                BinaryOp::Add => return self.combine(binary.pos, a, b, false),
                BinaryOp::Sub => return self.combine(binary.pos, a, b, true),
                BinaryOp::Eq => {
                    return Outcome::Value(SampleValue::Histogram(a.clone()), a.same_values(b));
                }
                BinaryOp::Ne => {
                    return Outcome::Value(SampleValue::Histogram(a.clone()), !a.same_values(b));
                }
                _ => {}
            },
            (Point::Float(_), _) => {}
        }
        self.incompatible(binary, lhs, rhs)
    }

    fn incompatible(&self, binary: &Binary, lhs: Point<'_>, rhs: Point<'_>) -> Outcome {
        let (op, lhs, rhs) = (binary.op.as_str(), lhs.kind(), rhs.kind());
        let text = format!(
            "incompatible sample types encountered for binary operator \"{op}\": {lhs} {op} {rhs}"
        );
        self.shared.info(&text, binary.pos);
        Outcome::Incompatible
    }

    fn combine(
        &self,
        pos: PosRange,
        a: &Arc<FloatHistogram>,
        b: &Arc<FloatHistogram>,
        subtract: bool,
    ) -> Outcome {
        let mut result = (**a).clone();
        let combined = if subtract { result.sub(b) } else { result.add(b) };
        let (operation, sign) = if subtract { ("subtraction", '-') } else { ("addition", '+') };
        let Ok(combined) = combined else {
            let text = format!("incompatible bucket layout encountered for binary operator {sign}");
            self.shared.warn(&text, pos);
            return Outcome::Incompatible;
        };
        self.remark_on_combined(combined, operation, pos);
        if subtract {
            result.reset_hint = ResetHint::Gauge;
        }
        result.compact();
        histogram(result)
    }

    /// Notes what happened when histograms were combined.
    pub(crate) fn remark_on_combined(&self, combined: Combined, operation: &str, pos: PosRange) {
        if combined.hints_conflict {
            let text = format!("conflicting counter resets during histogram {operation}");
            self.shared.warn(&text, pos);
        }
        if combined.bounds_reconciled {
            let text = format!("mismatched custom buckets were reconciled during {operation}");
            self.shared.info(&text, pos);
        }
    }

    /// Matches the series of two vectors by labels and applies the operator to each pair.
    fn join(&self, binary: &Binary, left: Left<'_>, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let default = VectorMatching::default();
        let matching = binary.matching.as_ref().unwrap_or(&default);
        let lhs = self.vector_left(left)?;
        let swapped = matching.card == Cardinality::OneToMany;
        let needed = if swapped { matching.fill_rhs } else { matching.fill_lhs };
        if lhs.is_empty() && needed.is_none() {
            return Ok(());
        }
        let rhs = self.vector(&binary.rhs)?;
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

fn histogram(histogram: FloatHistogram) -> Outcome {
    Outcome::Value(SampleValue::Histogram(Arc::new(histogram)), true)
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
            let mut present =
                group.one.iter().filter_map(|i| one.get(*i)).filter(|s| s.column.has(at));
            if let (Some(first), Some(second)) = (present.next(), present.next()) {
                let side = if self.swapped { "left" } else { "right" };
                let (mut a, mut b) = (&first.labels, &second.labels);
                if a > b {
                    std::mem::swap(&mut a, &mut b);
                }
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
        let slot = self.output(template);
        let fast = !many.column.has_histograms()
            && !one.column.has_histograms()
            && !matches!(self.binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        let apply = float_operator(self.binary.op);
        let filter = self.binary.op.is_comparison() && !self.binary.return_bool;
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

    fn output(&mut self, template: Series) -> usize {
        let outputs = &mut self.outputs;
        let count = self.eval.steps.count;
        let slot = *self.index.entry(template.labels.clone()).or_insert_with(|| {
            let column = self.eval.shared.column(count);
            let series = Series { column, drop_name: false, labels: template.labels };
            outputs.push(Output { series, writers: Vec::new() });
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
            // Without a record of writers there was only one so far, of an earlier group.
            let text = if output.writers.get(at).copied() != Some(group) {
                SAME_LABELSET
            } else if self.matching.card == Cardinality::OneToOne {
                EXPLICIT
            } else {
                "multiple matches for labels: grouping labels must ensure unique matches"
            };
            return Err(QueryError::execution(text));
        }
        output.writers.resize(count, 0);
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
        let mut labels = many.clone();
        if drops {
            labels = crate::column::without_metadata(&labels);
        }
        if matching.card == Cardinality::OneToOne {
            labels = if matching.on {
                labels.retain(|name| matching.labels.iter().any(|label| label == name))
            } else {
                labels.retain(|name| !matching.labels.iter().any(|label| label == name))
            };
        }
        if matching.include.is_empty() {
            return labels;
        }
        let mut builder = labels.to_builder();
        for name in &matching.include {
            builder.set(name, one.get(name).unwrap_or_default());
        }
        builder.build()
    }
}
