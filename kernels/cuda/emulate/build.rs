//! Compiles the CUDA sources and the runtime that they meet on a CPU, each file once it has changed.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let kernels = here.parent().expect("it lies in the kernels' folder").to_path_buf();
    for watched in [&kernels, &here.join("runtime")] {
        println!("cargo:rerun-if-changed={}", watched.display());
    }
    println!("cargo:rerun-if-env-changed=EMULATE_BUG");

    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).warnings(false).include(&kernels);
    build.flag("-Wno-unknown-pragmas").flag("-fno-strict-aliasing").flag_if_supported("-march=x86-64-v3");
    let bug = std::env::var("EMULATE_BUG").unwrap_or_else(|_| "0".to_owned());
    build.define("BUG", bug.as_str());

    let sources = files(&kernels, "cu");
    let headers = [files(&kernels, "cuh"), files(&here.join("runtime"), "h")].concat();
    let newest_header = headers.iter().map(|path| changed(path)).max().unwrap_or(SystemTime::UNIX_EPOCH);
    let mut link = String::new();
    let mut calls = String::new();
    let mut objects = Vec::new();
    for source in &sources {
        let stem = source.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let wrapper = out.join(format!("{stem}_emulated.cpp"));
        write_if_new(&wrapper, &wrapped(source, &stem));
        let newest = changed(source).max(newest_header).max(changed(&wrapper));
        objects.push(object(&build, &wrapper, newest, &out, &bug));
        writeln!(link, "void emulate_register_{stem}();").expect("a string takes it");
        writeln!(calls, "    emulate_register_{stem}();").expect("a string takes it");
    }
    let table = out.join("table.cpp");
    write_if_new(&table, &format!("{link}extern \"C\" void emulate_register_all() {{\n{calls}}}\n"));
    objects.push(object(&build, &table, changed(&table), &out, &bug));
    for source in files(&here.join("runtime"), "cpp") {
        let newest = changed(&source).max(newest_header);
        objects.push(object(&build, &source, newest, &out, &bug));
    }
    let mut library = cc::Build::new();
    library.cpp(true).warnings(false);
    objects.iter().for_each(|object| drop(library.object(object)));
    library.compile("emulated_kernels");
}

/// The source, and a function that enters its kernels into the table of those that can be launched.
fn wrapped(source: &Path, stem: &str) -> String {
    let text = fs::read_to_string(source).expect("a source is text");
    let mut all = format!("#include \"{}\"\nvoid emulate_register_{stem}() {{\n", source.display());
    for line in text.lines().filter(|line| line.starts_with("KERNEL")) {
        // `KERNEL name(...` or `KERNEL_OF(threads, blocks) name(...`.
        let name = match line.strip_prefix("KERNEL_OF") {
            Some(rest) => rest.split_once(')').map_or("", |(_, name)| name),
            None => line.trim_start_matches("KERNEL"),
        };
        let name = name.trim_start();
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        writeln!(all, "    emu::add(\"{name}\", {name});").expect("a string takes it");
    }
    all + "}\n"
}

/// Compiles a file unless its object is newer than everything that it is made of.
fn object(build: &cc::Build, source: &Path, newest: SystemTime, out: &Path, bug: &str) -> PathBuf {
    let stem = source.file_stem().expect("a file has a name").to_string_lossy();
    let kept = out.join(format!("{stem}.{bug}.o"));
    if fs::metadata(&kept).and_then(|m| m.modified()).is_ok_and(|made| made > newest) {
        return kept;
    }
    let made = build.clone().file(source).compile_intermediates();
    fs::copy(&made[0], &kept).expect("the object can be kept");
    kept
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder can be read").flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

fn changed(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|m| m.modified()).expect("the file is there")
}

fn write_if_new(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).expect("the output folder can be written");
    }
}
