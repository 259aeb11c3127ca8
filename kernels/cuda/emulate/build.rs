//! Compiles the kernels' sources and the runtime that they meet on a CPU, each file once it has changed.
//!
//! Options, by variables of the environment: `EMULATION_UBSAN=1` has the compiler check all that it can,
//! `EMULATION_UCONTEXT=1` switches stacks as machines without our own switch do, `EMULATION_MARCH` names the
//! instructions.

use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::SystemTime;

const OPTIONS: [&str; 3] = ["EMULATION_UBSAN", "EMULATION_UCONTEXT", "EMULATION_MARCH"];

/// A file to compile.
struct Unit {
    source: PathBuf,
    /// When the newest of what it is made of was changed.
    newest: SystemTime,
    kind: Kind,
}

/// What is compiled, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Runtime,
    Kernels,
    /// Kernels that tell the runtime of each of their accesses to memory.
    Watched,
}

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let kernels = here.parent().expect("it lies in the kernels' folder").to_path_buf();
    println!("cargo:rerun-if-changed={}", kernels.display());
    OPTIONS.iter().for_each(|option| println!("cargo:rerun-if-env-changed={option}"));

    let build = compiler(&[&kernels, &here.join("runtime")]);
    let headers = [files(&kernels, "cuh"), files(&here.join("runtime"), "h")].concat();
    let newest_header = headers.iter().map(|path| changed(path)).max().expect("there are headers");
    let mut units: Vec<Unit> = files(&here.join("runtime"), "cpp")
        .into_iter()
        .map(|source| Unit { newest: changed(&source).max(newest_header), source, kind: Kind::Runtime })
        .collect();
    let (mut declared, mut called) = (String::new(), String::new());
    for source in [files(&kernels, "cu"), files(&here.join("bugs"), "cu")].concat() {
        let stem = source.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        for (kind, name) in [(Kind::Kernels, stem.clone()), (Kind::Watched, format!("{stem}_watched"))] {
            let wrapper = out.join(format!("{name}.cpp"));
            write_if_new(&wrapper, &wrapped(&source, &name, kind));
            let newest = changed(&source).max(newest_header).max(changed(&wrapper));
            units.push(Unit { newest, source: wrapper, kind });
            writeln!(declared, "extern \"C\" void emulation_register_{name}();").expect("a string takes it");
            writeln!(called, "  emulation_register_{name}();").expect("a string takes it");
        }
    }
    let table = out.join("table.cpp");
    write_if_new(&table, &format!("{declared}void emulation_register() {{\n{called}}}\n"));
    units.push(Unit { newest: changed(&table), source: table, kind: Kind::Runtime });

    let mut library = cc::Build::new();
    library.cpp(true).warnings(false).objects(objects(&build, &units, &out));
    library.compile("emulated_kernels");
}

/// The compiler with our flags. Ends the build with what to do where there is none.
fn compiler(include: &[&Path]) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).warnings(false).debug(false).includes(include);
    let tool = build.get_compiler();
    if tool.to_command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!(
            "The emulation of a GPU, which only tests use, needs a C++ compiler: `{}` was not found.",
            tool.path().display()
        );
        eprintln!("Install g++ or clang++, or name one in the environment variable CXX.");
        std::process::exit(1);
    }
    // Line tables, for messages, which count from one function to another (of version 5 some tools confuse
    // the files); CUDA sources reinterpret what they load; jumps out of a signal's handler go between stacks,
    // which hardened C libraries take for a mistake.
    for flag in [
        "-g1",
        "-gdwarf-4",
        "-fno-strict-aliasing",
        "-fno-exceptions",
        "-U_FORTIFY_SOURCE",
        "-fno-function-sections",
    ] {
        build.flag(flag);
    }
    if option("EMULATION_UCONTEXT").is_some() {
        build.define("EMULATION_UCONTEXT", None);
    }
    if let Some(march) = option("EMULATION_MARCH").or_else(instructions) {
        build.flag_if_supported(format!("-march={march}"));
    }
    build
}

