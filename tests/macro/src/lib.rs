//! The `#[test]` of tests that can be skipped: see `tcptrace_tests::attempt`.
//!
//! It does not use the usual crates for macros: Cargo would build their dependencies twice for each user, with and
//! without the features needed here.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// Replaces the standard `#[test]`: the same test in the same harness, which also records its outcome.
#[proc_macro_attribute]
pub fn test(_: TokenStream, function: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = function.into_iter().collect();
    let name = tokens.windows(2).find(|pair| pair[0].to_string() == "fn").map(|pair| pair[1].to_string());
    let (Some(name), Some(body)) = (name, tokens.pop()) else {
        return parsed("compile_error!(\"#[test] is for functions\");");
    };
    // The body keeps its source locations.
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
