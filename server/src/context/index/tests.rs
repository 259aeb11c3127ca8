//! Indexes of folders on disk.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::context::gather;
use crate::context::syntax::tests::at_cursor;
use crate::documents::uri_of;

/// A folder with an index of it.
struct Workspace {
    folder: TempDir,
    index: Index,
}

impl Workspace {
    fn of(files: &[(&str, &str)]) -> Self {
        let workspace = Self { folder: tempfile::tempdir().expect("a folder"), index: Index::new() };
        for (name, text) in files {
            workspace.write(name, text);
        }
        workspace.cover(&[]);
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is made");
        fs::write(path, text).expect("a file is written");
    }

    fn cover(&self, secret_files: &[&str]) {
        let secret_files = secret_files.iter().map(ToString::to_string).collect();
        self.index.cover(Coverage { roots: vec![self.folder.path().to_owned()], secret_files });
        assert!(self.index.settle());
    }

    fn changed(&self, names: &[&str]) {
        self.index.changed(names.iter().map(|name| self.path(name)));
        assert!(self.index.settle());
    }

    /// A document of the workspace as an editor opens it, and the cursor at `$0`.
    fn document(&self, name: &str, text: &str) -> (Snapshot, usize) {
        let (document, cursor) = at_cursor("", text);
        (Snapshot::new(&uri_of(&self.path(name)), "", &document.text.to_string()), cursor)
    }

    fn files(&self, name: &str, text: &str, open: &[Snapshot]) -> Vec<Snapshot> {
        let (document, cursor) = self.document(name, text);
        self.index.files(&document, cursor, open, u64::MAX)
    }

    /// The same for a document that was never seen.
    fn fresh(&self, name: &str, text: &str, open: &[Snapshot]) -> Vec<String> {
        self.index.shared.picks.forget();
        self.names(&self.files(name, text, open))
    }

    /// The names of the files that are picked for a cursor where these words stand, in a `src/main.rs` that was never seen.
    fn found(&self, words: &str) -> Vec<String> {
        self.fresh("src/main.rs", &format!("fn main() {{\n    {words};\n    $0\n}}\n"), &[])
    }

    fn names(&self, files: &[Snapshot]) -> Vec<String> {
        let name = |file: &Snapshot| {
            let path = file.path.as_ref().expect("it is on disk");
            let name = path.strip_prefix(self.folder.path()).expect("it is in the folder");
            name.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
        };
        files.iter().map(name).collect()
    }
}

fn function(name: &str) -> String {
    format!("pub fn {name}(a: u8) -> u8 {{\n    a\n}}\n")
}

#[test]
fn a_name_leads_to_the_file_that_defines_it() {
    let workspace = Workspace::of(&[
        (
            "src/shapes.rs",
            "pub struct Circle { pub radius: f64 }\nimpl Circle { pub fn surface(&self) {} }\n",
        ),
        ("src/parser.rs", &function("tokenize")),
        ("lib/util.py", "def surface(): pass\n"),
    ]);
    assert_eq!(workspace.index.status(), Status { files: 3, indexing: false });
    assert_eq!(workspace.found("surface()"), ["src/shapes.rs"]);
    assert_eq!(workspace.found("tokenize(Circle)"), ["src/parser.rs", "src/shapes.rs"]);
    assert_eq!(workspace.found("unheard_of()"), [""; 0]);
    let text = workspace.files("src/main.rs", "fn f() { tokenize(1); $0 }", &[]).remove(0).text.to_string();
    assert_eq!(text, function("tokenize"));
}

#[test]
fn what_is_defined_at_hand_is_not_looked_for() {
    let workspace = Workspace::of(&[("src/a.rs", &function("tokenize")), ("src/b.rs", &function("surface"))]);
    let own = format!("fn main() {{ tokenize(surface(1)); $0 }}\n{}", function("surface"));
    assert_eq!(workspace.names(&workspace.files("src/main.rs", &own, &[])), ["src/a.rs"]);
    let open = |name: &str, text: &str| workspace.document(name, &format!("{text}$0")).0;
    let main = "fn main() { tokenize(surface(1)); $0 }\n";
    // Open, and with another text than on disk.
    assert_eq!(workspace.fresh("src/main.rs", main, &[open("src/a.rs", "")]), ["src/b.rs"]);
    let new = open("src/new.rs", &function("tokenize"));
    assert_eq!(workspace.fresh("src/main.rs", main, &[new]), ["src/b.rs"]);
    // The document itself is on disk too.
    workspace.write("src/main.rs", function("tokenize"));
    workspace.changed(&["src/main.rs"]);
    assert_eq!(workspace.names(&workspace.files("src/main.rs", main, &[])), ["src/a.rs", "src/b.rs"]);
}