/// Checks that the compiler adds to kernels. What they find traps, which the runtime reports with its line.
fn checks() -> [&'static str; 2] {
    let which =
        if option("EMULATION_UBSAN").is_some() { "-fsanitize=undefined" } else { "-fsanitize=alignment" };
    [which, "-fsanitize-undefined-trap-on-error"]
}

fn option(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty() && value != "0")
}

/// Instructions that the machine has which builds this and will run it.
fn instructions() -> Option<String> {
    if std::env::var("HOST") != std::env::var("TARGET") {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    if ["avx2", "fma", "f16c", "bmi2"].iter().all(|feature| match *feature {
        "avx2" => is_x86_feature_detected!("avx2"),
        "fma" => is_x86_feature_detected!("fma"),
        "f16c" => is_x86_feature_detected!("f16c"),
        _ => is_x86_feature_detected!("bmi2"),
    }) {
        return Some("x86-64-v3".to_owned());
    }
    None
}

/// The source, and a function that enters its kernels into the table of those that can be launched.
///
/// Sources are compiled apart on a device, where two may have functions of one name: here each has its own
/// namespace.
fn wrapped(source: &Path, name: &str, kind: Kind) -> String {
    let text = fs::read_to_string(source).expect("a source is text");
    let register = format!("emulation_register_{name}");
    let watched = kind == Kind::Watched;
    let mut all = format!("#include \"device.h\"\nnamespace {{\n#include \"{}\"\n}}\n", source.display());
    let here =
        format!("EMULATION_OBJECT, \"{register}\", reinterpret_cast<uint64_t>(&{register}), {watched}");
    writeln!(all, "extern \"C\" void {register}() {{\n  const emulation::Object here = {{{here}}};")
        .expect("it takes it");
    for line in text.lines().filter(|line| line.starts_with("KERNEL")) {
        // `KERNEL name(...` or `KERNEL_OF(threads, blocks) name(...`.
        let (bounds, name) = match line.strip_prefix("KERNEL_OF(") {
            Some(rest) => rest.split_once(')').unwrap_or_default(),
            None => ("1024", line.trim_start_matches("KERNEL")),
        };
        let threads = bounds.split(',').next().unwrap_or_default();
        let name = name.trim_start();
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        writeln!(all, "  emulation::add(here, \"{name}\", {threads}, {name});").expect("a string takes it");
    }
    all + "}\n"
}

/// Compiles what has changed, on as many threads as cargo allows.
fn objects(build: &cc::Build, units: &[Unit], out: &Path) -> Vec<PathBuf> {
    let jobs: usize = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let tool = build.get_compiler();
    let mut hasher = DefaultHasher::new();
    (tool.path(), tool.args(), checks()).hash(&mut hasher);
    let flags = hasher.finish();
    let kept = |unit: &Unit| {
        let stem = unit.source.file_stem().expect("a file has a name").to_string_lossy();
        out.join(format!("{stem}.{flags:016x}.o"))
    };
    let is_old = |unit: &&Unit| {
        let made = fs::metadata(kept(unit)).and_then(|m| m.modified());
        !made.is_ok_and(|made| made > unit.newest)
    };
    let queue = Mutex::new(units.iter().filter(is_old));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(unit) = queue.lock().expect("no thread panics while it holds it").next() else {
                        break;
                    };
                    compile(tool.to_command(), unit, &kept(unit));
                }
            });
        }
    });
    units.iter().map(kept).collect()
}

/// Compiles one file. Ends the build with the compiler's own words where it cannot be.
fn compile(mut command: Command, unit: &Unit, object: &Path) {
    match unit.kind {
        // Most of the time goes to the runtime: to turns, and to the products of tensor cores.
        Kind::Runtime => command.arg("-O3"),
        Kind::Kernels => command.args(checks()),
        // The runtime has the functions that this calls; the library of that name is not linked.
        Kind::Watched => command.arg("-fsanitize=thread"),
    };
    command.arg(format!("-DEMULATION_OBJECT=\"{}\"", object.display()));
    let status = command.arg("-c").arg(&unit.source).arg("-o").arg(object).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("{} could not be compiled for the emulation", unit.source.display());
        std::process::exit(1);
    }
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
