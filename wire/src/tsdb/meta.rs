//! What a block holds, and which blocks it replaces.

use std::collections::BTreeSet;

use serde::Deserialize;
use stint_model::{TimeRange, Timestamp};

/// What `meta.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    /// The name of the block, which is that of its folder.
    pub ulid: String,
    min_time: i64,
    max_time: i64,
    /// How much it holds.
    #[serde(default)]
    pub stats: BlockStats,
    #[serde(default)]
    compaction: Compaction,
    version: u32,
}

/// How much a block holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples.
    pub num_samples: u64,
    /// Series.
    pub num_series: u64,
    /// Chunks.
    pub num_chunks: u64,
    /// Series and ranges that were deleted.
    pub num_tombstones: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Compaction {
    deletable: bool,
    parents: Vec<Parent>,
    hints: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Parent {
    ulid: String,
}

/// Why a `meta.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// It is no JSON of this shape.
    #[error("not the meta.json of a block: {0}")]
    Json(#[from] serde_json::Error),
    /// A later version of Prometheus wrote it.
    #[error("version {0} of a block; 1 is known")]
    Version(u32),
}

impl BlockMeta {
    /// Reads a `meta.json`.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn parse(json: &[u8]) -> Result<Self, MetaError> {
        let meta: Self = serde_json::from_slice(json)?;
        if meta.version == 1 { Ok(meta) } else { Err(MetaError::Version(meta.version)) }
    }

    /// All its samples lie inside.
    pub fn range(&self) -> TimeRange {
        TimeRange::new(Timestamp(self.min_time), Timestamp(self.max_time))
    }

    /// Whether its samples came after later ones, so that those before its end may still lie in the
    /// log.
    pub fn is_late(&self) -> bool {
        self.compaction.hints.iter().any(|hint| hint == "from-out-of-order")
    }
}

/// The blocks of `all` that count: not those that another one replaces, nor those that are empty.
pub fn living(all: Vec<BlockMeta>) -> Vec<BlockMeta> {
    let replaced: BTreeSet<String> = all
        .iter()
        .flat_map(|meta| &meta.compaction.parents)
        .map(|parent| parent.ulid.clone())
        .collect();
    let counts = |meta: &BlockMeta| !replaced.contains(&meta.ulid) && !meta.compaction.deletable;
    let mut living: Vec<BlockMeta> = all.into_iter().filter(counts).collect();
    living
        .sort_by(|a, b| (a.min_time, a.max_time, &a.ulid).cmp(&(b.min_time, b.max_time, &b.ulid)));
    living
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(ulid: &str, more: &str) -> BlockMeta {
        let json = format!(
            r#"{{"ulid":"{ulid}","minTime":5,"maxTime":10,"stats":{{"numSamples":7}},
               "compaction":{{"level":1,"sources":["{ulid}"]{more}}},"version":1}}"#
        );
        BlockMeta::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_missing_is_nothing() {
        let meta = meta("A", "");
        assert_eq!(meta.range(), TimeRange::new(Timestamp(5), Timestamp(10)));
        assert_eq!((meta.stats.num_samples, meta.stats.num_series), (7, 0));
        assert!(!meta.is_late());
        let other = BlockMeta::parse(br#"{"ulid":"A","minTime":1,"maxTime":2,"version":2}"#);
        assert_eq!(other.unwrap_err().to_string(), "version 2 of a block; 1 is known");
        assert!(BlockMeta::parse(b"{}").is_err());
    }

    #[test]
    fn replaced_and_empty_blocks_do_not_count() {
        let all = vec![
            meta("A", ""),
            meta("B", ""),
            meta("C", r#","parents":[{"ulid":"A","minTime":1,"maxTime":2}]"#),
            meta("D", r#","deletable":true"#),
            meta("E", r#","hints":["from-out-of-order"]"#),
        ];
        let living = living(all);
        let names: Vec<&str> = living.iter().map(|meta| &*meta.ulid).collect();
        assert_eq!(names, ["B", "C", "E"]);
        assert!(living[2].is_late());
    }
}
