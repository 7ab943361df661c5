//! Compile-time checks of parameters, result and future, each with the span of the code that it checks.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{FnArg, ReturnType, Signature, Type};

use crate::shape::{self, Written};
use crate::signature::{self, FunctionKind};

pub(crate) fn parameters(kind: FunctionKind, signature: &Signature, state: &Type) -> TokenStream {
    let types = types(signature);
    let own = if kind == FunctionKind::Filter { types.len().saturating_sub(2) } else { types.len() };
    let (parameters, last) = types.split_at(own);
    let parameters = parameters.iter().map(|ty| match kind {
        FunctionKind::Method => {
            quote_spanned! {ty.span()=> ::trunkline::handler::check::parameter::<#ty, #state, _>(); }
        }
        FunctionKind::Hook | FunctionKind::Filter => {
            quote_spanned! {ty.span()=> ::trunkline::handler::check::extractor::<#ty, #state, _>(); }
        }
    });
    let last = last.iter().zip([quote!(hub_call), quote!(next)]).map(|(ty, check)| {
        quote_spanned! {ty.span()=> ::trunkline::handler::check::#check::<#ty>(); }
    });
    quote! { #(#parameters)* #(#last)* }
}

pub(crate) fn result(kind: FunctionKind, signature: &Signature) -> TokenStream {
    let unit = syn::parse_quote!(());
    let ty = match &signature.output {
        ReturnType::Default => &unit,
        ReturnType::Type(_, ty) => &**ty,
    };
    if signature.asyncness.is_none() {
        return TokenStream::new();
    }
    let span = signature::result_span(signature);
    match kind {
        FunctionKind::Method => reply(ty),
        FunctionKind::Hook => quote_spanned! {span=> ::trunkline::handler::check::end::<#ty>(); },
        FunctionKind::Filter => quote_spanned! {span=> ::trunkline::handler::check::filtered::<#ty>(); },
    }
}

/// Generates checks that parameters and result of a method have TypeScript types.
pub(crate) fn typescript(signature: &Signature, state: &Type) -> TokenStream {
    let parameters = types(signature).into_iter().map(|ty| {
        quote_spanned! {ty.span()=> ::trunkline::typescript::check_parameter::<#ty, #state, _>(); }
    });
    let result = match &signature.output {
        ReturnType::Type(_, ty) if !shape::is_unnamed(ty) && signature.asyncness.is_some() => {
            quote_spanned! {ty.span()=> ::trunkline::typescript::check_reply::<#ty, _>(); }
        }
        ReturnType::Type(..) | ReturnType::Default => TokenStream::new(),
    };
    quote! { #(#parameters)* #result }
}

/// Generates the check that the future is `Send`. The generated code calls the function but never runs.
pub(crate) fn future(signature: &Signature) -> TokenStream {
    let name = &signature.ident;
    let arguments = types(signature).into_iter().map(|ty| quote! { ::trunkline::handler::check::never::<#ty>() });
    quote_spanned! {name.span()=> ::trunkline::handler::check::future(#name(#(#arguments),*)); }
}

fn reply(ty: &Type) -> TokenStream {
    match Written::from_type(ty) {
        Written::Result { value, error } => {
            let (value, error) = (reply_value(value), wrong_error(error));
            quote! { #error #value }
        }
        Written::Alias { value } => {
            let value = reply_value(value);
            if shape::is_unnamed(ty) {
                return value;
            }
            let error = quote_spanned! {ty.span()=> ::trunkline::handler::check::aliased_error::<#ty>(); };
            quote! { #error #value }
        }
        Written::Value => reply_value(ty),
    }
}

fn reply_value(ty: &Type) -> TokenStream {
    if let Some(item) = shape::item_of(ty) {
        return match Written::from_type(item) {
            Written::Result { error, .. } => wrong_error(error),
            Written::Alias { .. } => {
                quote_spanned! {item.span()=> ::trunkline::handler::check::aliased_error::<#item>(); }
            }
            Written::Value => quote_spanned! {item.span()=> ::trunkline::handler::check::item::<#item, _>(); },
        };
    }
    if shape::is_unnamed(ty) {
        return TokenStream::new();
    }
    quote_spanned! {ty.span()=> ::trunkline::handler::check::reply::<#ty, _>(); }
}

fn wrong_error(error: &Type) -> TokenStream {
    quote_spanned! {error.span()=> ::trunkline::handler::check::error::<#error>(); }
}

fn types(signature: &Signature) -> Vec<&Type> {
    let types = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(parameter) => Some(&*parameter.ty),
        FnArg::Receiver(_) => None,
    });
    types.collect()
}
