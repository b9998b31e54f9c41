//! Example policies for homes, each with its own tests.

/// Names of the templates.
pub const TEMPLATES: [&str; 3] = ["family", "guests", "iot"];

/// The parents and the child of the templates, who stand for the users of a tailnet.
const PARENTS: &str = r#"["anna@", "ben@"]"#;
/// See [`PARENTS`].
const CHILDREN: &str = r#"["clara@"]"#;
/// The first of [`PARENTS`], where one stands for all of them.
const PARENT: &str = r#""anna@"#;
/// See [`PARENT`].
const CHILD: &str = r#""clara@"#;

/// The template with this name, as HuJSON. It can be set at once, since its tests, which need devices, are comments.
///
/// `parents` and `children` are users as a policy names them; without parents, the users are examples.
pub fn template(name: &str, parents: &[String], children: &[String]) -> Option<String> {
    let text = match name {
        "family" => include_str!("templates/family.hujson"),
        "guests" => include_str!("templates/guests.hujson"),
        "iot" => include_str!("templates/iot.hujson"),
        _ => return None,
    };
    let Some(parent) = parents.first() else {
        return Some(text.to_owned());
    };
    let list = |users: &[String]| {
        let users: Vec<String> = users.iter().map(|user| format!("{user:?}")).collect();
        format!("[{}]", users.join(", "))
    };
    // Without the closing quotes: ports may follow.
    let opened = |user: &String| format!("{user:?}").trim_end_matches('"').to_owned();
    let mut examples = vec![
        (PARENTS, list(parents)),
        (CHILDREN, list(children)),
        (PARENT, opened(parent)),
    ];
    examples.extend(children.first().map(|child| (CHILD, opened(child))));
    Some(replaced(text, &examples))
}

/// `text` with each example replaced, in one pass: a user of the tailnet may have the name of an example.
fn replaced(mut text: &str, examples: &[(&str, String)]) -> String {
    let mut whole = String::with_capacity(text.len());
    let next = |text: &str| {
        let found = examples.iter().filter_map(|(example, by)| {
            let at = text.find(example)?;
            Some((at, at.checked_add(example.len())?, by.clone()))
        });
        found.min_by_key(|(at, ..)| *at)
    };
    while let Some((at, end, by)) = next(text) {
        whole.push_str(text.get(..at).unwrap_or_default());
        whole.push_str(&by);
        text = text.get(end..).unwrap_or_default();
    }
    whole.push_str(text);
    whole
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{NodeId, UserId};
    use crate::policy::{
        Compiled, Diagnostic, Directory, Node, Owner, Policy, Posture, Role, User,
    };

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

    /// The text with the lines that are commented out.
    fn with_tests(text: &str) -> String {
        let lines = text.lines().map(|line| match line.strip_prefix("\t//") {
            Some(code) if !code.starts_with(' ') => code,
            _ => line,
        });
        lines.fold(String::new(), |text, line| text + line + "\n")
    }

    fn check(text: &str, home: &Directory) -> Result<Compiled, Vec<Diagnostic>> {
        let policy = Policy::parse(text).unwrap_or_else(|faults| panic!("{faults:?}"));
        let compiled = Compiled::compile(&Arc::new(policy), home);
        compiled.check().map(|()| compiled)
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
            let text = with_tests(&template(name, &[], &[]).unwrap());
            let policy = Policy::parse(&text).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
            assert!(!policy.tests.is_empty(), "{name}");
            assert_eq!(check(&text, &home).err(), None, "{name}");
            let open = r#""grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]},"#;
            let opened = text.replace("\"grants\": [", open);
            assert!(check(&opened, &home).is_err(), "{name}");
        }
        assert_eq!(template("other", &[], &[]), None);
    }

    /// `hearth ssh approve` runs there.
    #[test]
    fn no_template_has_a_rule_with_a_check_for_the_router() {
        let home = home(&["anna"], &["tag:router", "tag:home"]);
        let [anna, router, other] = [1, 2, 3].map(|number| NodeId::new(number).unwrap());
        let mut checks = 0;
        for name in TEMPLATES {
            let compiled = check(&template(name, &[], &[]).unwrap(), &home).unwrap();
            assert_eq!(compiled.ssh_check(anna, router, "root"), None, "{name}");
            checks += usize::from(compiled.ssh_check(anna, other, "root").is_some());
        }
        assert!(checks > 0, "none has a check at all");
    }

    #[test]
    fn users_with_the_names_of_examples_are_no_examples() {
        let users = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let parents = users(&["home@", "anna@", "johanna@", "clara@"]);
        let text = template("family", &parents, &users(&["ben@", "anna@example.com"])).unwrap();
        assert!(
            text.contains(r#""group:parents": ["home@", "anna@", "johanna@", "clara@"],"#),
            "{text}"
        );
        assert!(
            text.contains(r#""group:children": ["ben@", "anna@example.com"],"#),
            "{text}"
        );
        assert!(text.contains(r#"{"src": "home@", "accept""#), "{text}");
    }

    #[test]
    fn each_template_can_be_set_at_once_with_the_users_there_are() {
        let users = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let empty = home(&[], &[]);
        let family = home(&["lm", "max@example.com", "kid"], &[]);
        for name in TEMPLATES {
            let text = template(name, &[], &[]).unwrap();
            assert!(check(&text, &empty).is_ok(), "{name}");
            for children in [&["kid@"][..], &[]] {
                let parents = users(&["lm@", "max@example.com"]);
                let text = template(name, &parents, &users(children)).unwrap();
                let compiled = check(&text, &family).unwrap();
                let warnings = compiled.warnings();
                let mut unknown = warnings
                    .iter()
                    .filter(|warning| warning.message.contains('@'));
                assert_eq!(unknown.next(), None, "{name}");
                assert!(!text.contains("anna@") && !text.contains("ben@"));
            }
        }
    }
}
