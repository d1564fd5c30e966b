//! Making text of a value.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

use super::functions;
use super::parse::{Base, Branch, Node, Operand, Pipeline, Word};
use super::printf::shown;
use super::{MOST_NESTED, TemplateError};

/// The most that one execution makes, in bytes: loops in a template multiply.
const MOST_TEXT: usize = 1 << 30;
/// The longest `range` over a number.
const MOST_ROUNDS: i64 = 10_000_000;

pub(super) fn run(
    main: &[Node],
    named: &HashMap<String, Vec<Node>>,
    results: &Value,
) -> Result<String, (String, TemplateError)> {
    let mut run = Run { named, results, text: String::new(), variables: Vec::new(), calls: 0 };
    let dot = Cow::Borrowed(results);
    run.variables.push((String::new(), dot.clone()));
    match run.nodes(main, &dot) {
        Ok(_) => Ok(run.text),
        Err(error) => Err((run.text, error)),
    }
}

type Held<'a> = Cow<'a, Value>;

/// How a run of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    named: &'a HashMap<String, Vec<Node>>,
    /// What the template began with.
    results: &'a Value,
    text: String,
    /// Later ones hide earlier ones.
    variables: Vec<(String, Held<'a>)>,
    calls: usize,
}

impl<'a> Run<'a> {
    fn nodes(&mut self, nodes: &'a [Node], dot: &Held<'a>) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.text.push_str(text);
                    Flow::On
                }
                Node::Show(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.show(&value);
                    }
                    Flow::On
                }
                Node::Branch(branch) => self.scoped(|run| run.branch(branch, dot))?,
                Node::Call(line, name, pipeline) => {
                    self.call(*line, name, pipeline.as_ref(), dot)?;
                    Flow::On
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    /// A value by itself in an action.
    fn show(&mut self, value: &Value) {
        match value {
            Value::Null => self.text.push_str("<no value>"),
            value => self.text.push_str(&shown(value)),
        }
    }

    fn scoped<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> T {
        let known = self.variables.len();
        let inner = inner(self);
        self.variables.truncate(known);
        inner
    }

    fn branch(&mut self, branch: &'a Branch, dot: &Held<'a>) -> Result<Flow, TemplateError> {
        if branch.word == Word::Range {
            return self.range(branch, dot);
        }
        let value = self.pipeline(&branch.pipeline, dot)?;
        let inside = if branch.word == Word::With { &value } else { dot };
        if truth(&value) {
            self.nodes(&branch.then, inside)
        } else {
            self.nodes(&branch.otherwise, dot)
        }
    }

    fn range(&mut self, branch: &'a Branch, dot: &Held<'a>) -> Result<Flow, TemplateError> {
        let line = branch.pipeline.line;
        let over = self.commands(&branch.pipeline, dot)?;
        let elements = elements(over).map_err(|text| TemplateError::new(line, text))?;
        let mut none = true;
        for (key, element) in elements {
            none = false;
            if self.text.len() > MOST_TEXT {
                return Err(TemplateError::new(line, "the output is larger than 1 GiB"));
            }
            let flow = self.scoped(|run| {
                run.set_elements(&branch.pipeline, key, &element);
                run.nodes(&branch.then, &element)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        if none { self.nodes(&branch.otherwise, dot) } else { Ok(Flow::On) }
    }

    fn set_elements(&mut self, pipeline: &Pipeline, key: Value, element: &Held<'a>) {
        match pipeline.variables.as_slice() {
            [one] => self.set(one, element.clone(), pipeline.declares),
            [first, second] => {
                self.set(first, Cow::Owned(key), pipeline.declares);
                self.set(second, element.clone(), pipeline.declares);
            }
            _ => {}
        }
    }

    fn set(&mut self, name: &str, value: Held<'a>, declares: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match known.filter(|_| !declares) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn call(
        &mut self,
        line: usize,
        name: &str,
        pipeline: Option<&'a Pipeline>,
        dot: &Held<'a>,
    ) -> Result<(), TemplateError> {
        let Some(body) = self.named.get(name) else {
            return Err(TemplateError::new(line, format!("there is no template {name:?}")));
        };
        let given = match pipeline {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Cow::Owned(Value::Null),
        };
        self.calls += 1;
        if self.calls > MOST_NESTED {
            return Err(TemplateError::new(line, "templates call each other without end"));
        }
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), given.clone())]);
        let done = self.nodes(body, &given);
        self.variables = outer;
        self.calls -= 1;
        done.map(drop)
    }

    /// The value of a pipeline; variables are set.
    fn pipeline(
        &mut self,
        pipeline: &'a Pipeline,
        dot: &Held<'a>,
    ) -> Result<Held<'a>, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            self.set(name, value.clone(), pipeline.declares);
        }
        Ok(value)
    }

    fn commands(
        &mut self,
        pipeline: &'a Pipeline,
        dot: &Held<'a>,
    ) -> Result<Held<'a>, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(pipeline.line, command, dot, last)?);
        }
        Ok(last.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn command(
        &mut self,
        line: usize,
        command: &'a [Operand],
        dot: &Held<'a>,
        last: Option<Held<'a>>,
    ) -> Result<Held<'a>, TemplateError> {
        let Some((Operand::Function(name), operands)) = command.split_first() else {
            return match command.first() {
                Some(operand) => self.operand(line, operand, dot),
                None => Ok(Cow::Owned(Value::Null)),
            };
        };
        if name == "and" || name == "or" {
            return self.lazily(line, name == "and", operands, dot, last);
        }
        let mut values = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            values.push(self.operand(line, operand, dot)?);
        }
        values.extend(last);
        functions::call(name, values)
            .map_err(|text| TemplateError::new(line, format!("{name}: {text}")))
    }

    /// `and` and `or` look at no more values than they must.
    fn lazily(
        &mut self,
        line: usize,
        and: bool,
        operands: &'a [Operand],
        dot: &Held<'a>,
        last: Option<Held<'a>>,
    ) -> Result<Held<'a>, TemplateError> {
        let mut value = None;
        for operand in operands {
            let found = self.operand(line, operand, dot)?;
            if truth(&found) != and {
                return Ok(found);
            }
            value = Some(found);
        }
        let word = if and { "and" } else { "or" };
        last.or(value)
            .ok_or_else(|| TemplateError::new(line, format!("{word}: a value is missing")))
    }

    fn operand(
        &mut self,
        line: usize,
        operand: &'a Operand,
        dot: &Held<'a>,
    ) -> Result<Held<'a>, TemplateError> {
        match operand {
            Operand::Constant(value) => Ok(Cow::Borrowed(value)),
            Operand::Dot => Ok(dot.clone()),
            Operand::Function(name) => functions::call(name, Vec::new())
                .map_err(|text| TemplateError::new(line, format!("{name}: {text}"))),
            Operand::Chain(base, fields) => {
                let mut value = match base {
                    Base::Dot => dot.clone(),
                    Base::Variable(name) => self.variable(name),
                    Base::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
                };
                for name in fields {
                    let found = self.field(value, name);
                    value = found.map_err(|text| TemplateError::new(line, text))?;
                }
                Ok(value)
            }
        }
    }

    fn variable(&self, name: &str) -> Held<'a> {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found.map_or(Cow::Owned(Value::Null), |(_, value)| value.clone())
    }

    /// A field, or nothing if there is none of that name.
    fn field(&self, value: Held<'a>, name: &str) -> Result<Held<'a>, String> {
        if let Cow::Borrowed(Value::Array(results)) = &value
            && std::ptr::eq(&raw const *results, as_array(self.results))
        {
            return match results.as_slice() {
                [only] => self.field(Cow::Borrowed(only), name),
                _ => Err(format!(".{name}: there are {} results: want a range", results.len())),
            };
        }
        match value {
            Cow::Borrowed(Value::Object(map)) => {
                Ok(find(map, name).map_or(Cow::Owned(Value::Null), Cow::Borrowed))
            }
            Cow::Owned(Value::Object(map)) => {
                Ok(Cow::Owned(find(&map, name).cloned().unwrap_or_default()))
            }
            value if value.is_null() => Ok(value),
            value => Err(format!(".{name}: {} has no fields", functions::type_of(&value))),
        }
    }
}

