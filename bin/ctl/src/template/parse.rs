//! From tokens to a tree.

use std::collections::HashMap;

use serde_json::Value;

use super::lex::{Placed, Token};
use super::{MOST_NESTED, TemplateError};

/// A part of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    /// Shows the value of a pipeline, unless it sets a variable.
    Show(Pipeline),
    Branch(Branch),
    /// Another template, by name.
    Call(usize, String, Option<Pipeline>),
    Break,
    Continue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    If,
    With,
    Range,
}

#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) word: Word,
    pub(super) pipeline: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each of which gets what the one before it gave.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) line: usize,
    /// Variables that it sets: one, or two of a `range`.
    pub(super) variables: Vec<String>,
    /// They are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Function(String),
    Constant(Value),
    Dot,
    Chain(Base, Vec<String>),
}

/// What a chain of fields begins at.
#[derive(Clone, Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Pipeline(Box<Pipeline>),
}

type Named = HashMap<String, Vec<Node>>;

pub(super) fn parse(tokens: Vec<Placed>) -> Result<(Vec<Node>, Named), TemplateError> {
    let mut parser = Parser {
        tokens,
        at: 0,
        line: 1,
        named: HashMap::new(),
        variables: vec![String::new()],
        nested: 0,
        ranges: 0,
    };
    let (main, end) = parser.nodes()?;
    match end {
        End::Input => Ok((main, parser.named)),
        End::Word(word) => parser.fail(format!("{{{{{word}}}}} without what it belongs to")),
    }
}

/// What ended a run of nodes.
enum End {
    Input,
    /// `end` or `else`; of the latter the rest of its action is unread.
    Word(String),
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    line: usize,
    named: Named,
    /// Those that may be named here.
    variables: Vec<String>,
    nested: usize,
    ranges: usize,
}

