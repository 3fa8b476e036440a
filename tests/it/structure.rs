//! The files of `src/` do not depend on each other in a cycle.

use super::tidy::{code, files, without_tests};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The names of the modules on the path from the crate's root to a module.
type Module = Vec<String>;

/// The modules of `src/`.
struct Sources {
    /// The code of each module, without comments and tests.
    code: BTreeMap<Module, String>,
    /// The imports of each module, as pairs of a name and the path that the name stands for.
    imports: BTreeMap<Module, Vec<(String, Vec<String>)>>,
}

/// The target of a path.
enum Target {
    Module(Module),
    /// An item. The value is the module that defines the item.
    Item(Module),
    /// An item of `std`, a type parameter or a variant.
    Elsewhere,
}

fn module_of(path: &Path) -> Module {
    let mut names: Module = path
        .with_extension("")
        .iter()
        .skip(1)
        .map(|name| name.to_str().unwrap().to_owned())
        .collect();
    if matches!(names.last().map(String::as_str), Some("mod" | "lib")) {
        names.pop();
    }
    names
}

impl Sources {
    fn read() -> Sources {
        let mut sources = Sources { code: BTreeMap::new(), imports: BTreeMap::new() };
        for (path, text) in files("src", "rs") {
            let code: String = code(without_tests(&text)).map(|line| format!("{line}\n")).collect();
            let module = module_of(&path);
            let imports = code.split(';').filter_map(import).flat_map(|tree| expand(&tree)).collect();
            sources.imports.insert(module.clone(), imports);
            sources.code.insert(module, code);
        }
        sources
    }

    /// Resolves a path in the module `from`, also through imports. Returns the module or item that the path names.
    fn resolve(&self, from: &Module, path: &[String]) -> Target {
        let mut at = from.clone();
        for (index, name) in path.iter().enumerate() {
            if name == "super" {
                at.pop();
                continue;
            }
            let inner = [&at[..], std::slice::from_ref(name)].concat();
            if name == "self" || name == "*" || self.code.contains_key(&inner) {
                at = if self.code.contains_key(&inner) { inner } else { at };
                continue;
            }
            let imported = self.imports[&at].iter().find(|(known, path)| known == name && path.first() != Some(name));
            if let Some((_, imported)) = imported {
                return match self.resolve(&at, imported) {
                    Target::Module(module) => self.resolve(&module, &path[index + 1..]),
                    item => item,
                };
            }
            let imports_child = self.imports[&at].iter().any(|(known, _)| known == name);
            let defined = ["fn", "struct", "enum", "trait", "type", "const", "static"]
                .iter()
                .any(|kind| self.code[&at].contains(&format!("{kind} {name}")));
            return if defined || imports_child { Target::Item(at) } else { Target::Elsewhere };
        }
        Target::Module(at)
    }

    /// Returns the modules on which a module depends. A module with children is included only if a path names an item
    /// of that module itself.
    fn needs(&self, module: &Module) -> BTreeSet<Module> {
        let imported = self.imports[module].iter().map(|(_, path)| path.clone());
        let paths = imported.chain(paths(&self.code[module]));
        let mut needs = BTreeSet::new();
        for path in paths {
            match self.resolve(module, &path) {
                Target::Item(needed) => needs.insert(needed),
                Target::Module(needed) if !self.is_door(&needed) => needs.insert(needed),
                _ => continue,
            };
        }
        needs.remove(module);
        needs
    }

    /// Returns whether a module has children.
    fn is_door(&self, module: &Module) -> bool {
        self.code.keys().any(|other| other.len() == module.len() + 1 && other.starts_with(module))
    }
}

/// Returns the tree of a `use` statement, without `use`. Returns `None` for any other statement.
fn import(statement: &str) -> Option<String> {
    let at = statement
        .find("use ")
        .filter(|at| statement[..*at].trim().is_empty() || statement[..*at].ends_with([' ', '\n']))?;
    let before = statement[..at].trim_end();
    let begins = before.is_empty() || before.ends_with(['}', ']', ')']) || before.ends_with("pub");
    begins.then(|| statement[at + 4..].split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns the names of an import tree with their paths: for `a::{b, c as d}`, `b` with `a::b` and `d` with `a::c`.
fn expand(tree: &str) -> Vec<(String, Vec<String>)> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
        let mut path: Vec<String> = path.trim().split("::").map(str::to_owned).collect();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = alias.map_or(path.last().unwrap().clone(), str::to_owned);
        return vec![(name, path)];
    };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let mut depth = 0;
    let parts = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(&format!("{prefix}{}", part.trim())))
        .collect()
}

/// Returns all paths in code, including the paths of imports.
fn paths(code: &str) -> impl Iterator<Item = Vec<String>> + '_ {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(move |c| !is_path(c))
        .filter(|word| word.contains("::"))
        .map(|word| word.split("::").map(str::to_owned).filter(|name| !name.is_empty()).collect())
}

/// Visits a module and its dependencies in depth-first order. `way` is the path from the first module to this module.
/// Returns a cycle if `way` already contains this module.
fn cycle(
    module: &Module,
    needs: &BTreeMap<Module, BTreeSet<Module>>,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if let Some(at) = way.iter().position(|on_the_way| on_the_way == module) {
        return Some(way[at..].to_vec());
    }
    if !done.insert(module.clone()) {
        return None;
    }
    way.push(module.clone());
    let found = needs[module].iter().find_map(|needed| cycle(needed, needs, way, done));
    way.pop();
    found
}

#[test]
fn files_of_src_have_no_dependency_cycle() {
    let sources = Sources::read();
    let needs: BTreeMap<_, _> = sources.code.keys().map(|module| (module.clone(), sources.needs(module))).collect();
    let of = |path: &str| module_of(Path::new(path));
    // `needs` must contain these dependencies, which lead through modules with children and through aliases.
    assert!(needs[&of("src/server/serve.rs")].contains(&of("src/http/response.rs")));
    assert!(needs[&of("src/sse/channel/subscriber.rs")].contains(&of("src/server/registry.rs")));
    assert!(needs[&of("src/sse/channel/file/mod.rs")].contains(&of("src/sse/channel/mod.rs")));
    let mut done = BTreeSet::new();
    for module in needs.keys() {
        let found = cycle(module, &needs, &mut Vec::new(), &mut done);
        let found = found.map(|cycle| cycle.iter().map(|module| module.join("/")).collect::<Vec<_>>());
        assert_eq!(found, None, "each of these files depends on the next one, and the last one on the first");
    }
}
