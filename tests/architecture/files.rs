//! Checks which files open and change files by name: only `util::fs`, `util::dir` and the few files of a list. A plain
//! `File::open` blocks forever at a named pipe, and a plain `fs::write` has no defined durability and does not call the
//! steps at which tests kill a run.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::{Names, attributes, child, is_for_tests, is_test, leaves, names, paths_in, sources};

/// The items that only listed files may mention, with all items below them.
const RESERVED: &[&str] = &[
    "std::fs::DirBuilder",
    "std::fs::File::create",
    "std::fs::File::create_new",
    "std::fs::File::open",
    "std::fs::File::options",
    "std::fs::OpenOptions",
    "std::fs::copy",
    "std::fs::create_dir",
    "std::fs::create_dir_all",
    "std::fs::hard_link",
    "std::fs::read",
    "std::fs::read_to_string",
    "std::fs::remove_dir",
    "std::fs::remove_dir_all",
    "std::fs::remove_file",
    "std::fs::rename",
    "std::fs::write",
    "rustix::fs::link",
    "rustix::fs::linkat",
    "rustix::fs::mkdir",
    "rustix::fs::mkdirat",
    "rustix::fs::open",
    "rustix::fs::openat",
    "rustix::fs::openat2",
    "rustix::fs::rename",
    "rustix::fs::renameat",
    "rustix::fs::renameat_with",
    "rustix::fs::rmdir",
    "rustix::fs::unlink",
    "rustix::fs::unlinkat",
    "tempfile",
];
/// The exceptions that all files may mention: files without a name, and the type of a directory.
const FREE: &[&str] = &["tempfile::SpooledTempFile", "tempfile::TempDir"];
/// Modules of reserved items, which must not be re-exported under other paths.
const DOORS: &[&str] = &["std", "std::fs", "std::fs::File", "rustix", "rustix::fs", "tempfile"];
/// Methods that give a temporary file a name, with the number of their arguments.
const METHODS: &[(&str, usize)] = &[("persist", 1), ("persist_noclobber", 1)];

/// A file that may mention reserved items.
struct Listed {
    file: &'static str,
    mentions: &'static [&'static str],
    /// The reason why it does not use `util::fs`.
    #[allow(dead_code)]
    reason: &'static str,
}

const LIST: &[Listed] = &[
    Listed {
        file: "util/fs.rs",
        mentions: &[
            "std::fs::DirBuilder",
            "std::fs::File::options",
            "std::fs::remove_dir",
            "std::fs::remove_dir_all",
            "std::fs::remove_file",
            "std::fs::rename",
            "rustix::fs::open",
            "tempfile::Builder",
            "tempfile::tempfile_in",
        ],
        reason: "has all operations by path",
    },
    Listed {
        file: "util/dir.rs",
        mentions: &[
            "rustix::fs::linkat",
            "rustix::fs::mkdirat",
            "rustix::fs::open",
            "rustix::fs::openat",
            "rustix::fs::openat2",
            "rustix::fs::renameat",
            "rustix::fs::renameat_with",
            "rustix::fs::unlinkat",
        ],
        reason: "has all operations through descriptors of directories",
    },
    Listed {
        file: "util/fault.rs",
        mentions: &["std::fs::File::options"],
        reason: "lists the steps of a run for tests, and must not be a step itself",
    },
    Listed {
        file: "trust/signer.rs",
        mentions: &["tempfile::NamedTempFile", "tempfile::tempfile"],
        reason: "exchanges input and output with a command in files, and removes both",
    },
    Listed {
        file: "remote/login/mod.rs",
        mentions: &["std::fs::File::open"],
        reason: "reads the file with logins of registries, which may be a named pipe of a secret manager",
    },
    Listed {
        file: "cli/prompt.rs",
        mentions: &["std::fs::File::options"],
        reason: "opens the terminal, which is not a regular file",
    },
];

