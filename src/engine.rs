//! The writer thread: applies commands, commits one transaction per batch, publishes, then replies.
//!
//! A thread and not a task, because a commit waits for the disk, and slow flash takes its time. The
//! order is the promise: nobody gets a reply, and nobody sees a state, before it is on disk.
//!
//! The database belongs to a second thread (`disk_thread`), for which the writer waits no longer than
//! `COMMIT_PATIENCE`. While nothing can be written, changes are refused, and what needs no disk goes on: map streams, what
//! clients report, presence, expiry.

mod access;
mod closed_streams;
mod device_writes;
mod disk_thread;
mod handle;
mod journal;
mod places;
#[cfg(test)]
mod simulated;

pub use handle::{Handle, Reply};
#[cfg(test)]
pub(crate) use simulated::{Simulated, Stop};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::store::{Loaded, POLICIES_NAME, Store, StoreError};
use crate::system_clock;
use access::{Access, FullDisk};
use closed_streams::ClosedStreams;
use device_writes::{Charged, DeviceWrites};
use disk_thread::{Batch, CommitError, DiskThread, cause_of};
use hearth_core::clock::{Now, Timestamp};
use hearth_core::disk::{Cause, DiskFault};
use hearth_core::id::NodeId;
use hearth_core::state::apply;
use hearth_core::state::apply::Flush;
use hearth_core::state::command::{Command, Outcome, Rejected};
use hearth_core::state::content::{Content, Digest};
use hearth_core::state::event::{AuditEntry, Event};
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
/// How long a commit may take until its changes are refused and the disk counts as one that does not respond: more than the
/// longest pauses of sound SD cards and flash, also while others write, and less than the health check waits for the engine
/// (10 s).
const COMMIT_PATIENCE: Duration = Duration::from_secs(8);
/// How long the last commit, and closing the database, may take at shutdown. Service managers wait for 15 s and more.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a try may take until the disk counts as one that does not respond, whatever was wrong with it before: it may have
/// to write the whole database again, and a machine that is busy takes its time.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// Interval at which the writer looks whether a disk that does not respond has answered.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
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
    /// The database cannot be written. Nothing was changed.
    #[error("nothing was changed: {0}. {advice}", advice = .0.cause.advice())]
    Unavailable(Arc<DiskFault>),
    /// The database cannot be written, or does not respond, and the change may be in it nevertheless.
    #[error("the change is not confirmed and may take effect after a restart: {0}. {advice}", advice = .0.cause.advice())]
    InDoubt(Arc<DiskFault>),
    /// The audit log cannot be read.
    #[error("cannot read the audit log: {}. {}", .0.text(), .0.advice())]
    Unreadable(Cause),
    /// The database cannot be copied; why.
    #[error("cannot copy the database: {0}")]
    NoCopy(Box<str>),
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
    Copy(CopyRequest),
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

/// A copy of the database that somebody waits for.
struct CopyRequest {
    path: PathBuf,
    unless: Option<Digest>,
    sender: oneshot::Sender<Result<Option<Copied>, EngineError>>,
    /// Its place in the queue.
    place: Option<Place>,
}

/// What a copy of the database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Its content, to be compared with later ones.
    pub digest: Digest,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of users.
    pub users: usize,
}

