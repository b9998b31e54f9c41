use crate::system_clock;
use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::store::{Disk, Mood, POLICIES_NAME, Skipped, Store};
use hearth_core::clock::End;
use hearth_core::id::{Revision, UserId};
use hearth_core::keys::{DiscoKey, LockKey};
use hearth_core::state::attributes::AttributeValue;
use hearth_core::state::command::{
    NewPolicy, NewPreAuthKey, NewUser, NodeUpdate, Register, RegisterReply, RequestedExpiry,
};
use hearth_core::state::model::{Hostinfo, Presence, User};
use hearth_core::state::record::DecodeError;
use hearth_core::state::secret::SecretHash;
use hearth_core::state::testing::{plain, settings, with_key};

const CACHE: usize = 256 * 1024;

fn start(directory: &std::path::Path) -> (Engine, Handle) {
    let (store, loaded) = Store::open(directory, CACHE).unwrap();
    Engine::start(store, loaded, settings(), 64, 16).unwrap()
}

/// As the program starts it, but it soon tries again. Patience enough for a machine that is busy.
fn start_on(directory: &std::path::Path, disk: &Disk) -> (Engine, Handle) {
    let (store, loaded) = Store::failing(directory, disk.clone());
    let patience = Patience {
        commit: Duration::from_secs(4),
        close: Duration::from_secs(10),
        retry: Duration::from_millis(100),
    };
    Engine::start_with(store, loaded, settings(), (64, 16), patience).unwrap()
}

/// Waits for a state in which the database is read-only for this cause; `None` is writable.
async fn wait_for_cause(handle: &Handle, cause: Option<Cause>) -> Arc<Snapshot> {
    let mut states = handle.watch();
    let waits = states.wait_for(|state| state.disk_fault().map(|fault| fault.cause) == cause);
    let found = tokio::time::timeout(Duration::from_secs(30), waits).await;
    found.expect("it comes in time").unwrap().clone()
}

fn is_unavailable<T>(answer: Result<T, EngineError>, cause: Cause) -> bool {
    matches!(answer, Err(EngineError::Unavailable(fault)) if fault.cause == cause)
}

async fn create_user(handle: &Handle, name: &str) -> Result<Reply<Arc<User>>, EngineError> {
    let new = NewUser {
        name: name.into(),
        ..NewUser::default()
    };
    handle.create_user(Principal::Socket, new).await
}

#[tokio::test]
async fn a_command_is_answered_after_it_is_published_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    let before = handle.snapshot();
    let made = create_user(&handle, "anna").await.unwrap();
    assert_eq!(&*made.value.name, "anna");
    assert!(made.snapshot.users().contains_key(&made.value.id));
    assert_eq!(handle.snapshot().users().len(), 1);
    assert!(handle.snapshot().revision() > before.revision());
    assert!(before.users().is_empty(), "an old state stays as it was");
    engine.stop();
    let (engine, handle) = start(directory.path());
    assert_eq!(handle.snapshot().users().len(), 1);
    engine.stop();
}

#[tokio::test]
async fn a_refused_command_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    let refused = create_user(&handle, "").await;
    let expected = EngineError::Rejected(Rejected::BadUserName("".into()));
    assert_eq!(refused.map(|_| ()), Err(expected));
    assert_eq!(handle.snapshot().revision(), Revision::ZERO);
    engine.stop();
}

#[tokio::test]
async fn commands_that_come_together_share_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    let names: Vec<String> = (0..8).map(|number| format!("user{number}")).collect();
    let asked = names.iter().map(|name| {
        let handle = handle.clone();
        let name = name.clone();
        async move { create_user(&handle, &name).await }
    });
    for answer in futures_join(asked).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    let snapshot = handle.snapshot();
    assert_eq!(snapshot.users().len(), 8);
    assert!(
        snapshot.revision() < Revision::new(8),
        "{:?}",
        snapshot.revision()
    );
    engine.stop();
}

/// Sends all commands before it waits for the first answer.
async fn futures_join<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    asked: impl Iterator<Item = F>,
) -> Vec<T> {
    let mut running = tokio::task::JoinSet::new();
    for future in asked {
        running.spawn(future);
    }
    running.join_all().await
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_has_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, handle) = start(directory.path());
    engine.stop();
    let answer = tokio::time::timeout(Duration::from_secs(5), create_user(&handle, "late")).await;
    assert_eq!(answer.unwrap().map(|_| ()), Err(EngineError::Stopped));
}

