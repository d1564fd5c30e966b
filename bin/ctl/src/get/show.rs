//! How objects are shown.

use std::sync::Arc;

use anyhow::Result;
use api::{Kind, Source};
use serde_json::{Value, json};

use super::strip;
use crate::args::{GetArgs, GetOutput};
use crate::print::{Out, Table, cell};
use crate::template::Template;
use crate::usage;

/// What a question brings.
pub(super) struct Frame {
    pub(super) kind: &'static Kind,
    /// One object, asked for by name.
    pub(super) single: bool,
}

/// A form of output, with all that it needs to know. Cheap to clone.
#[derive(Clone)]
pub(super) struct Form(Arc<Inner>);

struct Inner {
    output: GetOutput,
    template: Option<Template>,
    export: bool,
    all_namespaces: bool,
}

/// A page in its form.
pub(super) enum Rendered {
    Rows(Vec<Vec<String>>),
    /// Items of a list, each as text.
    Items(Vec<String>),
    /// For forms that want them all at once.
    Objects(Vec<Value>),
}

impl Form {
    /// # Errors
    /// A column that a kind does not have, a template that cannot be read.
    pub(super) fn new(args: &GetArgs, kinds: &[&'static Kind]) -> Result<Self> {
        if let GetOutput::Columns(columns) = &args.output {
            for kind in kinds {
                chosen(kind, columns)?;
            }
        }
        let text = match &args.output {
            GetOutput::Template(text) => Some(text.clone()),
            GetOutput::TemplateFile(path) => Some(crate::files::read(path)?.1),
            _ => None,
        };
        let template = text.map(|text| Template::parse(&text)).transpose();
        let template = template.map_err(|error| usage(format!("the template: {error}")))?;
        Ok(Self(Arc::new(Inner {
            output: args.output.clone(),
            template,
            export: args.export,
            all_namespaces: args.all_namespaces,
        })))
    }

    /// Documents that hold everything, rather than a line for each object.
    fn whole(&self) -> bool {
        matches!(self.0.output, GetOutput::Yaml | GetOutput::Json)
    }

    fn table(&self) -> bool {
        matches!(self.0.output, GetOutput::Ps | GetOutput::Wide | GetOutput::Columns(_))
    }

    pub(super) fn render(&self, kind: &Kind, mut objects: Vec<Value>) -> Result<Rendered> {
        if self.0.export {
            objects.iter_mut().for_each(strip);
        }
        Ok(match &self.0.output {
            GetOutput::Ps | GetOutput::Wide | GetOutput::Columns(_) => {
                let paths = self.columns(kind)?.into_iter().map(|(_, path)| path);
                let paths: Vec<String> = paths.collect();
                let row = |object: &Value| paths.iter().map(|path| cell(object, path)).collect();
                Rendered::Rows(objects.iter().map(row).collect())
            }
            GetOutput::Name => {
                let line =
                    |o| format!("{}.{}/{}", kind.singular, kind.group, cell(o, ".metadata.name"));
                Rendered::Items(objects.iter().map(line).collect())
            }
            GetOutput::Yaml => {
                let text = |object: &Value| Ok(serde_saphyr::to_string(object)?);
                Rendered::Items(objects.iter().map(text).collect::<Result<_>>()?)
            }
            GetOutput::Json => {
                let text = |object: &Value| Ok(serde_json::to_string_pretty(object)?);
                Rendered::Items(objects.iter().map(text).collect::<Result<_>>()?)
            }
            GetOutput::Template(_) | GetOutput::TemplateFile(_) => Rendered::Objects(objects),
        })
    }

    /// Headings, and where the values are.
    fn columns(&self, kind: &Kind) -> Result<Vec<(String, String)>> {
        if let GetOutput::Columns(columns) = &self.0.output {
            return chosen(kind, columns);
        }
        let wide = self.0.output == GetOutput::Wide;
        let mut columns = Vec::new();
        let mut column = |name: &str, path: &str| columns.push((name.to_owned(), path.to_owned()));
        if kind.namespaced && self.0.all_namespaces {
            column("NAMESPACE", ".metadata.namespace");
        }
        // A workload is known by its pod; its own name is made up.
        if kind.source != Source::Pod || wide {
            column("NAME", ".metadata.name");
        }
        for own in kind.columns.iter().filter(|c| wide || !c.wide) {
            column(&own.name.to_uppercase(), own.path);
        }
        Ok(columns)
    }
}

/// The columns that were asked for.
fn chosen(kind: &Kind, columns: &[String]) -> Result<Vec<(String, String)>> {
    let own = [("NAME", ".metadata.name"), ("NAMESPACE", ".metadata.namespace")];
    let known = || own.into_iter().chain(kind.columns.iter().map(|c| (c.name, c.path)));
    let path = |column: &String| {
        if let Some((heading, path)) = column.split_once(':') {
            return Ok((heading.to_owned(), path.to_owned()));
        }
        let found = known().find(|(name, _)| name.eq_ignore_ascii_case(column));
        let (_, path) = found.ok_or_else(|| {
            let names: Vec<_> = known().map(|(name, _)| name.to_uppercase()).collect();
            let names = names.join(", ");
            usage(format!(
                "{} has no column {column:?} (want {names}, or HEADING:.path)",
                kind.kind
            ))
        })?;
        Ok((column.to_uppercase(), path.to_owned()))
    };
    columns.iter().map(path).collect()
}

/// Where the output goes.
pub(super) struct Sink {
    pub(super) form: Form,
    out: Out,
    /// More than one question: all in one document.
    several: bool,
    /// Questions that have been begun.
    begun: usize,
    table: Table,
    /// Items of the list that is being written; none if there is no list.
    items: Option<usize>,
    objects: Vec<Value>,
    /// What each question brought, for a template.
    results: Vec<Value>,
}

impl Sink {
    pub(super) fn new(form: Form, questions: usize) -> Self {
        Self {
            form,
            out: Out::new(),
            several: questions > 1,
            begun: 0,
            table: Table::new([""; 0]),
            items: None,
            objects: Vec::new(),
            results: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, frame: &Frame) -> Result<()> {
        let first = self.begun == 0;
        self.begun += 1;
        if self.form.table() {
            if !first {
                self.out.line("")?;
            }
            let headings = self.form.columns(frame.kind)?.into_iter().map(|(heading, _)| heading);
            self.table = Table::new(headings);
        } else if self.form.whole() && self.several && first {
            self.head("v1", "List")?;
        } else if self.form.whole() && !self.several && !frame.single {
            self.head(&frame.kind.api_version(), &format!("{}List", frame.kind.kind))?;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, rendered: Rendered) -> Result<()> {
        match rendered {
            Rendered::Rows(rows) => rows.into_iter().for_each(|row| self.table.row(row)),
            Rendered::Objects(objects) => self.objects.extend(objects),
            Rendered::Items(items) => {
                for item in items {
                    self.item(&item)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self, frame: &Frame) -> Result<()> {
        if self.form.table() {
            return self.out.table(&self.table);
        }
        if self.form.0.template.is_some() {
            let objects = std::mem::take(&mut self.objects);
            if frame.single {
                self.results.extend(objects);
            } else {
                self.results.push(json!({
                    "apiVersion": frame.kind.api_version(),
                    "kind": format!("{}List", frame.kind.kind),
                    "metadata": {},
                    "items": objects,
                }));
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if let Some(items) = self.items {
            self.foot(items)?;
        }
        if let Some(template) = &self.form.0.template {
            let text = template.execute(&Value::Array(self.results));
            // What had been made before it failed helps to find the place.
            let (text, failed) = match text {
                Ok(text) => (text, None),
                Err((text, error)) => (text, Some(error)),
            };
            self.out.text(&text)?;
            if let Some(error) = failed {
                self.out.finish()?;
                return Err(anyhow::anyhow!("the template: {error}"));
            }
        }
        self.out.finish()
    }

    fn head(&mut self, api_version: &str, kind: &str) -> Result<()> {
        self.items = Some(0);
        if self.form.0.output == GetOutput::Yaml {
            return self
                .out
                .line(&format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{}}"));
        }
        self.out.line(&format!(
            "{{\n  \"apiVersion\": \"{api_version}\",\n  \"kind\": \"{kind}\",\n  \"metadata\": {{}},"
        ))
    }

    fn item(&mut self, text: &str) -> Result<()> {
        let Some(items) = self.items.as_mut() else { return self.out.line(text) };
        *items += 1;
        let first = *items == 1;
        if self.form.0.output == GetOutput::Yaml {
            if first {
                self.out.line("items:")?;
            }
            return self.out.indented(text, "- ", "  ");
        }
        self.out.text(if first { "  \"items\": [\n" } else { ",\n" })?;
        self.out.indented(text, "    ", "    ")?;
        Ok(())
    }

    fn foot(&mut self, items: usize) -> Result<()> {
        let yaml = self.form.0.output == GetOutput::Yaml;
        self.out.line(match (yaml, items) {
            (true, 0) => "items: []",
            (true, _) => return Ok(()),
            (false, 0) => "  \"items\": []\n}",
            (false, _) => "\n  ]\n}",
        })
    }
}
