//! One binary, several programs: it runs the one it is called as.
fn main() {}