fn as_array(value: &Value) -> *const Vec<Value> {
    value.as_array().map_or(std::ptr::null(), |array| &raw const *array)
}

/// A field by its name in YAML, or as Go's structs call it: there a name starts with a capital letter, and what
/// is in `metadata` can be named without it.
fn find<'v>(map: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    if let Some(value) = map.get(name) {
        return Some(value);
    }
    if !name.starts_with(char::is_uppercase) {
        return None;
    }
    let alike = |map: &'v Map<String, Value>| {
        map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let metadata = map.get("metadata");
    match name {
        "ObjectMeta" | "ListMeta" => metadata,
        _ => alike(map).or_else(|| metadata?.as_object().and_then(alike)),
    }
}

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

type Elements<'a> = Box<dyn Iterator<Item = (Value, Held<'a>)> + 'a>;

/// What a range goes over: keys or numbers, and elements.
fn elements(over: Held<'_>) -> Result<Elements<'_>, String> {
    Ok(match over {
        Cow::Borrowed(Value::Array(items)) => {
            Box::new(items.iter().enumerate().map(|(i, item)| (i.into(), Cow::Borrowed(item))))
        }
        Cow::Owned(Value::Array(items)) => {
            Box::new(items.into_iter().enumerate().map(|(i, item)| (i.into(), Cow::Owned(item))))
        }
        Cow::Borrowed(Value::Object(map)) => {
            let mut sorted: Vec<_> = map.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            let entry = |(key, value): (&String, _)| (key.as_str().into(), Cow::Borrowed(value));
            Box::new(sorted.into_iter().map(entry))
        }
        Cow::Owned(Value::Object(map)) => {
            let mut sorted: Vec<_> = map.into_iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            Box::new(sorted.into_iter().map(|(key, value)| (key.into(), Cow::Owned(value))))
        }
        value => match &*value {
            Value::Null => Box::new(std::iter::empty()),
            Value::Number(number) => match number.as_i64() {
                Some(rounds) if rounds <= MOST_ROUNDS => {
                    Box::new((0..rounds).map(|n| (n.into(), Cow::Owned(n.into()))))
                }
                _ => return Err(format!("a range cannot go over {number}")),
            },
            other => return Err(format!("a range cannot go over {}", functions::type_of(other))),
        },
    })
}