#[tokio::test]
async fn without_a_disk_changes_are_refused_and_the_rest_goes_on() {
    let disk = Disk::default();
    let (store, loaded) = Store::failing("/nowhere".as_ref(), disk.clone());
    let (engine, handle) = Engine::start(store, loaded, settings(), 64, 16).unwrap();
    create_user(&handle, "anna").await.unwrap();
    assert_eq!(handle.snapshot().disk_fault(), None);

    disk.set(Mood::Fails);
    let before = system_clock::now().wall;
    let refused = create_user(&handle, "ben").await;
    let text = refused.as_ref().map(|_| ()).unwrap_err().to_string();
    assert!(
        text.contains("no space left") && text.contains("`df -h`"),
        "{text}"
    );
    assert!(is_unavailable(refused, Cause::Full));
    let snapshot = handle.snapshot();
    let fault = snapshot.disk_fault().unwrap();
    assert!(fault.since >= before && fault.since <= system_clock::now().wall);
    assert_eq!(snapshot.users().len(), 1);

    // A refusal by the rules needs no disk, and is told as what it is.
    let taken = create_user(&handle, "anna").await.map(|_| ());
    assert_eq!(
        taken,
        Err(EngineError::Rejected(Rejected::UserNameTaken(
            "anna".into()
        )))
    );
    // Nor does a sign of life: a restart would not empty the disk.
    assert_eq!(handle.answers().await, Ok(()));
    engine.stop();
}

#[tokio::test]
async fn an_engine_answers_while_the_disk_hangs_and_one_that_ended_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let (engine, handle) = start_on(directory.path(), &disk);
    assert_eq!(handle.answers().await, Ok(()));
    disk.set(Mood::Hangs);
    assert!(create_user(&handle, "anna").await.is_err());
    // A restart would not mend the disk.
    assert_eq!(handle.answers().await, Ok(()));
    disk.set(Mood::Works);
    wait_for_cause(&handle, None).await;
    engine.stop();
    assert_eq!(handle.answers().await, Err(EngineError::Stopped));
}

/// Whatever a disk does, nobody waits for it who needs none of it.
#[tokio::test]
async fn while_the_disk_hangs_changes_are_in_doubt_and_devices_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let (engine, handle) = start_on(directory.path(), &disk);
    create_user(&handle, "anna").await.unwrap();
    let made = handle.create_preauth_key(Principal::Socket, key_for_all());
    made.await.unwrap();
    let node = join(&handle, 1, 1).await.unwrap();
    disk.set(Mood::Hangs);
    let doubtful = create_user(&handle, "ben").await.map(|_| ());
    let Err(EngineError::InDoubt(fault)) = &doubtful else {
        panic!("{doubtful:?}");
    };
    assert_eq!(fault.cause, Cause::Silent);
    let text = doubtful.unwrap_err().to_string();
    assert!(text.contains("does not respond"), "{text}");
    // From now on nothing waits at all.
    let began = system_clock::monotonic();
    for number in 1..50_u16 {
        assert!(is_unavailable(
            create_user(&handle, "carla").await,
            Cause::Silent
        ));
        returns(&handle, node, number).await;
        handle.stream_closed(node, SessionId(number.into()));
    }
    let took = system_clock::monotonic().saturating_sub(began);
    // All of it together would otherwise wait for many minutes.
    assert!(took < Duration::from_secs(100), "{took:?}");
    let silent = handle.audit(None, 9).await;
    assert_eq!(silent, Err(EngineError::Unreadable(Cause::Silent)));
    assert_eq!(handle.snapshot().users().len(), 1);

    disk.set(Mood::Works);
    let state = wait_for_cause(&handle, None).await;
    assert_eq!(state.users().len(), 1);
    create_user(&handle, "ben").await.unwrap();
    engine.stop();
}

