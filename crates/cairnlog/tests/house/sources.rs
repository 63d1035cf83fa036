//! Where the sources are, found by rule: a list would rot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use syn::punctuated::Punctuated;
use syn::{Attribute, Item, Meta, Token};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// A member of the workspace.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) manifest: String,
}

impl Member {
    /// Whether other programs can link it, as opposed to a program.
    pub(crate) fn is_library(&self) -> bool {
        self.folder.join("src/lib.rs").exists()
    }

    pub(crate) fn is_published(&self) -> bool {
        !self.manifest.lines().any(|line| line.trim() == "publish = false")
    }

    /// Its sources without tests, examples and benchmarks: text by path below `src`.
    pub(crate) fn sources(&self) -> BTreeMap<String, String> {
        let src = self.folder.join("src");
        let mut found = BTreeMap::new();
        for path in files_below(&src) {
            if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
        assert!(!found.is_empty(), "{} has no sources", self.name);
        found
    }
}

/// The members of the workspace, in the order of their names.
pub(crate) fn members() -> Vec<Member> {
    let mut members = Vec::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        if let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            members.push(Member { name, folder, manifest });
        }
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(members.iter().filter(|member| member.is_library()).count() > 5);
    members
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                if !["target", ".git", "corpus", "artifacts"].contains(&&*name) {
                    folders.push(path);
                }
            } else {
                found.push(path);
            }
        }
    }
    found
}

/// The files of the repository as text, by path from its root. What is no text is left out.
///
/// Those that git tracks; in a copy without git, all that are there.
pub(crate) fn texts() -> BTreeMap<String, String> {
    let root = root();
    let git = Command::new("git").arg("-C").arg(&root).args(["ls-files", "-z"]).output();
    let paths: Vec<PathBuf> = match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let names = String::from_utf8(output.stdout).unwrap();
            names.split_terminator('\0').map(|name| root.join(name)).collect()
        }
        _ => files_below(&root),
    };
    let named = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        fs::read_to_string(&path).ok().map(|text| (name, text))
    };
    paths.into_iter().filter_map(named).collect()
}

/// The attributes of an item; none for a kind of item that this project does not use.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether attributes leave an item out of everything but tests.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        let Meta::List(list) = meta else { return meta.path().is_ident("test") };
        let Ok(parts) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
        else {
            return false;
        };
        match list.path.get_ident().map(ToString::to_string).as_deref() {
            Some("all") => parts.iter().any(needs_test),
            Some("any") => !parts.is_empty() && parts.iter().all(needs_test),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        let cfg = attribute.path().is_ident("cfg");
        attribute.path().is_ident("test")
            || cfg && attribute.parse_args::<Meta>().is_ok_and(|meta| needs_test(&meta))
    })
}

#[test]
fn what_only_tests_see_is_told_from_the_rest() {
    let is = |source: &str| {
        let item: syn::ItemMod = syn::parse_str(&format!("{source} mod m {{}}")).unwrap();
        is_test(&item.attrs)
    };
    for test in ["#[cfg(test)]", "#[cfg(all(test, not(unix)))]", "#[cfg(any(test, all(x, test)))]"]
    {
        assert!(is(test), "{test}");
    }
    for shipped in ["", "#[cfg(unix)]", "#[cfg(not(test))]", "#[cfg(any(test, unix))]"] {
        assert!(!is(shipped), "{shipped}");
    }
}
