//! A DERP map from a URL or file, as JSON or YAML: refused with a reason, or regions with unique names.
#![no_main]

use std::collections::BTreeSet;

use hearth_core::derp_map_file::{Part, join};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match Part::read(text) {
        Err(fault) => assert!(!fault.to_string().is_empty()),
        Ok(part) => {
            let (map, _) = join([&part]);
            let nodes = map.regions.values().flat_map(|region| &region.nodes);
            let names: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
            let unique: BTreeSet<&str> = names.iter().copied().collect();
            assert_eq!(names.len(), unique.len());
        }
    }
});
