//! The second budget: data points per minute.
//!
//! Two things keep it. What is wanted for longer than a few minutes is thinned: the interval of the
//! least important class grows until everything fits, then that of the class before it, none beyond
//! [`INTERVAL_MAX`]. What comes in bursts waits: a bucket holds the points of five minutes, and what
//! finds it empty is sent later, since the store keeps it. So nothing is left out for being late
//! only, and what is left out is left out evenly and by class.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Span, Timestamp};

/// The longest interval to which a class is thinned: above it, graphs get gaps, since a sample is
/// shown for five minutes.
pub const INTERVAL_MAX: Span = Span(4 * Span::MINUTE.0);

/// What is wanted is measured over so much of the samples' own time: all intervals fit into it.
const WINDOW: Span = INTERVAL_MAX;
/// So many minutes' points may be used at once after as many quiet ones.
pub const BURST_MINUTES: u64 = 5;
/// Steps in which an interval grows, in parts of the configured one.
const STEPS: u64 = 4;
/// An interval becomes shorter only when so many of a hundred points suffice.
const RELAX_PERCENT: u64 = 90;

/// Samples that come at longer intervals than configured by less than this are only unpunctual.
const SLOWER: f64 = 1.4;

/// How far a class is thinned.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Thinning {
    /// The interval of its samples as they come, or the configured one if that is longer.
    base: Span,
    /// How many [`STEPS`]ths of that are the interval now.
    steps: u64,
    /// Points per minute without thinning.
    wanted: f64,
}

impl Default for Thinning {
    fn default() -> Self {
        Self { base: Span::ZERO, steps: STEPS, wanted: 0.0 }
    }
}

/// What was read of a class in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    samples: u64,
    series: u64,
}

/// The points that may be sent at once.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    tokens: f64,
    /// Nothing while it is new.
    filled_at: Option<Duration>,
}

impl Bucket {
    fn begin(&mut self, per_minute: u64, now: Duration) {
        if self.filled_at.is_none() {
            *self = Self { tokens: per_minute as f64, filled_at: Some(now) };
        }
    }

    fn take(&mut self, per_minute: u64, count: u64, now: Duration) -> Result<(), Duration> {
        let per_second = per_minute as f64 / 60.0;
        let most = per_minute.saturating_mul(BURST_MINUTES) as f64;
        let passed = now.saturating_sub(self.filled_at.unwrap_or(now)).as_secs_f64();
        // Requests that go at once may bring their times out of order.
        self.filled_at = self.filled_at.max(Some(now));
        self.tokens = (self.tokens + passed * per_second).min(most);
        // What is more than the bucket holds passes when it is full, and leaves it in debt.
        let missing = (count as f64).min(most) - self.tokens;
        if missing > 0.0 {
            let wait = Duration::try_from_secs_f64(missing / per_second);
            return Err(wait.unwrap_or(Duration::MAX).max(Duration::from_millis(1)));
        }
        self.tokens -= count as f64;
        Ok(())
    }
}

/// The points of one endpoint.
#[derive(Clone, Debug)]
pub struct Points {
    /// How many are included; nothing for no limit.
    per_minute: Option<u64>,
    /// Of all endpoints that share them.
    bucket: Arc<Mutex<Bucket>>,
    /// By class since `since`.
    seen: Vec<Seen>,
    /// Since then, points that no interval rules.
    extra: u64,
    since: Option<Timestamp>,
    /// Number of the window that began then.
    window: u32,
    thinning: Vec<Thinning>,
}

impl Points {
    /// A bucket that is new holds one minute's points, since an earlier run may have used the others.
    pub fn new(per_minute: Option<u64>, bucket: Arc<Mutex<Bucket>>, now: Duration) -> Self {
        if let Some(per_minute) = per_minute {
            bucket.lock().begin(per_minute, now);
        }
        Self {
            per_minute,
            bucket,
            seen: Vec::new(),
            extra: 0,
            since: None,
            window: 1,
            thinning: Vec::new(),
        }
    }