impl Parser {
    fn fail<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line, message))
    }

    fn next(&mut self) -> Option<Token> {
        let placed = self.tokens.get(self.at)?;
        self.at += 1;
        self.line = placed.line;
        Some(placed.token.clone())
    }

    fn peek(&self) -> Option<&Placed> {
        self.tokens.get(self.at)
    }

    fn at(&self, token: &Token) -> bool {
        self.peek().is_some_and(|p| p.token == *token)
    }

    fn word_ahead(&self) -> Option<String> {
        match &self.peek()?.token {
            Token::Ident(word) => Some(word.clone()),
            _ => None,
        }
    }

    fn close(&mut self, behind: &str) -> Result<(), TemplateError> {
        match self.next() {
            Some(Token::Close) => Ok(()),
            _ => self.fail(format!("want }}}} after {behind}")),
        }
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        self.nested += 1;
        if self.nested > MOST_NESTED {
            return self.fail(format!("nested deeper than {MOST_NESTED} levels"));
        }
        let inner = inner(self);
        self.nested -= 1;
        inner
    }

    /// Up to the end of the input or of a block.
    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            match self.next() {
                None => return Ok((nodes, End::Input)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                _ => match self.word_ahead().as_deref() {
                    Some("end") => {
                        self.next();
                        self.close("end")?;
                        return Ok((nodes, End::Word("end".into())));
                    }
                    Some("else") => {
                        self.next();
                        return Ok((nodes, End::Word("else".into())));
                    }
                    word => {
                        let word = word.map(str::to_owned);
                        nodes.extend(self.action(word.as_deref())?);
                    }
                },
            }
        }
    }

    fn action(&mut self, word: Option<&str>) -> Result<Option<Node>, TemplateError> {
        let word = match word {
            Some("if") => Word::If,
            Some("with") => Word::With,
            Some("range") => Word::Range,
            Some("define") => return self.define().map(|()| None),
            Some("block") => return self.block().map(Some),
            Some("template") => return self.call().map(Some),
            Some(jump @ ("break" | "continue")) => return self.jump(jump).map(Some),
            _ => {
                let pipeline = self.pipeline(1)?;
                self.close("a pipeline")?;
                return Ok(Some(Node::Show(pipeline)));
            }
        };
        self.next();
        self.deeper(|parser| parser.branch(word)).map(|branch| Some(Node::Branch(branch)))
    }

    fn jump(&mut self, word: &str) -> Result<Node, TemplateError> {
        self.next();
        self.close(word)?;
        if self.ranges == 0 {
            return self.fail(format!("{{{{{word}}}}} outside of a range"));
        }
        Ok(if word == "break" { Node::Break } else { Node::Continue })
    }

    fn branch(&mut self, word: Word) -> Result<Branch, TemplateError> {
        let known = self.variables.len();
        let pipeline = self.pipeline(if word == Word::Range { 2 } else { 1 })?;
        self.close("a pipeline")?;
        self.ranges += usize::from(word == Word::Range);
        let then = self.nodes();
        self.ranges -= usize::from(word == Word::Range);
        let (then, end) = then?;
        let mut branch = Branch { word, pipeline, then, otherwise: Vec::new() };
        if let End::Word(end) = &end
            && end == "else"
        {
            branch.otherwise = self.otherwise(word)?;
        } else if matches!(end, End::Input) {
            return self.fail("a block is not closed: want {{end}}");
        }
        self.variables.truncate(known);
        Ok(branch)
    }

    /// Behind the word `else`.
    fn otherwise(&mut self, word: Word) -> Result<Vec<Node>, TemplateError> {
        let chained = match (word, self.word_ahead().as_deref()) {
            (Word::If, Some("if")) => Some(Word::If),
            (Word::With, Some("with")) => Some(Word::With),
            _ => None,
        };
        if let Some(word) = chained {
            self.next();
            // It shares the {{end}}.
            return Ok(vec![Node::Branch(self.deeper(|parser| parser.branch(word))?)]);
        }
        self.close("else")?;
        match self.nodes()? {
            (nodes, End::Word(end)) if end == "end" => Ok(nodes),
            (_, End::Word(_)) => self.fail("{{else}} after {{else}}"),
            (_, End::Input) => self.fail("a block is not closed: want {{end}}"),
        }
    }

    fn name(&mut self, word: &str) -> Result<String, TemplateError> {
        self.next();
        match self.next() {
            Some(Token::Quoted(name)) => Ok(name),
            _ => self.fail(format!("{word} wants a name in quotation marks")),
        }
    }

    /// The nodes of a template of its own, up to its end.
    fn body(&mut self) -> Result<Vec<Node>, TemplateError> {
        let variables = std::mem::replace(&mut self.variables, vec![String::new()]);
        let ranges = std::mem::take(&mut self.ranges);
        let body = self.deeper(Self::nodes);
        self.variables = variables;
        self.ranges = ranges;
        match body? {
            (nodes, End::Word(end)) if end == "end" => Ok(nodes),
            _ => self.fail("a block is not closed: want {{end}}"),
        }
    }

    fn define(&mut self) -> Result<(), TemplateError> {
        let name = self.name("define")?;
        self.close("define and a name")?;
        let body = self.body()?;
        self.named.insert(name, body);
        Ok(())
    }

    fn block(&mut self) -> Result<Node, TemplateError> {
        let name = self.name("block")?;
        let line = self.line;
        let pipeline = self.pipeline(1)?;
        self.close("a pipeline")?;
        let body = self.body()?;
        self.named.entry(name.clone()).or_insert(body);
        Ok(Node::Call(line, name, Some(pipeline)))
    }

    fn call(&mut self) -> Result<Node, TemplateError> {
        let name = self.name("template")?;
        let line = self.line;
        let pipeline = if self.at(&Token::Close) { None } else { Some(self.pipeline(1)?) };
        self.close("template and a name")?;
        Ok(Node::Call(line, name, pipeline))
    }

    /// `$a := x | y`, with at most so many variables.
    fn pipeline(&mut self, most: usize) -> Result<Pipeline, TemplateError> {
        let line = self.peek().map_or(self.line, |p| p.line);
        let (variables, declares) = self.variables_set(most)?;
        let mut commands = Vec::new();
        loop {
            commands.push(self.command(commands.is_empty())?);
            if !self.at(&Token::Pipe) {
                break;
            }
            self.next();
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { line, variables, declares, commands })
    }

    fn variables_set(&mut self, most: usize) -> Result<(Vec<String>, bool), TemplateError> {
        // Whether a variable is set shows behind it.
        let ahead: Vec<&Token> = self.tokens[self.at..].iter().take(4).map(|p| &p.token).collect();
        let sets = |token: &Token| matches!(token, Token::Declare | Token::Assign);
        let variables: Vec<String> = match ahead.as_slice() {
            [Token::Variable(a), set, ..] if sets(set) => vec![a.clone()],
            [Token::Variable(a), Token::Comma, Token::Variable(b), set] if sets(set) => {
                vec![a.clone(), b.clone()]
            }
            _ => return Ok((Vec::new(), false)),
        };
        if variables.len() > most {
            return self.fail("no such variables can be set here: two only by range, none in ()");
        }
        for _ in 0..variables.len() * 2 - 1 {
            self.next();
        }
        let declares = self.next() == Some(Token::Declare);
        for name in &variables {
            if !declares && !self.variables.contains(name) {
                return self.fail(format!("there is no variable ${name}"));
            }
        }
        Ok((variables, declares))
    }

    fn command(&mut self, first: bool) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
        }
        match operands.first() {
            None => self.fail("a value is missing"),
            // Only functions take what stands before.
            Some(Operand::Function(_)) => Ok(operands),
            Some(_) if !first || operands.len() > 1 => {
                self.fail("only a function takes values: want its name first")
            }
            Some(_) => Ok(operands),
        }
    }

    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let Some(placed) = self.peek() else { return Ok(None) };
        let base = match &placed.token {
            Token::Quoted(text) => Operand::Constant(text.clone().into()),
            Token::Number(number) => Operand::Constant(Value::Number(number.clone())),
            Token::Ident(word) => match word.as_str() {
                "true" => Operand::Constant(true.into()),
                "false" => Operand::Constant(false.into()),
                "nil" => Operand::Constant(Value::Null),
                name if super::functions::exists(name) => Operand::Function(name.to_owned()),
                name => {
                    let message = format!(
                        "there is no function {name:?} (want one of {})",
                        super::functions::names()
                    );
                    return Err(TemplateError::new(placed.line, message));
                }
            },
            Token::Dot => Operand::Dot,
            Token::Field(name) => Operand::Chain(Base::Dot, vec![name.clone()]),
            Token::Variable(name) if self.variables.contains(name) => {
                Operand::Chain(Base::Variable(name.clone()), Vec::new())
            }
            Token::Variable(name) => {
                let message = format!("there is no variable ${name}");
                return Err(TemplateError::new(placed.line, message));
            }
            Token::LeftParen => return self.parenthesis().map(Some),
            _ => return Ok(None),
        };
        self.next();
        self.chain(base).map(Some)
    }

    fn parenthesis(&mut self) -> Result<Operand, TemplateError> {
        self.next();
        let inner = self.deeper(|parser| parser.pipeline(0))?;
        if self.next() != Some(Token::RightParen) {
            return self.fail("a parenthesis is not closed: want )");
        }
        self.chain(Operand::Chain(Base::Pipeline(Box::new(inner)), Vec::new()))
    }

    /// Fields that follow without a space.
    fn chain(&mut self, mut operand: Operand) -> Result<Operand, TemplateError> {
        loop {
            let name = match self.peek() {
                Some(Placed { token: Token::Field(name), spaced: false, .. }) => name.clone(),
                _ => return Ok(operand),
            };
            self.next();
            match &mut operand {
                Operand::Chain(_, fields) => fields.push(name),
                _ => return self.fail(format!("what stands before .{name} has no fields")),
            }
        }
    }
}
