//! `calico-cni`: see the library.

fn main() -> std::process::ExitCode {
    cni::run(&cni::Env::of_process(), std::io::stdin(), std::io::stdout())
}
