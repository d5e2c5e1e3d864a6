//! Made-up hosts and services whose values move as those of exporters do: constants, counters that
//! are idle, slow or busy, seconds in hundredths, histograms of durations, memory in pages, small
//! integers, and sums of durations in full precision.

use stint_model::{Batch, Labels, Sample, SeriesRef, Timestamp};

/// 15 s, as most scrape.
pub(crate) const INTERVAL_MS: i64 = 15_000;

const BOUNDS: [&str; 12] =
    ["+Inf", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "10", "2.5", "5"];

/// The same, as places in the order of size.
const PLACES: [usize; 12] = [11, 0, 1, 2, 3, 4, 5, 6, 7, 10, 8, 9];

#[derive(Clone, Copy)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, of mean 0 and deviation 1.
    fn normal(&mut self) -> f64 {
        ((0..4).map(|_| self.part()).sum::<f64>() - 2.0) * 3_f64.sqrt()
    }

    /// How many events come where `mean` are expected.
    fn events(&mut self, mean: f64) -> f64 {
        if mean > 20.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.part(), 0.0);
        while product > limit {
            product *= self.part();
            count += 1.0;
        }
        count
    }
}

enum Kind {
    Constant(f64),
    Counter {
        rate: f64,
        total: f64,
    },
    Hundredths {
        rate: f64,
        total: f64,
    },
    Pages {
        at: f64,
        step: f64,
    },
    Seldom(f64),
    Measured(f64),
    Durations {
        rate: f64,
        total: f64,
    },
    /// Counts of each bucket, and the sum.
    Histogram {
        rate: f64,
        counts: [f64; 12],
        sum: f64,
    },
}

impl Kind {
    fn tick(&mut self, random: &mut Random, out: &mut Vec<f64>) {
        match self {
            Self::Constant(value) => out.push(*value),
            Self::Counter { rate, total } => {
                *total += random.events(*rate);
                out.push(*total);
            }
            Self::Hundredths { rate, total } => {
                *total += (*rate * (1.0 + 0.15 * random.normal())).max(0.0).round();
                out.push(*total / 100.0);
            }
            Self::Pages { at, step } => {
                *at = (*at + *step * random.normal()).max(0.0).round();
                out.push(*at * 4096.0);
            }
            Self::Seldom(value) => {
                if random.part() < 0.1 {
                    *value = (random.part() * 9.0).round();
                }
                out.push(*value);
            }
            Self::Measured(mean) => out.push(*mean * (1.0 + 0.25 * random.normal()).abs()),
            Self::Durations { rate, total } => {
                *total += *rate * (1.0 + 0.3 * random.normal()).max(0.0);
                out.push(*total);
            }
            Self::Histogram { rate, counts, sum } => {
                for _ in 0..random.events(*rate) as usize {
                    let place = (4.0 + 1.6 * random.normal()).clamp(0.0, 11.0).round();
                    counts[place as usize] += 1.0;
                    *sum += 0.03 * random.normal().exp();
                }
                let below = |place: usize| counts[..=place].iter().sum::<f64>();
                out.extend(PLACES.map(below));
                out.extend([below(11), *sum]);
            }
        }
    }
}

/// Something that is scraped.
pub(crate) struct Target {
    kinds: Vec<Kind>,
    labels: Vec<Labels>,
    pub(crate) refs: Vec<SeriesRef>,
    random: Random,
    offset: i64,
    values: Vec<f64>,
}

impl Target {
    pub(crate) fn new(number: usize) -> Self {
        let mut random = Random(number as u64);
        let offset = (random.next() % INTERVAL_MS as u64) as i64;
        let mut target = Self {
            kinds: Vec::new(),
            labels: Vec::new(),
            refs: Vec::new(),
            random,
            offset,
            values: Vec::new(),
        };
        for n in 0..60 {
            target.add(number, "info", n, Kind::Constant(n as f64));
        }
        for n in 0..90 {
            let rate = if n % 3 == 0 { 0.0 } else { (random.part() * 9.0 - 2.0).exp() };
            target.add(number, "events_total", n, Kind::Counter { rate, total: rate * 40_000.0 });
        }
        for n in 0..40 {
            let rate = random.part() * 800.0;
            target.add(number, "cpu_seconds_total", n, Kind::Hundredths { rate, total: 1e6 });
        }
        for n in 0..20 {
            let step = random.part() * 2000.0;
            target.add(number, "memory_bytes", n, Kind::Pages { at: 1e6, step });
        }
        for n in 0..10 {
            target.add(number, "queue", n, Kind::Seldom(3.0));
        }
        for n in 0..6 {
            target.add(number, "last_seconds", n, Kind::Measured(random.part()));
            let rate = random.part();
            target.add(number, "busy_seconds_total", n, Kind::Durations { rate, total: 9e3 });
        }
        for n in 0..10 {
            let rate = (random.part() * 6.0 - 1.0).exp();
            let histogram = Kind::Histogram { rate, counts: [1000.0; 12], sum: 300.0 };
            target.add(number, "request_duration_seconds", n, histogram);
        }
        target
    }

    fn add(&mut self, target: usize, name: &str, item: usize, kind: Kind) {
        let labels = |name: &str, le: &str| {
            Labels::from_pairs([
                ("__name__", name),
                ("instance", &format!("10.0.{}.{}:9100", target / 250, target % 250)),
                ("item", &format!("item-{item}")),
                ("job", ["node", "http-app"][target % 2]),
                ("le", le),
                ("project", &format!("project-{}", target % 12)),
            ])
        };
        if let Kind::Histogram { .. } = kind {
            let bucket = format!("{name}_bucket");
            self.labels.extend(BOUNDS.map(|bound| labels(&bucket, bound)));
            self.labels.push(labels(&format!("{name}_count"), ""));
            self.labels.push(labels(&format!("{name}_sum"), ""));
        } else {
            self.labels.push(labels(name, ""));
        }
        self.kinds.push(kind);
    }

    /// One scrape: one in a hundred is up to 8 ms late.
    pub(crate) fn scrape(&mut self, round: i64) -> Batch {
        let late = if self.random.part() < 0.01 { self.random.next() % 9 } else { 0 };
        let at = 1_700_006_400_000 + round * INTERVAL_MS + self.offset + late as i64;
        self.values.clear();
        for kind in &mut self.kinds {
            kind.tick(&mut self.random, &mut self.values);
        }
        let mut batch = Batch::default();
        for (row, value) in self.values.iter().enumerate() {
            let sample = Sample::float(Timestamp(at), *value);
            match self.refs.get(row) {
                Some(known) => batch.push_known(*known, sample),
                None => batch.push(self.labels[row].clone(), sample),
            }
        }
        batch
    }
}
