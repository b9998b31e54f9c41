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
        world.preauth_key("k", |key| {
            (key.expiry, key.reusable) = (End::In(hour), true)
        });
        let date = RIGHT.plus(DAY * 365);
        world.preauth_key("dated", |key| key.expiry = End::At(date));
        let id = world.join(with_key(1, 1, "k")).id;
        let dated = world.join(with_key(5, 5, "k")).id;
        world
            .apply(Command::ExpireNode(dated, End::At(date)))
            .unwrap();
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
        let other = world.model.preauth_keys.values().nth(1).unwrap();
        let dates = [other.expiry, world.node(dated).expiry];
        assert_eq!(dates, [Some(date); 2], "somebody named the date");
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
    let hour = End::In(SECOND * 3600);
    world.preauth_key("k", |key| (key.expiry, key.reusable) = (hour, true));
    world.preauth_key("over", |key| (key.expiry, key.reusable) = (hour, true));
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
    world.now = now;
    restart(&mut world, REBOOTED);
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
fn a_clock_that_jumps_ends_no_registration() {
    let (mut world, _) = world_at(PLAUSIBLE_FROM.plus(SECOND));
    let Ok(RegisterReply::NeedsLogin(login)) = world.register(plain(2, 2)) else {
        panic!("let in without being asked for");
    };
    world.now.wall = world.now.wall.plus(DAY);
    world.wait(SECOND);
    assert!(world.model.pending.contains_key(&login));
    assert_eq!(
        world.now.wall.since(world.model.pending[&login].created),
        SECOND
    );
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

/// The run of the system after another boot.
const REBOOTED: Boot = Boot {
    id: 7,
    uptime: Duration::ZERO,
};

fn jump(world: &mut World, to: Timestamp) {
    world.now.wall = to;
    world.tick(Flush::WhenDue);
}

#[test]
fn a_router_that_is_without_internet_for_days_keeps_what_was_made_meanwhile() {
    let (mut world, _) = world_at(PLAUSIBLE_FROM);
    let id = world.node_number(1);
    world.wait(DAY * 3);
    let right = world.now.wall.plus(DAY * 300);
    jump(&mut world, right);
    assert!(!world.node(id).expired);
    assert_eq!(world.node(id).expiry, Some(right.plus(DAY * 177)));
}

#[test]
fn a_restart_of_hearth_before_the_clock_is_set_changes_no_span() {
    for wrong in wrong_clocks() {
        let (mut world, _) = world_at(wrong);
        let id = world.node_number(1);
        world.wait(SECOND * 60);
        world.now.mono = Duration::ZERO;
        let boot = Boot {
            uptime: SECOND * 60,
            ..world.model.boot
        };
        restart(&mut world, boot);
        world.wait(SECOND * 60);
        jump(&mut world, RIGHT);
        let expected = RIGHT.plus(DAY * 180 - SECOND * 120);
        assert_eq!(world.node(id).expiry, Some(expected), "{wrong}");
    }
}

#[test]
fn what_a_clock_years_ahead_ended_is_back_once_it_is_right() {
    let (mut world, user) = world_at(RIGHT);
    world.preauth_key("k", |key| key.reusable = true);
    let date = End::At(RIGHT.plus(DAY * 30));
    world.preauth_key("dated", |key| (key.expiry, key.reusable) = (date, true));
    let lives = world.join(with_key(1, 1, "k")).id;
    let dated = world.join(with_key(2, 2, "k")).id;
    let leaves = world.join(with_key(3, 3, "k")).id;
    world.apply(Command::ExpireNode(dated, date)).unwrap();
    world.now = Now {
        wall: RIGHT.plus(DAY * 3650),
        mono: SECOND,
    };
    restart(&mut world, REBOOTED);
    world.tick(Flush::WhenDue);
    assert!(
        [lives, dated, leaves]
            .iter()
            .all(|id| world.node(*id).expired)
    );
    let refused = world.register(with_key(4, 4, "dated")).unwrap_err();
    assert_eq!(refused, Rejected::PreAuthKeyExpired);
    world
        .register(Register {
            expiry: RequestedExpiry::Logout,
            ..plain(3, 3)
        })
        .unwrap();
    let short = world.join(with_key(5, 5, "k")).id;
    world
        .apply(Command::ExpireNode(short, End::In(DAY)))
        .unwrap();
    world
        .apply(Command::ExpirePreAuthKey(PreAuthKeyId::FIRST))
        .unwrap();
    jump(&mut world, RIGHT.plus(SECOND * 60));
    assert!(!world.node(lives).expired && !world.node(dated).expired);
    assert!(world.snapshot().admits(&world.node(lives).key));
    let left = world.node(leaves);
    assert!(
        left.expired && left.expiry <= Some(world.now.wall),
        "it logged out"
    );
    world.join(with_key(4, 4, "dated"));
    let refused = world.register(with_key(6, 6, "k")).unwrap_err();
    assert_eq!(refused, Rejected::PreAuthKeyExpired, "by hand, for good");
    assert_eq!(world.node(short).expiry, Some(world.now.wall.plus(DAY)));
    assert_eq!(world.node(lives).user(), Some(user));
}

#[test]
fn what_was_ended_by_hand_stays_so_after_a_restart_with_an_earlier_clock() {
    let (mut world, _) = world_at(RIGHT.plus(DAY * 3650));
    let id = world.node_number(1);
    world
        .apply(Command::ExpireNode(id, End::In(Duration::ZERO)))
        .unwrap();
    world
        .apply(Command::ExpirePreAuthKey(PreAuthKeyId::FIRST))
        .unwrap();
    world.now = Now {
        wall: RIGHT,
        mono: SECOND,
    };
    restart(&mut world, REBOOTED);
    world.tick(Flush::WhenDue);
    assert!(world.node(id).expired && world.node(id).expiry <= Some(RIGHT));
    let key = &world.model.preauth_keys[&PreAuthKeyId::FIRST];
    assert!(key.has_ended(world.now) && key.expiry <= Some(RIGHT));
}

#[test]
fn what_a_clock_years_ahead_made_does_not_live_for_years() {
    let (mut world, _) = world_at(RIGHT.plus(DAY * 3650));
    let id = world.node_number(1);
    world.now = Now {
        wall: RIGHT,
        mono: SECOND,
    };
    restart(&mut world, REBOOTED);
    world.tick(Flush::WhenDue);
    let ahead = world.node(id).expiry;
    world.wait(DAY);
    assert_eq!(world.node(id).expiry, ahead, "this clock may be behind");
    world.wait(DAY * 7);
    let expected = world.now.wall.plus(DAY * 180);
    assert_eq!(world.node(id).expiry, Some(expected));
    world.wait(DAY * 8);
    assert_eq!(world.node(id).expiry, Some(expected), "once");
}

#[test]
fn clients_are_sent_no_end_that_a_clock_of_1970_made() {
    let [wrong, behind] = wrong_clocks();
    for (wall, is_sent) in [(wrong, false), (behind, true)] {
        let (mut world, _) = world_at(wall);
        let id = world.node_number(1);
        let node = world.node(id);
        assert_eq!(node.ending.known(node.expiry).is_some(), is_sent);
    }
}

#[test]
fn nobody_was_last_seen_in_1970_once_the_time_is_known() {
    let [wrong, _] = wrong_clocks();
    let (mut world, _) = world_at(wrong);
    let (left, leaves) = (world.node_number(1), world.node_number(2));
    for node in [left, leaves] {
        let session = world.open_stream(node);
        world.apply(Command::CloseStream { node, session }).unwrap();
        if node == left {
            world.wait(SECOND * 10);
            world.wait(SECOND * 50);
        }
    }
    jump(&mut world, RIGHT);
    let seen = |world: &World, node| world.node(node).last_seen();
    assert_eq!(seen(&world, left), Some(RIGHT.moved(-50_000)));
    world.wait(SECOND * 10);
    assert_eq!(seen(&world, leaves), Some(RIGHT));
}

#[test]
fn a_date_that_a_client_asks_for_holds_though_a_clock_years_ahead_takes_it_for_past() {
    let (mut world, _) = world_at(RIGHT.plus(DAY * 3650));
    world.preauth_key("k", |key| key.ephemeral = true);
    let id = world.join(with_key(1, 1, "k")).id;
    world.open_stream(id);
    let date = RIGHT.plus(DAY * 30);
    world.join(Register {
        expiry: RequestedExpiry::At(date),
        ..plain(1, 1)
    });
    assert!(world.node(id).expired);
    jump(&mut world, RIGHT);
    assert_eq!(world.node(id).expiry, Some(date));
    assert!(!world.node(id).expired);
}
