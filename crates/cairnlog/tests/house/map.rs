//! What the documents say of files is true of the files.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sources::{members, root, texts};

/// Targets of the links in Markdown that lead into the repository, from its root. A page that is
/// part of a crate's documentation also has links to items, which `cargo doc` checks.
fn links(document: &str, text: &str) -> Vec<String> {
    let folder = Path::new(document).parent().unwrap();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let is_item = |target: &str| target == "crate" || target.contains("::");
    let inside =
        targets.filter(|target| !target.contains("://") && !target.is_empty() && !is_item(target));
    inside.map(|target| normal(&folder.join(target).to_string_lossy())).collect()
}

/// A path without `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Names of Rust and Markdown files in a text, with as many folders as it names.
fn file_names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_matches('.'));
    let named = words.filter(|word| [".rs", ".md"].iter().any(|end| word.ends_with(end)));
    named.map(|word| normal(word.trim_start_matches("../"))).collect()
}

/// Folders in which sources lie, of those named, that no link of the map leads to: neither to the
/// folder nor to a file in it.
fn unmapped<'a>(folders: &'a BTreeSet<String>, links: &[String]) -> Vec<&'a String> {
    let leads = |link: &String, folder: &str| {
        let file = link.rsplit_once('/').filter(|(_, name)| name.contains('.'));
        link == folder || file.is_some_and(|(parent, _)| parent == folder)
    };
    folders.iter().filter(|folder| !links.iter().any(|link| leads(link, folder))).collect()
}

#[test]
fn links_names_and_folders_are_read_as_they_are_meant() {
    let text = "see [a](src/a.rs), [b](../b.md#part), [c](https://x.org/c.md), [d](crate::D); `d/e.rs`: \
                f.rs.";
    assert_eq!(links("docs/page.md", text), ["docs/src/a.rs", "b.md"]);
    let names = ["b.md", "d/e.rs", "f.rs", "src/a.rs"];
    assert!(names.iter().all(|name| file_names(text).contains(*name)));
    let folders = BTreeSet::from(["a/src".to_owned(), "a/src/b".to_owned()]);
    assert_eq!(unmapped(&folders, &["a/src/x.rs".to_owned()]), ["a/src/b"]);
    assert_eq!(unmapped(&folders, &["a/src/b".to_owned()]), ["a/src"], "a folder is no file");
    assert!(unmapped(&folders, &["a/src/b/y.rs".to_owned(), "a/src".to_owned()]).is_empty());
}

#[test]
fn every_link_in_a_document_leads_somewhere() {
    let root = root();
    for (name, text) in texts().iter().filter(|(name, _)| name.ends_with(".md")) {
        for link in links(name, text) {
            assert!(root.join(&link).exists(), "{name} links to {link}, which does not exist");
        }
    }
}

#[test]
fn every_file_that_the_map_names_exists() {
    let texts = texts();
    for named in file_names(&texts["ARCHITECTURE.md"]) {
        let is_it = |name: &String| *name == named || name.ends_with(&format!("/{named}"));
        assert!(texts.keys().any(is_it), "ARCHITECTURE.md names {named}, which does not exist");
    }
}

#[test]
fn every_folder_of_library_sources_is_on_the_map() {
    let mut folders = BTreeSet::new();
    for member in members().iter().filter(|member| member.is_library()) {
        for name in member.sources().keys().filter(|name| !name.ends_with("tests.rs")) {
            let path = format!("crates/{}/src/{name}", member.name);
            folders.insert(path.rsplit_once('/').unwrap().0.to_owned());
        }
    }
    let missing = unmapped(&folders, &links("ARCHITECTURE.md", &texts()["ARCHITECTURE.md"]))
        .iter()
        .map(|folder| folder.to_string())
        .collect::<Vec<_>>();
    assert!(missing.is_empty(), "not on the map in ARCHITECTURE.md: {}", missing.join(", "));
}
