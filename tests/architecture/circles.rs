//! Circles: sibling modules (files or folders of one parent) that import each other, directly or by way of others.
//!
//! Every path of a file is followed to the module that has the item, through the `use` lines of the modules on the
//! way. A path from the subtree of one child of a module into the subtree of another is an edge between these two. A
//! parent and its children may use each other, as usual in Rust. Code of tests does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Source, sources};
use super::{CRATES, report};

#[test]
fn siblings_do_not_import_in_circles() {
    let mut wrong = Vec::new();
    for (name, folder) in CRATES {
        wrong.extend(circles(name, &sources(folder)));
    }
    report("sibling modules import each other in a circle", wrong);
}

#[test]
fn a_circle_is_found_through_groups_folders_and_reexports() {
    let file = |place: &str, text: &str| Source::new(place.to_owned(), place.to_owned(), text);
    let found = circles(
        "hearth",
        &[
            file("room", "mod a; mod b; mod c; pub use b::deep::Thing;"),
            file("room/a", "use super::Thing; fn a() {}"),
            file("room/b", "pub mod deep;"),
            file(
                "room/b/deep",
                "pub struct Thing; fn f() { crate::room::c::f() }",
            ),
            file("room/c", "use super::{a::{self}, Other};"),
        ],
    );
    assert_eq!(found.len(), 1, "{found:?}");
    let circle = &found[0];
    for edge in [
        "room: a, b, c",
        "a → b  (room/a: super::Thing)",
        "b → c  (room/b/deep: crate::room::c::f)",
        "c → a  (room/c: super::a)",
    ] {
        assert!(circle.contains(edge), "{edge:?} not in {circle}");
    }
}

#[test]
fn a_parent_and_its_child_are_no_circle_and_tests_do_not_count() {
    let file = |place: &str, text: &str| Source::new(place.to_owned(), place.to_owned(), text);
    let found = circles(
        "hearth",
        &[
            file(
                "room",
                "mod a; mod b; use a::A; pub struct P; fn p(_: A) {}",
            ),
            file(
                "room/a",
                "use super::P; use crate::room::b::B; pub struct A;",
            ),
            file(
                "room/b",
                "pub struct B; #[cfg(all(test, feature = \"x\"))] mod tests { use super::super::a::A; }",
            ),
        ],
    );
    assert!(found.is_empty(), "{found:?}");
}

/// The children of one module that import each other: from, to, and one place that does so.
type Edges = BTreeMap<(String, String), String>;

/// One text for each circle of a crate.
fn circles(name: &str, files: &[Source]) -> Vec<String> {
    let modules: BTreeMap<Vec<String>, &Source> =
        files.iter().map(|file| (file.path(), file)).collect();
    let mut parents: BTreeMap<Vec<String>, Edges> = BTreeMap::new();
    for (module, file) in &modules {
        for path in &file.paths {
            let Some(target) = follow(&modules, name, module, path) else {
                continue;
            };
            let shared = module
                .iter()
                .zip(&target)
                .take_while(|(a, b)| a == b)
                .count();
            if let (Some(from), Some(to)) = (module.get(shared), target.get(shared)) {
                parents
                    .entry(module[..shared].to_vec())
                    .or_default()
                    .entry((from.clone(), to.clone()))
                    .or_insert_with(|| format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    let mut found = Vec::new();
    for (parent, edges) in &parents {
        for members in rings(edges) {
            let mut text = format!(
                "{}: {}",
                [&[name.to_owned()], parent.as_slice()].concat().join("::"),
                members.iter().cloned().collect::<Vec<_>>().join(", ")
            );
            for ((from, to), place) in edges {
                if members.contains(from) && members.contains(to) {
                    text.push_str(&format!("\n    {from} → {to}  ({place})"));
                }
            }
            found.push(text);
        }
    }
    found
}

/// The module that has the item of a path; `None` for other crates and local names.
fn follow(
    modules: &BTreeMap<Vec<String>, &Source>,
    name: &str,
    from: &[String],
    path: &[String],
) -> Option<Vec<String>> {
    let mut module = from.to_vec();
    let mut rest = path.to_vec();
    // Each step consumes a segment or replaces one by an import; imports of imports end soon.
    for _ in 0..32 {
        let Some(first) = rest.first().cloned() else {
            return Some(module);
        };
        let child = [module.as_slice(), std::slice::from_ref(&first)].concat();
        match first.as_str() {
            "crate" => module.clear(),
            _ if first == name => module.clear(),
            "self" => {}
            "super" => drop(module.pop()),
            _ if modules.contains_key(&child) => module = child,
            _ => {
                let file = modules.get(&module)?;
                // A local name of the file itself leads nowhere else.
                if module == from && rest.len() == path.len() {
                    return None;
                }
                if file.items.contains(&first) {
                    return Some(module);
                }
                let Some(import) = import_of(modules, name, &module, &first) else {
                    return Some(module);
                };
                rest.splice(..1, import);
                continue;
            }
        }
        rest.remove(0);
    }
    Some(module)
}

/// The path by which a module has a name that is not its own item.
fn import_of(
    modules: &BTreeMap<Vec<String>, &Source>,
    name: &str,
    module: &[String],
    wanted: &str,
) -> Option<Vec<String>> {
    let file = modules.get(module)?;
    if let Some((_, path)) = file.imports.iter().find(|(alias, _)| alias == wanted) {
        return Some(path.clone());
    }
    let globs = file.imports.iter().filter(|(alias, _)| alias == "*");
    globs.map(|(_, path)| path).find_map(|path| {
        let target = follow(
            modules,
            name,
            module,
            &[path.as_slice(), &["*".to_owned()]].concat(),
        )?;
        let has_it = modules.get(&target)?.items.contains(wanted);
        has_it.then(|| [path.as_slice(), &[wanted.to_owned()]].concat())
    })
}

/// The sets of modules that all reach each other.
fn rings(edges: &Edges) -> BTreeSet<BTreeSet<String>> {
    let names: BTreeSet<&String> = edges.keys().flat_map(|(from, to)| [from, to]).collect();
    let reach = |start: &String| {
        let mut seen: BTreeSet<&String> = BTreeSet::new();
        let mut open = vec![start];
        while let Some(next) = open.pop() {
            for (from, to) in edges.keys() {
                if from == next && seen.insert(to) {
                    open.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        names.iter().map(|name| (*name, reach(name))).collect();
    let rings = names.iter().filter(|name| reached[*name].contains(*name));
    rings
        .map(|name| {
            let both = reached[name]
                .iter()
                .filter(|other| reached[*other].contains(name));
            both.map(|other| (*other).clone()).collect()
        })
        .collect()
}
