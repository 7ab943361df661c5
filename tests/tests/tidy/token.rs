//! Facts about one source file, found in its tokens: modules, types, uses, paths, doc comments, sleeps.
//!
//! Tokens include paths and declarations inside macros, and exclude comments and the contents of strings. Doc comments
//! are attributes.

use std::collections::BTreeSet;
use std::iter::Peekable;

use proc_macro2::{Delimiter, Group, Literal, Spacing, TokenStream, TokenTree, token_stream};

/// Position of an item: its line, the inline modules around it, and whether it is test code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) inside: Vec<String>,
    pub(crate) is_test: bool,
}

/// Declaration of a module.
#[derive(Debug)]
pub(crate) struct ModDecl {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) is_inline: bool,
    pub(crate) path: Option<String>,
}

/// Name imported by a `use` declaration; the alias of a glob is `*`.
#[derive(Debug)]
pub(crate) struct UseDecl {
    pub(crate) path: Vec<String>,
    pub(crate) alias: String,
    pub(crate) place: Place,
    pub(crate) is_public: bool,
}

/// A path of several segments in code.
#[derive(Debug)]
pub(crate) struct CodePath {
    pub(crate) segments: Vec<String>,
    pub(crate) place: Place,
}

/// A name that is declared in a module.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// A doc comment: all its lines.
#[derive(Debug)]
pub(crate) struct DocComment {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A string literal without its quotes.
#[derive(Debug)]
pub(crate) struct StringLiteral {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Facts about a file that the rules use.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) mods: Vec<ModDecl>,
    pub(crate) uses: Vec<UseDecl>,
    pub(crate) paths: Vec<CodePath>,
    pub(crate) types: Vec<Declared>,
    /// Functions, constants and macros, which are no types.
    pub(crate) values: Vec<Declared>,
    pub(crate) docs: Vec<DocComment>,
    /// String literals outside of tests.
    pub(crate) strings: Vec<StringLiteral>,
    pub(crate) sleeps: Vec<Place>,
    /// Identifiers outside of `use` declarations.
    pub(crate) mentioned: BTreeSet<String>,
    pub(crate) forbids_unsafe: bool,
}

impl Facts {
    /// Reads a file. With `is_test` all of it is test code.
    pub(crate) fn read(text: &str, is_test: bool) -> Result<Self, String> {
        // No file begins with a byte order mark or shebang.
        let tokens: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
        let mut facts = Self::default();
        let context = Context { inside: Vec::new(), is_test, is_associated: false };
        Walk { facts: &mut facts, context: &context, is_test: false, path: None, is_public: false, doc: None }
            .items(tokens);
        Ok(facts)
    }
}

#[derive(Debug, Clone)]
struct Context {
    inside: Vec<String>,
    is_test: bool,
    /// Within a trait or an implementation: a `type` there is an associated one.
    is_associated: bool,
}

type Tokens = Peekable<token_stream::IntoIter>;

/// Walk over the tokens of one group, with the attributes of the next item.
struct Walk<'a> {
    facts: &'a mut Facts,
    context: &'a Context,
    is_test: bool,
    path: Option<String>,
    is_public: bool,
    doc: Option<DocComment>,
}

