//! A clock that is wrong at first.

use super::*;
use crate::state::model::Settings;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A world whose clock shows `wall`, and whose keys live for 180 days.
fn world_at(wall: Timestamp) -> (World, UserId) {
    let (mut world, user) = World::with_user();
    world.model.settings = Arc::new(Settings {
        node_expiry: Some(DAY * 180),
        ..(*world.model.settings).clone()
    });
    world.now.wall = wall;
    world.tick(Flush::WhenDue);
    (world, user)
}

/// The clocks of a router without a battery: in 1970, and that of its firmware.
fn wrong_clocks() -> [Timestamp; 2] {
    [
        Timestamp::from_unix_ms(20_000),
        PLAUSIBLE_FROM.plus(DAY * 30),
    ]
}

const RIGHT: Timestamp = Timestamp::from_unix_ms(PLAUSIBLE_FROM.unix_ms() + 100 * 86_400_000);

#[test]
fn what_was_made_before_the_clock_was_set_ends_as_long_after() {
    for wrong in wrong_clocks() {
        let (mut world, user) = world_at(wrong);
        let hour = SECOND * 3600;
        let end = world.now.wall.plus(hour);
        world.preauth_key("k", |key| (key.expiry, key.reusable) = (Some(end), true));
        let absolute = RIGHT.plus(DAY * 365);
        if !wrong.is_plausible() {
            world.preauth_key("fixed", |key| key.expiry = Some(absolute));
        }
        let id = world.join(with_key(1, 1, "k")).id;
        let Ok(RegisterReply::NeedsLogin(login)) = world.register(plain(2, 2)) else {
            panic!("let in without being asked for");
        };
        world.wait(SECOND * 60);
        world.now.wall = RIGHT;
        world.tick(Flush::WhenDue);
        let about = |at: Option<Timestamp>, life: Duration| {
            let at = at.unwrap();
            let expected = RIGHT.plus(life);
            assert!(
                at <= expected && expected.since(at) <= SECOND * 120,
                "{at} {expected}"
            );
        };
        about(world.node(id).expiry, DAY * 180);
        assert!(!world.node(id).expired && world.snapshot().admits(&world.node(id).key));
        let key = world.model.preauth_keys.values().next().unwrap();
        about(key.expiry, hour);
        if !wrong.is_plausible() {
            let fixed = world.model.preauth_keys.values().nth(1).unwrap();
            assert_eq!(fixed.expiry, Some(absolute), "it was no span of time");
        }
        world.join(with_key(3, 3, "k"));
        // What waits has waited for a minute.
        assert_eq!(world.model.pending[&login].state, PendingState::Waiting);
        world
            .apply(Command::ApproveRegistration(login, user))
            .unwrap();
        world.wait(hour);
        let ended = world.register(with_key(4, 4, "k")).unwrap_err();
        assert_eq!(ended, Rejected::PreAuthKeyExpired);
    }
}

#[test]
fn what_an_earlier_run_made_in_1970_is_reckoned_from_now() {
    let [wrong, _] = wrong_clocks();
    let (mut world, _) = world_at(wrong);
    let end = world.now.wall.plus(SECOND * 3600);
    world.preauth_key("k", |key| (key.expiry, key.reusable) = (Some(end), true));
    world.preauth_key("over", |key| (key.expiry, key.reusable) = (Some(end), true));
    let (lives, left) = (
        world.join(with_key(1, 1, "k")).id,
        world.join(with_key(2, 2, "k")).id,
    );
    world.wait(SECOND * 100);
    let over = PreAuthKeyId::new(2).unwrap();
    world.apply(Command::ExpirePreAuthKey(over)).unwrap();
    let refused = world.register(with_key(3, 3, "over")).unwrap_err();
    assert_eq!(refused, Rejected::PreAuthKeyExpired, "by hand, at any time");
    let leaving = Register {
        expiry: RequestedExpiry::Logout,
        ..plain(2, 2)
    };
    world.register(leaving).unwrap();
    let now = Now {
        wall: RIGHT,
        mono: SECOND,
    };
    (world.now, world.model.started) = (now, now);
    world.model.unproven = Arc::default();
    world.model.clock_offset = now.offset_ms();
    restore(&mut world.model, now);
    assert!(!world.node(lives).expired && world.node(left).expired);
    world.tick(Flush::WhenDue);
    assert_eq!(world.node(lives).expiry, Some(RIGHT.plus(DAY * 180)));
    assert!(world.node(left).expired, "it logged out");
    assert_eq!(world.node(lives).created, RIGHT);
    world.join(with_key(4, 4, "k"));
    let refused = world.register(with_key(3, 3, "over")).unwrap_err();
    assert_eq!(refused, Rejected::PreAuthKeyExpired);
    let records = world.records.len();
    world.tick(Flush::WhenDue);
    assert_eq!(world.records.len(), records, "once");
}

#[test]
fn a_clock_that_jumps_ends_no_registration_and_moves_nothing_that_is_old() {
    let (mut world, _) = world_at(PLAUSIBLE_FROM.plus(SECOND));
    let id = world.node_number(1);
    let expiry = world.node(id).expiry;
    world.wait(SECOND * 3601);
    world.wait(SECOND);
    let Ok(RegisterReply::NeedsLogin(login)) = world.register(plain(2, 2)) else {
        panic!("let in without being asked for");
    };
    world.now.wall = world.now.wall.plus(DAY);
    world.wait(SECOND);
    assert_eq!(
        world.node(id).expiry,
        expiry,
        "the clock was right for an hour"
    );
    assert!(world.model.pending.contains_key(&login));
    world.wait(SECOND * 3600);
    assert!(world.model.pending.is_empty());
}

#[test]
fn a_clock_that_goes_astray_and_back_changes_nothing() {
    for astray in [
        DAY.as_millis() as i64,
        -(DAY.as_millis() as i64),
        -RIGHT.unix_ms(),
    ] {
        let (mut world, _) = world_at(RIGHT);
        let id = world.node_number(1);
        let expiry = world.node(id).expiry;
        world.now.wall = world.now.wall.moved(astray);
        world.tick(Flush::WhenDue);
        assert!(!world.node(id).expired);
        world.now.wall = world.now.wall.moved(-astray);
        world.tick(Flush::WhenDue);
        assert_eq!(world.node(id).expiry, expiry, "{astray}");
    }
}
