//! `#[debug_method]`, `#[debug_hook]` and `#[debug_filter]`: keep the function unchanged and add checks next to it.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, FnArg, Ident, ItemFn, Signature, Token, Type};

use crate::signature::FunctionKind;
use crate::{assertion, shape, signature};

#[derive(Default)]
struct DebugArguments {
    state: Option<Type>,
    is_typed: bool,
}

impl Parse for DebugArguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            if name == "state" {
                input.parse::<Token![=]>()?;
                arguments.state = Some(input.parse()?);
            } else if name == "typescript" {
                arguments.is_typed = true;
            } else {
                let text = "the arguments are `state = …`, the type of the hub's state, and `typescript`";
                return Err(Error::new(name.span(), text));
            }
            input.parse::<Option<Token![,]>>()?;
        }
        Ok(arguments)
    }
}

pub(crate) fn expand(kind: FunctionKind, attribute: TokenStream, item: TokenStream) -> TokenStream {
    let checks = syn::parse2::<ItemFn>(item.clone())
        .map_err(|error| Error::new(error.span(), format!("`#[{}]` goes on an async function", kind.macro_name())))
        .and_then(|function| checks(kind, attribute, &function.sig));
    let checks = checks.unwrap_or_else(|error| error.to_compile_error());
    quote! { #item #checks }
}

fn checks(kind: FunctionKind, attribute: TokenStream, signature: &Signature) -> syn::Result<TokenStream> {
    let arguments = DebugArguments::parse.parse2(attribute)?;
    let mistakes = signature::mistakes(kind, signature).into_iter().reduce(|mut all, one| {
        all.combine(one);
        all
    });
    if let Some(mistakes) = mistakes {
        return Err(mistakes);
    }
    let state = match arguments.state {
        Some(state) => state,
        None => inferred_state(kind, signature)?,
    };
    let parameters = assertion::parameters(kind, signature, &state);
    let result = assertion::result(kind, signature);
    let types = match arguments.is_typed {
        true => assertion::typescript(signature, &state),
        false => TokenStream::new(),
    };
    let future = assertion::future(signature);
    let name = format_ident!("__check_{}", signature.ident);
    Ok(quote! {
        #[allow(warnings, reason = "never called")]
        #[doc(hidden)]
        fn #name() {
            #parameters
            #result
            #types
            #future
        }
    })
}

/// State type of the only `State<T>` among the parameters, or `()`.
fn inferred_state(kind: FunctionKind, signature: &Signature) -> syn::Result<Type> {
    let mut found: Option<&Type> = None;
    for input in &signature.inputs {
        let FnArg::Typed(parameter) = input else { continue };
        let Some(state) = shape::only_argument(&parameter.ty, "State") else { continue };
        if found.is_some_and(|other| other.to_token_stream().to_string() != state.to_token_stream().to_string()) {
            let text = format!(
                "the type of the hub's state is ambiguous, because there are several `State`s: write `#[{}(state = \
                 App)]`, with its type for `App`",
                kind.macro_name()
            );
            return Err(Error::new_spanned(&parameter.ty, text));
        }
        found = Some(state);
    }
    found.cloned().map_or_else(|| syn::parse2(quote!(())), Ok)
}
