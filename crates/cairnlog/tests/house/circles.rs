//! Which file of a crate needs which: a reader who follows imports may not walk in a circle of more
//! than two files.
//!
//! Computed from `use` lines and from paths in code, macros included. A path counts for the file
//! that defines what it names: imports of a name that `lib.rs` re-exports lead to the file behind
//! it, and re-exporting alone is no import. What only tests see does not count.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{ImplItem, Item, TraitItem, UseTree, Visibility};

use crate::sources::{attributes, is_test, members};

type Path = Vec<String>;

#[derive(Default)]
struct Module {
    file: String,
    parent: usize,
    children: BTreeMap<String, usize>,
    /// Names of items that are defined here.
    defined: BTreeSet<String>,
    /// Name, path, and whether it is a re-export.
    imports: Vec<(String, Path, bool)>,
    /// Modules of which everything is imported.
    globs: Vec<Path>,
    /// Paths in code, of two segments or more.
    paths: BTreeSet<Path>,
    /// Single names in code.
    names: BTreeSet<String>,
}

/// The modules of one crate; the first one is its root.
struct Tree<'a> {
    sources: &'a BTreeMap<String, String>,
    modules: Vec<Module>,
}

impl<'a> Tree<'a> {
    fn new(sources: &'a BTreeMap<String, String>) -> Self {
        let root = ["lib.rs", "main.rs"].into_iter().find(|name| sources.contains_key(*name));
        let root = root.expect("a crate has a root");
        let mut tree = Tree { sources, modules: Vec::new() };
        tree.add(0, root.to_owned());
        tree.load(0, root, "");
        tree
    }

    fn add(&mut self, parent: usize, file: String) -> usize {
        self.modules.push(Module { file, parent, ..Module::default() });
        self.modules.len() - 1
    }

    /// Reads a file; `folder` is where the files of its modules are.
    fn load(&mut self, module: usize, file: &str, folder: &str) {
        let text = &self.sources[file];
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        self.walk(module, parsed.items, folder);
    }

    fn walk(&mut self, module: usize, items: Vec<Item>, folder: &str) {
        for item in items {
            if is_test(attributes(&item)) {
                continue;
            }
            match item {
                Item::Mod(item) => self.descend(module, item, folder),
                Item::Use(item) => {
                    let public = !matches!(item.vis, Visibility::Inherited);
                    self.import(module, &item.tree, &mut Vec::new(), public);
                }
                mut item => {
                    leave_tests_out(&mut item);
                    self.modules[module].defined.extend(name_of(&item));
                    self.modules[module].read(item.to_token_stream());
                }
            }
        }
    }

    fn descend(&mut self, module: usize, item: syn::ItemMod, folder: &str) {
        let name = item.ident.to_string();
        let below = format!("{folder}{name}/");
        let child = match item.content {
            Some((_, items)) => {
                let child = self.add(module, self.modules[module].file.clone());
                self.walk(child, items, &below);
                child
            }
            None => {
                let files = [format!("{folder}{name}.rs"), format!("{below}mod.rs")];
                let file = files.iter().find(|file| self.sources.contains_key(*file));
                let file = file.unwrap_or_else(|| panic!("no file for module {name}: {files:?}"));
                let child = self.add(module, file.clone());
                self.load(child, file, &below);
                child
            }
        };
        self.modules[module].children.insert(name, child);
    }