/// Soft commands that shared a batch with one that could not be written were refused with it.
#[tokio::test]
async fn what_needs_no_disk_is_not_refused_with_the_rest_of_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let (store, loaded) = Store::failing(directory.path(), disk.clone());
    let (engine, handle) = Engine::start(store, loaded, settings(), 64, 16).unwrap();
    create_user(&handle, "anna").await.unwrap();
    let made = handle.create_preauth_key(Principal::Socket, key_for_all());
    made.await.unwrap();
    let node = join(&handle, 1, 1).await.unwrap();
    disk.set(Mood::Hangs);
    let busy = handle.clone();
    let busy = tokio::spawn(async move { create_user(&busy, "ben").await });
    wait_until_busy(&handle).await;
    let by = Principal::Node { id: node };
    let update = |number| NodeUpdate {
        node: Some(node),
        home_derp: Some(number),
        ..NodeUpdate::default()
    };
    let first = handle.update_node(by.clone(), update(7));
    let refused = create_user(&handle, "carla");
    // A name that is taken only by the one before it.
    let other = create_user(&handle, "carla");
    let opened = handle.open_stream(node, SessionId(1), NodeUpdate::default());
    let last = handle.update_node(by, update(8));
    let fail = async { disk.set(Mood::Fails) };
    let (first, refused, other, opened, last, ()) =
        tokio::join!(first, refused, other, opened, last, fail);
    assert!(busy.await.unwrap().is_err());
    first.unwrap();
    opened.unwrap();
    last.unwrap();
    assert!(is_unavailable(refused, Cause::Full));
    assert!(is_unavailable(other, Cause::Full));
    let snapshot = handle.snapshot();
    let shown = snapshot.node(node).unwrap();
    assert_eq!(shown.home_derp, 8);
    assert_eq!(shown.presence, Presence::Online(SessionId(1)));
    assert_eq!(snapshot.users().len(), 1);
    engine.stop();
}

/// It starts nevertheless, says so from the first state on, and tries again by itself.
#[tokio::test]
async fn a_start_on_a_read_only_disk_serves_and_refuses_changes() {
    let disk = Disk::default();
    let (engine, handle) = start_on("/nowhere".as_ref(), &disk);
    create_user(&handle, "anna").await.unwrap();
    let made = handle.create_preauth_key(Principal::Socket, key_for_all());
    made.await.unwrap();
    let node = join(&handle, 1, 1).await.unwrap();
    engine.stop();
    let (store, mut loaded) = Store::on(&disk);
    disk.set(Mood::Fails);
    loaded.unwritable = Some(StoreError::Open {
        path: "/nowhere/hearth.redb".into(),
        source: std::io::ErrorKind::ReadOnlyFilesystem.into(),
    });
    let patience = Patience {
        commit: Duration::from_secs(10),
        close: Duration::from_secs(10),
        retry: Duration::from_millis(300),
    };
    let started = Engine::start_with(store, loaded, settings(), (64, 16), patience);
    let (engine, handle) = started.unwrap();
    let first = handle.snapshot();
    assert_eq!(first.disk_fault().unwrap().cause, Cause::ReadOnly);
    let refused = create_user(&handle, "ben").await;
    assert!(matches!(refused, Err(EngineError::Unavailable(_))));
    returns(&handle, node, 7).await;
    // What is wrong now, and since when it was first.
    let now = wait_for_cause(&handle, Some(Cause::Full)).await;
    let since = |state: &Snapshot| state.disk_fault().unwrap().since;
    assert_eq!(since(&now), since(&first));
    disk.set(Mood::Works);
    wait_for_cause(&handle, None).await;
    create_user(&handle, "ben").await.unwrap();
    engine.stop();
}

/// Neither now nor after a restart, although the disk had taken it; nor is it in the audit log.
#[tokio::test]
async fn a_change_in_doubt_is_gone_once_the_disk_answers() {
    let disk = Disk::default();
    let (engine, handle) = start_on("/nowhere".as_ref(), &disk);
    create_user(&handle, "anna").await.unwrap();
    disk.set(Mood::Hangs);
    let doubtful = create_user(&handle, "ben").await;
    assert!(matches!(doubtful, Err(EngineError::InDoubt(_))));
    disk.set(Mood::Works);
    wait_for_cause(&handle, None).await;
    assert_eq!(handle.audit(None, 9).await.unwrap().len(), 1);
    // As after a power cut: it is not closed.
    let (_, loaded) = Store::on(&disk);
    assert_eq!(loaded.users.len(), 1);
    create_user(&handle, "carla").await.unwrap();
    engine.stop();
    let (_, loaded) = Store::on(&disk);
    let names: Vec<&str> = loaded.users.values().map(|user| &*user.name).collect();
    assert_eq!(names, ["anna", "carla"]);
}

