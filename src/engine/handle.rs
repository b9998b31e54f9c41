//! The handle of the engine: sends commands, one typed method for each, and shows the published states.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{oneshot, watch};

use super::closed_streams::ClosedStreams;
use super::places::Places;
use super::{AuditQuery, Copied, CopyRequest, EngineError, Message, Settled};
use hearth_core::clock::End;
use hearth_core::disk::Cause;
use hearth_core::id::{ApiKeyId, AuthId, NodeId, PreAuthKeyId, UserId};
use hearth_core::state::attributes::AttributeValue;
use hearth_core::state::command::{
    Command, NewApiKey, NewPolicy, NewPreAuthKey, NewUser, NewWireGuard, NodeUpdate, Outcome,
    PresentedKey, Register, RegisterReply, Rejected,
};
use hearth_core::state::content::Digest;
use hearth_core::state::dns::{DnsRecord, ReservedNames};
use hearth_core::state::event::AuditEntry;
use hearth_core::state::model::{
    ApiKey, KeyLifetime, Node, PolicyText, PreAuthKey, Role, SessionId, User,
};
use hearth_core::state::principal::Principal;
use hearth_core::state::snapshot::Snapshot;

/// How long a page of the audit log may take.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Where commands are sent and states are seen. Clones are cheap.
///
/// The method of a command waits until the command is on disk and published. It is cancel safe in the sense that the
/// command happens or not as a whole; a caller that goes away does not learn which.
///
/// # Errors
/// Of each command: when it is rejected, cannot be written, or too many wait.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: SyncSender<Message>,
    /// Commands that may still wait.
    pub(super) places: Places,
    pub(super) closed: Arc<ClosedStreams>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Wakes a simulated writer.
    #[cfg(test)]
    pub(super) wake: Arc<tokio::sync::Notify>,
}

/// What a command made or changed, as it is in the first state that has it.
#[derive(Debug, Clone)]
pub struct Reply<T> {
    /// What was made or changed.
    pub value: T,
    /// The state.
    pub snapshot: Arc<Snapshot>,
}

type Answer<T> = Result<Reply<T>, EngineError>;

