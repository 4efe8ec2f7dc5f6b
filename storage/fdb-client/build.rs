//! Makes `libfdb_c.a`, which the bindings link instead of FoundationDB's own library: each function of `functions.txt` as a
//! jump through a table, and a loader that opens the real library and fills the table. Needs a C compiler, nothing else.

fn main() {
    println!("cargo:rerun-if-changed=functions.txt");
    #[cfg(feature = "client")]
    shim::build();
}

#[cfg(feature = "client")]
mod shim {
    use std::fmt::Write as _;
    use std::path::Path;

    const FUNCTIONS: &str = include_str!("functions.txt");

    pub(crate) fn build() {
        let out = std::env::var("OUT_DIR").unwrap_or_default();
        let target = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
        let source = Path::new(&out).join("shim.c");
        if let Err(error) = std::fs::write(&source, text(&target)) {
            println!("cargo:error=the shim of FoundationDB's client cannot be written: {error}");
            return;
        }
        // Not linked from here: the bindings already say that they need a library of this name.
        cc::Build::new().file(&source).cargo_metadata(false).compile("fdb_c");
        println!("cargo:rustc-link-search=native={out}");
    }

    fn text(target: &str) -> String {
        let functions: Vec<_> = FUNCTIONS.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut text = String::from("#include <dlfcn.h>\n#include <stddef.h>\n#include <stdio.h>\n\n");
        let _ = writeln!(text, "#define COUNT {}\n", functions.len());
        text.push_str("static const char *const names[COUNT] = {\n");
        for name in &functions {
            let _ = writeln!(text, "    \"{name}\",");
        }
        text.push_str("};\n\n__attribute__((visibility(\"hidden\"))) void *bigpeer_fdb_table[COUNT];\n\n");
        for (at, name) in functions.iter().enumerate() {
            let offset = at * 8;
            let jump = match target {
                "x86_64" => format!("jmp *bigpeer_fdb_table+{offset}(%rip)"),
                "aarch64" => format!(
                    "adrp x16, bigpeer_fdb_table+{offset}\\n  ldr x16, [x16, :lo12:bigpeer_fdb_table+{offset}]\\n  br x16"
                ),
                other => {
                    println!("cargo:error=FoundationDB's client is not supported on {other}");
                    return String::new();
                }
            };
            let _ = writeln!(
                text,
                "__asm__(\".text\\n.globl {name}\\n.type {name}, %function\\n{name}:\\n  {jump}\\n.size {name}, .-{name}\\n\");"
            );
        }
        text.push_str(LOADER);
        text
    }

    const LOADER: &str = r#"
/* Opens the library and fills the table, all of it or nothing. Answers 0, or 1 and why. */
int bigpeer_fdb_load(const char *path, char *reason, size_t capacity) {
    void *found[COUNT];
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *error = dlerror();
        snprintf(reason, capacity, "%s", error == NULL ? "it cannot be opened" : error);
        return 1;
    }
    for (size_t at = 0; at < COUNT; at++) {
        found[at] = dlsym(library, names[at]);
        if (found[at] == NULL) {
            snprintf(reason, capacity, "%s has no function %s: it is not of version 7.3 or later", path, names[at]);
            dlclose(library);
            return 1;
        }
    }
    for (size_t at = 0; at < COUNT; at++) {
        bigpeer_fdb_table[at] = found[at];
    }
    return 0;
}
"#;
}
