//! Columns of timestamps: a grid and what each time is off it.
//!
//! Scrapes happen at a fixed interval with a little jitter, now and then one is missing. A column
//! is stored as first time, interval, steps missing before each time (when any) and the distance
//! of each time from its place on the grid, or as plain integers when that is smaller.

use stint_model::Timestamp;

use super::Corruption;
use super::ints;
use super::varint::{self, Reader};

const PLAIN: u8 = 0;
const GRID: u8 = 1;
const GRID_WITH_GAPS: u8 = 2;

/// Instead of times: another chunk has them ([`crate::codec::chunk::beside`]).
pub const ELSEWHERE: u8 = 3;

/// Appends `times`; their number is not stored.
pub fn put(times: &[Timestamp], out: &mut Vec<u8>) {
    if times.is_empty() {
        return;
    }
    let raw: Vec<i64> = times.iter().map(|time| time.0).collect();
    if let Some(grid) = Grid::gapless(&raw) {
        grid.put(out);
        return;
    }
    let start = out.len();
    out.push(PLAIN);
    ints::put(&raw, out);
    let Some(grid) = Grid::of(&raw) else { return };
    let mut other = Vec::with_capacity(out.len() - start);
    grid.put(&mut other);
    if other.len() < out.len() - start {
        out.truncate(start);
        out.extend_from_slice(&other);
    }
}

struct Grid {
    first: i64,
    interval: i64,
    /// Steps left out before each time but the first.
    gaps: Vec<i64>,
    off: Vec<i64>,
}

impl Grid {
    /// The grid with one time near each place, which is the usual case and needs no division.
    fn gapless(times: &[i64]) -> Option<Self> {
        let (first, last) = (*times.first()?, *times.last()?);
        let steps = i64::try_from(times.len()).ok()? - 1;
        if steps < 2 {
            return None;
        }
        let interval = round_div(last.checked_sub(first)?, steps)?;
        // All places must be representable.
        first.checked_add(interval.checked_mul(steps)?)?;
        let near = interval / 2;
        let mut off = Vec::with_capacity(times.len());
        let mut place = first;
        for time in times {
            let distance = time.checked_sub(place)?;
            if distance.unsigned_abs() > near.unsigned_abs() {
                return None;
            }
            off.push(distance);
            place = place.wrapping_add(interval);
        }
        (interval > 0).then(|| Self { first, interval, gaps: Vec::new(), off })
    }

    /// The grid on which `times` lie; `None` where there is none, or numbers would overflow.
    fn of(times: &[i64]) -> Option<Self> {
        let (first, last) = (*times.first()?, *times.last()?);
        let mut deltas = times
            .windows(2)
            .map(|pair| match pair {
                [before, time] => time.checked_sub(*before),
                _ => None,
            })
            .collect::<Option<Vec<i64>>>()?;
        if deltas.len() < 2 || deltas.iter().any(|delta| *delta <= 0) {
            return None;
        }
        let middle = deltas.len() / 2;
        let typical = *deltas.select_nth_unstable(middle).1;
        let length = last.checked_sub(first)?;
        let steps = round_div(length, typical)?.max(1);
        let interval = round_div(length, steps)?.max(1);
        let mut gaps = Vec::with_capacity(times.len());
        let mut off = Vec::with_capacity(times.len());
        let mut step_before = -1;
        for time in times {
            // Two times closer than half an interval still get two places.
            let step = round_div(time.checked_sub(first)?, interval)?.max(step_before + 1);
            gaps.push(step - step_before - 1);
            off.push(time.checked_sub(first.checked_add(step.checked_mul(interval)?)?)?);
            step_before = step;
        }
        gaps.remove(0);
        Some(Self { first, interval, gaps, off })
    }

