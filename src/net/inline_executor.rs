//! InlineExecutor: runs the requests of one HTTP/2 connection in the task of the connection.
//!
//! With a task per request, each message would wake the request and then the connection, and a map stream
//! would hold the memory of a task as long as the connection lives.
//! Bounded by the limit of concurrent streams: a cancelled request ends when it is polled next, which is right
//! after the connection has read the reset.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::Executor;

use super::revocation::Revocation;

/// How often requests and connection can wake each other before the task yields.
const ROUNDS: usize = 16;

type RequestTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Executor of the running requests, which are dropped with it.
pub struct InlineExecutor {
    begun: Arc<Mutex<Vec<RequestTask>>>,
    running: Vec<RunningRequest>,
    polled: PolledRequest,
    task: Arc<ParentTask>,
    /// Set when a request was woken.
    requests: Arc<WakeFlag>,
    /// Set when the connection was woken.
    connection: Arc<WakeFlag>,
}

impl InlineExecutor {
    /// An executor without requests.
    pub fn new() -> Self {
        let task = Arc::new(ParentTask::default());
        Self {
            begun: Arc::default(),
            running: Vec::new(),
            polled: PolledRequest::default(),
            requests: WakeFlag::new(&task),
            connection: WakeFlag::new(&task),
            task,
        }
    }

    /// Handle with which the connection spawns its requests.
    pub fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.begun))
    }

    /// Handle with which a request says how its response is revoked.
    pub fn polled(&self) -> PolledRequest {
        self.polled.clone()
    }

    /// Must be called after the connection was changed other than by polling it.
    pub fn connection_changed(&self) {
        self.connection.woken.store(true, Ordering::SeqCst);
    }

    /// Polls the requests and the connection, until the connection ends.
    ///
    /// Requests are polled first, so that what they send leaves in the same turn. Each side is polled only when it
    /// was woken, because with many connections its state has to be fetched from slow memory.
    pub fn poll<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        context: &mut Context<'_>,
    ) -> Poll<C::Output> {
        self.task.enter(context.waker());
        for _ in 0..ROUNDS {
            let mut begun = lock(&self.begun);
            self.running
                .extend(begun.drain(..).map(RunningRequest::new));
            drop(begun);
            if self.requests.take() {
                let waker = Waker::from(self.requests.clone());
                let mut context = Context::from_waker(&waker);
                let polled = &self.polled;
                self.running
                    .retain_mut(|request| request.goes_on(polled, &mut context));
            }
            if self.connection.take() {
                let waker = Waker::from(self.connection.clone());
                let ended = connection.as_mut().poll(&mut Context::from_waker(&waker));
                if ended.is_ready() {
                    return ended;
                }
            }
            if !lock(&self.begun).is_empty() {
                self.requests.woken.store(true, Ordering::SeqCst);
                continue;
            }
            if !self.is_woken() {
                self.task.is_polled.store(false, Ordering::SeqCst);
                // A recent wake-up may have seen the task as still running.
                if !self.is_woken() {
                    return Poll::Pending;
                }
                self.task.is_polled.store(true, Ordering::SeqCst);
            }
        }
        self.task.is_polled.store(false, Ordering::SeqCst);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_woken(&self) -> bool {
        self.requests.is_woken() || self.connection.is_woken()
    }
}

/// A request of the connection, with what revokes its response.
struct RunningRequest {
    task: RequestTask,
    revocation: Option<Revocation>,
}

impl RunningRequest {
    fn new(task: RequestTask) -> Self {
        Self {
            task,
            revocation: None,
        }
    }

    /// Polls the request. False when it has ended or its response was revoked: a body that did not end by itself in this
    /// poll, since it could not or its peer reads nothing, is dropped, which resets the stream.
    fn goes_on(&mut self, polled: &PolledRequest, context: &mut Context<'_>) -> bool {
        let is_over = self.task.as_mut().poll(context).is_ready();
        // Taken in any case: it must not be left to the next request.
        if let Some(revocation) = lock(&polled.0).take() {
            self.revocation = Some(revocation);
        }
        !is_over && !self.is_revoked(context)
    }

    fn is_revoked(&self, context: &Context<'_>) -> bool {
        let revocation = self.revocation.as_ref();
        revocation.is_some_and(|revocation| revocation.poll(context.waker()))
    }
}

/// The request that is being polled, as it sees itself.
#[derive(Clone, Default)]
pub struct PolledRequest(Arc<Mutex<Option<Revocation>>>);

impl PolledRequest {
    /// Says how the response of this request is revoked. Only for the request itself, while it is polled.
    pub fn is_revoked_by(&self, revocation: Revocation) {
        *lock(&self.0) = Some(revocation);
    }
}

