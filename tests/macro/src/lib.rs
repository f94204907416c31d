//! The `#[test]` of tests that can be skipped: see `tcptrace_tests::attempt`.
//!
//! It does without the crates that macros are usually made with: what they are built with would be built again for every
//! crate that uses them, once with the features that this one needs and once without.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// Takes the place of the standard library's: the same test, for the same harness, whose end is written down.
#[proc_macro_attribute]
pub fn test(_: TokenStream, function: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = function.into_iter().collect();
    let name = tokens.windows(2).find(|pair| pair[0].to_string() == "fn").map(|pair| pair[1].to_string());
    let (Some(name), Some(body)) = (name, tokens.pop()) else {
        return parsed("compile_error!(\"#[test] is for functions\");");
    };
    // The body stays as it is, with its places in the source.
    let arguments = parsed(&format!("concat!(module_path!(), \"::{name}\"), ||")).into_iter().chain([body]);
    let call = parsed("::tcptrace_tests::attempt::attempt")
        .into_iter()
        .chain([TokenTree::Group(Group::new(Delimiter::Parenthesis, arguments.collect()))])
        .chain(parsed(";"));
    let block = TokenTree::Group(Group::new(Delimiter::Brace, call.collect()));
    parsed("#[::core::prelude::v1::test]").into_iter().chain(tokens).chain([block]).collect()
}

fn parsed(text: &str) -> TokenStream {
    text.parse().unwrap_or_default()
}
