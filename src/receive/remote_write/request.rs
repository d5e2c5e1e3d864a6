//! A decoded request: samples in one list, series as ranges of it, labels read only on demand.

use std::collections::HashSet;
use std::ops::Range;

use stint_model::labels::METRIC_NAME;
use stint_model::{Exemplar, Labels, Metadata, Sample};
use stint_wire::remote_write::{DecodeError, Version, v1, v2};

use super::buffers::Buffers;
use crate::receive::cache::{LabelKey, RefCache};
use crate::receive::in_flight::{Full, Held};
use crate::receive::meter::{LABEL_BYTES_MAX, Meter, MeterError, TooLarge, text_bytes};

/// What a request holds.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) version: Version,
    pub(super) series: Vec<Incoming<'a>>,
    /// Of all series, one after the other; in order of time within each.
    pub(super) samples: Vec<Sample>,
    /// By metric family.
    pub(super) metadata: Vec<(String, Metadata)>,
    /// With the positions of their series, in order of these.
    pub(super) exemplars: Vec<(usize, Exemplar)>,
    /// Series that could not be read.
    pub(super) invalid: usize,
    /// What is wrong with them; at most as many as an answer names.
    pub(super) problems: Vec<String>,
}

/// One series of a request.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) key: LabelKey,
    /// Where its samples are in [`Request::samples`].
    samples: Range<u32>,
    source: Source<'a>,
}

/// Where the labels are.
#[derive(Debug)]
enum Source<'a> {
    /// Still encoded.
    V1(v1::TimeSeries<'a>),
    /// Decoded, since the key of the cache needs them.
    V2(Vec<(&'a str, &'a str)>),
}

/// Why nothing of a request can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    /// It makes no sense.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It may be sent again.
    #[error(transparent)]
    Full(#[from] Full),
    /// It may not.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl From<MeterError> for ReadError {
    fn from(error: MeterError) -> Self {
        match error {
            MeterError::Full(full) => Self::Full(full),
            MeterError::TooLarge(error) => Self::TooLarge(error),
        }
    }
}

