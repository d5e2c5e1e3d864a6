//! Threads of their own for scraping: a scrape is many small steps, and going from one to the next
//! without changing the thread costs less than most of the steps themselves. What others do, and what
//! the disk keeps waiting here, does not get into each other's way either.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// More would only share what one can do.
const THREADS_MAX: usize = 4;

/// Threads with a runtime each. They end with this.
pub(super) struct Threads(Vec<Thread>);

struct Thread {
    runtime: Handle,
    /// Tasks that run there.
    tasks: Arc<AtomicUsize>,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

/// Counts a task as long as it is there.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Threads {
    /// As many threads as there are cores, up to some.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(super) fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (0..cores.min(THREADS_MAX)).map(Thread::start).collect::<Result<_, _>>().map(Self)
    }

    /// Runs a task on the thread that has the fewest.
    pub(super) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let idlest = self.0.iter().min_by_key(|thread| thread.tasks.load(Ordering::Relaxed));
        let Some(thread) = idlest else { return tokio::spawn(task) };
        thread.tasks.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&thread.tasks));
        thread.runtime.spawn(async move {
            let _counted = counted;
            task.await
        })
    }
}

impl Thread {
    fn start(number: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name(format!("scrape-{number}")).spawn(move || {
            // Either way nobody is left who could start a task.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, tasks: Arc::default(), _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_are_shared_out_and_counted() {
        let threads = Threads((0..2).map(|n| Thread::start(n).unwrap()).collect());
        let counts = || threads.0.iter().map(|it| it.tasks.load(Ordering::Relaxed)).sum::<usize>();
        let (go_on, wait) = tokio::sync::watch::channel(false);
        let task = || {
            let mut wait = wait.clone();
            threads.spawn(async move {
                wait.wait_for(|go_on| *go_on).await.unwrap();
                std::thread::current().name().unwrap().to_owned()
            })
        };
        let tasks = [task(), task(), task(), task()];
        assert_eq!(counts(), 4);
        go_on.send_replace(true);
        let mut names = Vec::new();
        for task in tasks {
            names.push(task.await.unwrap());
        }
        names.sort();
        assert_eq!(names, ["scrape-0", "scrape-0", "scrape-1", "scrape-1"]);
        assert_eq!(counts(), 0);
        // A task that panics is not counted any more either.
        assert!(threads.spawn(async { panic!("on purpose") }).await.is_err());
        assert_eq!(counts(), 0);
    }
}