/// The task that polls requests and connection.
#[derive(Default)]
struct ParentTask {
    is_polled: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl ParentTask {
    fn enter(&self, current: &Waker) {
        let mut waker = lock(&self.waker);
        if !waker.as_ref().is_some_and(|known| known.will_wake(current)) {
            *waker = Some(current.clone());
        }
        drop(waker);
        self.is_polled.store(true, Ordering::SeqCst);
    }
}

/// Waker of one side, which also wakes the task unless it is running.
struct WakeFlag {
    woken: AtomicBool,
    task: Arc<ParentTask>,
}

impl WakeFlag {
    fn new(task: &Arc<ParentTask>) -> Arc<Self> {
        Arc::new(Self {
            // Both sides start by being polled.
            woken: AtomicBool::new(true),
            task: Arc::clone(task),
        })
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    fn take(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The order matters: the task checks this flag after it has cleared `is_polled`.
        self.woken.store(true, Ordering::SeqCst);
        if self.task.is_polled.load(Ordering::SeqCst) {
            return;
        }
        if let Some(waker) = &*lock(&self.task.waker) {
            waker.wake_by_ref();
        }
    }
}

/// Spawns the requests of a connection.
///
/// Each request holds a spawner too, so the spawner does not keep the requests alive.
#[derive(Clone)]
pub struct Spawner(Weak<Mutex<Vec<RequestTask>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, request: F) {
        if let Some(begun) = self.0.upgrade() {
            lock(&begun).push(Box::pin(request));
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, poll_fn};
    use std::time::Duration;
    use tokio::sync::{mpsc, oneshot};

    /// Runs a connection that spawns the given requests, until it ends.
    async fn serve(mut given: mpsc::Receiver<RequestTask>) {
        let mut requests = InlineExecutor::new();
        let begin = requests.spawner();
        let connection = async move {
            while let Some(request) = given.recv().await {
                begin.execute(request);
            }
        };
        let mut connection = std::pin::pin!(connection);
        poll_fn(|context| requests.poll(connection.as_mut(), context)).await;
    }

    #[tokio::test]
    async fn requests_run_concurrently_and_end_with_the_connection() {
        let (give, given) = mpsc::channel::<RequestTask>(8);
        let served = tokio::task::JoinSet::from_iter([serve(given)]);
        let (first, second) = (oneshot::channel::<u8>(), oneshot::channel::<u8>());
        let (done, is_done) = oneshot::channel();
        let kept = Arc::new(());
        let held = kept.clone();
        let forever = async move {
            pending::<()>().await;
            drop(held);
        };
        give.send(Box::pin(forever)).await.unwrap();
        let answer = async move {
            let sum = first.1.await.unwrap() + second.1.await.unwrap();
            let _ = done.send(sum);
        };
        give.send(Box::pin(answer)).await.unwrap();
        // The wake-ups come from another thread, like those of the engine.
        std::thread::spawn(move || {
            first.0.send(1).unwrap();
            second.0.send(2).unwrap();
        });
        assert_eq!(is_done.await, Ok(3));
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(give);
        served.join_all().await;
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_wakes_itself_lets_others_run() {
        let (give, given) = mpsc::channel::<RequestTask>(8);
        let mut served = tokio::task::JoinSet::from_iter([serve(given)]);
        let busy = poll_fn(|context: &mut Context<'_>| {
            context.waker().wake_by_ref();
            Poll::Pending
        });
        give.send(Box::pin(busy)).await.unwrap();
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        served.abort_all();
        assert!(served.join_next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn no_wake_up_from_another_thread_is_lost() {
        let (give, given) = mpsc::channel::<RequestTask>(8);
        let served = tokio::task::JoinSet::from_iter([serve(given)]);
        let (ask, asked) = std::sync::mpsc::channel::<oneshot::Sender<()>>();
        let answers = std::thread::spawn(move || {
            for answer in asked {
                let _ = answer.send(());
            }
        });
        let (done, is_done) = oneshot::channel();
        let asking = async move {
            for _ in 0..20_000 {
                let (answer, answered) = oneshot::channel();
                ask.send(answer).unwrap();
                answered.await.unwrap();
            }
            let _ = done.send(());
        };
        give.send(Box::pin(asking)).await.unwrap();
        let is_done = tokio::time::timeout(Duration::from_secs(20), is_done).await;
        assert_eq!(is_done, Ok(Ok(())));
        drop(give);
        served.join_all().await;
        answers.join().unwrap();
    }
}