/// Nobody has to change anything for it.
#[tokio::test]
async fn a_disk_that_works_again_is_noticed_without_a_change() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let (engine, handle) = start_on(directory.path(), &disk);
        disk.set(mood);
        assert!(create_user(&handle, "anna").await.is_err());
        let since = handle.snapshot().disk_fault().unwrap().since;
        assert!(since <= system_clock::now().wall);
        disk.set(Mood::Works);
        wait_for_cause(&handle, None).await;
        create_user(&handle, "anna").await.unwrap();
        engine.stop();
    }
}

/// A shutdown waits for a disk that hangs, but not for ever.
#[tokio::test]
async fn a_disk_that_hangs_does_not_keep_the_engine_from_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let (store, loaded) = Store::failing(directory.path(), disk.clone());
    let patience = Patience {
        commit: Duration::from_millis(100),
        close: Duration::from_millis(100),
        retry: Duration::from_secs(10),
    };
    let started = Engine::start_with(store, loaded, settings(), (64, 16), patience);
    let (engine, handle) = started.unwrap();
    disk.set(Mood::Hangs);
    assert!(create_user(&handle, "anna").await.is_err());
    engine.stop();
    disk.set(Mood::Works);
}

#[tokio::test]
async fn a_policy_that_is_lost_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut loaded) = Store::open(directory.path(), CACHE).unwrap();
    loaded.skipped.push(Skipped {
        table: POLICIES_NAME,
        key: "7".into(),
        fault: DecodeError::Damaged,
    });
    let (engine, handle) = Engine::start(store, loaded, settings(), 64, 16).unwrap();
    assert!(handle.snapshot().compiled().policy().is_some());
    // The next version does not take the place of the lost one.
    let new = NewPolicy::parse("{}", true).unwrap();
    let set = handle.set_policy(Principal::System, new).await.unwrap();
    assert_eq!(set.value.id.number(), 8);
    engine.stop();
}

/// A queue that was full of commands lost the end of a stream: the node then counted as online for ever.
#[tokio::test]
async fn the_end_of_a_stream_finds_room_in_a_queue_full_of_commands() {
    let model = Model::new(settings(), system_clock::now());
    let (_publish, snapshots) = watch::channel(Arc::new(Snapshot::of(&model, None)));
    // A writer that is busy for long.
    let (commands, inbox) = sync_channel(1);
    let handle = Handle {
        commands,
        places: Places::new(1),
        closed: Arc::default(),
        snapshots,
        wake: Arc::default(),
    };
    let mut first = std::pin::pin!(create_user(&handle, "anna"));
    let waits = std::future::poll_fn(|context| Poll::Ready(first.as_mut().poll(context)));
    assert!(waits.await.is_pending());
    let second = create_user(&handle, "ben").await.map(|_| ());
    assert_eq!(second, Err(EngineError::Busy));
    let nodes = [3, 7].map(|number| NodeId::new(number).unwrap());
    for session in [1, 3, 2] {
        handle.stream_closed(nodes[1], SessionId(session));
    }
    handle.stream_closed(nodes[0], SessionId(9));
    let queue: Vec<Message> = inbox.try_iter().map(Message::taken).collect();
    assert!(matches!(queue[..], [Message::Apply(..)]));
    let ended = [(nodes[0], SessionId(9)), (nodes[1], SessionId(3))];
    assert_eq!(handle.closed.take(), ended);
    handle.stream_closed(nodes[0], SessionId(9));
    assert!(matches!(inbox.try_recv(), Ok(Message::Closed)));
    // What the writer has taken makes room.
    let mut second = std::pin::pin!(create_user(&handle, "ben"));
    let waits = std::future::poll_fn(|context| Poll::Ready(second.as_mut().poll(context)));
    assert!(waits.await.is_pending());
}

