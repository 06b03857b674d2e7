//! Where the sources of chatcore take in what others wrote.
//!
//! It goes by types and not by names: whatever its name, a public function that is given bytes, text
//! or a message is an entry, and so is every type that can be read from them. What this finds is the
//! upper bound; `entries.rs` says of each what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use quote::ToTokens;
use syn::{
    Attribute, Field, ImplItem, Item, ItemImpl, ItemMacro, ItemTrait, Signature, TraitItem,
    Visibility,
};

/// Words of a signature that stand for what others wrote, beside the roots of messages.
const RAW: [&str; 19] = [
    "str",
    "String",
    "OsStr",
    "Path",
    "PathBuf",
    "CStr",
    "Bytes",
    "BytesMut",
    "Buf",
    "Read",
    "BufRead",
    "AsyncRead",
    "Deserialize",
    "DeserializeOwned",
    "Deserializer",
    "FromStr",
    "Value",
    "Untrusted",
    "Input",
];
/// As [`RAW`], where it is more than a word.
const RAW_FORMS: [&str; 2] = ["[u8]", "Vec<u8>"];

/// Traits that make a value of what others wrote; whatever implements one is an entry.
const READERS: [&str; 5] = ["FromStr", "TryFrom", "Deserialize", "Decoder", "FromIterator"];
/// Traits whose implementations are parts of a reader or a writer that is listed itself.
const PARTS: [&str; 2] = ["Visitor", "Flavor"];

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Every entry, as `module::Type::function` or `module::Type: Trait`.
    pub(crate) entries: BTreeSet<String>,
    /// Every type by its name.
    types: BTreeMap<String, Type>,
    /// Functions whose signature has these words, to be judged once the roots are known.
    functions: Vec<(String, BTreeSet<String>)>,
    /// What macros of the crate write, by name.
    macros: BTreeMap<String, String>,
    /// Uses of macros among items: module, macro, first word.
    uses: Vec<(String, String, String)>,
}

#[derive(Debug, Default)]
struct Type {
    /// Where serde is told to read it; empty if it is not.
    module: String,
    /// The words of the types it is made of.
    words: BTreeSet<String>,
}

/// Scans the sources in a folder.
pub(crate) fn folder(folder: &Path) -> Found {
    let mut found = Found::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(folder).unwrap().with_extension("");
                let module = module.to_str().unwrap().replace(['/', '\\'], "::");
                let module = module.strip_suffix("::mod").unwrap_or(&module);
                found.scan(module, &fs::read_to_string(&path).unwrap());
            }
        }
    }
    found.finish()
}

/// Scans one source text.
pub(crate) fn text(module: &str, source: &str) -> Found {
    let mut found = Found::default();
    found.scan(module, source);
    found.finish()
}

fn words(tokens: &str) -> BTreeSet<String> {
    let words = tokens.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn raw_forms(text: &str) -> impl Iterator<Item = String> {
    RAW_FORMS.iter().filter(|form| text.contains(**form)).map(ToString::to_string)
}

fn is_raw(word: &str) -> bool {
    RAW.contains(&word) || RAW_FORMS.contains(&word)
}

/// Tokens as text without spaces where they make no difference.
fn tight(tokens: &impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    let mut tight = String::new();
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '\'';
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let between_words = letter == ' '
            && tight.ends_with(is_word)
            && letters.peek().is_some_and(|next| is_word(*next));
        if letter != ' ' || between_words {
            tight.push(letter);
        }
    }
    tight
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| tight(attribute) == "#[cfg(test)]")
}

fn derives_deserialize(attributes: &[Attribute]) -> bool {
    let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    derives.into_iter().any(|derive| words(&tight(derive)).contains("Deserialize"))
}

fn last_word(path: &impl ToTokens) -> String {
    let text = tight(path);
    let text = text.split('<').next().unwrap_or_default();
    text.rsplit("::").next().unwrap_or_default().trim_start_matches(['&', '\'']).to_owned()
}

impl Type {
    fn hold(&mut self, part: &str) {
        self.words.extend(words(part));
        self.words.extend(raw_forms(part));
    }
}

impl Found {
    fn scan(&mut self, module: &str, source: &str) {
        let file = syn::parse_file(source).unwrap_or_else(|error| panic!("{module}: {error}"));
        self.scan_items(module, &file.items);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else takes something in")]
    fn scan_items(&mut self, module: &str, items: &[Item]) {
        for item in items {
            match item {
                Item::Fn(item) => self.scan_function(module, &item.vis, &item.sig),
                Item::Impl(item) => self.scan_impl(module, item),
                Item::Trait(item) => self.scan_trait(module, item),
                Item::Struct(item) => {
                    self.scan_type(module, &item.attrs, &item.ident, item.fields.iter());
                }
                Item::Enum(item) => {
                    let fields = item.variants.iter().flat_map(|variant| &variant.fields);
                    self.scan_type(module, &item.attrs, &item.ident, fields);
                }
                Item::Type(item) => {
                    let known = self.types.entry(item.ident.to_string()).or_default();
                    known.hold(&tight(&item.ty));
                }
                Item::Macro(item) => self.scan_macro(module, item),
                Item::Mod(item) if !is_test(&item.attrs) => {
                    let inner = format!("{module}::{}", item.ident);
                    let items = item.content.as_ref().map(|(_, items)| items.as_slice());
                    self.scan_items(&inner, items.unwrap_or_default());
                }
                _ => {}
            }
        }
    }

    fn scan_trait(&mut self, module: &str, item: &ItemTrait) {
        let place = format!("{module}::{}", item.ident);
        for inner in &item.items {
            if let TraitItem::Fn(function) = inner {
                self.scan_function(&place, &item.vis, &function.sig);
            }
        }
    }

    /// Takes note of a type, by the types of its fields: docs may speak of others.
    fn scan_type<'a>(
        &mut self,
        module: &str,
        attributes: &[Attribute],
        name: &syn::Ident,
        fields: impl Iterator<Item = &'a Field>,
    ) {
        // Two modules may have types of one name: together they have the parts of both.
        let known = self.types.entry(name.to_string()).or_default();
        fields.for_each(|field| known.hold(&tight(&field.ty)));
        if derives_deserialize(attributes) {
            module.clone_into(&mut known.module);
        }
    }

