//! The disk thread: owns the database, so that a disk that hangs holds up only what has to be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{AuditQuery, Copied, CopyRequest, EngineError};
use crate::store::{Store, StoreError};
use hearth_core::disk::Cause;
use hearth_core::state::event::{Event, PAGE_MAX};
use hearth_core::state::model::Model;
use hearth_core::state::record::Record;

/// Stack of the disk thread, in bytes. Only what is touched takes memory.
const STACK_BYTES: usize = 256 * 1024;
/// Most pages of the audit log, and copies, that somebody waits for.
const QUERIES_MAX: usize = 8;
/// Jobs beside [`QUERIES_MAX`]: a commit that was given up, and a try to write again.
const JOBS: usize = 2;

/// What is written in one transaction.
pub(super) struct Batch {
    records: Vec<Record>,
    events: Vec<Event>,
    /// The state as it is after the batch.
    model: Model,
    /// Whether it was begun, or given up before: who sets it first decides.
    is_decided: AtomicBool,
}

impl Batch {
    pub(super) fn new(records: Vec<Record>, events: Vec<Event>, model: Model) -> Self {
        Self {
            records,
            events,
            model,
            is_decided: AtomicBool::new(false),
        }
    }

    /// Decides whether it is written. Returns false if that was decided before.
    fn decide(&self) -> bool {
        !self.is_decided.swap(true, Ordering::AcqRel)
    }
}

enum Job {
    Commit(Arc<Batch>),
    /// Tries whether the database can be written again. It then has this state.
    Retry {
        model: Box<Model>,
        /// Whether a commit went unanswered before, so that the file may have what was refused.
        is_doubtful: bool,
        /// Whether to write also to a disk that has no more room than when it was full.
        is_forced: bool,
    },
    Audit(AuditQuery),
    /// Copies this state to a file.
    Copy(CopyRequest, Copied, Box<Model>),
}

impl Job {
    /// Tells the one who waits for it that hearth is busy.
    fn refuse(self) {
        match self {
            Self::Audit(query) => drop(query.sender.send(Err(EngineError::Busy))),
            Self::Copy(request, ..) => drop(request.sender.send(Err(EngineError::Busy))),
            Self::Commit(_) | Self::Retry { .. } => {}
        }
    }
}

enum Answer {
    Commit(Result<(), StoreError>),
    Retry(Result<(), StoreError>),
}

/// Why a batch is not on disk.
pub(super) enum CommitError {
    /// The database reports it.
    Failed(StoreError),
    /// The disk does not respond, and the batch was not begun.
    NotBegun,
    /// The disk does not respond: the batch may be on disk or not.
    Unanswered,
}

/// The running disk thread.
pub(super) struct DiskThread {
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    queries: Arc<AtomicUsize>,
    /// `None` in a simulation, where there are no threads.
    thread: Option<JoinHandle<()>>,
    /// Then the sender of a job does it, at once.
    #[cfg(test)]
    inline: Option<std::sync::Mutex<Inline>>,
}

/// The disk without a thread of its own.
#[cfg(test)]
struct Inline {
    store: Store,
    jobs: Receiver<Job>,
    answers: SyncSender<Answer>,
    queries: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
}