#[test]
fn rare_names_imports_and_neighbours_come_first() {
    let mut files = vec![
        ("src/rare.rs".to_owned(), function("only_here")),
        ("far/away/deep.rs".to_owned(), function("near_or_far")),
        ("src/inner/near.rs".to_owned(), function("near_or_far")),
        ("src/next.rs".to_owned(), function("near_or_far")),
    ];
    files.extend((0..3).map(|n| (format!("some/thrice{n}.rs"), function("thrice"))));
    files.extend((0..20).map(|n| (format!("all/common{n}.rs"), function("common"))));
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let workspace = Workspace::of(&files);
    assert_eq!(workspace.found("common()"), [""; 0], "it leads nowhere");
    assert_eq!(workspace.found("near_or_far()"), ["src/next.rs", "src/inner/near.rs"]);
    assert_eq!(workspace.found("crate::deep::near_or_far()"), ["far/away/deep.rs", "src/next.rs"]);
    let found = workspace.found("only_here(thrice, common)");
    assert_eq!(found, ["src/rare.rs", "some/thrice0.rs", "some/thrice1.rs"]);
    let text = "use some::thrice2;\nfn main() { thrice(); only_here(); $0 }\n";
    let found = workspace.fresh("src/main.rs", text, &[]);
    assert_eq!(found, ["src/rare.rs", "some/thrice2.rs", "some/thrice0.rs"]);
}

