//! The writer thread: applies commands, commits one transaction per batch, publishes, then replies.
//!
//! A thread and not a task, because a commit waits for the disk, and slow flash takes its time. The
//! order is the promise: nobody gets a reply, and nobody sees a state, before it is on disk.

mod closed_streams;
mod device_writes;
mod handle;
mod journal;
mod places;

pub use handle::{Handle, Reply};

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::store::{Loaded, POLICIES_NAME, Store};
use crate::system_clock;
use closed_streams::ClosedStreams;
use device_writes::{Charged, DeviceWrites};
use hearth_core::clock::{Now, Timestamp};
use hearth_core::id::NodeId;
use hearth_core::state::apply;
use hearth_core::state::apply::Flush;
use hearth_core::state::command::{Command, Outcome, Rejected};
use hearth_core::state::event::{AuditEntry, Event, PAGE_MAX};
use hearth_core::state::model::{Model, PolicyText, SessionId, Settings};
use hearth_core::state::principal::Principal;
use hearth_core::state::record::Record;
use hearth_core::state::snapshot::Snapshot;
use hearth_core::state::tx::{Changes, Tx};
use journal::{Applicant, Journal};
use places::{Place, Places};

/// Stack of the writer thread, in bytes.
const STACK_BYTES: usize = 512 * 1024;
/// How long after a failed write the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Room in the channel beside the places for commands: for a request to stop, questions whether the thread works, and
/// notices that streams ended.
const NOTICES: usize = 16;
/// Most events that wait for the next write, because what they are about needs none of its own; older ones are only logged.
const UNWRITTEN_MAX: usize = 32;

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The state's rules reject it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Too many commands wait; try again shortly.
    #[error("hearth is busy; try again in a moment")]
    Busy,
    /// The database cannot be written.
    #[error("hearth cannot write to its database (disk full or broken?); see its log")]
    Unavailable,
    /// hearth is shutting down.
    #[error("hearth is shutting down")]
    Stopped,
}

/// What a command gives once it is on disk: its outcome, and the first state that has it.
type Settled = Result<(Outcome, Arc<Snapshot>), EngineError>;

enum Message {
    /// A command, who makes it, who waits for its reply, and its place in the queue.
    Apply(Command, Principal, oneshot::Sender<Settled>, Option<Place>),
    /// Some map streams ended; which ones is in [`ClosedStreams`].
    Closed,
    Question(oneshot::Sender<()>),
    Audit(AuditQuery),
    Stop,
}

/// A page of the audit log that somebody waits for.
struct AuditQuery {
    before: Option<u64>,
    max: usize,
    sender: oneshot::Sender<Result<Vec<AuditEntry>, EngineError>>,
    /// Its place in the queue.
    place: Option<Place>,
}

