//! One-off messages to the open map stream of a node.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use serde::Serialize;

use hearth_core::id::NodeId;
use hearth_core::state::model::SessionId;
use hearth_core::tailcfg::notice::PingRequest;

/// Most messages queued per stream: a stream that reads none is stuck.
const MESSAGES: usize = 4;

/// Longest message, in bytes.
const MESSAGE_BYTES: usize = 128 * 1024;

/// Mailboxes of all open streams; bounded by the limit of streams.
#[derive(Debug, Default)]
pub struct Mailboxes(Mutex<OpenMailboxes>);

/// The newest stream of each node and its mailbox.
type OpenMailboxes = HashMap<NodeId, (SessionId, Arc<Mutex<Mailbox>>)>;

/// Queued messages of one stream, and the waker of the stream. A channel would take a kilobyte per stream.
#[derive(Debug, Default)]
struct Mailbox {
    messages: VecDeque<String>,
    reader: Option<Waker>,
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The node has no open map stream.
    #[error("the node is not connected")]
    NotConnected,
    /// The queue is full.
    #[error("too many messages are queued for the node; try again in a moment")]
    Full,
    /// The message is too long for clients.
    #[error("the message is longer than {MESSAGE_BYTES} bytes")]
    TooLong,
}

/// A message, sent as a keep-alive: clients read these fields there too, without processing the whole
/// map. It always has more than the bare flag, see
/// [`hearth_core::netmap::keep_alive`].
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    keep_alive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ping_request: Option<&'a PingRequest<'a>>,
    #[serde(rename = "PopBrowserURL", skip_serializing_if = "Option::is_none")]
    pop_browser_url: Option<&'a str>,
}

impl Mailboxes {
    /// Opens the mailbox of a stream, which replaces that of an older stream. When a newer stream is already
    /// open, the mailbox of the older one stays empty.
    pub fn open(self: &Arc<Self>, node: NodeId, session: SessionId) -> Inbox {
        let mailbox = Arc::<Mutex<Mailbox>>::default();
        let mut inboxes = self.lock();
        let is_newer = |(known, _): &(SessionId, _)| session > *known;
        if inboxes.get(&node).is_none_or(is_newer) {
            inboxes.insert(node, (session, mailbox.clone()));
        }
        drop(inboxes);
        Inbox {
            inboxes: Arc::clone(self),
            node,
            session,
            mailbox,
        }
    }

    /// Sends a ping request to a node.
    ///
    /// # Errors
    /// When the node has no open stream, or its queue is full.
    pub fn ping(&self, node: NodeId, request: &PingRequest<'_>) -> Result<(), Undelivered> {
        self.leave(
            node,
            &Message {
                keep_alive: true,
                ping_request: Some(request),
                ..Message::default()
            },
        )
    }

    /// Opens a page in the browser of the node's user, where the client can.
    ///
    /// # Errors
    /// When the node has no open stream, or its queue is full.
    pub fn pop_browser(&self, node: NodeId, url: &str) -> Result<(), Undelivered> {
        self.leave(
            node,
            &Message {
                keep_alive: true,
                pop_browser_url: Some(url),
                ..Message::default()
            },
        )
    }

    fn leave(&self, node: NodeId, message: &Message<'_>) -> Result<(), Undelivered> {
        let message = serde_json::to_string(message).unwrap_or_default();
        if message.len() > MESSAGE_BYTES {
            return Err(Undelivered::TooLong);
        }
        let inboxes = self.lock();
        let (_, inbox) = inboxes.get(&node).ok_or(Undelivered::NotConnected)?;
        let mut mailbox = lock(inbox);
        if mailbox.messages.len() >= MESSAGES {
            return Err(Undelivered::Full);
        }
        mailbox.messages.push_back(message);
        if let Some(reader) = mailbox.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, OpenMailboxes> {
        lock(&self.0)
    }
}

/// Receiving end of a mailbox; the mailbox closes when it is dropped.
#[derive(Debug)]
pub struct Inbox {
    inboxes: Arc<Mailboxes>,
    node: NodeId,
    session: SessionId,
    mailbox: Arc<Mutex<Mailbox>>,
}

impl Inbox {
    /// Waits for the next message, as JSON. No message arrives after a newer stream has replaced this one. Cancel safe.
    pub async fn next(&mut self) -> String {
        poll_fn(|context| {
            let mut mailbox = lock(&self.mailbox);
            match mailbox.messages.pop_front() {
                Some(message) => Poll::Ready(message),
                None => {
                    mailbox.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut inboxes = self.inboxes.lock();
        let is_own = |(session, _): &(SessionId, _)| *session == self.session;
        if inboxes.get(&self.node).is_some_and(is_own) {
            inboxes.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const URL: &str = "https://example.com/";

    #[tokio::test(start_paused = true)]
    async fn a_message_reaches_the_newest_stream_and_no_other() {
        let inboxes = Arc::new(Mailboxes::default());
        let node = NodeId::FIRST;
        assert_eq!(
            inboxes.pop_browser(node, URL),
            Err(Undelivered::NotConnected)
        );
        let mut old = inboxes.open(node, SessionId(1));
        let mut new = inboxes.open(node, SessionId(2));
        inboxes.pop_browser(node, URL).unwrap();
        let nothing = tokio::time::timeout(Duration::from_secs(1), old.next()).await;
        assert!(nothing.is_err());
        // An old stream that ends late, or starts late, must not close the mailbox of the new one.
        drop(old);
        let mut late = inboxes.open(node, SessionId(1));
        let nothing = tokio::time::timeout(Duration::from_secs(1), late.next()).await;
        assert!(nothing.is_err());
        drop(late);
        inboxes.pop_browser(node, URL).unwrap();
        let expected = r#"{"KeepAlive":true,"PopBrowserURL":"https://example.com/"}"#;
        for _ in 0..2 {
            assert_eq!(new.next().await, expected);
        }
        drop(new);
        assert_eq!(
            inboxes.pop_browser(node, URL),
            Err(Undelivered::NotConnected)
        );
    }

    #[test]
    fn a_mailbox_that_is_not_read_becomes_full() {
        let inboxes = Arc::new(Mailboxes::default());
        let _inbox = inboxes.open(NodeId::FIRST, SessionId(1));
        for _ in 0..MESSAGES {
            inboxes.pop_browser(NodeId::FIRST, URL).unwrap();
        }
        let again = inboxes.pop_browser(NodeId::FIRST, URL);
        assert_eq!(again, Err(Undelivered::Full));
        let long = "x".repeat(MESSAGE_BYTES);
        let again = inboxes.pop_browser(NodeId::FIRST, &long);
        assert_eq!(again, Err(Undelivered::TooLong));
    }
}
