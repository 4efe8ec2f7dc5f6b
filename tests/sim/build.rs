//! Exports the simulation's `getrandom` from its executables: some crates look it up by name while they run.

fn main() {
    println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=getrandom");
    println!("cargo::rerun-if-changed=build.rs");
}