impl Message {
    /// The same out of the queue.
    fn taken(mut self) -> Self {
        if let Self::Apply(_, _, _, place)
        | Self::Audit(AuditQuery { place, .. })
        | Self::Copy(CopyRequest { place, .. }) = &mut self
        {
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
        let patience = Patience {
            commit: COMMIT_PATIENCE,
            close: CLOSE_PATIENCE,
            retry: RETRY_AFTER,
        };
        Self::start_with(store, loaded, settings, (queue, batch), patience)
    }

    fn start_with(
        store: Store,
        loaded: Loaded,
        settings: Settings,
        bounds: (usize, usize),
        patience: Patience,
    ) -> std::io::Result<(Self, Handle)> {
        let disk = DiskThread::start(store)?;
        let (writer, inbox, handle) = Writer::new(disk, loaded, settings, bounds, patience);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .stack_size(STACK_BYTES)
            .spawn(move || writer.run(&inbox))?;
        let commands = handle.commands.clone();
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

/// How long the writer waits for the disk thread.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For a commit.
    commit: Duration,
    /// For the last commit, and for the end of the thread.
    close: Duration,
    /// Until it tries again after a failed write.
    retry: Duration,
}

/// A command of a batch, applied.
struct Applied {
    sender: oneshot::Sender<Settled>,
    outcome: apply::Applied,
    /// Whether it has anything to write.
    writes: bool,
    /// The command once more, where others share the batch: should that not be written, it is applied by itself.
    again: Option<(Command, Principal)>,
    device: Option<Applicant>,
}

struct Writer {
    model: Model,
    disk: DiskThread,
    publish: watch::Sender<Arc<Snapshot>>,
    /// Most commands in one transaction: bounds how long the first of them waits.
    batch: usize,
    patience: Patience,
    access: Access,
    /// Set while the disk is full.
    full: Option<FullDisk>,
    journal: Journal,
    closed: Arc<ClosedStreams>,
    device_writes: DeviceWrites,
    /// Events of the audit log that go out with the next write.
    unwritten: Vec<Event>,
}

impl Writer {
    /// A writer that has what the database holds, its inbox, and where commands are sent.
    fn new(
        disk: DiskThread,
        mut loaded: Loaded,
        settings: Settings,
        (queue, batch): (usize, usize),
        patience: Patience,
    ) -> (Self, Receiver<Message>, Handle) {
        let now = system_clock::now();
        let access = match loaded.unwritable.take() {
            Some(fault) => Access::Refused {
                fault: Access::Writable.fault_now(cause_of(&fault), &fault.to_string(), now),
                again: now.mono.saturating_add(patience.retry),
            },
            None => Access::Writable,
        };
        let model = model_of(loaded, settings, now);
        let snapshot = Snapshot::of(&model, access.fault().cloned());
        let (publish, snapshots) = watch::channel(Arc::new(snapshot));
        let max_nodes = model.settings.max_nodes;
        let (commands, inbox) = sync_channel(queue.saturating_add(NOTICES));
        let closed = Arc::<ClosedStreams>::default();
        let writer = Writer {
            model,
            disk,
            publish,
            batch,
            patience,
            full: (access.fault())
                .filter(|fault| fault.cause == Cause::Full)
                .map(|_| FullDisk::new(patience.retry, now.mono)),
            access,
            journal: Journal::new(max_nodes),
            closed: closed.clone(),
            device_writes: DeviceWrites::new(max_nodes),
            unwritten: Vec::new(),
        };
        let handle = Handle {
            commands,
            places: Places::new(queue),
            closed,
            snapshots,
            #[cfg(test)]
            wake: Arc::default(),
        };
        (writer, inbox, handle)
    }

    fn run(mut self, inbox: &Receiver<Message>) {
        let mut stopping = false;
        while !stopping {
            let (due, wait) = self.wait();
            let first = inbox.recv_timeout(wait);
            stopping = self.turn(due, first, inbox);
        }
        self.disk.close(self.patience.close);
    }

    /// Looks at the disk. Returns when there is something to do without a command, and how long to wait for one.
    fn wait(&mut self) -> (Duration, Duration) {
        let now = system_clock::now();
        self.look_at_disk(now);
        let due = self.next_deadline(now);
        (due, self.wakes_at(due, now).saturating_sub(now.mono))
    }

    /// Deals with a message and what else waits, and with what is due. Returns whether to stop.
    fn turn(
        &mut self,
        due: Duration,
        first: Result<Message, RecvTimeoutError>,
        inbox: &Receiver<Message>,
    ) -> bool {
        let mut batch = Vec::new();
        let mut stopping = false;
        match first {
            Ok(message) => batch.push(message.taken()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => stopping = true,
        }
        // While the database fails, one at a time: what needs no disk still goes through.
        let most = if self.is_blocked() { 1 } else { self.batch };
        let more = inbox.try_iter().take(most.saturating_sub(batch.len()));
        batch.extend(more.map(Message::taken));
        stopping |= batch.iter().any(|message| matches!(message, Message::Stop));
        let closed = self.closed.take();
        let now = system_clock::now();
        // What time brings is written before: should that fail, commands that need no disk do not fail with it.
        let was_set = apply::was_set(&self.model, now) && !self.is_blocked();
        if was_set || due <= now.mono {
            self.handle(Vec::new(), &[], now, false);
        }
        if stopping || !batch.is_empty() || !closed.is_empty() {
            self.handle(batch, &closed, now, stopping);
        }
        stopping
    }

    /// Whether changes are refused because the database cannot be written.
    fn is_blocked(&self) -> bool {
        self.access != Access::Writable
    }

    /// When there is something to do without a command, on the monotonic clock. What is due and cannot be written must not
    /// keep the thread busy.
    fn next_deadline(&self, now: Now) -> Duration {
        let how = match self.is_blocked() {
            true => Flush::Never,
            false => Flush::WhenDue,
        };
        apply::next_deadline(&self.model, now, how)
    }

    /// When the thread has to look again, also at the disk, if something is due at `due`.
    fn wakes_at(&self, due: Duration, now: Now) -> Duration {
        match self.access {
            Access::Writable => due,
            Access::Refused { again, .. } => due.min(again),
            Access::Trying { .. } => due.min(now.mono.saturating_add(LOOK_AGAIN)),
        }
    }

    fn handle(
        &mut self,
        batch: Vec<Message>,
        closed: &[(NodeId, SessionId)],
        now: Now,
        stopping: bool,
    ) {
        let is_by_time = batch.is_empty() && closed.is_empty();
        let blocked = self.is_blocked();
        let is_shared = batch.len() > 1;
        let mut work = self.model.clone();
        let mut tx = Tx::begin(&mut work, now);
        let mut applied = Vec::with_capacity(batch.len());
        let (mut questions, mut queries, mut copies) = (Vec::new(), Vec::new(), Vec::new());
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
                    let again = is_shared.then(|| (command.clone(), by.clone()));
                    let device = Applicant::of(&command);
                    let written = tx.written();
                    let outcome = match Charged::for_command(&command, &by, &tx) {
                        Some(charged) => {
                            // What will be refused for another reason is not charged.
                            let may_write = || blocked || self.device_writes.take(charged, now);
                            apply::apply_counted(&mut tx, command, &by, may_write)
                        }
                        None => apply::apply(&mut tx, command, &by),
                    };
                    applied.push(Applied {
                        sender,
                        outcome,
                        writes: tx.written() > written,
                        again,
                        device,
                    });
                }
                Message::Question(sender) => questions.push(sender),
                Message::Audit(query) => queries.push(query),
                Message::Copy(request) => copies.push(request),
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
        let Changes {
            records,
            mut events,
            handovers,
        } = tx.finish();
        let journal = &mut self.journal;
        events.retain(|event| journal.keeps(event, now));
        let is_soft = records.is_empty();
        let patience = match stopping {
            true => self.patience.close,
            false => self.patience.commit,
        };
        match self.commit(records, &events, &work, patience) {
            Ok(()) => {
                self.adopt(work);
                events.iter().for_each(journal::log);
                self.journal.handed_over(&handovers, now);
                if is_soft {
                    self.keep_unwritten(events);
                }
                self.reply(applied, now);
            }
            Err(fault) => {
                // Streams end and keys expire without a disk. Now that it is blocked, nothing is written.
                self.handle(Vec::new(), closed, now, stopping);
                self.refuse(applied, &fault, now);
            }
        }
        for sender in questions {
            let _ = sender.send(());
        }
        for query in queries {
            self.read_audit(query);
        }
        for request in copies {
            self.copy(request);
        }
    }

    /// Has the disk thread copy the state as it is now, with what is not written yet.
    fn copy(&self, request: CopyRequest) {
        let digest = Content::of(&self.model).digest();
        if request.unless == Some(digest) {
            let _ = request.sender.send(Ok(None));
            return;
        }
        let copied = Copied {
            digest,
            nodes: self.model.nodes.len(),
            users: self.model.users.len(),
        };
        self.disk.copy(request, copied, self.model.clone());
    }

    fn keep_unwritten(&mut self, mut events: Vec<Event>) {
        events.retain(Event::is_audited);
        self.unwritten.append(&mut events);
        let surplus = self.unwritten.len().saturating_sub(UNWRITTEN_MAX);
        self.unwritten.drain(..surplus);
    }

    /// Hands the query to the disk thread, which answers it.
    fn read_audit(&mut self, query: AuditQuery) {
        // Whoever asks decides that it is worth a write.
        if !self.unwritten.is_empty() && !self.is_blocked() {
            let batch = Batch::new(Vec::new(), self.unwritten.clone(), self.model.clone());
            // Why not is known from now on; what is written already can be read.
            let _ = self.write(batch, self.patience.commit);
        }
        match self.access.fault() {
            Some(fault) if fault.cause == Cause::Silent => {
                let _ = query
                    .sender
                    .send(Err(EngineError::Unreadable(Cause::Silent)));
            }
            _ => self.disk.read_audit(query),
        }
    }

    /// Replies to those who sent the commands of a batch.
    fn reply(&mut self, applied: Vec<Applied>, now: Now) {
        let snapshot = self.publish.borrow().clone();
        for command in applied {
            if let (Some(device), Err(rejected)) = (&command.device, &command.outcome) {
                self.journal.refused(device, rejected, now);
            }
            let settled = match command.outcome {
                Ok(outcome) => Ok((outcome, snapshot.clone())),
                Err(rejected) => Err(rejected.into()),
            };
            // The one who asked may have gone away; the command stands.
            let _ = command.sender.send(settled);
        }
    }

    /// Refuses what cannot be written. The other commands of the batch are applied, each by itself.
    fn refuse(&mut self, applied: Vec<Applied>, fault: &EngineError, now: Now) {
        for command in applied {
            match command.again {
                Some((again, by)) if !command.writes => {
                    let message = Message::Apply(again, by, command.sender, None);
                    self.handle(vec![message], &[], now, false);
                }
                _ => {
                    let _ = command.sender.send(Err(fault.clone()));
                }
            }
        }
    }

    /// Publishes the new state, if anything in it is new, and goes on from it.
    fn adopt(&mut self, mut work: Model) {
        if !work.changed {
            work.revision = self.model.revision;
        }
        let changed = work.changed;
        self.model = work;
        if changed {
            self.publish();
        }
    }

    fn publish(&self) {
        let fault = self.access.fault().cloned();
        self.publish
            .send_replace(Arc::new(Snapshot::of(&self.model, fault)));
    }
}

/// What needs the disk.
impl Writer {
    /// Writes all records, with the events. Without records there is nothing to fail.
    fn commit(
        &mut self,
        records: Vec<Record>,
        events: &[Event],
        work: &Model,
        patience: Duration,
    ) -> Result<(), EngineError> {
        if records.is_empty() {
            return Ok(());
        }
        if let Some(fault) = self.access.fault() {
            return Err(EngineError::Unavailable(fault.clone()));
        }
        let events = [&self.unwritten, events].concat();
        self.write(Batch::new(records, events, work.clone()), patience)
    }

    fn write(&mut self, batch: Batch, patience: Duration) -> Result<(), EngineError> {
        let (fault, is_in_doubt) = match self.disk.commit(batch, patience) {
            Ok(()) => {
                self.unwritten.clear();
                return Ok(());
            }
            Err(CommitError::Failed(fault)) => (
                self.failed(&fault, true),
                matches!(fault, StoreError::InDoubt(_)),
            ),
            Err(CommitError::NotBegun) => (self.silent(false), false),
            // Once the disk answers, the database is replaced by one without the batch.
            Err(CommitError::Unanswered) => (self.silent(true), true),
        };
        Err(match is_in_doubt {
            true => EngineError::InDoubt(fault),
            false => EngineError::Unavailable(fault),
        })
    }

    /// A write failed: it is tried again after a while. `has_written` is false if only the free space was looked at.
    fn failed(&mut self, fault: &StoreError, has_written: bool) -> Arc<DiskFault> {
        let now = system_clock::now();
        let fault = self
            .access
            .fault_now(cause_of(fault), &fault.to_string(), now);
        self.full = match (fault.cause, self.full) {
            (Cause::Full, None) => Some(FullDisk::new(self.patience.retry, now.mono)),
            (Cause::Full, Some(full)) if has_written => Some(full.again(now.mono)),
            (Cause::Full, full) => full,
            (_, _) => None,
        };
        self.set_access(Access::Refused {
            fault: fault.clone(),
            again: now.mono.saturating_add(self.patience.retry),
        });
        fault
    }

    /// A commit went unanswered: once the disk answers, it is tried again.
    fn silent(&mut self, is_doubtful: bool) -> Arc<DiskFault> {
        let now = system_clock::now();
        let waited = self.patience.commit.as_secs();
        let detail = format!("a write was not answered within {waited} s");
        let fault = self.access.fault_now(Cause::Silent, &detail, now);
        self.retry(fault.clone(), is_doubtful, now);
        fault
    }

    fn retry(&mut self, fault: Arc<DiskFault>, is_doubtful: bool, now: Now) {
        let is_forced = self.full.is_none_or(|full| full.is_due(now.mono));
        // Nothing durable changes until it is answered.
        self.disk.retry(self.model.clone(), is_doubtful, is_forced);
        self.set_access(Access::Trying {
            fault,
            since: now.mono,
            is_forced,
        });
    }

    /// Begins and ends tries to write again. Never waits.
    fn look_at_disk(&mut self, now: Now) {
        match &self.access {
            Access::Writable => {}
            Access::Refused { fault, again } => {
                if *again <= now.mono {
                    self.retry(fault.clone(), false, now);
                }
            }
            Access::Trying {
                since, is_forced, ..
            } => {
                let (since, is_forced) = (*since, *is_forced);
                match self.disk.retried() {
                    Some(Ok(())) => {
                        self.full = None;
                        self.set_access(Access::Writable);
                    }
                    Some(Err(fault)) => {
                        self.failed(&fault, is_forced);
                    }
                    None if now.mono.saturating_sub(since) >= SILENT_AFTER => {
                        let detail = format!("no answer within {} s", SILENT_AFTER.as_secs());
                        let fault = self.access.fault_now(Cause::Silent, &detail, now);
                        self.set_access(Access::Trying {
                            fault,
                            since,
                            is_forced,
                        });
                    }
                    None => {}
                }
            }
        }
    }

    /// Logs and publishes what is new about whether changes can be written.
    fn set_access(&mut self, access: Access) {
        let is_news = self.access.fault() != access.fault();
        self.access = access;
        if !is_news {
            return;
        }
        match self.access.fault() {
            Some(fault) => tracing::error!(
                cause = fault.cause.text(),
                fault = &*fault.detail,
                help = fault.cause.advice(),
                "cannot write to the database; changes are refused until it works again"
            ),
            None => tracing::info!("the database can be written again"),
        }
        self.publish();
    }
}

#[cfg(test)]
mod tests;
