//! Keeps the relocations of the binary small: they are read at every start, also of a command that
//! lives for a millisecond.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
