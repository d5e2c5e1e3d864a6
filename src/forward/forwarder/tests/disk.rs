//! Nobody who looks at the budget waits for the disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::super::report::report;
use super::*;
use crate::budget::feedback::Said;
use crate::budget::figures::Figures;
use crate::budget::group::Key;
use crate::budget::report::Overview;

/// Counts calls to the disk, and those during which somebody holds the budget.
fn watch(world: &World) -> (Arc<AtomicU64>, Arc<AtomicU64>) {
    let admission = Arc::clone(&world.running.as_ref().unwrap().handle.admission);
    let (calls, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, found) = (Arc::clone(&calls), Arc::clone(&held));
    world.disk.watch(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        found.fetch_add(u64::from(admission.try_lock().is_none()), Ordering::Relaxed);
    });
    (calls, held)
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_the_budget_while_anything_is_written() {
    let mut world = World::new(budget(100));
    world.mimir.set_limit(60);
    world.start();
    pass(1).await;
    let (calls, held) = watch(&world);
    // A first start with its doubt, growth, a full server, the account's word, minutes, checkpoints.
    for n in 0..160u32 {
        let shift = n as usize / 8;
        world.scrape(&gauges("a", shift..shift + 50), f64::from(n)).await;
        let handle = world.running.as_ref().unwrap().handle.clone();
        if n == 8 {
            handle.recover(&[Key(1), Key(2)], Duration::ZERO);
        }
        if n == 100 {
            handle.hear(Said { enforced: Some(20), ..Said::default() });
        }
    }
    world.stop().await;
    world.disk.unwatch();
    assert!(calls.load(Ordering::Relaxed) > 500, "{calls:?}");
    assert_eq!(held.load(Ordering::Relaxed), 0, "of {calls:?}");
    let dir = directory(&world.config.name);
    for name in ["ledger", "ledger.evicted", "ledger.month", "trail", "cursor"] {
        let size = stint_storage::Disk::size(&world.disk, &dir.join(name));
        assert!(size.unwrap() > 0, "{name} was written");
    }
    let doubt = stint_storage::Disk::size(&world.disk, &dir.join("ledger.doubt"));
    assert!(doubt.unwrap_err().is_not_found(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn report_and_metrics_answer_while_the_disk_does_not() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    let (there, mut at_disk) = tokio::sync::mpsc::unbounded_channel();
    let (let_go, waits) = std::sync::mpsc::channel::<()>();
    let (waits, is_stuck) = (Mutex::new(waits), AtomicBool::new(true));
    world.disk.watch(move |_| {
        if is_stuck.swap(false, Ordering::SeqCst) {
            there.send(()).unwrap();
            waits.lock().recv().unwrap();
        }
    });
    let at = world.clock.now();
    let samples: Vec<_> =
        gauges("a", 0..10).into_iter().map(|labels| (labels, Sample::float(at, 1.0))).collect();
    world.log.lock().append(&samples);
    at_disk.recv().await.unwrap();
    // The leases are being written, and it takes its time.
    let handle = world.running.as_ref().unwrap().handle.clone();
    assert!(handle.admission.try_lock().is_some());
    let now = world.clock.monotonic();
    let told = report(std::slice::from_ref(&handle), &Overview::default(), now, at);
    assert_eq!(told.endpoints[0].live, 10, "they count already");
    let figures = handle.with_budget(|budget| Figures::of(budget, now, Span::MINUTE));
    assert!(figures.live == 10 && !figures.series.unwrap().ledger_failed);
    assert!(world.mimir.stored().is_empty(), "and nothing is sent under them");
    let_go.send(()).unwrap();
    pass(5).await;
    assert_eq!(world.mimir.stored().len(), 10);
    world.account();
}