impl Message {
    /// The same out of the queue.
    fn taken(mut self) -> Self {
        if let Self::Apply(_, _, _, place) | Self::Audit(AuditQuery { place, .. }) = &mut self {
            *place = None;
        }
        self
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
    /// At most `queue` commands wait, fewer of a single device; more are refused as busy. At most `batch` share a
    /// transaction.
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
        let max_nodes = model.settings.max_nodes;
        let (commands, inbox) = sync_channel(queue.saturating_add(NOTICES));
        let closed = Arc::<ClosedStreams>::default();
        let writer = Writer {
            model,
            store,
            publish,
            batch,
            blocked_until: None,
            journal: Journal::new(max_nodes),
            closed: closed.clone(),
            device_writes: DeviceWrites::new(max_nodes),
            unwritten: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .stack_size(STACK_BYTES)
            .spawn(move || writer.run(&inbox))?;
        let handle = Handle {
            commands: commands.clone(),
            places: Places::new(queue),
            closed,
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
            tracing::error!("the writer thread panicked");
        }
    }
}

/// Stands for a policy that cannot be read, since without a policy everyone may reach everyone. It is no policy
/// either.
const LOST_POLICY: &str = "This version is damaged, or of a newer hearth.";

/// The model of what the database holds.
fn model_of(loaded: Loaded, settings: Settings, now: Now) -> Model {
    let mut model = Model::new(settings, now);
    model.boot = system_clock::boot();
    model.counters = loaded.counters;
    model.cursors = Arc::new(loaded.cursors);
    model.shut_out = Arc::new(loaded.shut_out);
    model.users = Arc::new(loaded.users);
    model.set_nodes(loaded.nodes);
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
    apply::restore(&mut model, now);
    model
}

struct Writer {
    model: Model,
    store: Store,
    publish: watch::Sender<Arc<Snapshot>>,
    /// Most commands in one transaction: bounds how long the first of them waits.
    batch: usize,
    /// While the database fails: when it is tried again, on the monotonic clock.
    blocked_until: Option<Duration>,
    journal: Journal,
    closed: Arc<ClosedStreams>,
    device_writes: DeviceWrites,
    /// Events of the audit log that go out with the next write.
    unwritten: Vec<Event>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Message>) {
        let mut stopping = false;
        while !stopping {
            let now = system_clock::now();
            let due = self.next_deadline(now);
            let wait = due.saturating_sub(now.mono);
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
            let closed = self.closed.take();
            let now = system_clock::now();
            // What time brings is written before: should that fail, commands that need no disk do not fail with it.
            let was_set = apply::was_set(&self.model, now) && !self.is_blocked(now);
            if was_set || due <= now.mono {
                self.handle(Vec::new(), &[], now, false);
            }
            if stopping || !batch.is_empty() || !closed.is_empty() {
                self.handle(batch, &closed, now, stopping);
            }
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

    fn handle(
        &mut self,
        batch: Vec<Message>,
        closed: &[(NodeId, SessionId)],
        now: Now,
        stopping: bool,
    ) {
        let is_by_time = batch.is_empty() && closed.is_empty();
        let blocked = self.is_blocked(now);
        let mut work = self.model.clone();
        let mut tx = Tx::begin(&mut work, now);
        let mut outcomes = Vec::with_capacity(batch.len());
        let (mut questions, mut queries) = (Vec::new(), Vec::new());
        for (node, session) in closed.iter().copied() {
            let command = Command::CloseStream { node, session };
            // Rejected only when the node is gone, and then there is nothing to close.
            let _ = apply::apply(&mut tx, command, &Principal::System);
        }
        for message in batch {
            match message {
                // The client went away before its stream was opened, and the end of it was noted before.
                Message::Apply(Command::OpenStream { .. }, _, sender, _) if sender.is_closed() => {}
                Message::Apply(command, by, sender, _) => {
                    let device = Applicant::of(&command);
                    let outcome = match Charged::for_command(&command, &by, &tx) {
                        Some(charged) => {
                            // What will be refused for another reason is not charged.
                            let may_write = || blocked || self.device_writes.take(charged, now);
                            apply::apply_counted(&mut tx, command, &by, may_write)
                        }
                        None => apply::apply(&mut tx, command, &by),
                    };
                    if let (Some(device), Err(rejected)) = (&device, &outcome) {
                        self.journal.refused(device, rejected, now);
                    }
                    outcomes.push((sender, outcome));
                }
                Message::Question(sender) => questions.push(sender),
                Message::Audit(query) => queries.push(query),
                Message::Closed | Message::Stop => {}
            }
        }
        let flush = match (blocked, stopping) {
            (true, _) => Flush::Never,
            (false, true) => Flush::Now,
            (false, false) if is_by_time || tx.written() > 0 => Flush::WhenDue,
            (false, false) => Flush::Never,
        };
        apply::tick(&mut tx, flush);
        let mut changes = tx.finish();
        let journal = &mut self.journal;
        changes.events.retain(|event| journal.keeps(event, now));
        let committed = self.commit(&changes, &work, now);
        if committed {
            self.adopt(work);
            changes.events.iter().for_each(journal::log);
            if changes.records.is_empty() {
                self.keep_unwritten(changes.events);
            }
        } else {
            // Streams end and keys expire without a disk. Now that it is blocked, nothing is written.
            self.handle(Vec::new(), closed, now, stopping);
        }
        self.reply(outcomes, committed);
        for sender in questions {
            let _ = sender.send(());
        }
        for query in queries {
            self.read_audit(query);
        }
    }

    fn keep_unwritten(&mut self, mut events: Vec<Event>) {
        events.retain(Event::is_audited);
        self.unwritten.append(&mut events);
        let surplus = self.unwritten.len().saturating_sub(UNWRITTEN_MAX);
        self.unwritten.drain(..surplus);
    }

    fn read_audit(&mut self, query: AuditQuery) {
        let now = system_clock::now();
        // Whoever asks decides that it is worth a write.
        if !self.unwritten.is_empty() && !self.is_blocked(now) {
            let model = self.model.clone();
            self.write(&[], &[], &model, now);
        }
        let entries = self.store.audit(query.before, query.max.min(PAGE_MAX));
        let entries = entries.map_err(|fault| {
            tracing::error!(%fault, "cannot read the audit log");
            EngineError::Unavailable
        });
        let _ = query.sender.send(entries);
    }

    /// Replies to those who sent the commands of a batch.
    fn reply(&self, outcomes: Vec<(oneshot::Sender<Settled>, apply::Applied)>, committed: bool) {
        let snapshot = self.publish.borrow().clone();
        for (sender, outcome) in outcomes {
            let settled = match outcome {
                Ok(outcome) if committed => Ok((outcome, snapshot.clone())),
                Ok(_) => Err(EngineError::Unavailable),
                Err(rejected) => Err(rejected.into()),
            };
            // The one who asked may have gone away; the command stands.
            let _ = sender.send(settled);
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
    fn commit(&mut self, changes: &Changes, work: &Model, now: Now) -> bool {
        if changes.records.is_empty() {
            return true;
        }
        !self.is_blocked(now) && self.write(&changes.records, &changes.events, work, now)
    }

    fn write(&mut self, records: &[Record], events: &[Event], model: &Model, now: Now) -> bool {
        let events = [&self.unwritten, events].concat();
        match self.store.commit(records, &events, model) {
            Ok(()) => {
                self.unwritten.clear();
                if self.blocked_until.take().is_some() {
                    tracing::info!("the database can be written again");
                }
                true
            }
            Err(fault) => {
                tracing::error!(%fault, "cannot write to the database; changes are refused until it works again");
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
