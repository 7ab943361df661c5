//! `trunkline new`: creates the folder of a new app with a hub, a page, tests and a compose file.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail};
use clap::Args;

/// Files of a new app, by relative path.
const FILES: [(&str, &str); 9] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml.template")),
    (".gitignore", include_str!("../template/gitignore.template")),
    ("Dockerfile", include_str!("../template/Dockerfile.template")),
    ("README.md", include_str!("../template/README.md")),
    ("compose.yaml", include_str!("../template/compose.yaml")),
    ("pages/index.html", include_str!("../template/pages/index.html")),
    ("pages/signalr.js", include_str!("../template/pages/signalr.js")),
    ("src/chat.rs", include_str!("../template/src/chat.rs")),
    ("src/main.rs", include_str!("../template/src/main.rs")),
];

/// Maximum length of a crate name on crates.io.
const NAME_MAX_CHARS: usize = 64;

/// Names reserved by Rust or Cargo, and the names of the app's dependencies.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "abstract", "alloc", "as", "async", "await", "axum", "become", "box", "break", "build", "const", "continue", "core", "crate",
    "deps", "do", "dyn", "else", "enum", "examples", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in",
    "incremental", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "proc-macro", "pub", "ref", "return",
    "self", "static", "std", "struct", "super", "test", "tokio", "tracing", "tracing-subscriber", "trait", "true", "trunkline",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

const EXAMPLES: &str = "\
Examples:
  trunkline new my-chat
  trunkline new my-chat --path ../trunkline    # with the SDK of a clone of the repository";

/// Arguments of `trunkline new`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NewArgs {
    /// Folder to create, which must not exist; its last part names the app.
    #[arg(value_name = "NAME")]
    folder: PathBuf,
    /// Depend on the SDK in this clone of the repository, instead of the published crate.
    #[arg(long, value_name = "CLONE")]
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum SdkSource {
    /// Published crate with this program's version.
    Published,
    /// Clone of the repository, by absolute path.
    Clone(PathBuf),
}

/// Placeholder host in the manifest's repository URL before the first release.
const NO_REPOSITORY: &str = "://example.com/";

/// Creates the app and returns the text to print.
pub(super) fn new_app(args: &NewArgs) -> anyhow::Result<String> {
    let source = args.path.as_deref().map_or(Ok(SdkSource::Published), SdkSource::of_clone)?;
    if matches!(source, SdkSource::Published) && env!("CARGO_PKG_REPOSITORY").contains(NO_REPOSITORY) {
        name(&args.folder)?;
        bail!(
            "this program is not a release, so cargo would not find the crate `trunkline` {}: use the SDK of a clone of \
             the repository, by `trunkline new {} --path {}`",
            env!("CARGO_PKG_VERSION"),
            args.folder.display(),
            own_clone().unwrap_or_else(|| "CLONE".into())
        );
    }
    write_app(args, &source)
}

/// Clone that this program was built from, if it still exists.
fn own_clone() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let root = program.ancestors().find(|folder| folder.join("app-sdk/Cargo.toml").is_file())?;
    Some(root.display().to_string())
}

fn write_app(args: &NewArgs, source: &SdkSource) -> anyhow::Result<String> {
    let name = name(&args.folder)?;
    let unwritable = |path: &Path| format!("{} can't be written", path.display());
    if let Some(parent) = args.folder.parent() {
        fs::create_dir_all(parent).with_context(|| unwritable(parent))?;
    }
    // `create_dir` is atomic, so no other program can interfere.
    match fs::create_dir(&args.folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
            "{} exists, and was not changed: choose another name, or another folder (`trunkline new FOLDER/NAME`)",
            args.folder.display()
        ),
        made => made.with_context(|| unwritable(&args.folder))?,
    }
    for (file, template) in FILES {
        let path = args.folder.join(file);
        let folder = path.parent().unwrap_or(&args.folder);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, fill(template, name, source)));
        written.with_context(|| unwritable(&path))?;
    }
    Ok(format!("wrote {0}: run `cd {0} && cargo run`; README.md has the next steps", args.folder.display()))
}

