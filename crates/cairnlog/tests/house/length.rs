//! What a reader of a library has to hold in mind at once: functions of at most 60 lines in files
//! of at most 500. What has to be longer says why, in a comment `// Length: reason` directly above
//! the function or at the head of the file. Tests inside of the sources do not count.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, ImplItemFn, ItemFn, ItemMod, Signature, TraitItemFn, Visibility};

use crate::sources::{attributes, is_test, members};

const FUNCTION_LINES: usize = 60;
const FILE_LINES: usize = 500;
const REASON: &str = "// Length: ";

fn gives_reason(line: &str) -> bool {
    line.trim().strip_prefix(REASON).is_some_and(|reason| !reason.trim().is_empty())
}

#[derive(Default)]
struct Functions<'a> {
    lines: Vec<&'a str>,
    /// Name, first line and number of lines of each function that is too long.
    long: Vec<(String, usize, usize)>,
}

impl Functions<'_> {
    fn measure(
        &mut self,
        attributes: &[Attribute],
        visibility: Option<&Visibility>,
        signature: &Signature,
        block: &Block,
    ) {
        let begun = signature.span().start().line;
        let begun = match visibility {
            Some(visibility @ (Visibility::Public(_) | Visibility::Restricted(_))) => {
                begun.min(visibility.span().start().line)
            }
            _ => begun,
        };
        let lines = block.span().end().line - begun + 1;
        if lines <= FUNCTION_LINES {
            return;
        }
        let above = attributes.iter().map(|attribute| attribute.span().start().line);
        let mut from = above.min().unwrap_or(begun).min(begun);
        while from > 1 && self.lines[from - 2].trim_start().starts_with("//") {
            from -= 1;
        }
        if !self.lines[from - 1..begun - 1].iter().any(|line| gives_reason(line)) {
            self.long.push((signature.ident.to_string(), begun, lines));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_test(&item.attrs) {
            self.measure(&item.attrs, Some(&item.vis), &item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_test(&item.attrs) {
            self.measure(&item.attrs, Some(&item.vis), &item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.measure(&item.attrs, None, &item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// What is too long in one file, in words.
fn too_long(text: &str) -> Vec<String> {
    let file = syn::parse_file(text).unwrap();
    let mut functions = Functions { lines: text.lines().collect(), long: Vec::new() };
    functions.visit_file(&file);
    let named = |(name, line, lines): &(String, usize, usize)| {
        format!("line {line}: fn {name} has {lines} lines")
    };
    let mut found: Vec<String> = functions.long.iter().map(named).collect();
    let mut lines = functions.lines.len();
    for item in &file.items {
        if is_test(attributes(item)) {
            lines -= item.span().end().line - item.span().start().line + 1;
        }
    }
    let head = |line: &&&str| line.trim().is_empty() || line.trim_start().starts_with("//");
    if lines > FILE_LINES && !functions.lines.iter().take_while(head).any(|l| gives_reason(l)) {
        found.push(format!("{lines} lines without tests"));
    }
    found
}

/// Files that are tests as a whole: those of modules that are declared for tests only.
fn is_test_file(name: &str) -> bool {
    name == "tests.rs" || name.ends_with("/tests.rs")
}

fn function(lines: usize) -> String {
    format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
}

#[test]
fn functions_and_files_of_libraries_fit_their_length() {
    let mut long = Vec::new();
    for member in members().iter().filter(|member| member.is_library()) {
        for (name, text) in member.sources().iter().filter(|(name, _)| !is_test_file(name)) {
            let found = too_long(text);
            long.extend(found.iter().map(|what| format!("{} {name}: {what}", member.name)));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_long_function_is_found_unless_a_reason_stands_above_it() {
    let (longest, long) = (function(FUNCTION_LINES), function(FUNCTION_LINES + 1));
    let found = vec![format!("line 1: fn f has {} lines", FUNCTION_LINES + 1)];
    assert_eq!(too_long(&longest), [""; 0]);
    assert_eq!(too_long(&long), found);
    for reason in [
        "// Length: one table.\n",
        "// Length: one table.\n/// What it does.\n#[inline]\n",
        "/// What it does.\n// Length: one table.\n#[inline]\n",
    ] {
        assert_eq!(too_long(&format!("{reason}{long}")), [""; 0], "{reason}");
    }
    for none in ["// Length:\n", "// Length: one table.\n\n", "// Length: x\nfn g() {}\n"] {
        assert_eq!(too_long(&format!("{none}{long}")).len(), 1, "{none}");
    }
    let inner = long.replace("fn f()", "pub(crate) const fn f()");
    for around in ["impl T { * }", "trait T { * }", "mod m { * }", "fn g() { * }"] {
        let source = around.replace('*', if around.contains("trait") { &long } else { &inner });
        assert!(!too_long(&source).is_empty(), "{source}");
    }
    assert_eq!(too_long(&format!("#[cfg(test)]\nmod tests {{ {long} }}")), [""; 0]);
}

#[test]
fn a_long_file_is_found_unless_a_reason_stands_at_its_head() {
    let lines = |count: usize| "const X: u8 = 0;\n".repeat(count);
    assert_eq!(too_long(&lines(FILE_LINES)), [""; 0]);
    assert_eq!(too_long(&lines(FILE_LINES + 1)), ["501 lines without tests"]);
    let reason = "//! A page.\n\n// Length: a table.\n";
    assert_eq!(too_long(&format!("{reason}{}", lines(FILE_LINES))), [""; 0]);
    let late = format!("{}{reason}", lines(FILE_LINES)).replace("//!", "//");
    assert_eq!(too_long(&late).len(), 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(50));
    assert_eq!(too_long(&format!("{}{tests}", lines(FILE_LINES))), [""; 0]);
    assert!(is_test_file("tests.rs") && is_test_file("a/tests.rs") && !is_test_file("contests.rs"));
}
