//! The sources of the workspace, for tests about them.

use std::fs;
use std::path::Path;

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path in the workspace, as in `chatcore/src/id.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every Rust file of the workspace, but for what was built.
pub(crate) fn of_workspace() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace has a root");
    let (mut folders, mut sources) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder must be readable") {
            let path = entry.expect("a folder must be readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(read(root, &path));
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(sources.len() > 50, "the workspace has more sources than {}", sources.len());
    sources
}

fn read(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source must be text");
    let path = path
        .strip_prefix(root)
        .expect("it is in the workspace")
        .to_string_lossy()
        .replace('\\', "/");
    Source { path, text }
}
