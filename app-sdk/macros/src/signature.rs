//! Mistakes that are visible in the signature of a method, hook or filter.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericParam, ReturnType, Signature, Type};

use crate::shape;

/// Maximum number of parameters for which the SDK implements its traits; a filter has `HubCall` and `Next` in
/// addition.
const PARAMETERS_MAX: usize = 10;

/// axum extractors for request bodies and paths. Hub calls have arguments instead.
const AXUM_BODIES: [&str; 3] = ["Json", "Form", "Path"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FunctionKind {
    Method,
    Hook,
    Filter,
}

impl FunctionKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Method => "hub method",
            Self::Hook => "hook",
            Self::Filter => "filter",
        }
    }

    pub(crate) fn macro_name(self) -> &'static str {
        match self {
            Self::Method => "debug_method",
            Self::Hook => "debug_hook",
            Self::Filter => "debug_filter",
        }
    }

    fn parameters_max(self) -> usize {
        PARAMETERS_MAX + if self == Self::Filter { 2 } else { 0 }
    }
}

pub(crate) fn mistakes(kind: FunctionKind, signature: &Signature) -> Vec<Error> {
    let mut mistakes = Vec::new();
    mistakes.extend(not_async(kind, signature));
    mistakes.extend(generic(kind, signature));
    mistakes.extend(too_many(kind, signature));
    mistakes.extend(too_few(kind, signature));
    mistakes.extend(signature.inputs.iter().filter_map(|input| parameter(kind, input)));
    mistakes
}

fn not_async(kind: FunctionKind, signature: &Signature) -> Option<Error> {
    let returns_future = match &signature.output {
        ReturnType::Default => false,
        ReturnType::Type(_, ty) => {
            let text = ty.to_token_stream().to_string();
            ["Future", "Pin", "Handle"].iter().any(|word| text.contains(word))
        }
    };
    let text = format!("a {} is async: write `async fn`", kind.name());
    (signature.asyncness.is_none() && !returns_future).then(|| Error::new(signature.fn_token.span, text))
}

fn generic(kind: FunctionKind, signature: &Signature) -> Option<Error> {
    let parameter = signature.generics.params.first()?;
    let text = match parameter {
        GenericParam::Lifetime(_) => format!(
            "a {} can't borrow its parameters: take owned types, `String` instead of `&str`, and `Context` by value",
            kind.name()
        ),
        _ => format!(
            "`#[{}]` can't check a generic function: name the types, or remove the macro and register \
             `function::<Type>`",
            kind.macro_name()
        ),
    };
    Some(Error::new_spanned(parameter, text))
}

fn too_many(kind: FunctionKind, signature: &Signature) -> Option<Error> {
    let extra = signature.inputs.iter().nth(kind.parameters_max())?;
    let text = match kind {
        FunctionKind::Method => {
            "a hub method has at most ten parameters: take several arguments as one struct that derives \
             `serde::Deserialize`"
        }
        FunctionKind::Hook => {
            "a hook has at most ten parameters: put several extractors into one by `#[derive(FromContext)]`"
        }
        FunctionKind::Filter => {
            "a filter has at most ten extractors, `HubCall` and `Next`: put several extractors into one by \
             `#[derive(FromContext)]`"
        }
    };
    Some(Error::new_spanned(extra, text))
}

fn too_few(kind: FunctionKind, signature: &Signature) -> Option<Error> {
    let is_short = kind == FunctionKind::Filter && signature.inputs.len() < 2;
    let text = "a filter has `call: HubCall, next: Next` as its last parameters";
    is_short.then(|| Error::new(signature.ident.span(), text))
}

fn parameter(kind: FunctionKind, input: &FnArg) -> Option<Error> {
    let ty = match input {
        FnArg::Receiver(receiver) => {
            let name = kind.name();
            let text =
                format!("a {name} is a free function: take what it shares with others as `State<T>`, not as `self`");
            return Some(Error::new_spanned(receiver, text));
        }
        FnArg::Typed(parameter) => &*parameter.ty,
    };
    if let Type::ImplTrait(_) = ty {
        return Some(Error::new_spanned(
            ty,
            format!("a parameter of a {} has one type: name it, without `impl`", kind.name()),
        ));
    }
    for envelope in AXUM_BODIES {
        if let Some(inner) = shape::only_argument(ty, envelope) {
            let inner = readable(inner.to_token_stream());
            return Some(Error::new_spanned(
                ty,
                format!("arguments have no wrapper: take `{inner}`, not `{envelope}<_>`"),
            ));
        }
    }
    shape::is_borrowed(ty).then(|| Error::new_spanned(ty, borrowed(ty)))
}

fn borrowed(ty: &Type) -> String {
    let Type::Reference(reference) = ty else {
        return "parameters are owned: take `String` instead of `&str` and `Cow<str>`, and `Vec<T>` instead of `&[T]`"
            .into();
    };
    let inner = reference.elem.to_token_stream();
    match &*reference.elem {
        Type::Slice(slice) => format!("parameters are owned: take `Vec<{}>`", readable(slice.elem.to_token_stream())),
        _ if inner.to_string() == "str" => "parameters are owned: take `String`".into(),
        _ if inner.to_string() == "Context" => "take `Context` by value: it is cheap to clone".into(),
        _ => format!("parameters are taken by value: write `{}`", readable(inner)),
    }
}

fn readable(tokens: TokenStream) -> String {
    tokens.to_string().replace(' ', "").replace(',', ", ")
}

/// Span of the function's result type, or otherwise of its name.
pub(crate) fn result_span(signature: &Signature) -> Span {
    match &signature.output {
        ReturnType::Default => signature.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    }
}