/// A place in a file that mentions a reserved item.
#[derive(Debug, PartialEq, Eq)]
struct Mention {
    line: usize,
    what: String,
}

/// The paths of the names that are imported anywhere in a file.
#[derive(Default)]
struct Aliases(BTreeMap<String, Vec<Names>>);

impl Aliases {
    fn add(&mut self, name: String, path: Names) {
        self.0.entry(name).or_default().push(path);
    }

    /// Returns all paths that a path may mean.
    fn resolve(&self, path: &Names) -> BTreeSet<Names> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![path.clone()]);
        while let Some(path) = open.pop() {
            // A name that is defined by itself would grow forever.
            if path.len() > 20 || !seen.insert(path.clone()) {
                continue;
            }
            let Some((first, rest)) = path.split_first() else { continue };
            let found = self.0.get(first).into_iter().flatten();
            open.extend(found.map(|alias| alias.iter().chain(rest).cloned().collect()));
        }
        seen
    }
}

impl<'ast> Visit<'ast> for Aliases {
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

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        leaves(&item.tree, &mut Vec::new(), &mut |path, name, _| {
            if let Some(name) = name {
                self.add(name, path);
            }
        });
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        if let Some(path) = path_of(&item.ty) {
            self.add(item.ident.to_string(), path);
        }
    }
}

/// Returns the path of a type that is only a path.
fn path_of(ty: &syn::Type) -> Option<Names> {
    match ty {
        syn::Type::Path(ty) if ty.qself.is_none() => Some(names(&ty.path)),
        syn::Type::Paren(ty) => path_of(&ty.elem),
        syn::Type::Group(ty) => path_of(&ty.elem),
        _ => None,
    }
}

/// Finds the reserved items that a file mentions.
struct Finder {
    aliases: Aliases,
    found: Vec<Mention>,
}

impl Finder {
    fn find(text: &str) -> Vec<Mention> {
        let ast = syn::parse_file(text).unwrap();
        let mut aliases = Aliases::default();
        aliases.visit_file(&ast);
        let mut finder = Finder { aliases, found: Vec::new() };
        finder.visit_file(&ast);
        finder.found
    }

    fn mention(&mut self, path: &Names, line: usize) {
        for path in self.aliases.resolve(path) {
            let path = path.join("::");
            let is_in = |list: &[&'static str]| {
                list.iter().copied().find(|name| path == *name || path.starts_with(&format!("{name}::")))
            };
            let Some(reserved) = is_in(RESERVED).filter(|_| is_in(FREE).is_none()) else { continue };
            // If a whole crate is reserved, report the item in it.
            let what = match reserved {
                "tempfile" if path == "tempfile" => continue,
                "tempfile" => path.splitn(3, "::").take(2).collect::<Vec<_>>().join("::"),
                other => other.to_owned(),
            };
            self.found.push(Mention { line, what });
        }
    }

