//! Checks which module imports which. The layers are in the documentation of the crate (`src/lib.rs`): a module
//! imports modules of lower layers only. There are no cycles of files. A directory has at most 16 files, and a file
//! at most 700 lines.
//!
//! `files` checks that files are opened and changed in few places.
//!
//! Tests in `src` may import any module, but both limits apply to their files.

#![allow(clippy::unwrap_used)]

#[path = "architecture/files.rs"]
mod files;
#[path = "architecture/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const MAX_FILES: usize = 16;
const MAX_LINES: usize = 700;

/// The path of a module or of an item.
type Names = Vec<String>;

/// A module, in its own file or inline.
#[derive(Default)]
struct Module {
    file: String,
    /// The names that it imports, with their paths.
    aliases: Vec<(String, Names)>,
    /// The modules that it imports with `*`.
    globs: Vec<Names>,
    /// The items that it defines.
    items: BTreeSet<String>,
}

/// A place that mentions an item of this crate.
struct Mention {
    module: Names,
    line: usize,
    path: Names,
}

/// A file that uses another, with the first line that does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    to: String,
    line: usize,
}

/// The source of a crate.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<Names, Module>,
    mentions: Vec<Mention>,
    /// The number of lines of each file.
    lines: BTreeMap<String, usize>,
}

impl Crate {
    /// Reads a crate. The names of its files are relative to `src`.
    fn parse(files: &BTreeMap<String, String>) -> Crate {
        let mut found = Crate::default();
        let asts: Vec<(&String, Names, syn::File)> = files
            .iter()
            .inspect(|(name, text)| {
                found.lines.insert((*name).clone(), text.lines().count());
            })
            .filter(|(name, _)| !is_test(name))
            .map(|(name, text)| {
                (name, module_of(name), syn::parse_file(text).unwrap_or_else(|e| panic!("{name}: {e}")))
            })
            .collect();
        for (name, module, ast) in &asts {
            found.declare(name, module, &ast.items);
        }
        for (_, module, ast) in &asts {
            let mut reader = Reader { within: &found.modules, module: module.clone(), mentions: Vec::new() };
            reader.visit_file(ast);
            let mentions = reader.mentions;
            found.mentions.extend(mentions);
        }
        found
    }

    /// Records the items that a module defines and imports.
    fn declare(&mut self, file: &str, module: &Names, items: &[syn::Item]) {
        let mut this = Module { file: file.into(), ..Module::default() };
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            match item {
                syn::Item::Use(item) => {
                    leaves(&item.tree, &mut Vec::new(), &mut |path, name, _| match name {
                        Some(name) => this.aliases.push((name, path)),
                        None => this.globs.push(path),
                    })
                }
                syn::Item::Mod(item) => {
                    this.items.insert(item.ident.to_string());
                    if let Some((_, items)) = &item.content {
                        self.declare(file, &child(module, &item.ident.to_string()), items);
                    }
                }
                item => this.items.extend(name_of(item)),
            }
        }
        self.modules.insert(module.clone(), this);
    }

    /// Returns the module that defines an item.
    fn home(&self, module: &Names, path: &[String], seen: &mut BTreeSet<(Names, Names)>) -> Option<Names> {
        if !seen.insert((module.clone(), path.to_vec())) {
            return None;
        }
        let Some((first, rest)) = path.split_first() else { return Some(module.clone()) };
        match first.as_str() {
            "crate" | "trivy_ferry" => return self.home(&Vec::new(), rest, seen),
            "self" => return self.home(module, rest, seen),
            "super" => return self.home(&module[..module.len().checked_sub(1)?].to_vec(), rest, seen),
            _ => {}
        }
        let inner = child(module, first);
        if self.modules.contains_key(&inner) {
            return self.home(&inner, rest, seen);
        }
        let this = self.modules.get(module)?;
        if this.items.contains(first) {
            return Some(module.clone());
        }
        let alias = this.aliases.iter().find(|(name, _)| name == first);
        if let Some((_, path)) = alias {
            let full: Names = path.iter().chain(rest).cloned().collect();
            return self.home(module, &full, seen);
        }
        let through = |glob: &Names| {
            let full: Names = glob.iter().chain(path).cloned().collect();
            self.home(module, &full, seen)
        };
        this.globs.iter().find_map(through)
    }

    /// Returns which file uses which.
    fn imports(&self) -> Vec<Import> {
        let mut imports = BTreeMap::new();
        for mention in &self.mentions {
            let home = self.home(&mention.module, &mention.path, &mut BTreeSet::new());
            let Some(home) = home else { continue };
            let (from, to) = (&self.modules[&mention.module].file, &self.modules[&home].file);
            if from != to {
                imports.entry((from.clone(), to.clone())).or_insert(mention.line);
            }
        }
        imports.into_iter().map(|((from, to), line)| Import { from, to, line }).collect()
    }

    /// Returns the violations of the rules, a line each.
    fn violations(&self, layers: &[Vec<String>]) -> Vec<String> {
        let imports = self.imports();
        let mut violations = Vec::new();
        for (file, lines) in &self.lines {
            if *lines > MAX_LINES {
                violations.push(format!("{file}: {lines} lines, and {MAX_LINES} are allowed"));
            }
        }
        let mut directories: BTreeMap<&str, usize> = BTreeMap::new();
        for file in self.lines.keys() {
            *directories.entry(file.rsplit_once('/').map_or("", |(dir, _)| dir)).or_default() += 1;
        }
        for (dir, files) in directories {
            if files > MAX_FILES {
                violations.push(format!("{dir}/: {files} files, and {MAX_FILES} are allowed"));
            }
        }
        let in_no_layer = |file: &&String| layer(file, layers).is_none();
        for file in self.lines.keys().filter(|file| *file != "lib.rs" && !is_test(file)).filter(in_no_layer) {
            violations.push(format!("{file} is in no layer"));
        }
        for Import { from, to, line } in &imports {
            let (Some((module, high)), Some((other, low))) = (layer(from, layers), layer(to, layers)) else {
                continue;
            };
            if module != other && low >= high {
                violations.push(format!(
                    "{from}:{line}: `{module}` of layer {high} uses `{other}` of layer {low} ({to})"
                ));
            }
        }
        violations.extend(cycles(&imports));
        violations
    }
}

