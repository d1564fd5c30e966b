//! Where log lines go.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Changes what is logged, and where to.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, tracing_subscriber::Registry>,
    file: LogFile,
}

impl Logs {
    /// From now on `filter` holds, in the words of [`LogConfig::filter`].
    ///
    /// # Errors
    /// The filter cannot be read; the one before holds on.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        // The subscriber lives as long as the process.
        let _ = self.filter.reload(read(filter)?);
        Ok(())
    }

    /// From now on lines are also appended to this file, and no longer to another one.
    ///
    /// # Errors
    /// The file cannot be opened; lines go where they went before.
    pub fn file(&self, path: Option<&Path>) -> Result<(), LogError> {
        let file = path.map(open).transpose()?;
        *self.file.lock() = file;
        Ok(())
    }
}

/// The file that lines go to now, if they go to one.
#[derive(Clone, Debug, Default)]
struct LogFile(Arc<Mutex<Option<File>>>);

impl LogFile {
    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lock().as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.lock().as_mut().map_or(Ok(()), File::flush)
    }
}

fn open(path: &Path) -> Result<File, LogError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|e| LogError::File(path.to_owned(), e))
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
    let file = LogFile(Arc::new(Mutex::new(config.file.as_deref().map(open).transpose()?)));
    let stderr = layer().with_writer(std::io::stderr).with_ansi(false);
    let stderr = match config.format {
        Format::Text => stderr.boxed(),
        Format::Json => stderr.json().flatten_event(true).boxed(),
    };
    let writer = file.clone();
    let plain = layer().with_writer(move || writer.clone()).with_ansi(false);
    let plain = match config.format {
        Format::Text => plain.boxed(),
        Format::Json => plain.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(stderr).with(plain);
    subscriber.try_init().map_err(|_| LogError::Twice)?;
    Ok(Logs { filter: handle, file })
}