impl Walk<'_> {
    fn items(mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => self.attribute(&mut tokens),
                TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint => {
                    // A path of another crate, `::http::Uri`, or the end of one with generic arguments.
                    tokens.next();
                    while tokens.next_if(|next| matches!(next, TokenTree::Ident(_))).is_some()
                        && take_colons(&mut tokens)
                    {}
                }
                TokenTree::Punct(punct) => {
                    self.end_doc();
                    if punct.as_char() == ';' {
                        self.end_item();
                    }
                }
                TokenTree::Ident(ident) => {
                    self.end_doc();
                    self.word(&ident.to_string(), ident.span().start().line, &mut tokens);
                }
                TokenTree::Group(group) => self.group(&group, false),
                TokenTree::Literal(value) => {
                    self.end_doc();
                    self.string(&value);
                }
            }
        }
        self.end_doc();
    }

    fn string(&mut self, value: &Literal) {
        let text = value.to_string();
        if text.starts_with(['"', 'r']) && !self.context.is_test && !self.is_test {
            self.facts.strings.push(StringLiteral { text: literal(&text), line: value.span().start().line });
        }
    }

    fn place(&self, line: usize) -> Place {
        Place { line, inside: self.context.inside.clone(), is_test: self.context.is_test || self.is_test }
    }

    fn end_item(&mut self) {
        (self.is_test, self.path, self.is_public) = (false, None, false);
    }

    fn end_doc(&mut self) {
        self.facts.docs.extend(self.doc.take());
    }

    fn attribute(&mut self, tokens: &mut Tokens) {
        let is_inner =
            tokens.next_if(|next| matches!(next, TokenTree::Punct(punct) if punct.as_char() == '!')).is_some();
        let Some(TokenTree::Group(group)) = tokens.next_if(|next| matches!(next, TokenTree::Group(_))) else { return };
        let line = group.span().start().line;
        let inner: Vec<_> = group.stream().into_iter().collect();
        let name = inner.first().map(ToString::to_string).unwrap_or_default();
        match (name.as_str(), inner.get(2)) {
            ("doc", Some(TokenTree::Literal(text))) => return self.doc_line(&literal(&text.to_string()), line),
            ("path", Some(TokenTree::Literal(text))) => self.path = Some(literal(&text.to_string())),
            ("cfg", _) => {
                let text = group.stream().to_string();
                self.is_test |= text.contains("test") && !text.contains("not (test") && !text.contains("not(test");
            }
            ("forbid", _) if is_inner => {
                self.facts.forbids_unsafe |= group.stream().to_string().contains("unsafe_code")
            }
            _ => {}
        }
        self.end_doc();
        self.group(&group, false);
    }

    fn doc_line(&mut self, text: &str, line: usize) {
        let doc = self.doc.get_or_insert_with(|| DocComment { text: String::new(), line });
        doc.text.push_str(text);
        doc.text.push('\n');
    }

    fn word(&mut self, word: &str, line: usize, tokens: &mut Tokens) {
        match word {
            "pub" => self.is_public = true,
            "use" => self.use_declaration(line, tokens),
            "mod" => self.module(line, tokens),
            "struct" | "enum" | "trait" | "union" | "type" => self.type_declaration(word, line, tokens),
            "impl" => self.body(true, tokens),
            "fn" | "const" | "static" | "macro_rules" => self.value_declaration(line, tokens),
            _ => self.path(word, line, tokens),
        }
    }

    /// A group of tokens: walked with the same module around it.
    fn group(&mut self, group: &Group, is_associated: bool) {
        self.end_doc();
        let context = Context { is_test: self.context.is_test || self.is_test, is_associated, ..self.context.clone() };
        self.inside(&context, group.stream());
        if group.delimiter() == Delimiter::Brace {
            self.end_item();
        }
    }

    fn inside(&mut self, context: &Context, tokens: TokenStream) {
        let facts = &mut *self.facts;
        Walk { facts, context, is_test: false, path: None, is_public: false, doc: None }.items(tokens);
    }

    /// Walks to the braces of an implementation or a trait.
    fn body(&mut self, is_associated: bool, tokens: &mut Tokens) {
        let mut angles = 0_usize;
        let mut is_arrow = false;
        while let Some(token) = tokens.next() {
            if let TokenTree::Punct(punct) = &token {
                match punct.as_char() {
                    '<' => angles += 1,
                    '>' if !is_arrow => angles = angles.saturating_sub(1),
                    _ => {}
                }
                is_arrow = punct.as_char() == '-';
            }
            match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    return self.group(&group, is_associated);
                }
                TokenTree::Group(group) => self.group(&group, false),
                TokenTree::Ident(ident) => self.path(&ident.to_string(), ident.span().start().line, tokens),
                TokenTree::Punct(punct) if angles == 0 && matches!(punct.as_char(), ';' | '=') => return,
                _ => {}
            }
            // `impl Trait` as a type ends with its group or at a comma. A bound in a `where` also ends at a comma, but
            // the body follows.
            if angles == 0 && matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ',') {
                return;
            }
        }
    }

    fn module(&mut self, line: usize, tokens: &mut Tokens) {
        let Some(TokenTree::Ident(name)) = tokens.next_if(|next| matches!(next, TokenTree::Ident(_))) else { return };
        let (name, place) = (name.to_string(), self.place(line));
        let body = tokens.next_if(|next| matches!(next, TokenTree::Group(_)));
        let decl = ModDecl { name: name.clone(), place, is_inline: body.is_some(), path: self.path.take() };
        if let Some(TokenTree::Group(group)) = body {
            let mut inside = self.context.inside.clone();
            inside.push(name);
            let context = Context { inside, is_test: decl.place.is_test, is_associated: false };
            self.inside(&context, group.stream());
        }
        self.facts.mods.push(decl);
        self.end_item();
    }

    fn type_declaration(&mut self, keyword: &str, line: usize, tokens: &mut Tokens) {
        let is_associated = keyword == "type" && self.context.is_associated;
        if let Some(TokenTree::Ident(name)) = tokens.next_if(|next| matches!(next, TokenTree::Ident(_))) {
            let name = name.to_string();
            self.facts.mentioned.insert(name.clone());
            if !is_associated {
                self.facts.types.push(Declared { name, place: self.place(line) });
            }
        }
        if keyword == "trait" {
            self.body(true, tokens);
        }
    }

    fn value_declaration(&mut self, line: usize, tokens: &mut Tokens) {
        tokens.next_if(|next| matches!(next, TokenTree::Punct(punct) if punct.as_char() == '!'));
        if let Some(TokenTree::Ident(name)) = tokens.next_if(|next| matches!(next, TokenTree::Ident(_))) {
            let name = name.to_string();
            self.facts.mentioned.insert(name.clone());
            match name.as_str() {
                // `const fn name`, `unsafe fn name`.
                "fn" | "unsafe" | "async" => self.value_declaration(line, tokens),
                _ => self.facts.values.push(Declared { name, place: self.place(line) }),
            }
        }
    }

    /// A path of identifiers and `::`, or a single identifier.
    fn path(&mut self, first: &str, line: usize, tokens: &mut Tokens) {
        let mut segments = vec![first.to_owned()];
        self.facts.mentioned.insert(first.to_owned());
        while take_colons(tokens) {
            match tokens.next_if(|next| matches!(next, TokenTree::Ident(_))) {
                Some(ident) => segments.push(ident.to_string()),
                None => break,
            }
        }
        let is_call =
            matches!(tokens.peek(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        let last = segments.last().map(String::as_str).unwrap_or_default();
        if is_call && matches!(last, "sleep" | "sleep_until" | "sleep_ms") {
            self.facts.sleeps.push(self.place(line));
        }
        if segments.len() > 1 {
            self.facts.paths.push(CodePath { segments, place: self.place(line) });
        }
    }

    fn use_declaration(&mut self, line: usize, tokens: &mut Tokens) {
        // `use<'a>` of a return type is not a declaration.
        if matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '<') {
            return;
        }
        let tree: Vec<_> =
            tokens.take_while(|token| !matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';')).collect();
        let (place, is_public) = (self.place(line), self.is_public);
        let mut leaves = Vec::new();
        use_leaves(&[], tree, &mut leaves);
        let uses = leaves.into_iter().map(|(path, alias)| UseDecl { path, alias, place: place.clone(), is_public });
        self.facts.uses.extend(uses);
        self.end_item();
    }
}

