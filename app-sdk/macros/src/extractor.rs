//! `#[derive(FromContext)]`: an extractor built from parts of the connection, the hub's state and other extractors.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Meta, Token, Type};

use crate::shape;

const SOURCES: &str = "`#[user]`, `#[claim(\"…\")]`, `#[header(\"…\")]`, `#[query(\"…\")]`, `#[state]` or `#[extract]`";

enum FieldSource {
    /// A part of the connection: its variant of `Part`, its name, and a custom refusal text.
    Part {
        variant: Ident,
        name: Option<LitStr>,
        refusal: Option<LitStr>,
    },
    State,
    Extractor,
}

/// Arguments of a part's attribute: `("name", or = "refusal")`.
#[derive(Default)]
struct PartArguments {
    name: Option<LitStr>,
    refusal: Option<LitStr>,
}

impl Parse for PartArguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            if input.peek(LitStr) && arguments.name.is_none() {
                arguments.name = Some(input.parse()?);
            } else {
                let key = input.call(Ident::parse_any)?;
                if key != "or" {
                    return Err(Error::new(key.span(), "expected `or = \"what clients read when it is missing\"`"));
                }
                input.parse::<Token![=]>()?;
                arguments.refusal = Some(input.parse()?);
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

impl FieldSource {
    fn from_field(field: &Field) -> syn::Result<Self> {
        let mut sources = field.attrs.iter().filter_map(|attribute| Self::named(attribute).transpose());
        let missing = || Error::new_spanned(field, format!("the source of this field is missing: {SOURCES}"));
        let source = sources.next().ok_or_else(missing)??;
        match sources.next() {
            None => Ok(source),
            Some(_) => Err(Error::new_spanned(field, "a field has one source: remove all but one of these attributes")),
        }
    }

    fn named(attribute: &Attribute) -> syn::Result<Option<Self>> {
        let Some(name) = attribute.path().get_ident() else { return Ok(None) };
        let variant = match name.to_string().as_str() {
            "user" => "User",
            "claim" => "Claim",
            "header" => "Header",
            "query" => "Query",
            "state" => return attribute.meta.require_path_only().map(|_| Some(Self::State)),
            "extract" => return attribute.meta.require_path_only().map(|_| Some(Self::Extractor)),
            _ => return Ok(None),
        };
        let PartArguments { name: part, refusal } = match &attribute.meta {
            Meta::Path(_) => PartArguments::default(),
            _ => attribute.parse_args()?,
        };
        match (&part, variant) {
            (Some(part), "User") => {
                Err(Error::new(part.span(), "a connection has one user: write `#[user]` without a name"))
            }
            (None, "Claim" | "Header" | "Query") => {
                Err(Error::new_spanned(attribute, format!("which {name}? Write `#[{name}(\"…\")]`")))
            }
            _ => Ok(Some(Self::Part { variant: Ident::new(variant, name.span()), name: part, refusal })),
        }
    }
}

pub(crate) fn expand(item: TokenStream) -> TokenStream {
    syn::parse2(item)
        .and_then(|item: DeriveInput| implementation(&item))
        .unwrap_or_else(|error| error.to_compile_error())
}

fn implementation(item: &DeriveInput) -> syn::Result<TokenStream> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new_spanned(&item.ident, "an extractor is a struct: each of its fields is extracted"));
    };
    let (name, state) = (&item.ident, format_ident!("__S"));
    let (mut bounds, mut values) = (Vec::new(), Vec::new());
    for field in &data.fields {
        let source = FieldSource::from_field(field)?;
        bounds.extend(bound(&source, &field.ty, &state));
        values.push(value(&source, &field.ty));
    }
    let construct = construct(&data.fields, &values);
    let mut generics = item.generics.clone();
    let (_, arguments, _) = item.generics.split_for_impl();
    generics.params.push(syn::parse_quote!(#state: ::core::marker::Send + ::core::marker::Sync));
    generics.make_where_clause().predicates.extend(bounds);
    let (parameters, _, conditions) = generics.split_for_impl();
    let is_no_argument = no_argument(item);
    Ok(quote! {
        #[automatically_derived]
        impl #parameters ::trunkline::FromContext<#state> for #name #arguments #conditions {
            async fn from_context(
                __ctx: &::trunkline::Context,
                __state: &#state,
            ) -> ::core::result::Result<Self, ::trunkline::HubError> {
                ::core::result::Result::Ok(#construct)
            }
        }

        #is_no_argument
    })
}

/// An impl that conflicts with another one if the struct is `Deserialize`, so that the error points at its name.
fn no_argument(item: &DeriveInput) -> TokenStream {
    let name = &item.ident;
    let (parameters, arguments, conditions) = item.generics.split_for_impl();
    quote_spanned! {name.span()=>
        #[doc(hidden)]
        #[automatically_derived]
        impl #parameters ::trunkline::call::part::AnExtractorMustNotBeDeserialize for #name #arguments #conditions {}
    }
}

fn bound(source: &FieldSource, ty: &Type, state: &Ident) -> Option<syn::WherePredicate> {
    match source {
        FieldSource::Part { .. } => None,
        FieldSource::State => Some(syn::parse_quote!(#ty: ::trunkline::call::part::FromRef<#state>)),
        FieldSource::Extractor => Some(syn::parse_quote!(#ty: ::trunkline::FromContext<#state>)),
    }
}

fn value(source: &FieldSource, ty: &Type) -> TokenStream {
    match source {
        FieldSource::Part { variant, name, refusal } => {
            let name = name.as_ref().map(|name| quote!((#name)));
            let refusal = match refusal {
                Some(refusal) => quote!(::core::option::Option::Some(#refusal)),
                None => quote!(::core::option::Option::None),
            };
            let (read, ty) = amount(ty);
            let read = Ident::new(read, Span::call_site());
            quote_spanned! {ty.span()=> ::trunkline::call::part::Part::#variant #name.#read::<#ty>(__ctx, #refusal)? }
        }
        FieldSource::State => {
            quote_spanned! {ty.span()=> <#ty as ::trunkline::call::part::FromRef<__S>>::from_ref(__state) }
        }
        FieldSource::Extractor => {
            quote_spanned! {ty.span()=> <#ty as ::trunkline::FromContext<__S>>::from_context(__ctx, __state).await? }
        }
    }
}

/// Method of `Part` that reads the field (one, optional or all values), and the type of a value.
fn amount(ty: &Type) -> (&'static str, &Type) {
    match (shape::only_argument(ty, "Option"), shape::only_argument(ty, "Vec")) {
        (Some(inner), _) => ("maybe", inner),
        (None, Some(inner)) => ("all", inner),
        (None, None) => ("one", ty),
    }
}

fn construct(fields: &Fields, values: &[TokenStream]) -> TokenStream {
    match fields {
        Fields::Named(named) => {
            let names = named.named.iter().map(|field| &field.ident);
            quote!(Self { #(#names: #values),* })
        }
        Fields::Unnamed(_) => quote!(Self(#(#values),*)),
        Fields::Unit => quote!(Self),
    }
}