/// A client that went away in the middle of opening its stream left a node behind that was online for ever.
#[tokio::test]
async fn a_stream_whose_client_went_away_while_it_was_opened_is_not_open() {
    let disk = Disk::default();
    let (store, loaded) = Store::failing("/nowhere".as_ref(), disk.clone());
    let mut settings = settings();
    settings.offline_grace = Duration::ZERO;
    let (engine, handle) = Engine::start(store, loaded, settings, 64, 16).unwrap();
    create_user(&handle, "anna").await.unwrap();
    let request = plain(1, 1);
    let id = request.fresh_id.clone();
    handle.register(request).await.unwrap();
    let joined = handle.approve_registration(Principal::Socket, id, UserId::FIRST);
    let node = joined.await.unwrap().value.id;
    for session in 1..50 {
        let session = SessionId(session);
        let opening = handle.open_stream(node, session, NodeUpdate::default());
        {
            let mut opening = std::pin::pin!(opening);
            let sent = std::future::poll_fn(|context| Poll::Ready(opening.as_mut().poll(context)));
            // The writer may have been quick.
            let _ = sent.await;
        }
        handle.stream_closed(node, session);
        assert_eq!(handle.answers().await, Ok(()));
        assert_eq!(handle.answers().await, Ok(()));
        let snapshot = handle.snapshot();
        assert!(!matches!(
            snapshot.node(node).unwrap().presence,
            Presence::Online(_)
        ));
    }
    engine.stop();
}

/// Waits until the writer waits for its disk.
async fn wait_until_busy(handle: &Handle) {
    let silence = async {
        let question = || tokio::time::timeout(Duration::from_millis(100), handle.answers());
        while question().await.is_ok() {}
    };
    let silence = tokio::time::timeout(Duration::from_secs(10), silence).await;
    assert!(silence.is_ok(), "it answers although its disk hangs");
}

/// A reply that was made before the rest of the batch told of what no longer was.
#[tokio::test]
async fn a_reply_has_what_the_whole_batch_made_of_it() {
    let disk = Disk::default();
    let (store, loaded) = Store::failing("/nowhere".as_ref(), disk.clone());
    let (engine, handle) = Engine::start(store, loaded, settings(), 64, 16).unwrap();
    let anna = create_user(&handle, "anna").await.unwrap().value.id;
    disk.set(Mood::Hangs);
    let busy = handle.clone();
    let busy = tokio::spawn(async move { create_user(&busy, "ben").await });
    // While the writer waits, what comes next waits together.
    wait_until_busy(&handle).await;
    let first = handle.rename_user(Principal::Socket, anna, "berta".into());
    let second = handle.rename_user(Principal::Socket, anna, "carla".into());
    let free = async { disk.set(Mood::Works) };
    let (first, second, ()) = tokio::join!(first, second, free);
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(&*first.value.name, "carla");
    assert_eq!(second.snapshot.revision(), first.snapshot.revision());
    assert!(busy.await.unwrap().is_ok());
    engine.stop();
}

#[tokio::test]
async fn committed_commands_are_in_the_audit_log_and_others_are_not() {
    let disk = Disk::default();
    let (store, loaded) = Store::failing("/nowhere".as_ref(), disk.clone());
    let (engine, handle) = Engine::start(store, loaded, settings(), 64, 16).unwrap();
    let anna = create_user(&handle, "anna").await.unwrap().value.id;
    assert!(create_user(&handle, "anna").await.is_err(), "rejected");
    let renamed = handle.rename_user(Principal::Socket, anna, "berta".into());
    renamed.await.unwrap();
    let entries = handle.audit(None, usize::MAX).await.unwrap();
    let shown = entries.iter().map(|entry| {
        let event = &entry.event;
        (entry.number, event.summary(), event.actor.to_string())
    });
    let shown: Vec<_> = shown.collect();
    let expected = [(2, "user renamed"), (1, "user created")];
    let expected = expected.map(|(number, text)| (number, text.to_owned(), "socket".to_owned()));
    assert_eq!(shown, expected);
    assert_eq!(handle.audit(Some(2), 9).await.unwrap(), entries[1..]);
    disk.set(Mood::Gone);
    assert!(create_user(&handle, "ben").await.is_err());
    // It cannot be read either, and says so.
    let after = handle.audit(None, usize::MAX).await;
    assert!(
        matches!(after, Err(EngineError::Unreadable(_))),
        "{after:?}"
    );
    // A full disk can be read.
    disk.set(Mood::Fails);
    assert_eq!(handle.audit(None, usize::MAX).await.unwrap(), entries);
    engine.stop();
}