impl DiskThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(store: Store) -> std::io::Result<Self> {
        let ((jobs, inbox), (outbox, answers)) = channels();
        let queries = Arc::<AtomicUsize>::default();
        let waiting = queries.clone();
        let thread = std::thread::Builder::new()
            .name("disk".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                run(store, &inbox, &outbox, &waiting);
                // Kept until the database is closed: its end is how `close` notices that.
                drop(outbox);
            })?;
        Ok(Self {
            jobs,
            answers,
            queries,
            thread: Some(thread),
            #[cfg(test)]
            inline: None,
        })
    }

    /// One whose jobs are done at once, except while `hangs` is set.
    #[cfg(test)]
    pub(super) fn inline(store: Store, hangs: Arc<AtomicBool>) -> Self {
        let ((jobs, inbox), (outbox, answers)) = channels();
        let queries = Arc::<AtomicUsize>::default();
        let inline = Inline {
            store,
            jobs: inbox,
            answers: outbox,
            queries: queries.clone(),
            hangs,
        };
        Self {
            jobs,
            answers,
            queries,
            thread: None,
            inline: Some(inline.into()),
        }
    }

    /// Does the jobs that wait, if no thread does.
    #[cfg(test)]
    fn work_inline(&self) {
        let Some(inline) = &self.inline else {
            return;
        };
        let Inline {
            store,
            jobs,
            answers,
            queries,
            hangs,
        } = &mut *inline.lock().expect("no panic while locked");
        while !hangs.load(Ordering::Acquire)
            && let Ok(job) = jobs.try_recv()
        {
            work(store, job, answers, queries);
        }
    }

    /// Queues a job, or returns it if there is no place. Does not wait.
    fn send(&self, job: Job) -> Option<Job> {
        let refused = match self.jobs.try_send(job) {
            Ok(()) => None,
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some(job),
        };
        #[cfg(test)]
        self.work_inline();
        refused
    }

    /// Writes a batch, and waits for it no longer than `patience`. Not while the answer to a [`Self::retry`] is due.
    ///
    /// # Errors
    /// [`CommitError`].
    pub(super) fn commit(&self, batch: Batch, patience: Duration) -> Result<(), CommitError> {
        let batch = Arc::new(batch);
        if self.send(Job::Commit(batch.clone())).is_some() {
            return Err(CommitError::NotBegun);
        }
        match self.answers.recv_timeout(patience) {
            Ok(Answer::Commit(result) | Answer::Retry(result)) => {
                result.map_err(CommitError::Failed)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(match batch.decide() {
                    true => CommitError::NotBegun,
                    false => CommitError::Unanswered,
                })
            }
        }
    }

    /// Has the thread try to write, once it is done with what it does. `is_doubtful` says that a commit went
    /// unanswered: the file is then replaced by one that has exactly `model`. Without `is_forced` nothing is written to a
    /// disk that has no more room than when it was full.
    pub(super) fn retry(&self, model: Model, is_doubtful: bool, is_forced: bool) {
        let job = Job::Retry {
            model: Box::new(model),
            is_doubtful,
            is_forced,
        };
        // There is always room: QUERIES_MAX bounds the queries, and there is at most one commit that was given up.
        let _ = self.send(job);
    }

    /// The result of the try that [`Self::retry`] began, once it is there. Does not wait. Late answers of commits that were
    /// given up are skipped, whatever they are: the try comes after them.
    pub(super) fn retried(&self) -> Option<Result<(), StoreError>> {
        #[cfg(test)]
        self.work_inline();
        let mut answers = self.answers.try_iter();
        answers.find_map(|answer| match answer {
            Answer::Retry(result) => Some(result),
            Answer::Commit(_) => None,
        })
    }

    /// Has a page of the audit log read and sent to the one who asks. Does not wait.
    pub(super) fn read_audit(&self, query: AuditQuery) {
        self.ask(Job::Audit(query));
    }

    /// Has this state, whose content is `copied`, written to a file. Does not wait.
    pub(super) fn copy(&self, request: CopyRequest, copied: Copied, model: Model) {
        self.ask(Job::Copy(request, copied, Box::new(model)));
    }

    /// Sends a job that somebody waits for, who gets the error "busy" if there is no place for it.
    fn ask(&self, job: Job) {
        if self.queries.load(Ordering::Acquire) >= QUERIES_MAX {
            return job.refuse();
        }
        self.queries.fetch_add(1, Ordering::AcqRel);
        if let Some(job) = self.send(job) {
            self.queries.fetch_sub(1, Ordering::AcqRel);
            job.refuse();
        }
    }

    /// Waits until the database is closed and the thread has ended, no longer than `patience`: a thread that hangs is left
    /// behind.
    pub(super) fn close(self, patience: Duration) {
        let Self {
            jobs,
            answers,
            thread,
            ..
        } = self;
        drop(jobs);
        let Some(thread) = thread else { return };
        // At most as many as there are jobs.
        loop {
            match answers.recv_timeout(patience) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::error!("the disk does not respond; the database is not closed");
                    return;
                }
            }
        }
        if thread.join().is_err() {
            tracing::error!("the disk thread panicked");
        }
    }
}

type Channel<T> = (SyncSender<T>, Receiver<T>);

/// Those of jobs, and of answers: there is room for the late answer of a commit and that of the try after it.
fn channels() -> (Channel<Job>, Channel<Answer>) {
    let jobs = QUERIES_MAX.saturating_add(JOBS);
    (sync_channel(jobs), sync_channel(JOBS))
}

fn run(
    mut store: Store,
    jobs: &Receiver<Job>,
    answers: &SyncSender<Answer>,
    queries: &AtomicUsize,
) {
    // A failed send means that the engine has ended, which closes the channel of jobs as well.
    for job in jobs {
        work(&mut store, job, answers, queries);
    }
}

fn work(store: &mut Store, job: Job, answers: &SyncSender<Answer>, queries: &AtomicUsize) {
    match job {
        Job::Commit(batch) => {
            if batch.decide() {
                let result = store.commit(&batch.records, &batch.events, &batch.model);
                let _ = answers.send(Answer::Commit(result));
            }
        }
        Job::Retry {
            model,
            is_doubtful,
            is_forced,
        } => {
            if is_doubtful {
                store.distrust();
            }
            let result = match is_forced || store.has_room() {
                true => store.commit(&[], &[], &model),
                false => Err(StoreError::still_full()),
            };
            let _ = answers.send(Answer::Retry(result));
        }
        Job::Audit(query) => {
            queries.fetch_sub(1, Ordering::AcqRel);
            read(store, query);
        }
        Job::Copy(request, copied, model) => {
            queries.fetch_sub(1, Ordering::AcqRel);
            let result = store.copy_to(&request.path, &model);
            let result = result.map_err(|fault| EngineError::NoCopy(fault.to_string().into()));
            let _ = request.sender.send(result.map(|()| Some(copied)));
        }
    }
}

fn read(store: &mut Store, query: AuditQuery) {
    // The one who asked may have given up meanwhile.
    if query.sender.is_closed() {
        return;
    }
    let entries = store.audit(query.before, query.max.min(PAGE_MAX));
    let entries = entries.map_err(|fault| {
        tracing::error!(%fault, "cannot read the audit log");
        EngineError::Unreadable(cause_of(&fault))
    });
    let _ = query.sender.send(entries);
}

/// Why the database fails.
pub(super) fn cause_of(fault: &StoreError) -> Cause {
    fault.system_error().map_or(Cause::Other, Cause::of)
}
