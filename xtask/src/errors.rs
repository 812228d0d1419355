//! `errors`: writes docs/errors.md, the list of all error messages, from the sources of the libraries.

use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Expr, ExprLit, Fields, Item, ItemImpl, Lit, Macro, Meta, Token, Type, UseTree,
    Visibility,
};

/// The libraries, from what an application meets first to the layers below.
const LIBRARIES: [&str; 9] = [
    "net-traits",
    "net-kit",
    "net-peers",
    "msquic-transport",
    "quinn-transport",
    "tcp-tls-transport",
    "net-traits-test",
    "msquic-async",
    "libmsquic-sys",
];

const DOCUMENT: &str = "docs/errors.md";

const HEADER: &str = "\
# Error messages

<!-- `cargo xtask errors` writes this file from the sources. -->

The messages of the libraries, by crate and type, with the documentation of each variant. A part in
braces is a value. An error whose message is that of its cause is not listed. A message does not
contain its cause: print the whole chain, with `{error:#}` of anyhow or by `Error::source`.
[Troubleshooting](manual/troubleshooting.md) has the usual reasons.
";

/// An error type with its messages.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ErrorType {
    name: String,
    documentation: String,
    /// The name of the variant (empty for a struct), the message and the documentation.
    messages: Vec<[String; 3]>,
}

pub(crate) fn write(root: &Path) -> Result<()> {
    Ok(fs::write(root.join(DOCUMENT), document(root)?)?)
}

/// Fails if the list is not current.
pub(crate) fn check(root: &Path) -> Result<()> {
    let current = fs::read_to_string(root.join(DOCUMENT)).unwrap_or_default();
    ensure!(
        current == document(root)?,
        "{DOCUMENT} does not match the sources; run `cargo xtask errors`"
    );
    Ok(())
}

fn document(root: &Path) -> Result<String> {
    let mut text = HEADER.to_owned();
    for library in LIBRARIES {
        let folder = root.join("crates").join(library).join("src");
        let names = public_names(&fs::read_to_string(folder.join("lib.rs"))?)?;
        let mut types = Vec::new();
        read(&folder, &mut |path, mut found| {
            let module = path.strip_prefix(&folder).ok().and_then(|path| path.iter().next());
            let module = module.and_then(|it| it.to_str()).unwrap_or_default();
            let key = (module.trim_end_matches(".rs").to_owned(), found.name.clone());
            found.name = names.get(&key).cloned().unwrap_or(found.name);
            types.push(found);
        })?;
        types.sort();
        if !types.is_empty() {
            text.push_str(&format!("\n## {library}\n"));
        }
        for ErrorType { name, documentation, messages } in types {
            text.push_str(&format!("\n### {name}\n\n{documentation}\n\n"));
            text.push_str("| message | variant | meaning |\n|---|---|---|\n");
            for [variant, message, meaning] in messages {
                let variant = if variant.is_empty() { variant } else { format!("`{variant}`") };
                // A message with a code span needs a longer fence.
                let fence = if message.contains('`') { "``" } else { "`" };
                let code = format!("{fence}{message}{fence}").replace("```", "` ``");
                text.push_str(&format!("| {code} | {variant} | {meaning} |\n"));
            }
        }
    }
    Ok(text)
}

/// Returns the names under which `lib.rs` exports items of other names, by outer module and name.
fn public_names(lib: &str) -> Result<HashMap<(String, String), String>> {
    fn visit(module: &str, tree: &UseTree, names: &mut HashMap<(String, String), String>) {
        match tree {
            UseTree::Path(path) if module.is_empty() => {
                visit(&path.ident.to_string(), &path.tree, names);
            }
            UseTree::Path(path) => visit(module, &path.tree, names),
            UseTree::Group(group) => group.items.iter().for_each(|it| visit(module, it, names)),
            UseTree::Rename(rename) => {
                let key = (module.to_owned(), rename.ident.to_string());
                names.insert(key, rename.rename.to_string());
            }
            UseTree::Name(_) | UseTree::Glob(_) => {}
        }
    }
    let mut names = HashMap::new();
    for item in syn::parse_file(lib)?.items {
        if let Item::Use(item) = item {
            visit("", &item.tree, &mut names);
        }
    }
    Ok(names)
}

/// Calls `take` with the public error types of the files in a folder, and their paths.
fn read(folder: &Path, take: &mut impl FnMut(&Path, ErrorType)) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, take)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let file = syn::parse_file(&text);
            let file = file.with_context(|| format!("cannot parse {}", path.display()))?;
            error_types(&file.items).for_each(|found| take(&path, found));
        }
    }
    Ok(())
}

/// Returns the public error types among the items of a file.
fn error_types(items: &[Item]) -> impl Iterator<Item = ErrorType> {
    items.iter().filter_map(|item| error_type(item, items))
}