/// Whether a file is only for tests.
fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.ends_with("/testing.rs") || file.contains("/tests/")
}

/// Returns the path of a file's module.
fn module_of(file: &str) -> Names {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "mod" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

fn child(module: &Names, name: &str) -> Names {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// Calls `tell` for each name that a `use` imports, with its path. The name is `None` for `*`.
fn leaves(tree: &syn::UseTree, path: &mut Names, tell: &mut dyn FnMut(Names, Option<String>, usize)) {
    let line = tree.span().start().line;
    match tree {
        syn::UseTree::Path(step) => {
            path.push(step.ident.to_string());
            leaves(&step.tree, path, tell);
            path.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, path, tell)),
        syn::UseTree::Glob(_) => tell(path.clone(), None, line),
        syn::UseTree::Name(name) if name.ident == "self" => {
            tell(path.clone(), path.last().cloned(), line);
        }
        syn::UseTree::Name(name) => {
            tell(child(path, &name.ident.to_string()), Some(name.ident.to_string()), line)
        }
        syn::UseTree::Rename(name) if name.ident == "self" => {
            tell(path.clone(), Some(name.rename.to_string()), line);
        }
        syn::UseTree::Rename(name) => {
            tell(child(path, &name.ident.to_string()), Some(name.rename.to_string()), line);
        }
    }
}

/// Collects the items that a file mentions.
struct Reader<'a> {
    within: &'a BTreeMap<Names, Module>,
    module: Names,
    mentions: Vec<Mention>,
}

impl Reader<'_> {
    fn mention(&mut self, path: Names, line: usize) {
        let is_ours = match path.first().map(String::as_str) {
            Some("crate" | "self" | "super" | "trivy_ferry") => path.len() > 1,
            Some(first) => path.len() > 1 && self.within.contains_key(&child(&self.module, first)),
            None => false,
        };
        if is_ours {
            self.mentions.push(Mention { module: self.module.clone(), line, path });
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        paths_in(tokens, &mut |path, line| self.mention(path, line));
    }
}

