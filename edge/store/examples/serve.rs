//! The embedded API as a process: `serve DIR ADDRESS`. Writes `DIR/kubeconfig`, then serves until killed.

use std::net::TcpListener;
use std::process::ExitCode;

use store::{Durability, ServeOptions, serve};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, dir, address] = arguments.as_slice() else {
        return ExitCode::from(2);
    };
    let Ok(listener) = TcpListener::bind(address) else { return ExitCode::FAILURE };
    let Ok(bound) = listener.local_addr() else { return ExitCode::FAILURE };
    let dir = std::path::PathBuf::from(dir);
    let options = ServeOptions {
        kubeconfigs: vec![(dir.join("kubeconfig"), format!("https://{bound}"))],
        data_dir: dir,
        durability: Durability::Process,
        listeners: vec![listener],
        names: Vec::new(),
        service_ranges: Vec::new(),
        access: apiserver::Access::default(),
    };
    match serve(options, std::future::pending()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
