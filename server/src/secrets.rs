//! Files with secrets in them: neither completed nor read as context.
//!
//! Rules are globs, read in order, and the last one that fits a file decides; `!` in front takes a file
//! out again. Ours come first and the user's after them. Capitals make no difference.
//!
//! A rule without a slash is about the file's name, wherever it lies; one with a slash about the end of
//! its path, unless it begins with one; one that ends with a slash about everything in that folder.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// What is secret unless the user says otherwise.
const DEFAULTS: &[&str] = &[
    // Environments, but not the samples that are checked in to explain them.
    ".env*",
    "*.env",
    "!.env*.{example,sample,template,dist}",
    "!{example,sample,template}.env",
    // Keys and certificates with keys.
    "*.{pem,key,p8,p12,pfx,pkcs12,jks,keystore,ppk,kdb,kdbx,gpg,keychain}",
    "id_{rsa,dsa,ecdsa,ed25519,ecdsa_sk,ed25519_sk,xmss}*",
    ".ssh/",
    ".gnupg/",
    // Passwords and tokens of tools.
    "{.,_}netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".htpasswd",
    ".git-credentials",
    ".vault-token",
    "*credentials",
    "*credentials.{json,toml,yml,yaml,xml,ini}",
    ".aws/{config,credentials}",
    ".docker/config.json",
    ".dockercfg",
    ".kube/config",
    "{*-,*_,*.,}kubeconfig{-*,_*,}",
    "{*-,*_,*.,}kubeconfig{-*,_*,}.{yml,yaml,json}",
    "service{-,_}account*.json",
    "*.ovpn",
    // Secrets of a project.
    "{*.,}secret{s,}.{yml,yaml,json,toml,ini,env}",
    "{*.,}secret{s,}",
    "*.tfstate*",
];

/// Tells files with secrets from others.
#[derive(Debug, Clone)]
pub struct SecretFiles {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    fits: GlobMatcher,
    secret: bool,
}

impl Default for SecretFiles {
    fn default() -> Self {
        SecretFiles::new(&[]).0
    }
}

impl SecretFiles {
    /// Our rules and then the user's. A rule that cannot be read is left out, and what is wrong with it
    /// is told in a sentence for the user.
    pub fn new(user: &[String]) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let all = DEFAULTS.iter().copied().chain(user.iter().map(String::as_str));
        let rules = all.filter_map(|rule| Rule::read(rule).map_err(|why| problems.push(why)).ok()).collect();
        (SecretFiles { rules }, problems)
    }

    /// Whether the file at `path` (or of that name) is to be left alone.
    pub fn is_secret(&self, path: &Path) -> bool {
        self.rules.iter().rev().find(|rule| rule.fits.is_match(path)).is_some_and(|rule| rule.secret)
    }
}

