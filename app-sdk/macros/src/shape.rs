//! Types as written: references, `Result`s, streams, states.
//!
//! A macro sees tokens, not types, so this works only for the usual names.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericArgument, PathArguments, PathSegment, Type, TypeParamBound};

/// Result type of a function as written: the value and the error, if any.
pub(crate) enum Written<'a> {
    /// A result with its error: `Result<T, E>`.
    Result { value: &'a Type, error: &'a Type },
    /// An alias with a fixed error: `Result<T>`.
    Alias { value: &'a Type },
    /// A type that is not a result.
    Value,
}

impl<'a> Written<'a> {
    pub(crate) fn from_type(ty: &'a Type) -> Self {
        match (last_segment(ty).filter(|segment| segment.ident == "Result").map(type_arguments)).as_deref() {
            Some(&[value, error]) => Self::Result { value, error },
            Some(&[value]) => Self::Alias { value },
            _ => Self::Value,
        }
    }
}

/// The only type argument of `Name<T>`.
pub(crate) fn only_argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let segment = last_segment(ty).filter(|segment| segment.ident == name)?;
    match *type_arguments(segment) {
        [argument] => Some(argument),
        _ => None,
    }
}

/// The `T` of an `impl … <Item = T>`.
pub(crate) fn item_of(ty: &Type) -> Option<&Type> {
    let Type::ImplTrait(bounds) = ty else { return None };
    bounds.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let PathArguments::AngleBracketed(arguments) = &bound.path.segments.last()?.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(item) if item.ident == "Item" => Some(&item.ty),
            _ => None,
        })
    })
}

/// Whether the type contains `impl`. Such a type has no name and cannot be checked on its own.
pub(crate) fn is_unnamed(ty: &Type) -> bool {
    any_token(ty.to_token_stream(), &|token| matches!(token, TokenTree::Ident(word) if word == "impl"))
}

/// Whether the type contains a reference or a lifetime except `'static`.
pub(crate) fn is_borrowed(ty: &Type) -> bool {
    let text = ty.to_token_stream().to_string().replace("'static", "");
    text.contains('&') || text.contains('\'')
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        Type::Paren(inner) => last_segment(&inner.elem),
        Type::Group(inner) => last_segment(&inner.elem),
        _ => None,
    }
}

fn type_arguments(segment: &PathSegment) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return Vec::new() };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

fn any_token(tokens: TokenStream, is_wanted: &dyn Fn(&TokenTree) -> bool) -> bool {
    tokens.into_iter().any(|token| match &token {
        TokenTree::Group(group) => any_token(group.stream(), is_wanted),
        token => is_wanted(token),
    })
}
