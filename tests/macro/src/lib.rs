//! The `#[test]` of tests that can be skipped: see `tcptrace_tests::attempt`.

use proc_macro::TokenStream;
use quote::quote;
use syn::{ItemFn, parse_macro_input};

/// Takes the place of the standard library's: the same test, for the same harness, whose end is written down.
#[proc_macro_attribute]
pub fn test(_: TokenStream, function: TokenStream) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = parse_macro_input!(function as ItemFn);
    let name = sig.ident.to_string();
    let test = quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        #vis #sig {
            ::tcptrace_tests::attempt::attempt(concat!(module_path!(), "::", #name), || #block);
        }
    };
    test.into()
}