    /// Records re-exports of modules with reserved items.
    fn pass_on(&mut self, path: &Names, visibility: &syn::Visibility, line: usize) {
        if matches!(visibility, syn::Visibility::Inherited) {
            return;
        }
        for path in self.aliases.resolve(path) {
            let path = path.join("::");
            if DOORS.contains(&path.as_str()) {
                self.found.push(Mention { line, what: format!("pub {path}") });
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
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

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        leaves(&item.tree, &mut Vec::new(), &mut |path, name, line| found.push((path, name, line)));
        for (path, name, line) in found {
            match name {
                Some(_) => {
                    self.mention(&path, line);
                    self.pass_on(&path, &item.vis, line);
                }
                // With `*`, the source of a name is unknown.
                None if DOORS.contains(&path.join("::").as_str()) => {
                    self.found.push(Mention { line, what: format!("{}::*", path.join("::")) });
                }
                None => {}
            }
        }
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        if let Some(path) = path_of(&item.ty) {
            self.pass_on(&path, &item.vis, item.span().start().line);
        }
        visit::visit_item_type(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.mention(&names(path), path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_expr_path(&mut self, expression: &'ast syn::ExprPath) {
        // `<File>::open`
        let of = expression.qself.as_ref().filter(|of| of.position == 0);
        if let Some(ty) = of.and_then(|of| path_of(&of.ty)) {
            let path = names(&expression.path).iter().fold(ty, |path, name| child(&path, name));
            self.mention(&path, expression.span().start().line);
        }
        visit::visit_expr_path(self, expression);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        if METHODS.contains(&(name.as_str(), call.args.len())) {
            self.found.push(Mention { line: call.method.span().start().line, what: format!(".{name}()") });
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        paths_in(call.tokens.clone(), &mut |path, line| self.mention(&path, line));
    }
}

/// Returns the violations, a line each: items that are mentioned but not listed, or listed but not mentioned.
fn violations(files: &BTreeMap<String, String>, list: &[Listed]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut unused: BTreeSet<(&str, &str)> =
        list.iter().flat_map(|entry| entry.mentions.iter().map(|what| (entry.file, *what))).collect();
    for (file, text) in files.iter().filter(|(file, _)| !is_test(file)) {
        for Mention { line, what } in Finder::find(text) {
            let is_listed =
                list.iter().any(|entry| entry.file == file && entry.mentions.contains(&what.as_str()));
            if is_listed {
                unused.retain(|unused| *unused != (file.as_str(), what.as_str()));
            } else {
                violations.push(format!("src/{file}:{line}: `{what}`; use util::fs or util::dir instead"));
            }
        }
    }
    let not_needed = |(file, what): &(&str, &str)| {
        format!("src/{file} does not mention `{what}` anymore: remove it from the list")
    };
    violations.extend(unused.iter().map(not_needed));
    violations
}

#[test]
fn files_are_opened_and_changed_in_few_places() {
    let violations = violations(&sources(), LIST);
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

mod of_this_test {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        Finder::find(text).into_iter().map(|mention| mention.what).collect()
    }

    /// Every form of naming a reserved item is found.
    #[test]
    fn every_form_of_mention_is_seen() {
        for (text, what) in [
            ("fn f() { std::fs::write(p, b); }", "std::fs::write"),
            ("fn f() { ::std::fs::write(p, b); }", "std::fs::write"),
            ("use std::fs; fn f() { fs::write(p, b); }", "std::fs::write"),
            ("use std::{fs, io}; fn f() { fs::rename(p, q); }", "std::fs::rename"),
            ("use std::fs::{self, File}; fn f() { fs::copy(p, q); }", "std::fs::copy"),
            ("use std::fs as disk; fn f() { disk::read(p); }", "std::fs::read"),
            ("use std::fs::write;", "std::fs::write"),
            ("use std::fs::write as put;", "std::fs::write"),
            ("use std::fs::{read as get};", "std::fs::read"),
            ("use std::fs::File; fn f() { File::open(p); }", "std::fs::File::open"),
            ("use std::fs::File as F; fn f() { F::create(p); }", "std::fs::File::create"),
            ("use std::fs; use fs::File; fn f() { File::options(); }", "std::fs::File::options"),
            ("use std::fs::File; type F = File; fn f() { F::open(p); }", "std::fs::File::open"),
            ("use std::fs::File; fn f() { <File>::open(p); }", "std::fs::File::open"),
            ("use std::fs::File; fn f() { p.map(File::open); }", "std::fs::File::open"),
            ("use std::fs::File; fn f() { matches!(File::open(p), Ok(_)); }", "std::fs::File::open"),
            ("use std::fs::File; fn f() { g!(a, [File::create_new(p)]); }", "std::fs::File::create_new"),
            ("fn f() { use std::fs; fs::remove_file(p); }", "std::fs::remove_file"),
            ("mod inner { use std::fs; fn f() { fs::remove_dir_all(p); } }", "std::fs::remove_dir_all"),
            ("impl S { fn f() { std::fs::create_dir_all(p); } }", "std::fs::create_dir_all"),
            ("use std::fs::OpenOptions;", "std::fs::OpenOptions"),
            ("fn f() { std::fs::OpenOptions::new().read(true); }", "std::fs::OpenOptions"),
            ("fn f(options: &std::fs::OpenOptions) {}", "std::fs::OpenOptions"),
            ("use std::fs::*;", "std::fs::*"),
            ("pub use std::fs;", "pub std::fs"),
            ("pub(crate) use std::fs::File;", "pub std::fs::File"),
            ("use std::fs::File; pub type F = File;", "pub std::fs::File"),
            ("use tempfile::NamedTempFile;", "tempfile::NamedTempFile"),
            ("fn f() { tempfile::NamedTempFile::new_in(p); }", "tempfile::NamedTempFile"),
            ("use tempfile as t; fn f() { t::Builder::new(); }", "tempfile::Builder"),
            ("fn f() { tempfile::tempfile(); }", "tempfile::tempfile"),
            ("use tempfile::*;", "tempfile::*"),
            ("fn f() { file.persist(p); }", ".persist()"),
            ("use rustix::fs::{self, Mode}; fn f() { fs::openat(d, p, o, m); }", "rustix::fs::openat"),
            ("fn f() { rustix::fs::open(p, o, m); }", "rustix::fs::open"),
        ] {
            assert_eq!(found(text), [what], "{text}");
        }
    }

    #[test]
    fn allowed_mentions_are_not_reported() {
        for text in [
            "use crate::util::fs; fn f() { fs::write(p, b); fs::read(p); fs::rename(p, q); }",
            "use crate::util::fs::{self, rename}; fn f() { rename(p, q); }",
            "use std::fs::{self, File}; fn f(file: &File) -> fs::Metadata { fs::read_dir(p); File::from(fd) }",
            "use std::os::unix::fs::OpenOptionsExt;",
            "use rustix::fs::{Mode, OFlags, fadvise}; fn f() { rustix::fs::statvfs(p); }",
            "use tempfile::{SpooledTempFile, TempDir}; fn f() -> TempDir { SpooledTempFile::new(1); }",
            "fn f() { policy.persist(host, || Ok(())); dir.rename(a, b, c); ParityFile::open(p); }",
            "#[cfg(test)] mod tests { use std::fs; fn f() { fs::write(p, b); } }",
            "#[cfg(test)] fn f() { std::fs::write(p, b); }",
            "impl S { #[cfg(test)] fn f() { std::fs::write(p, b); } }",
            "/// As [`std::fs::write`].\nfn f() { g(\"std::fs::write\"); } // std::fs::write(p, b)",
        ] {
            assert_eq!(found(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn the_list_has_exactly_the_mentions_in_the_files() {
        let check = |files: &[(&str, &str)]| {
            let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            let entry =
                Listed { file: "a.rs", mentions: &["std::fs::read", "std::fs::write"], reason: "a test" };
            violations(&files, &[entry])
        };
        let both = "use std::fs; fn f() { fs::read(p); fs::write(p, b); }";
        let tests = "fn f() { std::fs::write(p, b); }";
        let none = Vec::<String>::new();
        assert_eq!(check(&[("a.rs", both), ("b/tests.rs", tests), ("b/testing.rs", tests)]), none);
        assert_eq!(
            check(&[("a.rs", both), ("b.rs", "\nfn f() { std::fs::write(p, b); }")]),
            ["src/b.rs:2: `std::fs::write`; use util::fs or util::dir instead"]
        );
        assert_eq!(
            check(&[("a.rs", "fn f() { std::fs::read(p); std::fs::copy(p, q); }")]),
            [
                "src/a.rs:1: `std::fs::copy`; use util::fs or util::dir instead",
                "src/a.rs does not mention `std::fs::write` anymore: remove it from the list"
            ]
        );
        assert_eq!(check(&[]).len(), 2, "a file that is gone");
    }
}