fn name(folder: &Path) -> anyhow::Result<&str> {
    let last = folder.file_name().unwrap_or_default();
    let name = last.to_str().filter(|name| is_name(name));
    name.with_context(|| {
        let name = last.to_string_lossy().into_owned();
        let suggestion = folder.with_file_name(suggestion(&name)).display().to_string();
        format!(
            "{name:?} can't name an app: a crate's name has 1 to 64 small letters, digits, - and _, begins with a \
             letter, and is not a keyword of Rust; try `trunkline new {suggestion}`"
        )
    })
}

fn is_name(name: &str) -> bool {
    let is_allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-' || char == '_';
    name.starts_with(|char: char| char.is_ascii_lowercase())
        && name.chars().all(is_allowed)
        && name.len() <= NAME_MAX_CHARS
        && !RESERVED.contains(&name.replace('_', "-").as_str())
}

fn suggestion(name: &str) -> String {
    let words = name.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(str::to_ascii_lowercase).collect();
    let mut near: String = words.join("-").chars().take(NAME_MAX_CHARS - "my-".len()).collect();
    if near.is_empty() {
        near = "app".into();
    }
    if is_name(&near) { near } else { format!("my-{near}") }
}

fn fill(template: &str, name: &str, source: &SdkSource) -> String {
    let text = template.replace("{{name}}", name).replace("{{trunkline}}", &source.dependency());
    text.replace("{{context}}", &source.context()).replace("{{copy}}", &source.copy())
}

impl SdkSource {
    fn of_clone(path: &Path) -> anyhow::Result<Self> {
        let clone = fs::canonicalize(path).ok().filter(|path| path.join("app-sdk/Cargo.toml").is_file());
        clone.map(Self::Clone).with_context(|| {
            format!("--path {} is not a clone of Trunkline: it has no app-sdk/Cargo.toml", path.display())
        })
    }

    fn dependency(&self) -> String {
        let (key, value) = match self {
            Self::Published => ("version", env!("CARGO_PKG_VERSION").to_owned()),
            Self::Clone(path) => ("path", path.join("app-sdk").display().to_string()),
        };
        format!("{{ {key} = {} }}", quoted(&value))
    }

    /// Lines of `compose.yaml` that make the clone available to the image build.
    fn context(&self) -> String {
        match self {
            Self::Published => String::new(),
            Self::Clone(path) => {
                let path = quoted(&path.display().to_string());
                format!("      additional_contexts:\n        trunkline: {path}\n")
            }
        }
    }

    /// Line of the `Dockerfile` that copies the clone to the location expected by `Cargo.toml`.
    fn copy(&self) -> String {
        match self {
            Self::Published => String::new(),
            Self::Clone(path) => {
                format!("COPY --from=trunkline {}\n", quoted_list(&[".", &path.display().to_string()]))
            }
        }
    }
}