/// Returns the messages of a public item; `None` if it has none.
fn error_type(item: &Item, items: &[Item]) -> Option<ErrorType> {
    let (visibility, name, attributes, messages) = match item {
        Item::Enum(item) => {
            let messages = item.variants.iter().filter_map(|variant| {
                let message = message(&variant.attrs, &variant.fields)?;
                Some([variant.ident.to_string(), message, documentation(&variant.attrs)])
            });
            (&item.vis, &item.ident, &item.attrs, messages.collect())
        }
        Item::Struct(item) => {
            let mut messages = Vec::from_iter(message(&item.attrs, &item.fields));
            if messages.is_empty() {
                messages = written(&item.ident.to_string(), items);
            }
            let row = |message| [String::new(), message, String::new()];
            let messages: Vec<_> = messages.into_iter().map(row).collect();
            (&item.vis, &item.ident, &item.attrs, messages)
        }
        _ => return None,
    };
    let is_listed = matches!(visibility, Visibility::Public(_)) && !messages.is_empty();
    is_listed.then(|| ErrorType {
        name: name.to_string(),
        documentation: documentation(attributes),
        messages,
    })
}

/// Returns the texts of `write!` in the own `Display` of an error type.
fn written(name: &str, items: &[Item]) -> Vec<String> {
    struct Texts(Vec<String>);
    impl Visit<'_> for Texts {
        fn visit_macro(&mut self, call: &Macro) {
            let arguments = call.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated);
            let text = arguments.ok().and_then(|arguments| arguments.into_iter().nth(1));
            if let (true, Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. }))) =
                (call.path.is_ident("write"), text)
            {
                self.0.push(text.value().replace('|', "\\|"));
            }
            visit::visit_macro(self, call);
        }
    }
    let implementation = |of: &str| -> Option<&ItemImpl> {
        items.iter().find_map(|item| {
            let Item::Impl(item) = item else { return None };
            let is_for = matches!(&*item.self_ty, Type::Path(path) if path.path.is_ident(name));
            let (_, path, _) = item.trait_.as_ref().filter(|_| is_for)?;
            path.segments.last().is_some_and(|segment| segment.ident == of).then_some(item)
        })
    };
    let mut texts = Texts(Vec::new());
    if let (Some(_), Some(display)) = (implementation("Error"), implementation("Display")) {
        texts.visit_item_impl(display);
    }
    texts.0
}

/// Returns the text of `#[error("...")]`, in which `{0}` is named after the type of the field, and other
/// values without a name are `{…}`.
fn message(attributes: &[Attribute], fields: &Fields) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("error"))?;
    let arguments = Punctuated::<Expr, Token![,]>::parse_terminated;
    let arguments = attribute.parse_args_with(arguments).ok()?;
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = arguments.first()? else { return None };
    let mut text = text.value();
    for (index, field) in fields.iter().enumerate() {
        if let Type::Path(path) = &field.ty {
            let name = path.path.segments.last()?.ident.to_string();
            text = text.replace(&format!("{{{index}}}"), &format!("{{{name}}}"));
        }
    }
    let text = text.replace("{}", "{…}").replace("{0}", "{…}");
    let text = text.replace(":?}", "}").replace(":#x}", "}"); // how a value is formatted
    Some(text.replace('|', "\\|"))
}

/// Returns the doc comment as one line, whose links are their texts.
fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    // Examples are for the documentation of the type.
    let text = text.split("\n ```").next().unwrap_or_default();
    let text = text.split("\n #").next().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    without_links(&text).replace('|', "\\|")
}

/// Replaces `[text](target)` and `[text]` by `text`.
fn without_links(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((inner, after)) = after.split_once(']') else { break };
        result.push_str(before);
        result.push_str(inner);
        let target = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(source: &str) -> Vec<ErrorType> {
        error_types(&syn::parse_file(source).unwrap().items).collect()
    }

    #[test]
    fn messages_have_their_variant_and_documentation() {
        let found = types(
            "/// An [`Error`](crate::Error) of a\n/// test.\n///\n/// ```\n/// f();\n/// ```\n\
             pub enum Error {\n\
             /// Try [later], a | b.\n#[error(\"{0} failed, {size:?} bytes\", size = 1)] A(net::Address),\n\
             #[error(transparent)] B(Other),\n}",
        );
        let message = "{Address} failed, {size} bytes".to_owned();
        let expected = ErrorType {
            name: "Error".to_owned(),
            documentation: "An `Error` of a test.".to_owned(),
            messages: vec![["A".to_owned(), message, "Try later, a \\| b.".to_owned()]],
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn types_have_the_names_under_which_they_are_exported() {
        let names =
            public_names("pub use a::{B, Error as AError};\npub use c::d::Error as DError;");
        let names = names.unwrap();
        assert_eq!(names[&("a".to_owned(), "Error".to_owned())], "AError");
        assert_eq!(names[&("c".to_owned(), "Error".to_owned())], "DError");
    }

    #[test]
    fn messages_of_an_own_display_are_listed() {
        let display = "pub struct Error;\nimpl fmt::Display for Error { fn fmt() {\n\
                       if a { write!(f, \"one\") } else { write!(f, \"two {b}\", b = 1)?; done!() } } }";
        assert_eq!(types(display), [], "it is not an error");
        let found = types(&format!("{display}\nimpl error::Error for Error {{}}"));
        let messages: Vec<_> = found[0].messages.iter().map(|[_, message, _]| &**message).collect();
        assert_eq!(messages, ["one", "two {b}"]);
    }

    #[test]
    fn structs_are_listed_and_private_types_are_not() {
        assert_eq!(types("#[error(\"it failed\")] pub struct Error;").len(), 1);
        assert_eq!(types("#[error(\"it failed\")] struct Error;").len(), 0);
        assert_eq!(types("pub enum Error { #[error(transparent)] A(Other) }").len(), 0);
    }
}
