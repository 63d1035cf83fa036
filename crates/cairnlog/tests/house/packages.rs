//! What a package needs to be published, and who gets built when nothing is named.

use crate::sources::{Member, members, root};

/// What a published package lacks. `has` tells which files it has.
fn lacks(manifest: &str, has: impl Fn(&str) -> bool) -> Vec<String> {
    let fields = ["description", "keywords", "categories", "readme", "license", "repository"];
    let starts = |line: &str, field: &str| {
        line.strip_prefix(field).is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    let package = manifest.split("\n[").next().unwrap_or_default();
    let missing = fields.iter().filter(|field| !package.lines().any(|line| starts(line, field)));
    let files = ["README.md", "LICENSE-APACHE", "LICENSE-MIT"];
    let missing = missing.chain(files.iter().filter(|file| !has(file)));
    missing.map(|missing| (*missing).to_owned()).collect()
}

#[test]
fn what_a_package_lacks_is_found() {
    let whole = "[package]\nname = \"x\"\ndescription = \"\"\"\nx\"\"\"\nkeywords = []\n\
                 categories = []\nreadme = \"README.md\"\nlicense.workspace = true\n\
                 repository.workspace = true\n\n[dependencies]\n";
    assert_eq!(lacks(whole, |_| true), [""; 0]);
    assert_eq!(lacks(whole, |name| name != "LICENSE-MIT"), ["LICENSE-MIT"]);
    let keywords =
        whole.replace("keywords", "words").replace("[dependencies]", "[x]\nkeywords = 1");
    assert_eq!(lacks(&keywords, |_| true), ["keywords"]);
}

#[test]
fn every_published_package_has_what_it_needs() {
    for member in members().iter().filter(|member| member.is_published()) {
        let lacks = lacks(&member.manifest, |file| member.folder.join(file).exists());
        assert!(lacks.is_empty(), "{} lacks {}", member.name, lacks.join(", "));
    }
}

#[test]
fn what_is_built_by_default_is_what_is_published() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let list = manifest.split_once("default-members = [").unwrap().1.split(']').next().unwrap();
    let built: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let published = members().into_iter().filter(Member::is_published);
    let published: Vec<String> =
        published.map(|member| format!("crates/{}", member.name)).collect();
    assert_eq!(built, published, "default-members of Cargo.toml");
}
