//! The writer thread: applies commands, commits one transaction per batch, then publishes.
//!
//! A thread and not a task, because a commit waits for the disk, and slow flash takes its time. The
//! order is the promise: nobody is answered, and nobody sees a state, before it is on disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::store::{Loaded, POLICIES_NAME, Store};
use crate::system_clock;
use hearth_core::clock::{Now, Timestamp};
use hearth_core::id::NodeId;
use hearth_core::state::apply;
use hearth_core::state::apply::Flush;
use hearth_core::state::command::{Command, Rejected, Reply};
use hearth_core::state::model::{Model, PolicyText, SessionId, Settings};
use hearth_core::state::record::Record;
use hearth_core::state::snapshot::Snapshot;

/// Stack of the writer thread, in bytes.
const STACK_BYTES: usize = 512 * 1024;
/// How long after a failed write the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The state's rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Too many commands wait; try again shortly.
    #[error("hearth is busy; try again in a moment")]
    Busy,
    /// The database takes no changes.
    #[error("hearth cannot write to its database (disk full or broken?); see its log")]
    Unavailable,
    /// hearth is shutting down.
    #[error("hearth is shutting down")]
    Stopped,
}

type Answer = Result<Reply, EngineError>;

enum Message {
    /// A command, who waits for its answer, and its place in the queue.
    Apply(
        Command,
        oneshot::Sender<Answer>,
        Option<OwnedSemaphorePermit>,
    ),
    Closed(NodeId, SessionId),
    Question(oneshot::Sender<()>),
    Stop,
}

impl Message {
    /// The same out of the queue.
    fn taken(mut self) -> Self {
        if let Self::Apply(_, _, place) = &mut self {
            *place = None;
        }
        self
    }
}

/// Where commands are sent and states are seen. Clones are cheap.
#[derive(Clone)]
pub struct Handle {
    commands: SyncSender<Message>,
    /// Commands that may still wait. The channel has room for the ends of streams beside them.
    places: Arc<Semaphore>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    /// Has a command applied, and waits until it is on disk and published.
    ///
    /// Cancel safe in the sense that the command happens or not as a whole; a caller that goes away
    /// does not learn which.
    ///
    /// # Errors
    /// When it is refused, cannot be written, or too many wait.
    pub async fn apply(&self, command: Command) -> Answer {
        let (sender, answer) = oneshot::channel();
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| EngineError::Busy)?;
        self.send(Message::Apply(command, sender, Some(place)))?;
        answer.await.unwrap_or(Err(EngineError::Stopped))
    }

    /// Tells that a map stream ended. Does not wait, so that a stream can say so when it is dropped.
    ///
    /// There is room for one such notice of each node, however many commands wait. Should it be lost even so, the
    /// node counts as online until it comes back or hearth restarts.
    pub fn stream_closed(&self, node: NodeId, session: SessionId) {
        if let Err(fault) = self.send(Message::Closed(node, session)) {
            tracing::warn!(%node, %fault, "the end of a map stream went unnoticed");
        }
    }

    /// Whether the writer thread does its work: waits until it has dealt with all that was sent before.
    /// Cancel safe.
    ///
    /// It says nothing about the database: what cannot be written is refused, and that is an answer too.
    ///
    /// # Errors
    /// When too many commands wait, or the thread has ended.
    pub async fn answers(&self) -> Result<(), EngineError> {
        let (sender, answer) = oneshot::channel();
        self.send(Message::Question(sender))?;
        answer.await.map_err(|_| EngineError::Stopped)
    }

    /// The newest published state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A receiver that is woken by each new state; it may skip some.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    fn send(&self, message: Message) -> Result<(), EngineError> {
        self.commands
            .try_send(message)
            .map_err(|fault| match fault {
                TrySendError::Full(_) => EngineError::Busy,
                TrySendError::Disconnected(_) => EngineError::Stopped,
            })
    }
}

/// The running writer thread.
pub struct Engine {
    commands: SyncSender<Message>,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts the writer thread with what the database holds.
    ///
    /// At most `queue` commands wait, and the ends of as many streams as there may be nodes; more commands are refused as busy. At most `batch` share a transaction.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        store: Store,
        loaded: Loaded,
        settings: Settings,
        queue: usize,
        batch: usize,
    ) -> std::io::Result<(Self, Handle)> {
        let now = system_clock::now();
        let model = model_of(loaded, settings, now);
        let (publish, snapshots) = watch::channel(Arc::new(Snapshot::of(&model, true)));
        let (commands, inbox) = sync_channel(queue.saturating_add(model.settings.max_nodes));
        let writer = Writer {
            model,
            store,
            publish,
            batch,
            blocked_until: None,
        };
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .stack_size(STACK_BYTES)
            .spawn(move || writer.run(&inbox))?;
        let handle = Handle {
            commands: commands.clone(),
            places: Arc::new(Semaphore::new(queue)),
            snapshots,
        };
        Ok((Self { commands, thread }, handle))
    }

    /// Applies what waits, writes everything soft, and ends the thread. Blocks until that is done.
    pub fn stop(self) {
        let Self { commands, thread } = self;
        // A full queue drains while this waits for its turn; a broken one means that it ended before.
        let _ = commands.send(Message::Stop);
        if thread.join().is_err() {
            tracing::error!("the writer thread ended by a panic");
        }
    }
}

/// Stands for a policy that cannot be read: without one, everyone would reach everyone. It cannot be read
/// either.
const LOST_POLICY: &str = "This version is damaged, or of a newer hearth.";

