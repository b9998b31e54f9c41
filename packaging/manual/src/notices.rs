//! The notices of the packages that are in the program, which their licences want passed on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The processors for which there are packages: what is in the program may depend on them.
const TARGETS: &[&str] = &[
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "arm-unknown-linux-musleabihf",
    "mipsel-unknown-linux-musl",
];

/// How files with a licence or a notice begin.
const NAMES: &[&str] = &[
    "license",
    "licence",
    "copying",
    "notice",
    "copyright",
    "unlicense",
];

/// One package after the other with its licence, and each text once, with those it belongs to.
pub(crate) fn of_program(root: &Path) -> Result<String, Box<dyn Error>> {
    let mut packages = BTreeMap::new();
    for target in TARGETS {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--filter-platform",
                target,
            ])
            .current_dir(root)
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        packages.extend(in_program(&serde_json::from_slice(&output.stdout)?));
    }
    let mut text = String::from(
        "hearth is linked statically with Rust's standard library (MIT OR Apache-2.0), musl (MIT) and\n\
         these packages:\n\n",
    );
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, package) in &packages {
        writeln!(text, "  {name}: {}", word(package, "license"))?;
        let Some(directory) = Path::new(word(package, "manifest_path")).parent() else {
            continue;
        };
        for notice in notices(directory)? {
            texts.entry(notice).or_default().insert(name.clone());
        }
    }
    for (notice, names) in texts {
        let names: Vec<String> = names.into_iter().collect();
        writeln!(
            text,
            "\n{}\n{}\n\n{}",
            "-".repeat(78),
            names.join(", "),
            notice.trim_end()
        )?;
    }
    Ok(text)
}

/// The packages from the registry that the program is built of, by name and version.
fn in_program(metadata: &Value) -> BTreeMap<String, Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (word(&package, "id").to_owned(), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (word(&node, "id").to_owned(), node))
        .collect();
    let first = packages
        .iter()
        .find(|(_, package)| word(package, "name") == "hearth");
    let mut open: Vec<String> = first.map(|(id, _)| id.clone()).into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in nodes
            .get(&id)
            .map(|node| list(&node["deps"]))
            .unwrap_or_default()
        {
            // Neither what only tests nor what only build scripts need.
            if list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null())
            {
                open.push(word(&dependency, "pkg").to_owned());
            }
        }
    }
    let of_registry = seen
        .iter()
        .filter_map(|id| packages.get(id))
        .filter(|package| !package["source"].is_null());
    of_registry
        .map(|package| {
            (
                format!("{} {}", word(package, "name"), word(package, "version")),
                package.clone(),
            )
        })
        .collect()
}

/// The texts beside a package's manifest.
fn notices(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|begin| name.starts_with(begin)) && entry.file_type()?.is_file() {
            found.push(String::from_utf8_lossy(&fs::read(entry.path())?).replace('\r', ""));
        }
    }
    found.sort();
    Ok(found)
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