/// Finds paths in the arguments of macros and in attributes, which syn does not parse.
fn paths_in(tokens: TokenStream, tell: &mut dyn FnMut(Names, usize)) {
    let (mut path, mut line, mut colons) = (Names::new(), 0, 0);
    for token in tokens {
        match &token {
            TokenTree::Ident(name) => {
                if colons != 2 {
                    tell(std::mem::take(&mut path), line);
                    line = name.span().start().line;
                }
                path.push(name.to_string());
                colons = 0;
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => paths_in(group.stream(), tell),
            // serde's attributes name functions in strings.
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if let Ok(path) = syn::parse_str::<syn::Path>(text.trim_matches('"')) {
                    tell(names(&path), literal.span().start().line);
                }
            }
            TokenTree::Punct(_) => {}
        }
        tell(std::mem::take(&mut path), line);
        colons = 0;
    }
    tell(path, line);
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.content.is_some() {
            self.module.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        leaves(&item.tree, &mut Vec::new(), &mut |path, _, line| found.push((path, line)));
        for (path, line) in found {
            self.mention(path, line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.mention(names(path), path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

fn names(path: &syn::Path) -> Names {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// Whether an item exists only in tests.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        other => panic!("line {}: an item that this test does not support", other.span().start().line),
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Macro(item) => return item.ident.as_ref().map(ToString::to_string),
        _ => return None,
    };
    Some(name.to_string())
}

/// Returns the module of the table to which a file belongs, and its layer. The longest matching path decides.
fn layer<'l>(file: &str, layers: &'l [Vec<String>]) -> Option<(&'l str, usize)> {
    let all =
        layers.iter().enumerate().flat_map(|(number, names)| names.iter().map(move |name| (name, number)));
    let fits = |name: &str| file == format!("{name}.rs") || file.starts_with(&format!("{name}/"));
    let found = all.filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len());
    found.map(|(name, number)| (name.as_str(), number))
}

/// Returns the cycles of files.
fn cycles(imports: &[Import]) -> Vec<String> {
    let mut next: BTreeMap<&str, Vec<&Import>> = BTreeMap::new();
    for import in imports {
        next.entry(&import.from).or_default().push(import);
    }
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = open.pop() {
            for import in next.get(file.as_str()).into_iter().flatten() {
                if seen.insert(import.to.clone()) {
                    open.push(import.to.clone());
                }
            }
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<String>> = next.keys().map(|file| (*file, reached(file))).collect();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for (file, reaches) in &all {
        if !reaches.contains(*file) || !told.insert(file) {
            continue;
        }
        let group: BTreeSet<&str> = all
            .iter()
            .filter(|(other, back)| reaches.contains(**other) && back.contains(*file))
            .map(|(other, _)| *other)
            .collect();
        told.extend(&group);
        let inside =
            imports.iter().filter(|import| group.contains(&*import.from) && group.contains(&*import.to));
        let arrows: Vec<String> =
            inside.map(|import| format!("  {}:{} -> {}", import.from, import.line, import.to)).collect();
        found.push(format!("a cycle of {} files:\n{}", group.len(), arrows.join("\n")));
    }
    found
}

/// Parses the table in the documentation of the crate: lines such as `//! | 2 | `dataset`, `remote` | … |`.
fn table(lib: &str) -> Vec<Vec<String>> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    let row = |row: &str| {
        let (number, rest) = row.split_once('|')?;
        let number: usize = number.trim().parse().ok()?;
        let modules = rest.split('|').next()?;
        let names = modules.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((number, names))
    };
    let rows: Vec<(usize, Vec<String>)> = rows.filter_map(row).collect();
    assert!(rows.iter().map(|(number, _)| *number).eq(0..rows.len()), "the layers are not numbered from 0");
    rows.into_iter().map(|(_, names)| names).collect()
}

fn sources() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&src).into_iter().map(Result::unwrap);
    let rust = files.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"));
    let read = |entry: walkdir::DirEntry| {
        let name = entry.path().strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(entry.path()).unwrap())
    };
    rust.map(read).collect()
}

#[test]
fn modules_import_lower_layers_only() {
    let files = sources();
    let layers = table(&files["lib.rs"]);
    assert!(layers.len() > 5, "no layers are documented in src/lib.rs");
    let violations = Crate::parse(&files).violations(&layers);
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

/// Only `cli` uses the command line and the terminal.
#[test]
fn the_library_does_not_use_the_terminal() {
    let outside = |file: &String| !file.starts_with("cli/");
    for (file, text) in sources().iter().filter(|(file, _)| outside(file)) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in ["clap", "indicatif", "stdin()", "stdout()", "stderr()", "println!", "/dev/tty"] {
                assert!(!code.contains(word), "src/{file}:{}: {word} is for src/cli alone", number + 1);
            }
        }
    }
}

mod of_this_test {
    use super::*;

    fn violations(files: &[(&str, &str)]) -> Vec<String> {
        let files: BTreeMap<String, String> =
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let layers = table(&files["lib.rs"]);
        Crate::parse(&files).violations(&layers)
    }