impl Handle {
    /// Says that a map stream ended. Does not wait, so that a stream can say so when it is dropped.
    ///
    /// It is never lost, however many commands wait. Also for a stream whose [`open_stream`](Self::open_stream) was not
    /// awaited to its end: that command is skipped if it has not been applied.
    pub fn stream_closed(&self, node: NodeId, session: SessionId) {
        if self.closed.add(node, session) {
            // Only wakes the thread, which looks for ended streams with each command: a full queue wakes it as well.
            let _ = self.send(Message::Closed);
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

    /// The newest entries of the audit log before number `before`, newest first: at most `max`, and no more than
    /// [`PAGE_MAX`](hearth_core::state::event::PAGE_MAX). Entries that cannot be read are skipped. Cancel safe.
    ///
    /// # Errors
    /// When the database cannot be read within 5 s, or too many wait.
    pub async fn audit(
        &self,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditEntry>, EngineError> {
        let (sender, answer) = oneshot::channel();
        let place = self.places.take_for_question().ok_or(EngineError::Busy)?;
        self.send(Message::Audit(AuditQuery {
            before,
            max,
            sender,
            place: Some(place),
        }))?;
        match tokio::time::timeout(READ_PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or(Err(EngineError::Stopped)),
            Err(_) => Err(EngineError::Unreadable(Cause::Silent)),
        }
    }

    /// Writes a copy of the database to a file, which is replaced if it is there, unless the content is still that of
    /// `unless`: then nothing is written. Commits wait meanwhile, so the file should be where writing is fast and cannot
    /// hang. Cancel safe: the copy is written anyway.
    ///
    /// # Errors
    /// When the file cannot be written, or too many wait.
    pub async fn copy(
        &self,
        path: PathBuf,
        unless: Option<Digest>,
    ) -> Result<Option<Copied>, EngineError> {
        let (sender, answer) = oneshot::channel();
        let place = self.places.take_for_question().ok_or(EngineError::Busy)?;
        self.send(Message::Copy(CopyRequest {
            path,
            unless,
            sender,
            place: Some(place),
        }))?;
        answer.await.unwrap_or(Err(EngineError::Stopped))
    }

    /// The newest published state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A receiver that is woken by each new state; it may skip some.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Has a simulated writer look at the clock.
    #[cfg(test)]
    pub(crate) fn nudge(&self) {
        self.wake.notify_one();
    }

    pub(super) fn send(&self, message: Message) -> Result<(), EngineError> {
        let sent = self.commands.try_send(message);
        #[cfg(test)]
        self.wake.notify_one();
        sent.map_err(|fault| match fault {
            TrySendError::Full(_) => EngineError::Busy,
            TrySendError::Disconnected(_) => EngineError::Stopped,
        })
    }
}

/// How commands of each kind get their reply.
impl Handle {
    async fn apply(&self, by: Principal, command: Command) -> Settled {
        let (sender, answer) = oneshot::channel();
        let place = self.places.take(&by, &command, &self.snapshots.borrow());
        let place = place.ok_or(EngineError::Busy)?;
        self.send(Message::Apply(command, by, sender, Some(place)))?;
        answer.await.unwrap_or(Err(EngineError::Stopped))
    }

    async fn done(&self, by: Principal, command: Command) -> Answer<()> {
        let (_, snapshot) = self.apply(by, command).await?;
        Ok(Reply {
            value: (),
            snapshot,
        })
    }

    async fn node(&self, by: Principal, command: Command) -> Answer<Arc<Node>> {
        let (outcome, snapshot) = self.apply(by, command).await?;
        let node = match outcome {
            Outcome::Node(id) => snapshot.node(id).cloned(),
            _ => None,
        };
        // A command of the same batch may have deleted it.
        let value = node.ok_or(Rejected::NoSuchNode)?;
        Ok(Reply { value, snapshot })
    }

    async fn user(&self, by: Principal, command: Command) -> Answer<Arc<User>> {
        let (outcome, snapshot) = self.apply(by, command).await?;
        let user = match outcome {
            Outcome::User(id) => snapshot.users().get(&id).cloned(),
            _ => None,
        };
        let value = user.ok_or(Rejected::NoSuchUser)?;
        Ok(Reply { value, snapshot })
    }
}

/// Commands of clients.
impl Handle {
    /// A client registers, asks whether its key is still valid, or logs out.
    pub async fn register(&self, request: Register) -> Answer<RegisterReply> {
        let command = Command::Register(Box::new(request));
        let (outcome, snapshot) = self.apply(Principal::Device, command).await?;
        let value = match outcome {
            Outcome::Registered(registration) => {
                registration.settled(&|id| snapshot.node(id).cloned())?
            }
            _ => return Err(Rejected::NoSuchNode.into()),
        };
        Ok(Reply { value, snapshot })
    }

    /// A client reports changes of itself.
    pub fn update_node(
        &self,
        by: Principal,
        update: NodeUpdate,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::UpdateNode(Box::new(update)))
    }

    /// A client opened a map stream, which replaces an older one of the same node. `fallback` is what its request
    /// reported, used only where nothing newer is known.
    pub fn open_stream(
        &self,
        node: NodeId,
        session: SessionId,
        fallback: NodeUpdate,
    ) -> impl Future<Output = Answer<()>> {
        let command = Command::OpenStream {
            node,
            session,
            fallback: Box::new(fallback),
        };
        self.done(Principal::Node { id: node }, command)
    }
}

/// Commands about nodes.
impl Handle {
    /// Renames a node, which no longer follows its hostname.
    pub fn rename_node(
        &self,
        by: Principal,
        id: NodeId,
        label: Box<str>,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::RenameNode(id, label))
    }

    /// Sets when a node's key expires.
    pub fn expire_node(
        &self,
        by: Principal,
        id: NodeId,
        end: End,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::ExpireNode(id, end))
    }