    /// So many are included from now on.
    pub fn set(&mut self, per_minute: Option<u64>, now: Duration) {
        if let Some(per_minute) = per_minute {
            self.bucket.lock().begin(per_minute, now);
        }
        self.per_minute = per_minute;
    }

    /// Takes `count` points out of the bucket.
    ///
    /// # Errors
    /// How long to wait before there are as many; nothing was taken.
    pub fn take(&mut self, count: u64, now: Duration) -> Result<(), Duration> {
        let Some(per_minute) = self.per_minute else { return Ok(()) };
        self.bucket.lock().take(per_minute, count, now)
    }

    /// Puts points back that were taken and not used.
    pub fn give_back(&mut self, count: u64) {
        if self.per_minute.is_some() {
            self.bucket.lock().tokens += count as f64;
        }
    }

    /// Notes a sample that could be sent, of a class and a series for which `mark` was passed
    /// before.
    pub fn seen(&mut self, class: u16, mark: &mut u32) {
        let class = usize::from(class);
        if self.seen.len() <= class {
            self.seen.resize(class + 1, Seen::default());
        }
        if let Some(seen) = self.seen.get_mut(class) {
            seen.samples += 1;
            seen.series += u64::from(*mark != self.window);
            *mark = self.window;
        }
    }

    /// Notes a point that no interval rules: the end of a series, a change that passes at once.
    pub fn extra(&mut self) {
        self.extra += 1;
    }

    /// The interval at which a class is sent whose configured one is `configured`.
    pub fn interval(&self, class: u16, configured: Span) -> Span {
        match self.thinning.get(usize::from(class)) {
            Some(thinning) if thinning.steps > STEPS => {
                Span(thinning.base.as_ms() * thinning.steps as i64 / STEPS as i64).max(configured)
            }
            _ => configured,
        }
    }

    /// Looks at what was seen, and thins the classes as much as needed. `newest` is the time of the
    /// newest sample read, `configured` the interval by class. While the endpoint is `behind`, twice
    /// as fast as time passes must fit. `part` tells how many of the included points it may use if
    /// it wants so many.
    pub fn plan(
        &mut self,
        newest: Timestamp,
        behind: bool,
        configured: &[Span],
        part: impl FnOnce(u64, u64) -> u64,
    ) {
        let Some(per_minute) = self.per_minute else { return };
        let window = self.since.map(|since| newest.since(since));
        if window.is_some_and(|window| window < WINDOW) {
            return;
        }
        self.since = Some(newest);
        self.window = self.window.wrapping_add(1).max(1);
        let seen = std::mem::take(&mut self.seen);
        let extra = std::mem::take(&mut self.extra);
        let Some(window) = window else { return };
        self.thinning.resize(configured.len(), Thinning::default());
        for (class, thinning) in self.thinning.iter_mut().enumerate() {
            let seen = seen.get(class).copied().unwrap_or_default();
            let configured = configured.get(class).copied().unwrap_or(Span::ZERO);
            thinning.base = base_of(configured, seen, window);
            let minutes = thinning.base.as_ms() as f64 / Span::MINUTE.as_ms() as f64;
            thinning.wanted = if minutes > 0.0 { seen.series as f64 / minutes } else { 0.0 };
        }
        let minutes = window.as_ms() as f64 / Span::MINUTE.as_ms() as f64;
        let extra = (extra as f64 / minutes) as u64;
        let wanted: f64 = self.thinning.iter().map(|thinning| thinning.wanted).sum();
        let per_minute = part(per_minute, (wanted.ceil() as u64).saturating_add(extra));
        let most = if behind { per_minute / 2 } else { per_minute }.saturating_sub(extra);
        let needed = self.steps_for(most);
        let relaxed = self.steps_for(most * RELAX_PERCENT / 100);
        let steps = needed.into_iter().zip(relaxed);
        for (thinning, (needed, relaxed)) in self.thinning.iter_mut().zip(steps) {
            thinning.steps = needed.max(relaxed.min(thinning.steps));
        }
    }