    const LIB: &str =
        "//! | 0 | `low` | |\n//! | 1 | `high`, `peer`, `low/upper` | |\nmod low; mod high; mod peer;\n";

    /// Every form of naming an item of another module is found.
    #[test]
    fn every_form_of_import_is_seen() {
        let forms = [
            "use crate::high::Thing;",
            "use crate::{high::{self, Thing as Other}};",
            "use crate::{digest, high::*};",
            "use super::high::Thing;",
            "use self::inner::Thing; mod inner { pub use crate::high::Thing; }",
            "mod inner { use super::super::high::Thing; }",
            "fn f() { crate::high::thing(); }",
            "fn f() -> crate::high::Thing { todo!() }",
            "fn f() { let super::high::Thing { .. } = x; }",
            "fn f() { assert_eq!(1, crate::high::thing()); }",
            "#[derive(Serialize)] struct S { #[serde(serialize_with = \"crate::high::thing\")] a: u8 }",
            "use crate::Renamed;",
            "use crate::front::Thing;",
            "use crate::front::nested::Thing;",
        ];
        let lib = format!("{LIB}mod front; pub use high::Thing as Renamed;");
        let front = "pub use crate::high::*; pub mod nested { pub use super::Thing; }";
        for form in forms {
            let found = violations(&[
                ("lib.rs", &lib.replace("`peer`", "`peer`, `front`")),
                ("low.rs", form),
                ("front.rs", front.replace("pub use crate::high::*", "pub use crate::peer::*").as_str()),
                ("high.rs", "pub struct Thing; pub fn thing() {}"),
                ("peer.rs", "pub struct Thing;"),
            ]);
            let of_low: Vec<&String> = found.iter().filter(|line| line.starts_with("low.rs:1:")).collect();
            assert!(!of_low.is_empty(), "{form}: {found:?}");
        }
    }

    #[test]
    fn allowed_imports_are_not_reported() {
        let found = violations(&[
            ("lib.rs", LIB),
            ("low.rs", "#[cfg(test)] mod tests { use crate::high::Thing; } use std::fs; pub struct Base;"),
            ("high.rs", "use crate::low::Base; pub struct Thing;"),
            ("peer.rs", "pub(in crate::peer) struct P; use super::low::Base;"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn layers_that_are_equal_or_higher_are_not_imported() {
        let found = violations(&[
            ("lib.rs", LIB),
            ("low/mod.rs", "mod upper;"),
            ("low/upper.rs", "pub struct Up;"),
            ("high.rs", "use crate::peer::P;"),
            ("peer.rs", "pub struct P;"),
            ("stray.rs", ""),
        ]);
        assert_eq!(
            found,
            ["stray.rs is in no layer", "high.rs:1: `high` of layer 1 uses `peer` of layer 1 (peer.rs)"]
        );
        let found = violations(&[
            ("lib.rs", LIB),
            ("low/mod.rs", "mod upper; fn f() { upper::up() }"),
            ("low/upper.rs", "pub fn up() {}"),
        ]);
        assert_eq!(found, ["low/mod.rs:1: `low` of layer 0 uses `low/upper` of layer 1 (low/upper.rs)"]);
    }

    /// A re-exported item counts for the module that defines it.
    #[test]
    fn cycles_between_files_are_found() {
        let through = [
            ("lib.rs", LIB),
            ("high/mod.rs", "mod a; mod b; pub use a::A;"),
            ("high/a.rs", "use super::b::B; pub struct A;"),
            ("high/b.rs", "use crate::high::A; pub struct B;"),
        ];
        let found = violations(&through);
        assert_eq!(found, ["a cycle of 2 files:\n  high/a.rs:1 -> high/b.rs\n  high/b.rs:1 -> high/a.rs"]);
        let without = [
            ("lib.rs", LIB),
            ("high/mod.rs", "mod a; mod b; pub use a::A;"),
            ("high/a.rs", "pub struct A;"),
            ("high/b.rs", "use crate::high::A;"),
        ];
        assert_eq!(violations(&without), Vec::<String>::new());
    }

    #[test]
    fn sizes_are_limited() {
        let long = "\n".repeat(701);
        let many: Vec<String> = (0..17).map(|n| format!("high/f{n}.rs")).collect();
        let mut files = vec![("lib.rs", LIB), ("low.rs", long.as_str())];
        files.extend(many.iter().map(|name| (name.as_str(), "")));
        assert_eq!(
            violations(&files),
            ["low.rs: 701 lines, and 700 are allowed", "high/: 17 files, and 16 are allowed"]
        );
    }
}
