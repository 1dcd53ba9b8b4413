//! The plans of `examples/`, for the gallery of the page of a new run.

use std::sync::LazyLock;

use crate::plan_text;

/// A plan that is compiled in.
#[derive(Debug)]
pub struct Example {
    /// The name of its file, without the extension.
    pub name: &'static str,
    pub title: &'static str,
    /// What it needs or shows, as part of a sentence.
    pub hint: &'static str,
    pub text: &'static str,
    pub steps: usize,
    /// Families of its tools, such as `gate`, in the order of its steps.
    pub families: Vec<String>,
}

/// In the order of the gallery.
pub static EXAMPLES: LazyLock<[Example; 9]> = LazyLock::new(|| {
    macro_rules! example {
        ($file:literal, $title:literal, $hint:literal) => {
            example($file, $title, $hint, include_str!(concat!("../../../examples/", $file)))
        };
    }
    [
        example!("release.yaml", "Release notes, approved by a person", "runs anywhere"),
        example!("manual-deploy.json", "Wait for a deployment approval", "runs anywhere"),
        example!("code-attempt.yaml", "Code that its gates refuse", "needs examples/workspace"),
        example!("code-mended.yaml", "The same code, mended", "needs examples/workspace"),
        example!("code-repaired.yaml", "Tests of a model, repaired", "needs examples/workspace"),
        example!("codegen-files.yaml", "Several files of a model", "needs examples/workspace"),
        example!("gated-codegen.json", "Generate behind gates", "needs examples/workspace and a model"),
        example!("lint-failure.json", "A failing lint lets nothing through", "needs a workspace that fails lint"),
        example!("db-write.json", "Write rows, exactly once", "needs a rule for public.products"),
    ]
});

/// The example with this name.
pub fn find(name: &str) -> Option<&'static Example> {
    EXAMPLES.iter().find(|example| example.name == name)
}

fn example(file: &'static str, title: &'static str, hint: &'static str, text: &'static str) -> Example {
    let plan = plan_text::read(text).unwrap_or_default();
    let steps = plan["plan"]["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let mut families: Vec<String> = Vec::new();
    for tool in steps.iter().filter_map(|step| step["tool"].as_str()) {
        let family = tool.split(':').next().unwrap_or(tool);
        if !families.iter().any(|known| known == family) {
            families.push(family.to_owned());
        }
    }
    let name = file.split('.').next().unwrap_or(file);
    Example { name, title, hint, text, steps: steps.len(), families }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use shared::domain::plan::{Limits, parse};

    use super::*;

    #[test]
    fn the_gallery_has_every_example_of_the_repository() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let plans: BTreeSet<String> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "json" || extension == "yaml"))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(EXAMPLES.iter().map(|example| example.name.to_owned()).collect::<BTreeSet<_>>(), plans);
    }

    #[test]
    fn every_example_is_accepted_once_it_has_its_workspace() {
        for example in EXAMPLES.iter() {
            let body = plan_text::read(example.text).expect("an example can be read");
            let plan = parse(&body["plan"], &Limits::default());
            assert_eq!(plan.map(|plan| plan.steps.len()), Ok(example.steps), "{}", example.name);
            assert!(!example.families.is_empty() && example.steps > 0, "{}", example.name);
        }
    }
}
