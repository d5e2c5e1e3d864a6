use super::*;
use proptest::prelude::*;

const HOUR: i64 = Span::HOUR.0;

/// A block of `start..end` hours.
fn block(id: u64, start: i64, end: i64) -> BlockMeta {
    let range = TimeRange::new(Timestamp(start * HOUR), Timestamp(end * HOUR));
    BlockMeta { series: 100, ..BlockMeta::new(BlockId(id), range) }
}

fn candidates(metas: &[BlockMeta]) -> Vec<Candidate<'_>> {
    metas.iter().map(|meta| Candidate { meta, deleted_series: 0 }).collect()
}

/// Ids, range in hours and reason of what is planned for blocks of these hours, numbered from 1.
fn check(hours: &[(i64, i64)], expected: Option<(&[u64], (i64, i64), Reason)>) {
    let metas: Vec<BlockMeta> =
        (1..).zip(hours).map(|(id, (start, end))| block(id, *start, *end)).collect();
    let options = CompactOptions::for_retention(Span(7 * Span::DAY.0));
    let plan = plan(&candidates(&metas), &options);
    let found = plan.map(|plan| {
        let ids: Vec<u64> = plan.blocks.iter().map(|id| id.0).collect();
        (ids, (plan.range.start.0 / HOUR, plan.range.end.0 / HOUR), plan.reason)
    });
    let expected = expected.map(|(ids, range, reason)| (ids.to_vec(), range, reason));
    assert_eq!(found, expected, "{hours:?}");
}

#[test]
fn nothing_to_do() {
    check(&[], None);
    check(&[(0, 2)], None);
    check(&[(0, 2), (2, 4)], None);
    check(&[(0, 6), (6, 8), (8, 10)], None);
    check(&[(0, 24), (24, 48), (48, 72)], None);
}

#[test]
fn a_full_window_is_merged() {
    check(&[(0, 2), (2, 4), (4, 6)], Some((&[1, 2, 3], (0, 6), Reason::Range)));
    check(&[(0, 6), (6, 12), (12, 18), (18, 24)], Some((&[1, 2, 3, 4], (0, 24), Reason::Range)));
    check(&[(-6, -4), (-4, -2), (-2, 0)], Some((&[1, 2, 3], (-6, 0), Reason::Range)));
}

#[test]
fn a_window_with_holes_is_merged_once_newer_blocks_exist() {
    check(&[(0, 2), (4, 6), (6, 8)], Some((&[1, 2], (0, 6), Reason::Range)));
    check(&[(0, 2), (2, 4), (6, 8)], Some((&[1, 2], (0, 4), Reason::Range)));
    check(&[(2, 4), (30, 32)], None);
    check(&[(0, 6), (8, 10), (24, 26)], Some((&[1, 2], (0, 10), Reason::Range)));
}

#[test]
fn shorter_ranges_come_first_and_blocks_across_windows_stay() {
    check(
        &[(0, 6), (6, 12), (12, 18), (18, 20), (20, 22), (22, 24)],
        Some((&[4, 5, 6], (18, 24), Reason::Range)),
    );
    check(&[(0, 2), (4, 8), (8, 10), (12, 14)], None);
}

#[test]
fn overlapping_blocks_come_first() {
    check(&[(0, 2), (2, 4), (4, 6), (4, 6)], Some((&[3, 4], (4, 6), Reason::Overlap)));
    check(&[(0, 24), (2, 4), (3, 30), (30, 32)], Some((&[1, 2, 3], (0, 30), Reason::Overlap)));
}

#[test]
fn blocks_grow_to_a_part_of_the_retention() {
    let max = |retention| CompactOptions::for_retention(retention).range_max;
    assert_eq!(max(Span(7 * Span::DAY.0)), Span::DAY);
    assert_eq!(max(Span::HOUR), Span(2 * HOUR));
    assert_eq!(max(Span(i64::MAX)), Span(31 * Span::DAY.0));
    let metas = [block(1, 0, 2), block(2, 2, 4), block(3, 4, 6)];
    let options = CompactOptions::for_retention(Span::DAY);
    assert_eq!(plan(&candidates(&metas), &options), None);
}

#[test]
fn a_block_with_much_deleted_is_rewritten() {
    let metas = [block(1, 0, 2), block(2, 2, 4)];
    let mut candidates = candidates(&metas);
    let options = CompactOptions::for_retention(Span(7 * Span::DAY.0));
    candidates[1].deleted_series = 5;
    assert_eq!(plan(&candidates, &options), None);
    assert_eq!(plan_clean(&candidates).unwrap().blocks, [BlockId(2)]);
    candidates[1].deleted_series = 6;
    let plan = plan(&candidates, &options).unwrap();
    assert_eq!(
        (plan.blocks.as_slice(), plan.level, plan.reason),
        ([BlockId(2)].as_slice(), 1, Reason::Deleted)
    );
}

#[test]
fn the_new_block_names_its_parents() {
    let metas = [block(1, 0, 2), block(2, 1, 3)];
    let options = CompactOptions::for_retention(Span::DAY);
    let meta = plan(&candidates(&metas), &options).unwrap().meta(BlockId(9));
    assert_eq!((meta.level, meta.parents), (2, vec![BlockId(1), BlockId(2)]));
}

proptest! {
    #[test]
    fn merging_comes_to_an_end(hours in proptest::collection::vec((-50_i64..50, 1_i64..8), 0..20)) {
        let mut metas: Vec<BlockMeta> = (1..)
            .zip(hours)
            .map(|(id, (start, length))| block(id, start, start + length))
            .collect();
        let options = CompactOptions::for_retention(Span(7 * Span::DAY.0));
        for _ in 0..40 {
            let Some(plan) = plan(&candidates(&metas), &options) else { break };
            let inside = |meta: &BlockMeta| {
                plan.range.start <= meta.range.start && meta.range.end <= plan.range.end
            };
            prop_assert!(metas.iter().filter(|m| plan.blocks.contains(&m.id)).all(inside));
            prop_assert!(plan.blocks.len() > 1);
            let id = BlockId::unused(&metas);
            metas.retain(|meta| !plan.blocks.contains(&meta.id));
            metas.push(plan.meta(id));
        }
        prop_assert_eq!(plan(&candidates(&metas), &options), None);
        let sorted = in_order(&candidates(&metas));
        for pair in sorted.windows(2) {
            prop_assert!(!pair[0].meta.range.overlaps(pair[1].meta.range));
        }
    }
}
