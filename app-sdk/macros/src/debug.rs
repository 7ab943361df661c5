//! `#[debug_method]`, `#[debug_hook]` and `#[debug_filter]`: the function as it is, and checks beside it.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, FnArg, Ident, ItemFn, Signature, Token, Type};

use crate::signature::FunctionKind;
use crate::{assertion, shape, signature};

/// The hub's state, as the attribute names it.
struct StateArgument(Option<Type>);

impl Parse for StateArgument {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() {
            return Ok(Self(None));
        }
        let name: Ident = input.parse()?;
        if name != "state" {
            return Err(Error::new(name.span(), "the only argument is `state = …`, the type of the hub's state"));
        }
        input.parse::<Token![=]>()?;
        let state = input.parse()?;
        input.parse::<Option<Token![,]>>()?;
        Ok(Self(Some(state)))
    }
}

/// Puts the checks of a function beside it.
pub(crate) fn expand(kind: FunctionKind, attribute: TokenStream, item: TokenStream) -> TokenStream {
    let checks = syn::parse2::<ItemFn>(item.clone())
        .map_err(|error| Error::new(error.span(), format!("`#[{}]` goes on an async function", kind.macro_name())))
        .and_then(|function| checks(kind, attribute, &function.sig));
    let checks = checks.unwrap_or_else(|error| error.to_compile_error());
    quote! { #item #checks }
}

fn checks(kind: FunctionKind, attribute: TokenStream, signature: &Signature) -> syn::Result<TokenStream> {
    let state = StateArgument::parse.parse2(attribute)?;
    let mistakes = signature::mistakes(kind, signature).into_iter().reduce(|mut all, one| {
        all.combine(one);
        all
    });
    if let Some(mistakes) = mistakes {
        return Err(mistakes);
    }
    let state = match state.0 {
        Some(state) => state,
        None => inferred_state(kind, signature)?,
    };
    let parameters = assertion::parameters(kind, signature, &state);
    let result = assertion::result(kind, signature);
    let future = assertion::future(signature);
    let name = format_ident!("__check_{}", signature.ident);
    Ok(quote! {
        #[allow(warnings, reason = "never called")]
        #[doc(hidden)]
        fn #name() {
            #parameters
            #result
            #future
        }
    })
}

/// The state of the only `State<T>` among the parameters, or `()`.
fn inferred_state(kind: FunctionKind, signature: &Signature) -> syn::Result<Type> {
    let mut found: Option<&Type> = None;
    for input in &signature.inputs {
        let FnArg::Typed(parameter) = input else { continue };
        let Some(state) = shape::only_argument(&parameter.ty, "State") else { continue };
        if found.is_some_and(|other| other.to_token_stream().to_string() != state.to_token_stream().to_string()) {
            let text = format!(
                "the hub's state is not clear from several `State`s: say `#[{}(state = App)]`, with its type for `App`",
                kind.macro_name()
            );
            return Err(Error::new_spanned(&parameter.ty, text));
        }
        found = Some(state);
    }
    found.cloned().map_or_else(|| syn::parse2(quote!(())), Ok)
}
