//! Where log lines go.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and where to.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// A level (`info`) or a filter (`info,syncer=debug`). Names that upstream uses (`Warning`,
    /// `Fatal`) are understood.
    pub filter: String,
    /// How it looks.
    pub format: Format,
    /// Also into this file, appended.
    pub file: Option<PathBuf>,
}

/// No logging.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log filter {0:?} is neither a level nor a list of target=level")]
    Filter(String),
    /// The file cannot be opened.
    #[error("opening log file {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// There is logging already.
    #[error("logging was set up before")]
    Twice,
}

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct Logs(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl Logs {
    /// From now on `filter` holds, in the words of [`LogConfig::filter`].
    ///
    /// # Errors
    /// The filter cannot be read; the one before holds on.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        // The subscriber lives as long as the process.
        let _ = self.0.reload(read(filter)?);
        Ok(())
    }
}

fn read(filter: &str) -> Result<EnvFilter, LogError> {
    let text = match filter.to_lowercase().as_str() {
        "" => "info".to_owned(),
        "warning" => "warn".to_owned(),
        "fatal" | "panic" => "error".to_owned(),
        "none" => "off".to_owned(),
        other => other.to_owned(),
    };
    EnvFilter::try_new(&text).map_err(|_| LogError::Filter(filter.to_owned()))
}

/// Sets up logging for the whole process, once.
///
/// # Errors
/// [`LogError`].
pub fn init_logs(config: &LogConfig) -> Result<Logs, LogError> {
    let (filter, handle) = reload::Layer::new(read(&config.filter)?);
    let file = match &config.file {
        Some(path) => {
            let open = OpenOptions::new().create(true).append(true).open(path);
            Some(Mutex::new(open.map_err(|e| LogError::File(path.clone(), e))?))
        }
        None => None,
    };
    let stderr = layer().with_writer(std::io::stderr).with_ansi(false);
    let stderr = match config.format {
        Format::Text => stderr.boxed(),
        Format::Json => stderr.json().flatten_event(true).boxed(),
    };
    let file = file.map(|file| {
        let plain = layer().with_writer(file).with_ansi(false);
        match config.format {
            Format::Text => plain.boxed(),
            Format::Json => plain.json().flatten_event(true).boxed(),
        }
    });
    let subscriber = tracing_subscriber::registry().with(filter).with(stderr).with(file);
    subscriber.try_init().map_err(|_| LogError::Twice)?;
    Ok(Logs(handle))
}