/// Labels that name no series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LabelError {
    #[error("invalid metric name or labels, got {0:?}: no metric name")]
    NoName(Vec<(String, String)>),
    #[error("invalid labels: label name {0:?} is empty or given twice")]
    BadName(String),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl<'a> Request<'a> {
    fn new(version: Version, buffers: &mut Buffers) -> Self {
        Self {
            version,
            series: buffers.take_series(),
            samples: std::mem::take(&mut buffers.samples),
            metadata: Vec::new(),
            exemplars: Vec::new(),
            invalid: 0,
            problems: Vec::new(),
        }
    }

    /// Reads a message of 1.0, taking room in `held` for what it becomes.
    pub(super) fn read_v1(
        message: &'a [u8],
        cache: &RefCache,
        buffers: &mut Buffers,
        held: &mut Held,
    ) -> Result<Self, ReadError> {
        let mut meter = Meter::new(held);
        let mut request = Self::new(Version::V1, buffers);
        for item in v1::decode(message) {
            match item {
                Ok(v1::Item::Series(series)) => {
                    let key = cache.key_of_bytes(&series.label_bytes);
                    // The labels once more, and the list of them.
                    meter.count(size_of::<Incoming<'_>>() + 4 * series.label_bytes.len())?;
                    let all = series.samples().chain(series.histograms());
                    let samples = request.take_samples(all, &mut meter)?;
                    request.take_exemplars(series.exemplars(), &mut meter)?;
                    let source = Source::V1(series);
                    request.series.push(Incoming { key, samples, source });
                }
                Ok(v1::Item::Metadata(metadata)) => {
                    request.take_metadata(metadata.to_model(), &mut meter)?;
                }
                Err(error) if error.is_local() => request.skip(&error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(request)
    }

    /// Reads a message of 2.0, taking room in `held` for what it becomes.
    pub(super) fn read_v2(
        message: &'a [u8],
        cache: &RefCache,
        buffers: &mut Buffers,
        held: &mut Held,
    ) -> Result<Self, ReadError> {
        let mut meter = Meter::new(held);
        let mut request = Self::new(Version::V2, buffers);
        let decoded = v2::decode(message)?;
        meter.count(decoded.symbols() * size_of::<&str>())?;
        let mut families: HashSet<&str> = HashSet::new();
        for series in decoded.series() {
            let series = series?;
            let mut labels = Vec::new();
            if let Err(error) = series.labels_into(&mut labels) {
                request.skip(&error);
                continue;
            }
            let bytes = text_bytes(&labels);
            if bytes > LABEL_BYTES_MAX {
                request.skip(&format!("labels of {bytes} bytes, more than {LABEL_BYTES_MAX}"));
                continue;
            }
            // In the request, and in the batch where the store does not know them.
            meter.count(size_of::<Incoming<'_>>() + size_of_val(&*labels) + bytes)?;
            let key = cache.key_of_labels(&labels);
            let all = series.samples().chain(series.histograms());
            let samples = request.take_samples(all, &mut meter)?;
            let exemplars = request.take_exemplars(series.exemplars(), &mut meter)?;
            if samples.is_empty() && exemplars == 0 {
                request.skip(&format!(
                    "TimeSeries must contain at least one sample or histogram for series {labels:?}"
                ));
                continue;
            }
            // Each series repeats what its family is.
            if let Some((_, family)) = labels.iter().find(|(name, _)| *name == METRIC_NAME)
                && families.insert(family)
            {
                match series.metadata() {
                    Ok(metadata) if metadata == Metadata::default() => {
                        families.remove(family);
                    }
                    Ok(metadata) => {
                        request.take_metadata(((*family).to_owned(), metadata), &mut meter)?;
                    }
                    Err(error) => request.skip(&error),
                }
            }
            let source = Source::V2(labels);
            request.series.push(Incoming { key, samples, source });
        }
        Ok(request)
    }

    /// Notes that an element is left out.
    fn skip(&mut self, problem: &dyn std::fmt::Display) {
        self.invalid += 1;
        if self.problems.len() < super::NAMED_MAX {
            self.problems.push(problem.to_string());
        }
    }

    fn take_metadata(
        &mut self,
        metadata: (String, Metadata),
        meter: &mut Meter<'_>,
    ) -> Result<(), ReadError> {
        let (family, about) = &metadata;
        let text = family.len() + about.help.len() + about.unit.len();
        meter.count(2 * (size_of::<(String, Metadata)>() + text))?;
        self.metadata.push(metadata);
        Ok(())
    }

    /// Adds the samples of one series in order of time.
    fn take_samples(
        &mut self,
        samples: impl Iterator<Item = Result<Sample, DecodeError>>,
        meter: &mut Meter<'_>,
    ) -> Result<Range<u32>, ReadError> {
        let start = self.samples.len();
        for sample in samples {
            let sample = sample?;
            meter.sample(&sample)?;
            self.samples.push(sample);
        }
        if let Some(own) = self.samples.get_mut(start..)
            && !own.is_sorted_by_key(|sample| sample.at)
        {
            own.sort_by_key(|sample| sample.at);
        }
        // A message has room for fewer.
        Ok(start as u32..self.samples.len() as u32)
    }

    /// Adds the exemplars of the series that comes next, in order of time; returns how many.
    fn take_exemplars(
        &mut self,
        exemplars: impl Iterator<Item = Result<Exemplar, DecodeError>>,
        meter: &mut Meter<'_>,
    ) -> Result<usize, ReadError> {
        let mut own = Vec::new();
        for exemplar in exemplars {
            match exemplar {
                Ok(exemplar) => {
                    let labels = exemplar.labels.iter();
                    let text: usize = labels.map(|(name, value)| name.len() + value.len()).sum();
                    meter.count(2 * (size_of::<Exemplar>() + text))?;
                    own.push(exemplar);
                }
                Err(error) if error.is_local() => self.skip(&error),
                Err(error) => return Err(error.into()),
            }
        }
        own.sort_by_key(|exemplar| exemplar.at);
        let (at, count) = (self.series.len(), own.len());
        self.exemplars.extend(own.into_iter().map(|exemplar| (at, exemplar)));
        Ok(count)
    }
}

impl Request<'_> {
    /// The samples of one of the series.
    pub(super) fn samples_of(&self, series: &Incoming<'_>) -> &[Sample] {
        let Range { start, end } = series.samples;
        self.samples.get(start as usize..end as usize).unwrap_or_default()
    }
}

impl Incoming<'_> {
    /// The labels, checked.
    pub(super) fn labels(&self) -> Result<Labels, LabelError> {
        match &self.source {
            Source::V1(series) => {
                let mut pairs = Vec::new();
                series.labels_into(&mut pairs)?;
                check_labels(&pairs)
            }
            Source::V2(pairs) => check_labels(pairs),
        }
    }
}

fn check_labels(pairs: &[(&str, &str)]) -> Result<Labels, LabelError> {
    if !pairs.iter().any(|(name, value)| *name == METRIC_NAME && !value.is_empty()) {
        let own = |text: &str| text.to_owned();
        let given = pairs.iter().map(|(name, value)| (own(name), own(value))).collect();
        return Err(LabelError::NoName(given));
    }
    if let Some(labels) = Labels::from_sorted(pairs.iter().copied())
        && !pairs.iter().any(|(name, _)| name.is_empty())
    {
        return Ok(labels);
    }
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let twice = names.windows(2).find_map(|pair| match pair {
        [first, second] if first == second => Some(*first),
        _ => None,
    });
    let empty = names.first().copied().filter(|name| name.is_empty());
    match twice.or(empty) {
        Some(name) => Err(LabelError::BadName(name.to_owned())),
        None => Ok(Labels::from_pairs(pairs.iter().copied())),
    }
}
