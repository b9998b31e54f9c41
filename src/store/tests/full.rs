//! A full disk: it is not filled up by a fresh file, and is written again once it has room.

use super::failures::{BROKEN, Tailnet};
use crate::store::NEW_NAME;
use crate::store::simulation::{Plan, Step};

/// Whether a new database file was begun after so many steps.
fn was_begun(tailnet: &Tailnet, since: usize) -> bool {
    let log = tailnet.disk.log();
    let mut steps = log[since..].iter();
    steps.any(|step| matches!(step, Step::Create(name, _) if name == NEW_NAME))
}

#[test]
fn a_fresh_file_is_not_begun_without_room_for_it() {
    let mut tailnet = Tailnet::new();
    let used = tailnet.disk.used();
    tailnet.disk.plan(Plan {
        capacity: Some(used + (65 << 10)),
        ..BROKEN
    });
    let before = tailnet.disk.steps();
    // The sync fails, and there is no room to write everything again.
    tailnet.user("bert").unwrap_err();
    assert!(!was_begun(&tailnet, before));
    let before = tailnet.disk.steps();
    let refused = tailnet.user("bert").unwrap_err();
    assert!(refused.is_full(), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("KiB at least; 65 KiB are free"), "{text}");
    assert_eq!(tailnet.disk.steps(), before, "nothing is written");
    tailnet.disk.limit(None);
    tailnet.user("carla").unwrap();
    tailnet.assert_kept();
}

#[test]
fn a_fresh_file_that_turns_out_too_large_leaves_room_for_others() {
    let mut tailnet = Tailnet::new();
    let content = tailnet.store.reader().unwrap().content_bytes();
    let content = usize::try_from(content).unwrap();
    let used = tailnet.disk.used();
    assert!(content > 0 && content < used, "{content} of {used}");
    tailnet.disk.plan(Plan {
        // Room for the values, but not for the pages that they are in.
        capacity: Some(used + content + (70 << 10)),
        ..BROKEN
    });
    tailnet.user("bert").unwrap_err();
    assert_eq!(tailnet.disk.content(NEW_NAME), None, "no half file stays");
    assert_eq!(tailnet.disk.used(), used);
    tailnet.disk.limit(Some(used * 3 + (128 << 10)));
    tailnet.user("carla").unwrap();
    tailnet.assert_kept();
}

#[test]
fn freed_space_is_noticed_without_writing() {
    let mut tailnet = Tailnet::new();
    assert!(!tailnet.store.has_room(), "it was never full");
    // Until the file has to grow.
    tailnet.disk.limit(Some(tailnet.disk.used()));
    let mut users = 0..;
    let refused = loop {
        match tailnet.user(&format!("user{}", users.next().unwrap())) {
            Ok(()) => assert!(!tailnet.store.has_room()),
            Err(refused) => break refused,
        }
    };
    assert!(refused.is_full(), "{refused}");
    let steps = tailnet.disk.steps();
    assert!(!tailnet.store.has_room());
    // What others free and take all the time does not count.
    let used = tailnet.disk.used();
    tailnet.disk.limit(Some(used + (16 << 10)));
    assert!(!tailnet.store.has_room());
    tailnet.disk.limit(Some(used + (1 << 20)));
    assert!(tailnet.store.has_room());
    assert_eq!(tailnet.disk.steps(), steps);
    tailnet.user("carla").unwrap();
    assert!(!tailnet.store.has_room(), "it is not full any more");
    tailnet.disk.limit(None);
    tailnet.assert_kept();
}