    fn import(&mut self, module: usize, tree: &UseTree, path: &mut Path, public: bool) {
        let here = &mut self.modules[module];
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.import(module, &part.tree, path, public);
                path.pop();
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(module, tree, path, public));
            }
            UseTree::Glob(_) => here.globs.push(path.clone()),
            UseTree::Name(name) if name.ident == "self" => {
                here.imports.push((path.last().unwrap().clone(), path.clone(), public));
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                here.imports.push((name.clone(), [&path[..], &[name]].concat(), public));
            }
            UseTree::Rename(named) => {
                let whole = [&path[..], &[named.ident.to_string()]].concat();
                let whole = if named.ident == "self" { path.clone() } else { whole };
                here.imports.push((named.rename.to_string(), whole, public));
            }
        }
    }

    /// The module that defines what `path` names, seen from `module`; `None` for another crate's.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        match &**first {
            "crate" => self.below(0, rest, depth),
            "self" => self.below(module, rest, depth),
            "super" => self.resolve_in_parent(self.modules[module].parent, rest, depth),
            name if self.knows(module, name) => self.below(module, path, depth),
            _ => None,
        }
    }

    fn resolve_in_parent(&self, parent: usize, rest: &[String], depth: usize) -> Option<usize> {
        match rest.first() {
            Some(next) if next == "super" => self.resolve(parent, rest, depth),
            _ => self.below(parent, rest, depth),
        }
    }

    fn knows(&self, module: usize, name: &str) -> bool {
        let here = &self.modules[module];
        here.children.contains_key(name) || here.imports.iter().any(|(n, ..)| n == name)
    }

    fn below(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        let here = &self.modules[module];
        let Some((name, rest)) = path.split_first() else { return Some(module) };
        if let Some(child) = here.children.get(name) {
            return self.below(*child, rest, depth);
        }
        if here.defined.contains(name) || depth == 0 {
            return Some(module);
        }
        if let Some((_, of, _)) = here.imports.iter().find(|(n, ..)| n == name) {
            let whole = [&of[..], rest].concat();
            return self.resolve(module, &whole, depth - 1);
        }
        let through = here.globs.iter().filter_map(|glob| self.resolve(module, glob, depth - 1));
        let mut defining = through.filter(|found| {
            self.modules[*found].defined.contains(name) || self.knows(*found, name)
        });
        match defining.next() {
            Some(found) => self.below(found, path, depth - 1),
            None => Some(module),
        }
    }

    /// Pairs of files: the first one imports from the second one.
    fn edges(&self) -> BTreeSet<(String, String)> {
        const DEPTH: usize = 8;
        let mut edges = BTreeSet::new();
        for (module, here) in self.modules.iter().enumerate() {
            let is_used = |name: &str| {
                here.names.contains(name) || here.paths.iter().any(|path| path[0] == name)
            };
            let imports = here.imports.iter().filter(|(name, _, public)| !public || is_used(name));
            let imported = imports.map(|(_, path, _)| path);
            for path in imported.chain(&here.globs).chain(&here.paths) {
                if let Some(found) = self.resolve(module, path, DEPTH) {
                    edges.insert((here.file.clone(), self.modules[found].file.clone()));
                }
            }
        }
        edges.retain(|(from, to)| from != to);
        edges
    }
}

impl Module {
    /// Takes the names and paths out of code.
    fn read(&mut self, tokens: TokenStream) {
        let mut path = Path::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    let prefixed = colons == 2 && group.delimiter() == Delimiter::Brace;
                    if prefixed && path.len() == 1 {
                        // `use crate::{..}` inside of a function: what is in the braces is not
                        // looked at, so the module as a whole counts.
                        path.push("self".to_owned());
                    }
                    self.end_path(&mut path);
                    colons = 0;
                    self.read(group.stream());
                }
                _ => {
                    self.end_path(&mut path);
                    colons = 0;
                }
            }
        }
        self.end_path(&mut path);
    }

    fn end_path(&mut self, path: &mut Path) {
        match path.len() {
            0 => {}
            1 => {
                self.names.insert(path.remove(0));
            }
            _ => {
                self.paths.insert(std::mem::take(path));
            }
        }
    }
}

