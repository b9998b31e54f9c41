//! Example policies for homes, each with its own tests.

/// Names of the templates.
pub const TEMPLATES: [&str; 3] = ["family", "guests", "iot"];

/// The template with this name, as HuJSON.
pub fn template(name: &str) -> Option<&'static str> {
    Some(match name {
        "family" => include_str!("templates/family.hujson"),
        "guests" => include_str!("templates/guests.hujson"),
        "iot" => include_str!("templates/iot.hujson"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{NodeId, UserId};
    use crate::policy::{Compiled, Directory, Node, Owner, Policy, Posture, Role, User};

    /// A user with a device for each name, and a device for each tag.
    fn home(names: &[&str], tags: &[&str]) -> Directory {
        let user = |(number, name): (u64, &&str)| User {
            id: UserId::new(number).unwrap(),
            login: (*name).into(),
            email: "".into(),
            role: if number == 1 {
                Role::Owner
            } else {
                Role::Member
            },
            groups: Arc::default(),
        };
        let users: Vec<User> = (1..).zip(names).map(user).collect();
        let owned = users.iter().map(|user| Owner::User(user.id));
        let tagged = tags.iter().map(|tag| Owner::Tags([(*tag).into()].into()));
        let node = |(number, owner): (u8, Owner)| Node {
            id: NodeId::new(number.into()).unwrap(),
            owner,
            ipv4: Some([100, 64, 0, number].into()),
            ipv6: None,
            routes: Arc::default(),
            primary: Arc::default(),
            posture: Arc::new(Posture::default()),
        };
        let nodes = (1..).zip(owned.chain(tagged)).map(node).collect();
        Directory { users, nodes }
    }

    #[test]
    fn the_tests_of_each_template_pass_and_catch_an_open_rule() {
        let names = ["anna", "ben", "clara"];
        let tags = [
            "tag:home",
            "tag:router",
            "tag:guest",
            "tag:shared",
            "tag:iot",
            "tag:iot",
            "tag:hub",
        ];
        let home = home(&names, &tags);
        for name in TEMPLATES {
            let text = template(name).unwrap();
            let check = |text: &str| {
                let policy =
                    Policy::parse(text).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
                assert!(!policy.tests.is_empty(), "{name}");
                Compiled::compile(&Arc::new(policy), &home).check()
            };
            assert_eq!(check(text), Ok(()), "{name}");
            let open = r#""grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]},"#;
            assert!(
                check(&text.replace("\"grants\": [", open)).is_err(),
                "{name}"
            );
        }
        assert_eq!(template("other"), None);
    }
}
