//! Branches and tags of a repository, as workflows run on them.

/// A branch or a tag by its whole name, or those that begin alike: `refs/heads/main`, `refs/tags/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefPattern(String);

impl RefPattern {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let begins = text.starts_with("refs/heads/") || text.starts_with("refs/tags/");
        let star = text.find('*');
        let has_name = text
            .splitn(3, '/')
            .nth(2)
            .is_some_and(|name| !name.is_empty());
        match begins && has_name && star.is_none_or(|at| at == text.len() - 1) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "\"{text}\" is no branch and no tag, such as refs/heads/main or refs/tags/*, with a star at its end \
                 at most"
            )),
        }
    }

    /// Whether it is this, or one of these.
    pub fn covers(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => self.0 == name,
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_branches_and_tags() {
        let covers = |pattern: &str, name: &str| RefPattern::parse(pattern).unwrap().covers(name);
        assert!(covers("refs/heads/main", "refs/heads/main"));
        assert!(covers(" refs/tags/v* ", "refs/tags/v1.2"));
        for other in [
            "main",
            "refs/heads/mainly",
            "refs/heads/Main",
            "refs/tags/main",
            "refs/heads/x/refs/heads/main",
            "refs/pull/1/merge",
            "",
        ] {
            assert!(!covers("refs/heads/main", other), "{other}");
        }
        assert!(!covers("refs/tags/v*", "refs/heads/v1"));
        for bad in [
            "",
            "*",
            "main",
            "refs/*",
            "refs/heads/",
            "refs/heads/*x",
            "refs/pull/*",
        ] {
            let why = RefPattern::parse(bad).unwrap_err();
            assert!(why.contains(bad), "{why}");
        }
    }
}
