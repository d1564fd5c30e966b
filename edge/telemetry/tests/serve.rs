//! The endpoints over a real socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use telemetry::{Aspects, Endpoints, Health, Registry, Report, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn health_and_metrics_over_http() {
    let health = Health::default();
    let reporter = health.register("loop", Aspects { live: true, ready: true }, None);
    let mut registry = Registry::default();
    let gauge = Gauge::<i64>::default();
    registry.register("felix_active_local_endpoints", "Local endpoints", gauge.clone());
    gauge.set(3);
    let endpoints = Endpoints {
        metrics: Some(Arc::new(registry)),
        health: Some(health),
        status: Some(Arc::new(|| serde_json::json!({"inSync": true}))),
        config: Some(Arc::new(|| serde_json::json!({"problems": []}))),
    };
    let server = serve("127.0.0.1:0".parse().unwrap(), endpoints).await.unwrap();
    let address = server.address();
    reporter.report(Report::waiting("first list"));
    assert!(get(address, "/liveness").await.starts_with("HTTP/1.1 204"));
    let unready = get(address, "/readiness").await;
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("first list"), "{unready}");
    reporter.report(Report::good());
    assert!(get(address, "/readiness").await.starts_with("HTTP/1.1 204"));
    assert!(get(address, "/metrics").await.contains("felix_active_local_endpoints 3"));
    assert!(get(address, "/status").await.contains(r#"{"inSync":true}"#));
    assert!(get(address, "/config").await.contains(r#"{"problems":[]}"#));
    assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it listens no more");
    let server = serve(address, Endpoints::default()).await.expect("the address is free");
    drop(server);
    tokio::task::yield_now().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nor does this one");
}