impl Rule {
    fn read(text: &str) -> Result<Rule, String> {
        let (secret, glob) = match text.trim().strip_prefix('!') {
            Some(glob) => (false, glob.trim()),
            None => (true, text.trim()),
        };
        let problem = |why: &str| {
            format!(
                "secret files: the rule `{text}` is ignored: {why}. \
                 A rule is a pattern like `*.pem`, `config/secret.json`, `private/` or `!.env.test`"
            )
        };
        if glob.is_empty() {
            return Err(problem("it names no file"));
        }
        let end = if glob.ends_with('/') { "**" } else { "" };
        let start = if glob.starts_with('/') || glob.get(1..2) == Some(":") { "" } else { "**/" };
        let glob = format!("{start}{}{end}", glob.strip_prefix("~/").unwrap_or(glob));
        let mut builder = GlobBuilder::new(&glob);
        match builder.case_insensitive(true).literal_separator(true).empty_alternates(true).build() {
            Ok(glob) => Ok(Rule { fits: glob.compile_matcher(), secret }),
            Err(error) => Err(problem(&error.kind().to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rules_can_all_be_read() {
        assert_eq!(SecretFiles::new(&[]).1, Vec::<String>::new());
    }

    #[test]
    fn secret_unless_the_user_says_otherwise() {
        let secret = [
            "/p/.env",
            ".env",
            "/p/.env.local",
            "/p/.ENV.Production",
            "/p/.envrc",
            "/p/prod.env",
            "/p/tls/server.pem",
            "/p/server.key",
            "/p/Server.KEY",
            "/home/ada/.ssh/config",
            "/home/ada/.ssh/keys/work",
            "/home/ada/.gnupg/private-keys-v1.d/1",
            "id_rsa",
            "/mnt/id_ed25519_work",
            "/home/ada/.netrc",
            "c:/Users/Ada/_netrc",
            "c:/Users/Ada/.aws/credentials",
            "/p/.npmrc",
            "/p/.pypirc",
            "/p/credentials",
            "/p/credentials.json",
            "/p/gcp_credentials.json",
            "/p/.git-credentials",
            "/p/site/.htpasswd",
            "/p/store.p12",
            "/p/store.pfx",
            "/p/store.jks",
            "/p/release.keystore",
            "/p/secrets.yml",
            "/p/secrets.yaml",
            "/p/secrets.json",
            "/p/secrets.toml",
            "/p/prod.secrets.yaml",
            "/p/terraform.tfstate",
            "/p/terraform.tfstate.backup",
            "/p/kubeconfig",
            "/p/prod-kubeconfig.yaml",
            "/home/ada/.kube/config",
        ];
        let open = [
            "/p/.env.example",
            "/p/.env.sample",
            "/p/.env.template",
            "/p/.env.local.example",
            "/p/example.env",
            "/p/env.rs",
            "/p/environment.ts",
            "/p/keys.rs",
            "/p/monkey",
            "/p/key",
            "/p/pem.go",
            "/p/secrets.rs",
            "/p/secretary.json",
            "/p/credentials.rs",
            "/p/config",
            "/p/ssh/config.go",
            "/p/main.tf",
            "/p/kubeconfig.go",
            "/p/valid_rsa.c",
            "Untitled-1",
            "",
        ];
        let files = SecretFiles::default();
        for path in secret {
            assert!(files.is_secret(Path::new(path)), "{path} is secret");
        }
        for path in open {
            assert!(!files.is_secret(Path::new(path)), "{path} is no secret");
        }
    }

    #[test]
    fn the_users_rules_come_last() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["*.vault"], "/p/a.VAULT", true),
            (&["*.vault"], "/p/a.vault.rs", false),
            (&["private/"], "/p/private/deep/a.rs", true),
            (&["private/"], "/p/private.rs", false),
            (&["config/prod.json"], "/p/config/prod.json", true),
            (&["config/prod.json"], "/p/other/prod.json", false),
            (&["/p/only.rs"], "/p/only.rs", true),
            (&["/p/only.rs"], "/q/p/only.rs", false),
            (&["~/notes/*"], "/home/ada/notes/a.md", true),
            (&["!.env.test"], "/p/.env.test", false),
            (&["!.env.test"], "/p/.env", true),
            (&["!*.pem", "prod.pem"], "/p/prod.pem", true),
            (&["!*.pem", "prod.pem"], "/p/dev.pem", false),
            (&["prod.pem", "!*.pem"], "/p/prod.pem", false),
            (&[" ! .env "], "/p/.env", false),
            (&["**/gen/**"], "/p/gen/a/b.rs", true),
        ];
        for (rules, path, want) in cases {
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            let (files, problems) = SecretFiles::new(&rules);
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(files.is_secret(Path::new(path)), *want, "{rules:?} {path}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_told_and_the_others_hold() {
        for bad in ["[ab", "{a", "", "!", "  "] {
            let (files, problems) = SecretFiles::new(&[bad.into(), "*.mine".into()]);
            assert_eq!(problems.len(), 1, "{bad:?}");
            assert!(problems[0].contains(&format!("`{bad}`")), "{problems:?}");
            assert!(files.is_secret(Path::new("a.mine")) && files.is_secret(Path::new(".env")));
        }
    }
}