/// The model of what the database holds.
fn model_of(loaded: Loaded, settings: Settings, now: Now) -> Model {
    let mut model = Model::new(settings, now);
    model.counters = loaded.counters;
    model.users = Arc::new(loaded.users);
    model.by_key = Arc::new(
        loaded
            .nodes
            .iter()
            .map(|node| (node.key, node.id))
            .collect(),
    );
    model.nodes = Arc::new(loaded.nodes);
    model.attributes = Arc::new(loaded.attributes);
    model.preauth_keys = Arc::new(loaded.preauth_keys);
    model.api_keys = Arc::new(loaded.api_keys);
    model.dns_records = Arc::new(loaded.dns_records);
    let mut policies = loaded.policies;
    let lost = loaded
        .skipped
        .iter()
        .filter(|lost| lost.table == POLICIES_NAME);
    policies.extend(lost.filter_map(|lost| {
        Some(Arc::new(PolicyText {
            id: lost.key.parse().ok()?,
            source: LOST_POLICY.into(),
            created: Timestamp::from_unix_ms(0),
        }))
    }));
    policies.sort_by_key(|version| version.id);
    model.policies = Arc::new(policies);
    let pending = loaded
        .pending
        .into_iter()
        .map(|login| (login.id.clone(), login));
    model.pending = Arc::new(pending.collect());
    apply::settle_after_load(&mut model, now);
    model
}

fn close_stream(model: &mut Model, node: NodeId, session: SessionId, now: Now) {
    let command = Command::CloseStream { node, session };
    // Refused only when the node is gone, and then there is nothing to close. It writes no record.
    let _ = apply::apply(model, &mut Vec::new(), command, now);
}

struct Writer {
    model: Model,
    store: Store,
    publish: watch::Sender<Arc<Snapshot>>,
    /// Most commands in one transaction: bounds how long the first of them waits.
    batch: usize,
    /// While the database fails: when it is tried again, on the monotonic clock.
    blocked_until: Option<Duration>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Message>) {
        let mut stopping = false;
        while !stopping {
            let now = system_clock::now();
            let wait = self.next_deadline(now).saturating_sub(now.mono);
            let mut batch = Vec::new();
            match inbox.recv_timeout(wait) {
                Ok(message) => batch.push(message.taken()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => stopping = true,
            }
            // While the database fails, one at a time: what needs no disk still goes through.
            let most = if self.blocked_until.is_some() {
                1
            } else {
                self.batch
            };
            let more = inbox.try_iter().take(most.saturating_sub(batch.len()));
            batch.extend(more.map(Message::taken));
            stopping |= batch.iter().any(|message| matches!(message, Message::Stop));
            self.handle(batch, system_clock::now(), stopping);
        }
    }

    fn is_blocked(&self, now: Now) -> bool {
        self.blocked_until.is_some_and(|until| now.mono < until)
    }

    /// When there is something to do without a command, on the monotonic clock.
    fn next_deadline(&self, now: Now) -> Duration {
        let due = apply::next_deadline(&self.model, now);
        // What is due and cannot be written stays due; it must not keep the thread busy.
        self.blocked_until.map_or(due, |until| due.max(until))
    }

    fn handle(&mut self, batch: Vec<Message>, now: Now, stopping: bool) {
        let mut work = self.model.clone();
        work.revision = work.revision.next();
        work.changed = false;
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        let (mut closed, mut questions) = (Vec::new(), Vec::new());
        for message in batch {
            match message {
                Message::Apply(command, sender, _) => {
                    let answer = apply::apply(&mut work, &mut records, command, now);
                    answers.push((sender, answer.map_err(EngineError::from)));
                }
                Message::Closed(node, session) => {
                    closed.push((node, session));
                    close_stream(&mut work, node, session, now);
                }
                Message::Question(sender) => questions.push(sender),
                Message::Stop => {}
            }
        }
        let blocked = self.is_blocked(now);
        let flush = match (blocked, stopping) {
            (true, _) => Flush::Never,
            (false, true) => Flush::Now,
            (false, false) => Flush::WhenDue,
        };
        apply::tick(&mut work, &mut records, now, flush);
        if self.commit(&records, now) {
            self.adopt(work);
        } else {
            for (node, session) in closed {
                close_stream(&mut self.model, node, session, now);
            }
            for (_, answer) in &mut answers {
                if answer.is_ok() {
                    *answer = Err(EngineError::Unavailable);
                }
            }
        }
        for (sender, answer) in answers {
            // The one who asked may have gone away; the command stands.
            let _ = sender.send(answer);
        }
        for sender in questions {
            let _ = sender.send(());
        }
    }

    /// Publishes the new state, if anything in it is new, and goes on from it.
    fn adopt(&mut self, mut work: Model) {
        if !work.changed {
            work.revision = self.model.revision;
        }
        let changed = work.changed;
        self.model = work;
        let writable = self.blocked_until.is_none();
        if changed || self.publish.borrow().is_writable() != writable {
            self.publish
                .send_replace(Arc::new(Snapshot::of(&self.model, writable)));
        }
    }

    /// Whether all records are on disk. Without records there is nothing to fail.
    fn commit(&mut self, records: &[Record], now: Now) -> bool {
        if records.is_empty() {
            return true;
        }
        if self.is_blocked(now) {
            return false;
        }
        match self.store.commit(records) {
            Ok(()) => {
                if self.blocked_until.take().is_some() {
                    tracing::info!("the database takes changes again");
                }
                true
            }
            Err(fault) => {
                tracing::error!(%fault, "changes are refused until the database can be written");
                self.blocked_until = Some(now.mono.saturating_add(RETRY_AFTER));
                self.publish
                    .send_replace(Arc::new(Snapshot::of(&self.model, false)));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