#[test]
fn few_files_are_picked() {
    let names: Vec<String> = (0..30).map(|n| format!("name{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (format!("src/{name}.rs"), function(name))).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let workspace = Workspace::of(&files);
    let first = workspace.found(&names.join("+"));
    assert_eq!(first.len(), 8);
    assert_eq!(workspace.found(&names.join("+")), first, "always the same ones");
}

#[test]
fn what_was_picked_stays_behind_what_is_picked_now() {
    let workspace = Workspace::of(&[
        ("a.rs", &function("one")),
        ("b.rs", &function("two")),
        ("c.rs", &function("three")),
    ]);
    let used = |name: &str| format!("fn main() {{ {name}(); $0 }}");
    let found =
        |name: &str, open: &[Snapshot]| workspace.names(&workspace.files("main.rs", &used(name), open));
    assert_eq!(found("one", &[]), ["a.rs"]);
    assert_eq!(found("two", &[]), ["b.rs", "a.rs"]);
    assert_eq!(found("one", &[]), ["a.rs", "b.rs"], "whoever comes back finds both");
    // Not twice, not when it is open, changed or gone.
    let open = workspace.document("b.rs", &format!("{}$0", function("two"))).0;
    assert_eq!(found("three", &[open]), ["c.rs", "a.rs"]);
    assert_eq!(found("three", &[]), ["c.rs", "a.rs", "b.rs"]);
    workspace.write("a.rs", "// Nothing any more.\n");
    fs::remove_file(workspace.path("b.rs")).expect("removed");
    assert_eq!(found("three", &[]), ["c.rs"]);
}

#[test]
fn languages_that_do_not_mix_are_kept_apart() {
    let workspace = Workspace::of(&[
        ("a.py", "def tokenize(): pass\n"),
        ("b.ts", "export function tokenize() {}\n"),
        ("c.h", "int tokenize(int a);\n"),
    ]);
    for (name, text, want) in [
        ("x.rs", "fn f() { tokenize($0) }", &[][..]),
        ("x.py", "tokenize($0)", &["a.py"]),
        ("x.jsx", "tokenize($0)", &["b.ts"]),
        ("x.cpp", "int x = tokenize($0);", &["c.h"]),
        ("x.txt", "tokenize $0", &[]),
    ] {
        assert_eq!(workspace.names(&workspace.files(name, text, &[])), want, "{name}");
    }
}

#[test]
fn what_is_left_out() {
    let defines = |name: &str| function(&format!("in_{name}"));
    let workspace = Workspace::of(&[
        (".gitignore", "ignored/\n*.gen.rs\n"),
        ("sub/.gitignore", "deep.rs\n!kept.gen.rs\n"),
        ("open.rs", &defines("open")),
        ("ignored/a.rs", &defines("ignored")),
        ("b.gen.rs", &defines("generated")),
        ("sub/deep.rs", &defines("deep")),
        ("sub/kept.gen.rs", &defines("kept")),
        (".hidden/a.rs", &defines("hidden")),
        ("node_modules/m/a.rs", &defines("library")),
        ("id_rsa.rs", &defines("key")),
        ("private/a.rs", &defines("private")),
        ("binary.rs", &format!("{}\0", defines("binary"))),
        ("huge.rs", &format!("{}{}", defines("huge"), "// fill\n".repeat(40_000))),
        ("data.json", "{\"in_data\": 1}"),
        ("words.txt", "fn in_words() {}"),
    ]);
    workspace.write("latin.rs", [defines("latin").as_bytes(), b"// gr\xfc\xdfe"].concat());
    workspace.cover(&["private/"]);
    workspace.changed(&["latin.rs"]);
    for name in ["open", "kept"] {
        assert_eq!(workspace.found(&format!("in_{name}()")).len(), 1, "{name}");
    }
    let left_out = [
        "ignored",
        "generated",
        "deep",
        "hidden",
        "library",
        "key",
        "private",
        "binary",
        "huge",
        "data",
        "words",
        "latin",
    ];
    for name in left_out {
        assert_eq!(workspace.found(&format!("in_{name}()")), [""; 0], "{name}");
    }
    assert_eq!(workspace.index.status().files, 2);
    // Nor when somebody says that they changed.
    workspace.changed(&["ignored/a.rs", "b.gen.rs", "id_rsa.rs", "private", "huge.rs", ".hidden/a.rs"]);
    assert_eq!(workspace.index.status().files, 2);
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    use std::os::unix::fs::symlink;
    let workspace = Workspace::of(&[("src/a.rs", &function("tokenize"))]);
    symlink(workspace.folder.path(), workspace.path("src/loop")).expect("a link");
    symlink(workspace.path("src/a.rs"), workspace.path("src/b.rs")).expect("a link");
    symlink("/nowhere/at/all.rs", workspace.path("src/c.rs")).expect("a link");
    workspace.changed(&["src"]);
    assert_eq!(workspace.found("tokenize()"), ["src/a.rs"]);
    assert_eq!(workspace.index.status().files, 1);
    // A file that has become a link is none.
    fs::remove_file(workspace.path("src/a.rs")).expect("removed");
    symlink(workspace.path("src/loop"), workspace.path("src/a.rs")).expect("a link");
    assert_eq!(workspace.found("tokenize()"), [""; 0]);
}

#[cfg(unix)]
#[test]
fn what_cannot_be_read_costs_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let workspace = Workspace::of(&[
        ("a/a.rs", &function("one")),
        ("b.rs", &function("two")),
        ("c.rs", &function("three")),
    ]);
    let lock =
        |name: &str| fs::set_permissions(workspace.path(name), fs::Permissions::from_mode(0o000)).is_ok();
    assert!(lock("a") && lock("b.rs"));
    if fs::read(workspace.path("b.rs")).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    workspace.write("c.rs", function("four"));
    workspace.cover(&["*.new"]);
    assert_eq!((workspace.found("one(two())"), workspace.found("four()")), (vec![], vec!["c.rs".to_owned()]));
    fs::set_permissions(workspace.path("a"), fs::Permissions::from_mode(0o755)).expect("unlocked");
}

#[test]
fn files_that_change_come_and_go() {
    let workspace = Workspace::of(&[("src/a.rs", &function("old")), ("src/b/c.rs", &function("moved"))]);
    assert_eq!(workspace.found("old()"), ["src/a.rs"]);
    workspace.write("src/a.rs", function("new"));
    workspace.changed(&["src/a.rs"]);
    assert_eq!((workspace.found("old()"), workspace.found("new()")), (vec![], vec!["src/a.rs".to_owned()]));

    fs::rename(workspace.path("src/b"), workspace.path("src/d")).expect("renamed");
    workspace.changed(&["src/b", "src/d"]);
    assert_eq!(workspace.found("moved()"), ["src/d/c.rs"]);

    fs::remove_file(workspace.path("src/a.rs")).expect("removed");
    workspace.changed(&["src/a.rs"]);
    assert_eq!(workspace.found("new()"), [""; 0]);
    assert_eq!(workspace.index.status().files, 1);

    workspace.write(".gitignore", "d/\n");
    workspace.changed(&[".gitignore"]);
    assert_eq!((workspace.found("moved()"), workspace.index.status().files), (vec![], 0));
}

#[test]
fn a_change_that_nobody_told_of_is_found_when_the_file_is_picked() {
    let workspace = Workspace::of(&[("a.rs", &function("old"))]);
    assert_eq!(workspace.found("old()"), ["a.rs"]);
    workspace.write("a.rs", format!("{}{}", function("newer"), function("old")));
    let files = workspace.files("src/main.rs", "fn main() { old(); $0 }", &[]);
    assert!(files[0].text.to_string().contains("newer"), "it is given as it is now");
    assert!(workspace.index.settle());
    assert_eq!(workspace.found("newer()"), ["a.rs"]);
    fs::remove_file(workspace.path("a.rs")).expect("removed");
    assert_eq!(workspace.found("newer()"), [""; 0]);
    assert!(workspace.index.settle());
    assert_eq!(workspace.index.status().files, 0);
}

#[test]
fn what_has_become_secret_is_given_out_no_more() {
    let workspace = Workspace::of(&[("a.rs", &function("plain")), ("vault.rs", &function("hidden"))]);
    assert_eq!(workspace.found("hidden()"), ["vault.rs"]);
    let rest = workspace.index.rest();
    let roots = vec![workspace.folder.path().to_owned()];
    workspace.index.cover(Coverage { roots, secret_files: vec!["vault.*".into()] });
    assert_eq!(workspace.found("hidden()"), [""; 0], "before the thread knows");
    drop(rest);
    assert!(workspace.index.settle());
    assert_eq!((workspace.found("hidden()"), workspace.found("plain()")), (vec![], vec!["a.rs".to_owned()]));
}

#[test]
fn without_folders_all_is_forgotten() {
    let workspace = Workspace::of(&[("a.rs", &function("one"))]);
    workspace.index.cover(Coverage::default());
    assert!(workspace.index.settle());
    assert_eq!(workspace.index.status(), Status { files: 0, indexing: false });
    assert_eq!(workspace.found("one()"), [""; 0]);
    workspace.changed(&["a.rs"]);
    assert_eq!(workspace.index.status().files, 0);
    workspace.cover(&[]);
    assert_eq!(workspace.found("one()"), ["a.rs"]);
}

#[test]
fn five_thousand_files_hold_nobody_up() {
    let workspace = Workspace::of(&[]);
    for n in 0..5_000 {
        workspace.write(&format!("src/m{}/f{n}.rs", n % 50), function(&format!("name{n}")));
    }
    let rest = workspace.index.rest();
    workspace.index.changed([workspace.folder.path().to_owned()]);
    // While a completion is computed the thread stands still, and the index answers all the same.
    assert_eq!(workspace.found("name4711()"), [""; 0]);
    assert!(workspace.index.status().indexing);
    drop(rest);
    assert!(workspace.index.settle());
    assert_eq!(workspace.index.status(), Status { files: 5_000, indexing: false });
    assert_eq!(workspace.found("name4711()"), ["src/m11/f4711.rs"]);
}

#[test]
fn as_much_is_read_at_once_as_somebody_has_time_for() {
    let large = |name: &str| format!("{}{}", function(name), "// fill\n".repeat(1_000));
    let workspace =
        Workspace::of(&[("a.rs", &large("one")), ("b.rs", &large("two")), ("c.rs", &large("three"))]);
    let (document, cursor) = workspace.document("main.rs", "fn main() { one(two(three())); $0 }");
    let files = || workspace.names(&workspace.index.files(&document, cursor, &[], 9_000));
    assert_eq!(files(), ["a.rs"]);
    assert_eq!(files(), ["a.rs", "b.rs"]);
    assert_eq!(files(), ["a.rs", "b.rs", "c.rs"]);
}

#[test]
fn the_thread_ends_with_the_index() {
    let workspace = Workspace::of(&[("a.rs", &function("one"))]);
    let shared = Arc::downgrade(&workspace.index.shared);
    drop(workspace);
    while shared.strong_count() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_visible_is_not_shown_again() {
    let workspace = Workspace::of(&[("a.rs", &function("tokenize")), ("b.rs", &function("surface"))]);
    let text = "fn main() {\n    tokenize(1);\n    surface(1);\n    $0\n}\n";
    let pieces = |text: &str| {
        let (document, cursor) = workspace.document("main.rs", text);
        let files = workspace.index.files(&document, cursor, &[], u64::MAX);
        let pieces = gather(&document, cursor, &files, 0..document.text.len_chars()).pieces;
        let mut names: Vec<_> = pieces.iter().map(|piece| piece.path.file_name().map(Path::new)).collect();
        names.sort();
        names.into_iter().flatten().map(|name| name.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(pieces(text), ["a.rs", "b.rs"]);
    // The lines of one of them stand in the document, though not as a definition.
    let quoted = format!("/*\n{}*/\n{text}", function("surface"));
    assert_eq!(pieces(&quoted), ["a.rs"]);
    // And where two files say the same, it is said once.
    workspace.write("copy.rs", function("tokenize"));
    workspace.changed(&["copy.rs"]);
    assert_eq!(pieces(text), ["a.rs", "b.rs"]);
}