/// The expiry is written at once, and must not wait for a disk that works.
#[tokio::test]
async fn a_key_expires_while_the_disk_is_full() {
    let disk = Disk::default();
    let (store, loaded) = Store::failing("/nowhere".as_ref(), disk.clone());
    let (engine, handle) = Engine::start(store, loaded, settings(), 64, 16).unwrap();
    create_user(&handle, "anna").await.unwrap();
    let request = plain(1, 1);
    let id = request.fresh_id.clone();
    handle.register(request).await.unwrap();
    let joined = handle.approve_registration(Principal::Socket, id, UserId::FIRST);
    let node = joined.await.unwrap().value.id;
    let soon = system_clock::now().wall.plus(Duration::from_millis(500));
    let expires = handle.expire_node(Principal::Socket, node, End::At(soon));
    assert!(!expires.await.unwrap().value.expired);
    disk.set(Mood::Fails);
    let mut states = handle.watch();
    let expired = states.wait_for(|state| state.node(node).is_some_and(|node| node.expired));
    let expired = tokio::time::timeout(Duration::from_secs(8), expired).await;
    assert!(expired.is_ok(), "it waits for the disk");
    engine.stop();
}

fn key_for_all() -> NewPreAuthKey {
    NewPreAuthKey {
        user: Some(UserId::FIRST),
        tags: Vec::new(),
        reusable: true,
        ephemeral: false,
        preauthorized: true,
        expiry: End::Never,
        prefix: "k".into(),
        hash: SecretHash::of("k"),
    }
}

/// A server with a user and a reusable key, on a disk of its own.
async fn with_key_for_all() -> (Engine, Handle, Disk) {
    let disk = Disk::default();
    let (store, loaded) = Store::failing("/nowhere".as_ref(), disk.clone());
    let (engine, handle) = Engine::start(store, loaded, settings(), 64, 16).unwrap();
    create_user(&handle, "anna").await.unwrap();
    let made = handle.create_preauth_key(Principal::Socket, key_for_all());
    made.await.unwrap();
    (engine, handle, disk)
}