    fn scan_function(&mut self, place: &str, visibility: &Visibility, signature: &Signature) {
        if matches!(visibility, Visibility::Public(_)) {
            self.note_function(place, signature);
        }
    }

    fn note_function(&mut self, place: &str, signature: &Signature) {
        let inputs = tight(&signature.inputs);
        let generics = tight(&signature.generics);
        let bounds = tight(&signature.generics.where_clause);
        // What may be filled from outside is as good as an argument.
        let output = Some(tight(&signature.output)).filter(|output| output.contains("mut "));
        let all = format!("{inputs} {generics} {bounds} {}", output.unwrap_or_default());
        let mut words = words(&all);
        words.extend(raw_forms(&all));
        self.functions.push((format!("{place}::{}", signature.ident), words));
    }

    fn scan_impl(&mut self, module: &str, item: &ItemImpl) {
        let name = last_word(&item.self_ty);
        let place = format!("{module}::{name}");
        let Some((_, path, _)) = &item.trait_ else {
            // The bounds of a block count for each of its functions.
            let bounds = words(&tight(&item.generics));
            for inner in &item.items {
                let ImplItem::Fn(function) = inner else { continue };
                let before = self.functions.len();
                self.scan_function(&place, &function.vis, &function.sig);
                let noted = self.functions.iter_mut().skip(before);
                noted.for_each(|(_, words)| words.extend(bounds.iter().cloned()));
            }
            return;
        };
        let of = last_word(path);
        if of == "Deserialize" {
            module.clone_into(&mut self.types.entry(name).or_default().module);
        } else if READERS.contains(&of.as_str()) {
            self.entries.insert(format!("{place}: {of}"));
        } else if !PARTS.contains(&of.as_str()) {
            for inner in &item.items {
                let ImplItem::Fn(function) = inner else { continue };
                self.note_function(&format!("{place}: {of}"), &function.sig);
            }
        }
    }

    /// A macro among items: its definition, or a use of it.
    fn scan_macro(&mut self, module: &str, item: &ItemMacro) {
        let tokens = tight(&item.mac.tokens);
        if let Some(name) = &item.ident {
            self.macros.insert(name.to_string(), tokens);
            return;
        }
        // Behind the docs, which are attributes.
        let mut code = tokens.as_str();
        while let Some((_, rest)) = code.strip_prefix("#[").and_then(|it| it.split_once("\"]")) {
            code = rest;
        }
        let first = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let first = first.into_iter().find(|word| !word.is_empty()).unwrap_or_default();
        self.uses.push((module.to_owned(), last_word(&item.mac.path), first.to_owned()));
    }

    /// All that a macro writes, with what the macros it uses write.
    fn written_by(&self, name: &str) -> String {
        let Some(own) = self.macros.get(name) else { return String::new() };
        let inner =
            self.macros.keys().filter(|other| *other != name && own.contains(&format!("{other}!")));
        inner.fold(own.clone(), |all, other| all + " " + &self.written_by(other))
    }

    /// Judges everything by what is known at the end.
    fn finish(mut self) -> Self {
        for (module, name, first) in core::mem::take(&mut self.uses) {
            let words = words(&self.written_by(&name));
            if words.contains("Deserialize") {
                self.types.entry(first.clone()).or_default().module.clone_from(&module);
            }
            for of in READERS.iter().filter(|of| **of != "Deserialize" && words.contains(**of)) {
                self.entries.insert(format!("{module}::{first}: {of}"));
            }
        }
        let roots = self.roots();
        let holders = self.holders();
        for (function, words) in &self.functions {
            let takes =
                |word: &String| is_raw(word) || roots.contains_key(word) || holders.contains(word);
            if words.iter().any(takes) {
                self.entries.insert(function.clone());
            }
        }
        let named = roots.iter().map(|(name, module)| format!("{module}::{name}: Deserialize"));
        self.entries.extend(named);
        self
    }

    /// The types that hold something raw: whoever takes one may take what others wrote.
    fn holders(&self) -> BTreeSet<String> {
        let holds = |words: &BTreeSet<String>| words.iter().any(|word| is_raw(word));
        let types = self.types.iter().filter(|(_, of)| holds(&of.words));
        types.map(|(name, _)| name.clone()).collect()
    }

    /// The types that serde reads and that are no part of another such type.
    fn roots(&self) -> BTreeMap<String, String> {
        let readable = || self.types.iter().filter(|(_, of)| !of.module.is_empty());
        let is_part =
            |name: &str| readable().any(|(other, of)| other != name && of.words.contains(name));
        readable()
            .filter(|(name, _)| !is_part(name))
            .map(|(name, of)| (name.clone(), of.module.clone()))
            .collect()
    }
}