    /// The steps with which what is wanted becomes `most`, the last class first.
    fn steps_for(&self, most: u64) -> Vec<u64> {
        let wanted: f64 = self.thinning.iter().map(|thinning| thinning.wanted).sum();
        let mut excess = wanted - most as f64;
        let mut steps = Vec::new();
        for Thinning { base, wanted, .. } in self.thinning.iter().rev() {
            if excess <= 0.0 || *wanted <= 0.0 {
                steps.push(STEPS);
                continue;
            }
            let longest = INTERVAL_MAX.as_ms() as u64 * STEPS / base.as_ms().max(1) as u64;
            let left = (wanted - excess).max(0.0);
            let needed = (wanted / left * STEPS as f64).ceil();
            let needed = (needed as u64).clamp(STEPS, longest.max(STEPS));
            excess -= wanted - wanted * STEPS as f64 / needed as f64;
            steps.push(needed);
        }
        steps.reverse();
        steps
    }
}

/// The interval of a class before it is thinned.
fn base_of(configured: Span, seen: Seen, window: Span) -> Span {
    if seen.samples == 0 {
        return configured;
    }
    let own = seen.series as f64 / seen.samples as f64 * window.as_ms() as f64;
    if configured > Span::ZERO && own < configured.as_ms() as f64 * SLOWER {
        return configured;
    }
    Span(own.ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs `minutes` of scrapes every 15 s, of so many series in each class; returns how many
    /// points per minute are sent in the last hour.
    fn run(points: &mut Points, configured: &[Span], series: &[u64], minutes: i64) -> u64 {
        let mut last: Vec<Option<i64>> = vec![None; series.len()];
        let mut marks = vec![0; series.iter().sum::<u64>() as usize];
        let mut sent = 0;
        for second in (0..minutes * 60).step_by(15) {
            points.plan(Timestamp(second * 1000), false, configured, |all, _| all);
            let mut marks = marks.iter_mut();
            for class in 0..series.len() {
                for _ in 0..series[class] {
                    points.seen(class as u16, marks.next().unwrap());
                }
                let interval = points.interval(class as u16, configured[class]).as_ms();
                let slot = second * 1000 / interval.max(1);
                if last[class].is_none_or(|last| slot > last * 1000 / interval.max(1)) {
                    last[class] = Some(second);
                    sent += if second >= (minutes - 60) * 60 { series[class] } else { 0 };
                }
            }
        }
        sent.div_ceil(60)
    }

    #[test]
    fn what_fits_is_left_alone() {
        let mut points = Points::new(Some(1000), Arc::default(), Duration::ZERO);
        assert_eq!(run(&mut points, &[Span::MINUTE; 2], &[10, 990], 90), 1000);
        assert_eq!(points.interval(1, Span::MINUTE), Span::MINUTE);
    }

    #[test]
    fn the_last_class_is_thinned_first_and_as_far_as_needed() {
        let mut points = Points::new(Some(1000), Arc::default(), Duration::ZERO);
        let configured = [Span::from_secs(15), Span::MINUTE];
        let sent = run(&mut points, &configured, &[100, 900], 120);
        assert!((800..=1000).contains(&sent), "{sent}");
        assert_eq!(points.interval(0, configured[0]), configured[0]);
        assert_eq!(points.interval(1, configured[1]), Span::from_secs(90));
    }

    #[test]
    fn the_class_before_it_follows_where_that_is_not_enough() {
        let mut points = Points::new(Some(300), Arc::default(), Duration::ZERO);
        let configured = [Span::from_secs(15), Span::MINUTE];
        let sent = run(&mut points, &configured, &[100, 400], 240);
        assert!((200..=300).contains(&sent), "{sent}");
        assert_eq!(points.interval(1, configured[1]), INTERVAL_MAX);
        let first = points.interval(0, configured[0]);
        assert!(first > configured[0] && first < Span::MINUTE, "{first}");
    }

    #[test]
    fn a_class_that_sends_everything_is_thinned_too() {
        let mut points = Points::new(Some(100), Arc::default(), Duration::ZERO);
        let sent = run(&mut points, &[Span::ZERO], &[50], 120);
        assert!((80..=100).contains(&sent), "{sent}");
    }

    #[test]
    fn points_that_no_interval_rules_leave_less_for_the_others() {
        let mut points = Points::new(Some(100), Arc::default(), Duration::ZERO);
        let mut marks = [0; 100];
        for minute in 0..10 {
            points.plan(Timestamp(minute * 60_000), false, &[Span::MINUTE], |all, _| all);
            (0..50).for_each(|_| points.extra());
            for mark in &mut marks {
                points.seen(0, mark);
            }
        }
        assert_eq!(points.interval(0, Span::MINUTE), Span::from_secs(120));
    }

    #[test]
    fn the_interval_comes_back_when_there_is_room() {
        let mut points = Points::new(Some(1000), Arc::default(), Duration::ZERO);
        run(&mut points, &[Span::MINUTE], &[1500], 70);
        assert!(points.interval(0, Span::MINUTE) > Span::MINUTE);
        points.since = None;
        run(&mut points, &[Span::MINUTE], &[500], 70);
        assert_eq!(points.interval(0, Span::MINUTE), Span::MINUTE);
    }

    #[test]
    fn a_burst_of_five_minutes_passes_and_more_waits() {
        let minute = Duration::from_mins(1);
        let mut points = Points::new(Some(60), Arc::default(), Duration::ZERO);
        assert_eq!(points.take(60, Duration::ZERO), Ok(()));
        assert_eq!(points.take(60, Duration::ZERO), Err(minute));
        assert_eq!(points.take(300, minute * 60), Ok(()));
        assert_eq!(points.take(1, minute * 60), Err(Duration::from_secs(1)));
        // More than the bucket holds.
        assert_eq!(points.take(900, minute * 64), Err(minute));
        assert_eq!(points.take(900, minute * 65), Ok(()));
        assert_eq!(points.take(1, minute * 75), Err(Duration::from_secs(1)));
        let mut none = Points::new(None, Arc::default(), Duration::ZERO);
        assert_eq!(none.take(u64::MAX, Duration::ZERO), Ok(()));
    }

    proptest! {
        #[test]
        fn the_limit_holds_wherever_the_longest_interval_lets_it(
            series in proptest::collection::vec(0u64..500, 1..4),
            seconds in proptest::collection::vec(prop_oneof![Just(0i64), Just(15), Just(60)], 4),
            limit in 1u64..2000,
        ) {
            let configured: Vec<Span> = seconds[..series.len()].iter().map(|s| Span::from_secs(*s)).collect();
            let least = series.iter().sum::<u64>().div_ceil(4);
            let limit = limit.max(least);
            let mut points = Points::new(Some(limit), Arc::default(), Duration::ZERO);
            let sent = run(&mut points, &configured, &series, 90);
            // A slot more or less falls into the hour.
            let slot = series.iter().sum::<u64>().div_ceil(60);
            prop_assert!(sent <= limit + slot, "{} of {}", sent, limit);
        }

        #[test]
        fn the_bucket_never_gives_more_than_five_minutes_at_once(
            takes in proptest::collection::vec((0u64..120, 0u64..200), 1..60),
        ) {
            let mut points = Points::new(Some(100), Arc::default(), Duration::ZERO);
            let (mut now, mut given) = (Duration::ZERO, 0);
            for (seconds, count) in takes {
                now += Duration::from_secs(seconds);
                if points.take(count, now).is_ok() {
                    given += count;
                }
                prop_assert!(given as f64 <= 100.0 + now.as_secs_f64() / 60.0 * 100.0 + 1e-6);
            }
        }
    }
}
