//! Attributes of nodes that nodes and administrators set for postures.

use crate::id::NodeId;
use crate::state::apply::Applied;
use crate::state::attributes::{AttributeValue, MOST, NAME_BYTES, PREFIX, TEXT_BYTES};
use crate::state::command::{Outcome, Rejected};
use crate::state::event::{Action, Property, Target, Values, list_text};
use crate::state::tx::Tx;

/// Sets attributes of a node; `None` takes one away, and what is not named stays.
pub(super) fn set(
    tx: &mut Tx<'_>,
    id: NodeId,
    updates: Vec<(Box<str>, Option<AttributeValue>)>,
) -> Applied {
    let node = tx.node(id).ok_or(Rejected::NoSuchNode)?.clone();
    let before = tx.attributes.get(&id).cloned().unwrap_or_default();
    let mut after = (*before).clone();
    let mut named = Vec::new();
    for (name, value) in updates {
        check(&name, value.as_ref())?;
        named.push(match &value {
            Some(value) => format!("{name}={}", value.to_json()),
            None => format!("{name}=null"),
        });
        match value {
            Some(value) => after.insert(name, value),
            None => after.remove(&name),
        };
    }
    if after.len() > MOST {
        let what = "attributes of one node";
        return Err(Rejected::TooMany { what, limit: MOST });
    }
    if after == *before {
        return Ok(Outcome::Done);
    }
    let target = Target::node(&node).property(Property::Attributes);
    tx.event(Action::Update, target, Values::made(&list_text(&named), ""));
    tx.put_attributes(id, after);
    Ok(Outcome::Done)
}

fn check(name: &str, value: Option<&AttributeValue>) -> Result<(), Rejected> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let own = name.strip_prefix(PREFIX).unwrap_or_default();
    if own.is_empty() || name.len() > NAME_BYTES || !own.bytes().all(plain) {
        return Err(Rejected::BadAttribute(name.into()));
    }
    match value {
        Some(AttributeValue::Text(text)) if text.len() > TEXT_BYTES => Err(Rejected::TooLong {
            field: "value of an attribute",
            limit: TEXT_BYTES,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::attributes::Attributes;
    use crate::state::command::Command;
    use crate::state::record::{Record, Stored};
    use crate::state::testing::World;

    fn text(text: &str) -> Option<AttributeValue> {
        Some(AttributeValue::Text(text.into()))
    }

    fn set_on(
        world: &mut World,
        node: NodeId,
        updates: &[(&str, Option<AttributeValue>)],
    ) -> Applied {
        let updates = updates.iter().cloned();
        let updates = updates.map(|(name, value)| (name.into(), value)).collect();
        world.apply(Command::SetAttributes { node, updates })
    }

    fn world() -> (World, NodeId) {
        let (mut world, _) = World::with_user();
        let node = world.node_number(1);
        (world, node)
    }

    #[test]
    fn attributes_are_set_kept_and_forgotten_with_the_node() {
        let (mut world, node) = world();
        let two = [
            ("custom:a", text("x")),
            ("custom:b", Some(AttributeValue::Flag(true))),
        ];
        set_on(&mut world, node, &two).unwrap();
        let records = world.records.len();
        set_on(&mut world, node, &two).unwrap();
        assert_eq!(world.records.len(), records, "nothing new, nothing written");
        let change = [
            ("custom:a", None),
            ("custom:c", Some(AttributeValue::Number(-7))),
        ];
        set_on(&mut world, node, &change).unwrap();
        let kept = world.model.attributes[&node].clone();
        let names: Vec<&str> = kept.keys().map(|name| &**name).collect();
        assert_eq!(names, ["custom:b", "custom:c"]);
        assert_eq!(Attributes::decode(&kept.encode()).as_ref(), Ok(&*kept));
        world.apply(Command::DeleteNode(node)).unwrap();
        assert!(world.model.attributes.is_empty());
        assert!(matches!(
            world.records[world.records.len() - 2..],
            [Record::DeleteNode(_), Record::DeleteAttributes(_)]
        ));
    }

    #[test]
    fn bad_and_too_many_attributes_change_nothing() {
        let (mut world, node) = world();
        let long = "custom:".to_owned() + &"x".repeat(NAME_BYTES);
        for name in ["", "a", "custom:", "custom:a b", "node:os", &long] {
            let updates = [("custom:a", text("x")), (name, text("x"))];
            let refused = set_on(&mut world, node, &updates).unwrap_err();
            assert_eq!(refused, Rejected::BadAttribute(name.into()));
        }
        let long = "x".repeat(TEXT_BYTES + 1);
        assert!(set_on(&mut world, node, &[("custom:a", text(&long))]).is_err());
        for number in 0..=MOST {
            let name = format!("custom:{number}");
            let set = set_on(&mut world, node, &[(&name, text("x"))]);
            assert_eq!(set.is_ok(), number < MOST);
        }
        assert_eq!(world.model.attributes[&node].len(), MOST);
    }
}