/// Leaves of a tree like `a::{b, c::{self, d as e}, f::*}`.
fn use_leaves(prefix: &[String], tree: Vec<TokenTree>, leaves: &mut Vec<(Vec<String>, String)>) {
    let (mut path, mut alias) = (prefix.to_vec(), None);
    let mut tokens = tree.into_iter().peekable();
    let mut is_group = false;
    loop {
        match tokens.next() {
            Some(TokenTree::Ident(word)) if word == "as" => alias = tokens.next().map(|alias| alias.to_string()),
            Some(TokenTree::Ident(word)) => path.push(word.to_string()),
            Some(TokenTree::Group(group)) => {
                is_group = true;
                use_leaves(&path, group.stream().into_iter().collect(), leaves);
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => alias = Some("*".to_owned()),
            Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => {
                // `use ::http::Uri` always names another crate.
                if path.is_empty() {
                    path.push("::".to_owned());
                }
            }
            end => {
                if !is_group && path.len() > prefix.len() || alias.is_some() {
                    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
                        path.pop();
                    }
                    let alias = alias.take().or_else(|| path.last().cloned()).unwrap_or_default();
                    leaves.push((path, alias));
                }
                if end.is_none() {
                    return;
                }
                (path, is_group) = (prefix.to_vec(), false);
            }
        }
    }
}

/// Takes a `::`. Leaves the generic arguments of a turbofish to the caller.
fn take_colons(tokens: &mut Tokens) -> bool {
    let is_colon = |next: &TokenTree| matches!(next, TokenTree::Punct(punct) if punct.as_char() == ':');
    let is_joint = |next: &TokenTree| matches!(next, TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint);
    tokens.next_if(is_joint).is_some() && tokens.next_if(is_colon).is_some()
}

/// Approximate text of a string literal, with simple escapes.
fn literal(text: &str) -> String {
    let text = text.trim_start_matches(['r', '#']).trim_end_matches('#');
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).replace("\\\"", "\"")
}