/// Quotes a text for TOML, YAML and JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn quoted_list(texts: &[&str]) -> String {
    serde_json::Value::from(texts).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// New folder for apps, removed on drop.
    struct Apps(PathBuf);

    impl Apps {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("trunkline-new-{}-{test}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn make(&self, name: &str, path: Option<&Path>) -> Result<String, String> {
            let args = NewArgs { folder: self.0.join(name), path: path.map(Path::to_owned) };
            let source = path.map_or(Ok(SdkSource::Published), SdkSource::of_clone);
            source.and_then(|source| write_app(&args, &source)).map_err(|error| error.to_string())
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Apps {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn an_app_has_its_name_and_the_version_of_the_sdk_everywhere() {
        let apps = Apps::new("published");
        let said = apps.make("deep/my-chat", None).unwrap();
        assert!(said.contains("deep/my-chat && cargo run"), "{said}");
        for (file, _) in FILES {
            let text = apps.read(&format!("deep/my-chat/{file}"));
            assert!(!text.contains("{{"), "{file} has a place that is not filled in");
        }
        let manifest: toml::Table = apps.read("deep/my-chat/Cargo.toml").parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-chat"));
        assert_eq!(manifest["dependencies"]["trunkline"]["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(manifest["dependencies"]["trunkline"].get("features"), None, "the app's own feature has the node");
        assert_eq!(manifest["features"]["default"][0].as_str(), Some("embedded"));
        assert!(apps.read("deep/my-chat/Dockerfile").contains("--no-default-features"));
        assert!(apps.read("deep/my-chat/compose.yaml").contains("\nname: my-chat\n"));
    }

    #[test]
    fn without_a_release_the_clone_is_required() {
        let apps = Apps::new("unreleased");
        let args = NewArgs { folder: apps.0.join("my-chat"), path: None };
        if env!("CARGO_PKG_REPOSITORY").contains(NO_REPOSITORY) {
            let error = new_app(&args).unwrap_err().to_string();
            let advice = format!("by `trunkline new {} --path ", args.folder.display());
            assert!(error.contains(&advice), "{error}");
            assert!(!args.folder.exists(), "nothing is made after an error");
        } else {
            new_app(&args).unwrap();
        }
    }

    #[test]
    fn an_app_may_depend_on_a_clone() {
        let apps = Apps::new("clone");
        let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        apps.make("my_chat", Some(&clone)).unwrap();
        let clone = fs::canonicalize(clone).unwrap().display().to_string();
        let manifest: toml::Table = apps.read("my_chat/Cargo.toml").parse().unwrap();
        let path = manifest["dependencies"]["trunkline"]["path"].as_str().unwrap();
        assert_eq!(path, format!("{clone}/app-sdk"));
        assert!(apps.read("my_chat/compose.yaml").contains(&format!("trunkline: \"{clone}\"\n    environment:")));
        assert!(
            apps.read("my_chat/Dockerfile").contains(&format!("COPY --from=trunkline [\".\",\"{clone}\"]\nWORKDIR"))
        );

        let error = apps.make("other", Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(error, "--path /nowhere is not a clone of Trunkline: it has no app-sdk/Cargo.toml");
        assert!(!apps.0.join("other").exists(), "nothing is made after an error");
    }

    #[test]
    fn a_folder_that_is_there_stays() {
        let apps = Apps::new("exists");
        fs::create_dir(apps.0.join("mine")).unwrap();
        let error = apps.make("mine", None).unwrap_err();
        assert!(error.contains("mine exists, and was not changed: choose another name"), "{error}");
        assert_eq!(fs::read_dir(apps.0.join("mine")).unwrap().count(), 0);
    }

    #[test]
    fn an_invalid_name_is_refused_with_the_rule_and_a_suggestion() {
        for (name, better) in [
            ("My Chat", "my-chat"),
            ("2048", "my-2048"),
            ("chat.app", "chat-app"),
            ("test", "my-test"),
            ("proc_macro", "my-proc_macro"),
            ("trunkline", "my-trunkline"),
            ("_x", "my-_x"),
            ("-x", "x"),
            ("Größe", "gr-e"),
            ("..", "app"),
        ] {
            assert!(!is_name(name) && is_name(&suggestion(name)), "{name}");
            assert_eq!(suggestion(name), better, "{name}");
        }
        assert!(is_name(&suggestion(&"X".repeat(200))) && is_name("chat_2") && is_name("c"));
        let error = name(Path::new("apps/My Chat")).unwrap_err().to_string();
        assert!(
            error.starts_with("\"My Chat\" can't name an app: a crate's name has 1 to 64 small letters"),
            "{error}"
        );
        assert!(error.ends_with("try `trunkline new apps/my-chat`"), "{error}");
    }
}