    /// Deletes a node.
    pub fn delete_node(&self, by: Principal, id: NodeId) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::DeleteNode(id))
    }

    /// Sets which routes a node may serve: the full list. An exit route stands for both.
    pub fn approve_routes(
        &self,
        by: Principal,
        id: NodeId,
        routes: Vec<IpNet>,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::ApproveRoutes(id, routes))
    }

    /// Replaces a node's owner or tags with these tags.
    pub fn set_tags(
        &self,
        by: Principal,
        id: NodeId,
        tags: Vec<Box<str>>,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::SetTags(id, tags))
    }

    /// Gives a node to a user, tagged or not.
    pub fn move_node(
        &self,
        by: Principal,
        id: NodeId,
        user: UserId,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::MoveNode(id, user))
    }

    /// Gives a node other addresses; `None` leaves one as it is.
    pub fn set_addresses(
        &self,
        by: Principal,
        id: NodeId,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::SetAddresses(id, ipv4, ipv6))
    }

    /// Approves a node that awaits approval.
    pub fn approve_node(
        &self,
        by: Principal,
        id: NodeId,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::ApproveNode(id))
    }

    /// Revokes a node's approval; it is cut off from all peers.
    pub fn revoke_approval(
        &self,
        by: Principal,
        id: NodeId,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::RevokeApproval(id))
    }

    /// Sets whether a node answers health probes.
    pub fn set_health(
        &self,
        by: Principal,
        id: NodeId,
        healthy: bool,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::SetHealth(id, healthy))
    }

    /// Adds a device without a Tailscale client.
    pub fn add_wireguard(
        &self,
        by: Principal,
        new: NewWireGuard,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::AddWireGuard(Box::new(new)))
    }

    /// Sets attributes of a node; `None` takes one away, and what is not named stays.
    pub fn set_attributes(
        &self,
        by: Principal,
        node: NodeId,
        updates: Vec<(Box<str>, Option<AttributeValue>)>,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::SetAttributes { node, updates })
    }

    /// Sets which names the configuration uses.
    pub async fn reserve_names(&self, names: ReservedNames) -> Answer<()> {
        let command = Command::ReserveNames(Box::new(names));
        self.done(Principal::System, command).await
    }

    /// Gives every node whose address is outside the configured prefixes a new one; the reply has these nodes.
    pub async fn backfill_addresses(&self, by: Principal) -> Answer<Vec<Arc<Node>>> {
        let (outcome, snapshot) = self.apply(by, Command::BackfillAddresses).await?;
        let moved = match outcome {
            Outcome::Nodes(moved) => moved,
            _ => Vec::new(),
        };
        let moved = moved
            .into_iter()
            .filter_map(|id| snapshot.node(id).cloned());
        Ok(Reply {
            value: moved.collect(),
            snapshot,
        })
    }

    /// Approves a pending registration: the device becomes this user's node.
    pub fn approve_registration(
        &self,
        by: Principal,
        id: AuthId,
        user: UserId,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(by, Command::ApproveRegistration(id, user))
    }

    /// Admits a pending registration with a preauth key: the device joins as if it had presented the key itself.
    pub fn redeem_preauth_key(
        &self,
        id: AuthId,
        key: PresentedKey,
    ) -> impl Future<Output = Answer<Arc<Node>>> {
        self.node(Principal::Device, Command::RedeemPreAuthKey(id, key))
    }

    /// Rejects a pending registration.
    pub fn reject_registration(
        &self,
        by: Principal,
        id: AuthId,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::RejectRegistration(id))
    }
}

/// Commands about users, keys, DNS records and the policy.
impl Handle {
    /// Creates a user.
    pub fn create_user(
        &self,
        by: Principal,
        new: NewUser,
    ) -> impl Future<Output = Answer<Arc<User>>> {
        self.user(by, Command::CreateUser(new))
    }

