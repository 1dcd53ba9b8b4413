//! The registries that the operator trusts, and the addresses of their packages.

use std::collections::BTreeMap;

/// The registry whose addresses npm replaces with those of the configured registry.
const PUBLIC: &str = "https://registry.npmjs.org/";
/// Another name of the public registry, which lock files converted from yarn have.
const PUBLIC_ALIAS: &str = "https://registry.yarnpkg.com/";

/// npm registries of the operator's settings. The workspace's own settings do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    /// Instead of the public registry. Ends with a slash.
    pub default: Option<String>,
    /// By scope, like `@company`. They end with a slash.
    pub scopes: BTreeMap<String, String>,
}

impl Registries {
    /// Reads an npmrc of the operator. Values with variables are left to npm.
    pub fn read(npmrc: &str) -> Self {
        let mut registries = Self::default();
        for (key, value) in settings(npmrc) {
            if value.contains("${") || !(value.starts_with("https://") || value.starts_with("http://")) {
                continue;
            }
            let value = format!("{}/", value.trim_end_matches('/'));
            match key.strip_suffix(":registry") {
                None if key == "registry" => registries.default = Some(value),
                Some(scope) if scope.starts_with('@') => {
                    registries.scopes.insert(scope.to_owned(), value);
                }
                _ => {}
            }
        }
        registries
    }

    /// The address to write for a package. `None` lets npm ask the registry of its scope.
    pub fn address(&self, name: &str, version: &str) -> Option<String> {
        if self.of_scope(name).is_some() {
            return None;
        }
        Some(format!("{PUBLIC}{}", tarball(name, version)))
    }

    /// Whether a lock file's address is that package on a registry that the operator trusts.
    pub fn is_address(&self, address: &str, name: &str, version: &str) -> bool {
        if address.contains(['?', '#', '\\', ' ']) || address.contains("..") {
            return false;
        }
        let bases = [Some(PUBLIC), Some(PUBLIC_ALIAS), self.default.as_deref()].into_iter().flatten();
        let expected = tarball(name, version);
        let mut rests = bases.filter_map(|base| address.strip_prefix(base));
        if rests.any(|rest| rest == expected || rest.replace("%2f", "/").replace("%2F", "/") == expected) {
            return true;
        }
        // Registries of companies name their files in their own ways. The address is not used, see `address`.
        self.of_scope(name).is_some_and(|base| address.starts_with(base) || same_origin(address, base))
    }

    fn of_scope(&self, name: &str) -> Option<&str> {
        let (scope, _) = name.split_once('/')?;
        self.scopes.get(scope).map(String::as_str)
    }
}

/// `key = value` lines of an npmrc.
pub fn settings(npmrc: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = npmrc.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
}

fn tarball(name: &str, version: &str) -> String {
    let base = name.rsplit('/').next().unwrap_or(name);
    format!("{name}/-/{base}-{version}.tgz")
}

fn same_origin(address: &str, base: &str) -> bool {
    let origin = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        Some((scheme.to_owned(), rest.split('/').next()?.to_owned()))
    };
    origin(address).is_some_and(|found| Some(found) == origin(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_package_on_a_known_registry_is_an_address() {
        let registries = Registries::read(
            "registry=https://npm.example/api\n@co:registry = https://co.example/npm/\n//co.example/:_authToken=x\n",
        );
        for address in [
            "https://registry.npmjs.org/a/-/a-1.0.0.tgz",
            "https://registry.yarnpkg.com/a/-/a-1.0.0.tgz",
            "https://npm.example/api/a/-/a-1.0.0.tgz",
        ] {
            assert!(registries.is_address(address, "a", "1.0.0"), "{address}");
        }
        for address in [
            "http://registry.npmjs.org/a/-/a-1.0.0.tgz",
            "https://registry.npmjs.org/b/-/b-1.0.0.tgz",
            "https://registry.npmjs.org/a/-/a-1.0.1.tgz",
            "https://registry.npmjs.org/a/-/a-1.0.0.tgz?x",
            "https://registry.npmjs.org/a/-/a-1.0.0.tgz#x",
            "https://registry.npmjs.org@evil.example/a/-/a-1.0.0.tgz",
            "https://registry.npmjs.org.evil.example/a/-/a-1.0.0.tgz",
            "https://u:p@registry.npmjs.org/a/-/a-1.0.0.tgz",
            "https://registry.npmjs.org:8443/a/-/a-1.0.0.tgz",
            "https://npm.example/apix/a/-/a-1.0.0.tgz",
            "file:a.tgz",
            "git+ssh://git@host/a.git",
            "",
        ] {
            assert!(!registries.is_address(address, "a", "1.0.0"), "{address}");
        }
        assert!(registries.is_address("https://registry.npmjs.org/@s%2fa/-/a-1.0.0.tgz", "@s/a", "1.0.0"));
        assert!(registries.is_address("https://co.example/download/@co/a/1.0.0/abc", "@co/a", "1.0.0"));
        assert!(!registries.is_address("https://co.example.evil/@co/a", "@co/a", "1.0.0"));
        assert_eq!(registries.address("@co/a", "1.0.0"), None);
        assert_eq!(registries.address("@s/a", "1.0.0").unwrap(), "https://registry.npmjs.org/@s/a/-/a-1.0.0.tgz");
    }
}
