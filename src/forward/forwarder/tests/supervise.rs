//! Forwarders that break down or cannot start.

use super::*;
use crate::forward::supervise::Supervisor;

/// A world whose forwarder is supervised.
struct Supervised {
    world: World,
    status: Arc<Mutex<Status>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn supervise(world: World) -> Supervised {
    let status: Arc<Mutex<Status>> = Arc::default();
    let (stop, stopped) = watch::channel(false);
    let supervisor = Supervisor {
        name: "cloud".into(),
        status: Arc::clone(&status),
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
        seed: 3,
    };
    let again = World {
        clock: Arc::clone(&world.clock),
        log: Arc::clone(&world.log),
        mimir: Arc::clone(&world.mimir),
        disk: world.disk.clone(),
        config: world.config.clone(),
        running: None,
        poll: world.poll,
        past: Vec::new(),
    };
    let first = world.begin(&status);
    let shared = Arc::clone(&status);
    let start = move || std::future::ready(again.begin(&shared));
    let task = tokio::spawn(supervisor.run(first, start, stopped));
    Supervised { world, status, stop, task }
}

#[tokio::test(start_paused = true)]
async fn a_forwarder_that_breaks_down_starts_again_and_loses_nothing() {
    let it = supervise(World::new(Budget::default()));
    pass(1).await;
    it.world.log.lock().breaks_at = Some(30);
    for n in 0..60 {
        it.world.scrape(&gauges("a", 0..20), f64::from(n)).await;
    }
    pass(60).await;
    let stored = it.world.mimir.stored();
    assert!(stored.len() == 20 && stored.values().all(|samples| samples.len() == 60));
    let status = it.status.lock().clone();
    assert!(status.running);
    assert_eq!(status.restarts, 1);
    let error = status.last_error.unwrap().message;
    assert!(error.contains("the log cannot be understood"), "{error}");
    let counters = status.counters;
    assert_eq!((counters.read, counters.sent, counters.pending), (1200, 1200, 0));
    it.stop.send(true).unwrap();
    it.task.await.unwrap();
    assert!(!it.status.lock().running);
}

#[tokio::test(start_paused = true)]
async fn a_forwarder_that_cannot_start_is_tried_again_ever_more_rarely() {
    let world = World::new(Budget::default());
    world.log.lock().is_closed = true;
    let it = supervise(world);
    pass(3600).await;
    let status = it.status.lock().clone();
    assert!(!status.running && (15..40).contains(&status.restarts), "{}", status.restarts);
    assert!(status.last_error.unwrap().message.contains("closed"));
    it.world.log.lock().is_closed = false;
    pass(400).await;
    assert!(it.status.lock().running);
    it.world.scrape(&gauges("a", 0..3), 1.0).await;
    assert_eq!(it.world.mimir.stored().len(), 3);
    it.stop.send(true).unwrap();
    it.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_the_next_start() {
    let world = World::new(Budget::default());
    world.log.lock().is_closed = true;
    let it = supervise(world);
    pass(3600).await;
    it.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_millis(100), it.task).await.unwrap().unwrap();
}
