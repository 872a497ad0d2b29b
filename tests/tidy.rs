//! House rules that the compiler can't check: which room may know which, what the pure core may
//! not touch, and what has no place in the project's files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 700;

#[test]
fn the_leaves_know_neither_each_other_nor_the_node() {
    let rooms = ["crdt-model", "transport", "tillmesh-crdt-model", "tillmesh-transport", "tillmesh-node", "tillmesh"];
    for leaf in ["crdt-model", "transport"] {
        let manifest = read(&root().join(leaf).join("Cargo.toml"));
        assert!(dependencies(&manifest).contains(&"thiserror".to_owned()), "{leaf}'s dependencies were not found");
        for dependency in dependencies(&manifest) {
            assert!(!rooms.contains(&dependency.as_str()), "{leaf} must not depend on {dependency}");
        }
    }
    let node = dependencies(&read(&root().join("node/Cargo.toml")));
    assert!(node.contains(&"crdt-model".to_owned()) && node.contains(&"transport".to_owned()));
}

#[test]
fn the_model_has_no_clock_no_randomness_no_io_and_no_unordered_maps() {
    let words = ["SystemTime", "Instant", "HashMap", "HashSet", "getrandom", "rand", "tokio", "println"];
    let paths = ["std::time", "std::fs", "std::net", "std::env", "std::io", "std::thread", "std::process"];
    let mut seen = 0;
    for file in sources().filter(|file| file.starts_with(root().join("crdt-model/src"))) {
        seen += 1;
        for (number, line) in code_lines(&read(&file)) {
            let mut found = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let word = found.find(|word| words.contains(word));
            let path = paths.iter().find(|path| line.contains(*path)).copied();
            assert!(word.or(path).is_none(), "{}:{number} uses {:?}", shown(&file), word.or(path));
        }
    }
    assert!(seen > 20, "only {seen} files of crdt-model were found");
    let manifest = dependencies(&read(&root().join("crdt-model/Cargo.toml")));
    for effect in ["tokio", "rand", "getrandom", "redb", "libp2p", "reqwest", "axum"] {
        assert!(!manifest.contains(&effect.to_owned()), "crdt-model must not depend on {effect}");
    }
}

#[test]
fn no_test_is_left_out_and_none_sleeps() {
    // In pieces, so that this file does not find itself.
    let ignored = ["#[", "ignore"].concat();
    let sleep = ["thread", "::sleep"].concat();
    for file in sources() {
        let is_test = file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        for (number, line) in code_lines(&read(&file)) {
            assert!(!line.contains(&ignored), "{}:{number} leaves a test out", shown(&file));
            assert!(!(is_test && line.contains(&sleep)), "{}:{number} sleeps: wait for what happens", shown(&file));
        }
    }
}

#[test]
fn each_source_file_says_what_it_is_for_and_stays_readable() {
    for file in sources() {
        let text = read(&file);
        assert!(text.starts_with("//!"), "{} must begin with what it is for (//!)", shown(&file));
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: split it", shown(&file));
    }
}

#[test]
fn no_result_is_thrown_away_unseen() {
    let thrown = ["let _ ", "="].concat();
    for file in sources().filter(|file| file.components().any(|part| part.as_os_str() == "src")) {
        for (number, line) in code_lines(&read(&file)) {
            assert!(!line.trim_start().starts_with(&thrown), "{}:{number} throws a value away", shown(&file));
        }
    }
}

#[test]
fn each_kind_of_hash_has_a_domain_of_its_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources().filter(|file| file.components().any(|part| part.as_os_str() == "src")) {
        for (number, line) in code_lines(&read(&file)) {
            let Some((_, rest)) = line.split_once("\"tillmesh 2026 ") else { continue };
            let domain = rest.split('"').next().unwrap().to_owned();
            places.entry(domain).or_default().push(format!("{}:{number}", shown(&file)));
        }
    }
    assert!(places.len() > 10, "only {} domains were found", places.len());
    for (domain, places) in places {
        assert_eq!(places.len(), 1, "the domain {domain:?} is used in several places: {places:?}");
    }
}

#[test]
fn the_documents_are_there_and_their_links_lead_somewhere() {
    for document in ["README", "ARCHITECTURE", "CONTRIBUTING", "GLOSSARY", "CHANGELOG"] {
        let text = read(&root().join(document).with_extension("md"));
        assert!(text.starts_with("# "), "{document}.md must begin with its title");
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(read(&root().join(licence)).len() > 500, "{licence} is not whole");
    }
    for file in files().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let folder = file.parent().unwrap();
        for target in links(&read(&file)) {
            assert!(folder.join(&target).exists(), "{} links to {target}, which is not there", shown(&file));
        }
    }
}

#[test]
fn nothing_in_the_project_speaks_of_the_machine_it_was_written_on() {
    let strangers = ["work/", "root/", "tmp/bash"].map(|folder| ["/", folder].concat());
    let unfinished = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"]].map(|halves| halves.concat());
    for file in files() {
        let Ok(text) = String::from_utf8(fs::read(&file).unwrap()) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            // An address on the web or in an API may have such a folder; a path of a machine begins a word.
            let path = strangers.iter().find(|path| begins_a_word(line, path));
            let note = unfinished.iter().find(|word| line.contains(*word));
            assert!(path.or(note).is_none(), "{}:{number} has {:?}", shown(&file), path.or(note));
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{} can't be read: {error}", shown(file)))
}

fn sources() -> impl Iterator<Item = PathBuf> {
    files().filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
}

/// The project's own files: not what was built, fetched, or belongs to the version control.
fn files() -> impl Iterator<Item = PathBuf> {
    let mut folders = vec![root().to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "node_modules"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if !["Cargo.lock", ".git"].contains(&name.as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter()
}

/// Lines without comments, numbered from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The names in a manifest's sections of dependencies, those for tests included.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut within = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            within = line.ends_with("dependencies]");
            continue;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if within && !name.is_empty() && !name.starts_with('#') {
            found.push(name.to_owned());
        }
    }
    found
}

/// Targets of links to files of the project, without what follows a `#`.
fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or(target).to_owned())
        .collect()
}

fn begins_a_word(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        line[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && !"./-_}".contains(before))
    })
}