    fn put(&self, out: &mut Vec<u8>) {
        let gapless = self.gaps.iter().all(|gap| *gap == 0);
        out.push(if gapless { GRID } else { GRID_WITH_GAPS });
        varint::put_signed(out, self.first);
        varint::put(out, self.interval as u64);
        if !gapless {
            ints::put(&self.gaps, out);
        }
        ints::put(&self.off, out);
    }
}

fn round_div(a: i64, b: i64) -> Option<i64> {
    a.checked_add(b / 2)?.checked_div_euclid(b)
}

/// Appends `count` times to `out`; the caller bounds `count`.
pub fn take(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<Timestamp>,
) -> Result<(), Corruption> {
    if count == 0 {
        return Ok(());
    }
    out.reserve(count);
    let form = reader.byte()?;
    if form == PLAIN {
        return ints::take(reader, count, |block| out.extend(block.iter().map(|t| Timestamp(*t))));
    }
    let mut place = reader.signed()?;
    let interval = reader.varint()? as i64;
    match form {
        GRID => ints::take(reader, count, |block| {
            // Multiplied rather than added up, so that no time waits for the one before it.
            let places = (0_i64..).map(|step| place.wrapping_add(interval.wrapping_mul(step)));
            out.extend(block.iter().zip(places).map(|(off, at)| Timestamp(at.wrapping_add(*off))));
            place = place.wrapping_add(interval.wrapping_mul(block.len() as i64));
        }),
        GRID_WITH_GAPS => {
            let gaps = ints::take_vec(reader, count - 1)?;
            let mut gaps = gaps.iter();
            ints::take(reader, count, |block| {
                for off in block {
                    out.push(Timestamp(place.wrapping_add(*off)));
                    let steps = gaps.next().copied().unwrap_or(0).wrapping_add(1);
                    place = place.wrapping_add(interval.wrapping_mul(steps));
                }
            })
        }
        _ => Err(reader.corrupt("an unknown form of times")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(times: &[i64], bytes_max: usize) {
        let times: Vec<Timestamp> = times.iter().map(|t| Timestamp(*t)).collect();
        let mut bytes = Vec::new();
        put(&times, &mut bytes);
        assert!(bytes.len() <= bytes_max, "{} bytes", bytes.len());
        let mut reader = Reader::new(&bytes);
        let mut back = Vec::new();
        take(&mut reader, times.len(), &mut back).unwrap();
        assert_eq!(back, times);
        assert!(reader.is_empty());
    }

    fn scrapes(count: i64, jitter: i64) -> impl Iterator<Item = i64> {
        (0..count).map(move |i| 1_700_000_000_000 + i * 15_000 + (i * 7919) % (2 * jitter + 1))
    }

    #[test]
    fn scrape_times_are_small() {
        check(&[], 0);
        check(&[1_700_000_000_000], 12);
        check(&scrapes(480, 0).collect::<Vec<_>>(), 16);
        check(&scrapes(480, 3).collect::<Vec<_>>(), 210);
        let gaps: Vec<i64> =
            scrapes(480, 3).enumerate().filter(|(i, _)| i % 50 != 9).map(|(_, t)| t).collect();
        check(&gaps, 260);
    }

    #[test]
    fn extremes_come_back() {
        check(&[i64::MIN, 0, i64::MAX], 70);
        check(&[i64::MIN, i64::MIN + 1, i64::MIN + 2], 70);
        check(&[5, 4, 4, 9], 30);
    }

    proptest! {
        #[test]
        fn any_times_come_back(start: i64, deltas in proptest::collection::vec(prop_oneof![4 => 14_990_i64..15_010, 1 => 1_i64..100_000, 1 => any::<i64>()], 0..200)) {
            let mut times = vec![start];
            let mut time = start;
            for delta in deltas {
                time = time.wrapping_add(delta);
                times.push(time);
            }
            check(&times, usize::MAX);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>, count in 0_usize..300) {
            let mut out = Vec::new();
            if take(&mut Reader::new(&bytes), count, &mut out).is_ok() {
                prop_assert_eq!(out.len(), count);
            }
        }
    }
}