async fn join(handle: &Handle, machine: u8, key: u8) -> Result<NodeId, EngineError> {
    let reply = handle.register(with_key(machine, key, "k")).await?;
    match reply.value {
        RegisterReply::Welcome(node) => Ok(node.id),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_devices_repeat_makes_no_sync() {
    let (engine, handle, disk) = with_key_for_all().await;
    let node = join(&handle, 1, 1).await.unwrap();
    let syncs = disk.syncs();
    for number in 0..200_u16 {
        let hostinfo = Hostinfo {
            hostname: format!("name{number}").into(),
            ..Hostinfo::default()
        };
        let update = NodeUpdate {
            node: Some(node),
            hostinfo: Some(Arc::new(hostinfo)),
            capability: Some(100 + number),
            home_derp: Some(number),
            ..NodeUpdate::default()
        };
        let session = SessionId(number.into());
        handle
            .update_node(Principal::Node { id: node }, update.clone())
            .await
            .unwrap();
        handle.open_stream(node, session, update).await.unwrap();
        handle.stream_closed(node, session);
        let stranger = u8::try_from(number % 50 + 100).unwrap();
        handle.register(plain(stranger, stranger)).await.unwrap();
    }
    assert_eq!(disk.syncs(), syncs);
    let shown = handle.snapshot().node(node).unwrap().label.clone();
    assert_eq!(&*shown, "name199");
    // Renaming is in the audit log even so, once somebody asks for it.
    let entries = handle.audit(None, 9).await.unwrap();
    assert_eq!(entries[0].event.summary(), "node renamed");
    assert_eq!(disk.syncs(), syncs + 1);
    engine.stop();
}

#[tokio::test]
async fn a_machine_may_have_so_much_written_and_keeps_no_other_from_it() {
    let (engine, handle, disk) = with_key_for_all().await;
    let mut joined = 0;
    // Logging in and out in a circle, with another node key each time.
    let refused = loop {
        let key = u8::try_from(joined % 200 + 1).unwrap();
        match join(&handle, 1, key).await {
            Ok(_) => joined += 1,
            Err(fault) => break fault,
        }
        let leaving = Register {
            expiry: RequestedExpiry::Logout,
            ..plain(1, key)
        };
        handle.register(leaving).await.unwrap();
    };
    assert_eq!(refused, EngineError::Rejected(Rejected::TooOften));
    assert!((8..=64).contains(&joined), "{joined}");
    let before = (disk.syncs(), handle.snapshot().revision());
    assert!(join(&handle, 1, 201).await.is_err());
    assert_eq!((disk.syncs(), handle.snapshot().revision()), before);
    join(&handle, 2, 2).await.unwrap();
    // Nor may it set its attributes, but its reports are taken.
    let node = handle.snapshot().nodes()[0].id;
    let by = Principal::Node { id: node };
    let flag = vec![("custom:a".into(), Some(AttributeValue::Flag(true)))];
    let set = handle.set_attributes(by.clone(), node, flag.clone()).await;
    assert_eq!(
        set.map(|_| ()),
        Err(EngineError::Rejected(Rejected::TooOften))
    );
    handle
        .set_attributes(Principal::Socket, node, flag)
        .await
        .unwrap();
    let update = NodeUpdate {
        node: Some(node),
        home_derp: Some(7),
        ..NodeUpdate::default()
    };
    handle.update_node(by, update).await.unwrap();
    engine.stop();
}

/// Each is a change that is written, which a client can make as long as there is a moment before the last one.
#[tokio::test]
async fn a_machine_may_have_its_expiry_made_earlier_so_often() {
    let (engine, handle, disk) = with_key_for_all().await;
    let node = join(&handle, 1, 1).await.unwrap();
    let begin = system_clock::now().wall;
    let earlier = |number: u64| Register {
        expiry: RequestedExpiry::At(begin.plus(Duration::from_secs(1_000_000 - number))),
        ..plain(1, 1)
    };
    let mut written = 0;
    let refused = loop {
        match handle.register(earlier(written)).await {
            Ok(_) => written += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!(refused, EngineError::Rejected(Rejected::TooOften));
    assert!((8..=64).contains(&written), "{written}");
    let expiry = |handle: &Handle| handle.snapshot().node(node).unwrap().expiry;
    let before = (disk.syncs(), expiry(&handle));
    assert!(handle.register(earlier(written + 1)).await.is_err());
    assert_eq!((disk.syncs(), expiry(&handle)), before);
    // No other machine pays for it.
    join(&handle, 2, 2).await.unwrap();
    engine.stop();
}

/// A device that was known before asks whether its key is valid, reports everything that changed, and opens its stream.
async fn returns(handle: &Handle, node: NodeId, number: u16) {
    let hostinfo = Hostinfo {
        hostname: format!("moved{number}").into(),
        routable_ips: Box::from(["10.1.0.0/16".parse().unwrap()]),
        ..Hostinfo::default()
    };
    let again = Register {
        hostinfo: Arc::new(hostinfo.clone()),
        capability: 100 + number,
        lock: Some(LockKey::from_bytes([u8::try_from(number).unwrap(); 32])),
        ..plain(1, 1)
    };
    handle.register(again.clone()).await.unwrap();
    // As a container, which shows its key again.
    let shown = Register {
        auth_key: with_key(1, 1, "k").auth_key,
        ..again
    };
    handle.register(shown).await.unwrap();
    let update = NodeUpdate {
        node: Some(node),
        hostinfo: Some(Arc::new(hostinfo)),
        capability: Some(200 + number),
        home_derp: Some(number),
        disco: Some(DiscoKey::from_bytes([u8::try_from(number).unwrap(); 32])),
        endpoints: Some(Arc::from([format!("192.0.2.1:{number}").parse().unwrap()])),
        ..NodeUpdate::default()
    };
    let by = Principal::Node { id: node };
    handle.update_node(by, update.clone()).await.unwrap();
    let session = SessionId(number.into());
    handle.open_stream(node, session, update).await.unwrap();
    let snapshot = handle.snapshot();
    let shown = snapshot.node(node).unwrap();
    assert_eq!(&*shown.label, format!("moved{number}"));
    assert_eq!(shown.home_derp, number);
    assert_eq!(shown.endpoints[0].port(), number);
    assert_eq!(shown.presence, Presence::Online(session));
}

/// While no change can be written, a device that returns gets its map.
#[tokio::test]
async fn a_known_device_needs_no_disk() {
    let (engine, handle, disk) = with_key_for_all().await;
    let node = join(&handle, 1, 1).await.unwrap();
    disk.set(Mood::Fails);
    assert!(create_user(&handle, "ben").await.is_err());
    returns(&handle, node, 7).await;
    // Nor does somebody new who asks to join.
    handle.register(plain(9, 9)).await.unwrap();
    // A login is a change.
    assert!(matches!(
        join(&handle, 1, 2).await,
        Err(EngineError::Unavailable(_))
    ));
    engine.stop();
}
