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

/// Columns of times that are remembered at most: as many as chunks of one series mostly have.
const KNOWN_MAX: usize = 16;

/// Times that were read lately, each with the bytes that they were read from.
///
/// What is scraped together has the same times, and mostly is read one after the other. To see that
/// bytes are the same takes a fraction of the time of reading them.
#[derive(Debug, Default)]
pub struct Known {
    columns: Vec<(Vec<u8>, Vec<Timestamp>)>,
}

impl Known {
    /// As [`take`]. `place` is where times of such a chunk stood the last time: its number in its
    /// series.
    pub fn take(
        &mut self,
        place: usize,
        reader: &mut Reader<'_>,
        count: usize,
        out: &mut Vec<Timestamp>,
    ) -> Result<(), Corruption> {
        let place = place % KNOWN_MAX;
        if place >= self.columns.len() {
            self.columns.resize_with(place + 1, Default::default);
        }
        let bytes = reader.rest();
        let Some((known, times)) = self.columns.get_mut(place) else {
            return take(reader, count, out);
        };
        // How many bytes belong to so many times is in the bytes themselves.
        if times.len() == count && !known.is_empty() && bytes.starts_with(known) {
            reader.take(known.len())?;
            out.extend_from_slice(times);
            return Ok(());
        }
        let start = out.len();
        known.clear();
        take(reader, count, out)?;
        times.clear();
        times.extend_from_slice(out.get(start..).unwrap_or_default());
        let length = bytes.len() - reader.rest().len();
        known.extend_from_slice(bytes.get(..length).unwrap_or_default());
        Ok(())
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
    fn times_are_known_in_their_place() {
        let mut bytes = Vec::new();
        put(&[Timestamp(5), Timestamp(15_005), Timestamp(30_006)], &mut bytes);
        let mut known = Known::default();
        for _ in 0..2 {
            let mut out = Vec::new();
            known.take(KNOWN_MAX + 1, &mut Reader::new(&bytes), 3, &mut out).unwrap();
            assert_eq!(out, [Timestamp(5), Timestamp(15_005), Timestamp(30_006)]);
        }
        assert_eq!(known.columns.len(), 2);
        // Were they read again, they would be others.
        known.columns[1].1[0] = Timestamp(9);
        let mut out = Vec::new();
        known.take(1, &mut Reader::new(&bytes), 3, &mut out).unwrap();
        assert_eq!(out[0], Timestamp(9));
        known.take(0, &mut Reader::new(&bytes), 3, &mut out).unwrap();
        assert_eq!(out[3], Timestamp(5));
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
        fn what_is_known_is_what_would_be_read(
            columns in proptest::collection::vec((0_i64..3, 0_i64..3, 0_usize..40, 0_usize..4, any::<bool>()), 0..30),
        ) {
            let mut known = Known::default();
            for (first, step, count, place, is_cut) in columns {
                let times: Vec<Timestamp> = (0..count as i64)
                    .map(|row| Timestamp(first + row * (14_999 + step) + row * row % 3))
                    .collect();
                let mut bytes = Vec::new();
                put(&times, &mut bytes);
                bytes.extend_from_slice(b"what follows");
                if is_cut {
                    bytes.truncate(bytes.len() / 3);
                }
                let (mut a, mut b) = (Reader::new(&bytes), Reader::new(&bytes));
                let (mut want, mut got) = (vec![Timestamp(7)], vec![Timestamp(7)]);
                let wanted = take(&mut a, count, &mut want);
                let read = known.take(place, &mut b, count, &mut got);
                prop_assert_eq!(read.is_ok(), wanted.is_ok());
                if read.is_ok() {
                    prop_assert_eq!(got, want);
                    prop_assert_eq!(b.position(), a.position());
                }
            }
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
