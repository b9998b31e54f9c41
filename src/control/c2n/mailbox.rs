//! One-off messages to the open map stream of a node.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use serde::Serialize;

use hearth_core::id::NodeId;
use hearth_core::state::model::SessionId;
use hearth_core::tailcfg::notice::PingRequest;

/// Messages that may wait for one stream: a stream that takes none of them is stuck.
const MESSAGES: usize = 4;

/// Longest message, in bytes.
const MESSAGE_BYTES: usize = 128 * 1024;

/// The inboxes of all open streams; their number is bounded by that of the streams.
#[derive(Debug, Default)]
pub struct Mailboxes(Mutex<Open>);

/// The newest stream of each node and what waits for it.
type Open = HashMap<NodeId, (SessionId, Arc<Mutex<Mailbox>>)>;

/// What waits for one stream, and the stream if it waits for that. A channel would take a kilobyte for each stream.
#[derive(Debug, Default)]
struct Mailbox {
    messages: VecDeque<String>,
    reader: Option<Waker>,
}

/// Why a message was not left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// There is no stream to send it on.
    #[error("the node is not connected")]
    NotConnected,
    /// Earlier messages were not taken yet.
    #[error("the node takes no more messages at the moment")]
    Full,
    /// No client would take it.
    #[error("the message is longer than {MESSAGE_BYTES} bytes")]
    TooLong,
}

/// What a message is made of. It is sent as a keep-alive: these fields are looked at there as well, and
/// the client does not go through its map for nothing. More than the bare flag is always in it, see
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
    /// The inbox of a stream, which takes the place of an older stream's. Next to that of a newer stream,
    /// where the older one only now gets going, it stays empty.
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

    /// Asks a node for a ping, or for an answer to a request.
    ///
    /// # Errors
    /// When it has no stream, or one that is full.
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

    /// Has a node open a page in the browser of the person in front of it, where it can.
    ///
    /// # Errors
    /// When it has no stream, or one that is full.
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

    fn lock(&self) -> MutexGuard<'_, Open> {
        lock(&self.0)
    }
}

/// The stream's end of an inbox; gone when it is dropped.
#[derive(Debug)]
pub struct Inbox {
    inboxes: Arc<Mailboxes>,
    node: NodeId,
    session: SessionId,
    mailbox: Arc<Mutex<Mailbox>>,
}

impl Inbox {
    /// The next message as JSON. None come once a newer stream has taken over. Cancel safe.
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
        // An old stream that ends late, or begins late, must not close the new one's.
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
    fn an_inbox_that_nobody_empties_is_full() {
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