fn leave_tests_out(item: &mut Item) {
    match item {
        Item::Impl(item) => {
            item.items.retain(|item| !matches!(item, ImplItem::Fn(f) if is_test(&f.attrs)));
        }
        Item::Trait(item) => {
            item.items.retain(|item| !matches!(item, TraitItem::Fn(f) if is_test(&f.attrs)));
        }
        _ => {}
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Groups of files each of which needs all others, directly or not, with the imports among them.
fn circles(sources: &BTreeMap<String, String>) -> Vec<(Vec<String>, Vec<String>)> {
    let edges = Tree::new(sources).edges();
    let mut reach: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for start in sources.keys() {
        let reached = reach.entry(start).or_default();
        let mut next = vec![&**start];
        while let Some(file) = next.pop() {
            for (_, to) in edges.iter().filter(|(from, _)| from == file) {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
    }
    let mut found: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for start in sources.keys().map(|name| &**name) {
        let both = |other: &&str| reach[start].contains(*other) && reach[other].contains(start);
        let circle: Vec<String> =
            sources.keys().map(|name| &**name).filter(both).map(str::to_owned).collect();
        if circle.len() > 2 && !found.iter().any(|(known, _)| *known == circle) {
            let inside = edges.iter().filter(|(a, b)| circle.contains(a) && circle.contains(b));
            let arrows = inside.map(|(from, to)| format!("{from} -> {to}")).collect();
            found.push((circle, arrows));
        }
    }
    found
}

#[test]
fn no_crate_has_a_circle_of_three_files() {
    let mut found = Vec::new();
    for member in members() {
        for (files, arrows) in circles(&member.sources()) {
            found.push(format!("{}: {files:?}\n    {}", member.name, arrows.join("\n    ")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn crate_of(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// Three files that import each other in a circle if `import` in the last one leads to the first.
fn three(import: &str) -> BTreeMap<String, String> {
    crate_of(&[
        ("lib.rs", "mod a; mod b; mod c; mod d; pub use a::A; pub use d::*;"),
        ("a.rs", "use crate::b::B; pub struct A; pub const N: u8 = 0; pub fn f() {}"),
        ("b.rs", "pub struct B(super::c::C);"),
        ("c.rs", &format!("{import} pub struct C;")),
        ("d.rs", "pub use crate::a::f as g; pub struct D;"),
    ])
}

#[test]
fn a_circle_is_found_however_it_is_imported() {
    for import in [
        "use crate::a::A;",
        "use crate::{a::{self, N}};",
        "use super::a::*;",
        "use crate::a as other;",
        "use crate::A;",
        "use crate::g;",
        "pub use crate::A; type Own = A;",
        "fn h() { crate::a::f() }",
        "fn h() { assert!(vec![super::a::N].is_empty()) }",
        "fn h() -> crate::A { todo!() }",
        "mod inner { fn h() { super::super::a::f() } }",
        "use crate::d::g; fn h() { g() }",
        "fn h() { use crate::a::{f, N}; f() }",
    ] {
        let found = circles(&three(import));
        assert_eq!(found.len(), 1, "{import}");
        assert_eq!(found[0].0, ["a.rs", "b.rs", "c.rs"], "{import}");
    }
}

#[test]
fn what_is_no_circle_of_three_is_not_found() {
    for import in [
        "",
        "use std::sync::Arc;",
        "use crate::d::D;",
        "use crate::D;",
        "use crate::b::B;",
        "pub use crate::A;",
        "// use crate::a::A;",
        "#[cfg(test)] use crate::a::A;",
        "#[cfg(test)] mod tests { use crate::a::A; }",
        "impl C { #[cfg(test)] fn h(a: crate::A) {} }",
        "fn h() { let text = \"crate::a::f\"; }",
        "use other::a::A; fn h() { other::a::f() }",
    ] {
        assert_eq!(circles(&three(import)), [], "{import}");
    }
    let folder = crate_of(&[
        ("main.rs", "mod a;"),
        ("a/mod.rs", "mod b; pub mod c; pub use b::B; pub const N: u8 = 0;"),
        ("a/b.rs", "use super::N; use super::c::C; pub struct B;"),
        ("a/c.rs", "use super::N; pub struct C;"),
    ]);
    assert_eq!(circles(&folder), []);
}
