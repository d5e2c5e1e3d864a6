//! What tells the series of a number from all others without making its labels: what its metric has of
//! resource and scope, and the bytes of the point's attributes as they came.

use super::labels::{Pairs, ResourceLabels};
use super::points::{Family, Point, frame_of, number, time};
use super::{Shape, points};
use crate::proto::{DecodeError, Reader};

/// The bytes for one point after the other.
#[derive(Debug, Default)]
pub(super) struct Identity {
    bytes: Vec<u8>,
    /// How many of them are those of the metric; 0 when its points have several series, or sums.
    shared: usize,
}

/// A point whose attributes were not read.
pub(super) struct Bare {
    pub(super) point: Point,
    pub(super) value: f64,
    pub(super) has_exemplars: bool,
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
}

impl Identity {
    /// Begins with the points of a metric.
    pub(super) fn begin(
        &mut self,
        family: &Family<'_>,
        resource: &ResourceLabels<'_>,
        scope: &Pairs<'_>,
    ) {
        self.bytes.clear();
        self.shared = 0;
        if !matches!(family.shape, Shape::Gauge | Shape::Sum) || family.is_delta {
            return;
        }
        push(&mut self.bytes, family.name.as_bytes());
        for pairs in [&resource.identity, &resource.promoted, scope] {
            self.bytes.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
            for (name, value) in pairs {
                push(&mut self.bytes, name.as_bytes());
                push(&mut self.bytes, value.as_bytes());
            }
        }
        self.shared = self.bytes.len();
    }

    /// The bytes for the point that was read last.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        (self.shared > 0).then_some(&self.bytes)
    }

    /// Reads a point of the metric but for its attributes; `None` when that is of no use, or it has to
    /// be read with them to know what is wrong.
    pub(super) fn read(&mut self, message: &[u8], family: &Family<'_>, at: u32) -> Option<Bare> {
        if self.shared == 0 {
            return None;
        }
        self.bytes.truncate(self.shared);
        self.fields(message, family, at).ok()
    }

    fn fields(
        &mut self,
        message: &[u8],
        family: &Family<'_>,
        at: u32,
    ) -> Result<Bare, DecodeError> {
        const MESSAGE: &str = "NumberDataPoint";
        let (mut value, mut has_exemplars) = (0.0, false);
        let (mut start, mut when, mut flags) = (0, 0, 0);
        let mut reader = Reader::new(message);
        while let Some((field_number, field)) = reader.next()? {
            match field_number {
                2 => start = points::fixed64(field, MESSAGE, field_number)?,
                3 => when = points::fixed64(field, MESSAGE, field_number)?,
                4 | 6 => value = number(field, MESSAGE, field_number, field_number == 6)?,
                5 => has_exemplars = true,
                7 => push(&mut self.bytes, field.bytes(MESSAGE, field_number)?),
                8 => flags = field.varint(MESSAGE, field_number)?,
                _ => {}
            }
        }
        let point = frame_of(family, at, (start != 0).then(|| time(start)), time(when), flags);
        Ok(Bare { point, value, has_exemplars })
    }
}