    /// Gives a user another login name.
    pub fn rename_user(
        &self,
        by: Principal,
        id: UserId,
        name: Box<str>,
    ) -> impl Future<Output = Answer<Arc<User>>> {
        self.user(by, Command::RenameUser(id, name))
    }

    /// Deletes a user that owns no nodes, and its preauth keys.
    pub fn delete_user(&self, by: Principal, id: UserId) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::DeleteUser(id))
    }

    /// Sets the role of a user.
    pub fn set_role(
        &self,
        by: Principal,
        id: UserId,
        role: Role,
    ) -> impl Future<Output = Answer<Arc<User>>> {
        self.user(by, Command::SetRole(id, role))
    }

    /// Sets the lifetime of the keys of a user's nodes; `None` is that of the configuration.
    pub fn set_user_expiry(
        &self,
        by: Principal,
        id: UserId,
        lifetime: Option<KeyLifetime>,
    ) -> impl Future<Output = Answer<Arc<User>>> {
        self.user(by, Command::SetUserExpiry(id, lifetime))
    }

    /// Creates a preauth key.
    pub async fn create_preauth_key(
        &self,
        by: Principal,
        new: NewPreAuthKey,
    ) -> Answer<Arc<PreAuthKey>> {
        let (outcome, snapshot) = self.apply(by, Command::CreatePreAuthKey(new)).await?;
        let key = match outcome {
            Outcome::PreAuthKey(id) => snapshot.preauth_keys().get(&id).cloned(),
            _ => None,
        };
        let value = key.ok_or(Rejected::NoSuchKey)?;
        Ok(Reply { value, snapshot })
    }

    /// Expires a preauth key now.
    pub fn expire_preauth_key(
        &self,
        by: Principal,
        id: PreAuthKeyId,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::ExpirePreAuthKey(id))
    }

    /// Deletes a preauth key.
    pub fn delete_preauth_key(
        &self,
        by: Principal,
        id: PreAuthKeyId,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::DeletePreAuthKey(id))
    }

    /// Creates an API key.
    pub async fn create_api_key(&self, by: Principal, new: NewApiKey) -> Answer<Arc<ApiKey>> {
        let (outcome, snapshot) = self.apply(by, Command::CreateApiKey(new)).await?;
        let key = match outcome {
            Outcome::ApiKey(id) => snapshot.api_keys().get(&id).cloned(),
            _ => None,
        };
        let value = key.ok_or(Rejected::NoSuchKey)?;
        Ok(Reply { value, snapshot })
    }

    /// Expires an API key now.
    pub fn expire_api_key(&self, by: Principal, id: ApiKeyId) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::ExpireApiKey(id))
    }

    /// Deletes an API key.
    pub fn delete_api_key(&self, by: Principal, id: ApiKeyId) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::DeleteApiKey(id))
    }

    /// Adds a DNS record.
    pub fn add_dns_record(
        &self,
        by: Principal,
        record: DnsRecord,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::AddDnsRecord(record))
    }

    /// Removes a DNS record.
    pub fn delete_dns_record(
        &self,
        by: Principal,
        record: DnsRecord,
    ) -> impl Future<Output = Answer<()>> {
        self.done(by, Command::DeleteDnsRecord(record))
    }

    /// Sets the policy; the reply has the version that applies.
    pub async fn set_policy(&self, by: Principal, new: NewPolicy) -> Answer<Arc<PolicyText>> {
        let (outcome, snapshot) = self.apply(by, Command::SetPolicy(Box::new(new))).await?;
        let mut versions = snapshot.policies().iter();
        let version = match outcome {
            Outcome::Policy(id) => versions.find(|version| version.id == id).cloned(),
            _ => None,
        };
        let value = version.ok_or(Rejected::NoSuchPolicy)?;
        Ok(Reply { value, snapshot })
    }
}
