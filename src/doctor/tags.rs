//! Records that are lists of `tag=value`, as DMARC, TLS reports and BIMI have them. Pure.

/// The tags of a record in their order, and what is wrong with its form.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tags {
    tags: Vec<(String, String)>,
    /// What is wrong.
    pub faults: Vec<String>,
}

impl Tags {
    /// Reads a record; tags in lower case.
    pub fn parse(text: &str) -> Tags {
        let mut read = Tags::default();
        if text.contains("\\;") {
            read.faults.push("it has `\\;`: expected `;` alone (a backslash is for some zone files only)".into());
        }
        let text = text.replace("\\;", ";");
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let shown: String = part.chars().take(80).collect();
            let Some((tag, value)) = part.split_once('=') else {
                read.faults.push(format!("`{shown}` is no `tag=value`"));
                continue;
            };
            let (tag, value) = (tag.trim().to_ascii_lowercase(), value.trim().to_owned());
            if tag.is_empty() || !tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                read.faults.push(format!("`{shown}` is no `tag=value`"));
                continue;
            }
            // Values of these records have no spaces but behind the commas of a list.
            if let Some((_, rest)) = value.split_once(char::is_whitespace)
                && rest
                    .trim_start()
                    .split('=')
                    .next()
                    .is_some_and(|next| next.len() <= 5 && next.chars().all(|c| c.is_ascii_alphabetic()))
                && rest.contains('=')
            {
                read.faults.push(format!("a `;` is missing in `{shown}`"));
            }
            if read.get(&tag).is_some() {
                read.faults.push(format!("`{tag}` stands there twice"));
                continue;
            }
            read.tags.push((tag, value));
        }
        read
    }

    /// The value of a tag.
    pub fn get(&self, tag: &str) -> Option<&str> {
        self.tags.iter().find(|(name, _)| name == tag).map(|(_, value)| value.as_str())
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|(name, _)| name.as_str())
    }
}

/// What is wrong with an address of reports: `mailto:` or one of `others` in front, and something behind it.
pub fn uri_fault(uri: &str, others: &[&str]) -> Option<String> {
    let shown: String = uri.chars().take(80).collect();
    let (scheme, rest) = match uri.split_once(':') {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None if uri.contains('@') => return Some(format!("`{shown}` has no scheme: expected mailto:{shown}")),
        None => return Some(format!("`{shown}` is no address: expected mailto:ADDRESS")),
    };
    if scheme == "mailto" {
        let address = rest.split(['!', '?']).next().unwrap_or_default();
        let good = address.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && domain.contains('.') && !domain.contains('@') && !address.contains(char::is_whitespace)
        });
        return (!good).then(|| format!("`{shown}` is no address: expected mailto:ADDRESS"));
    }
    match others.contains(&scheme.as_str()) && rest.starts_with("//") && rest.len() > 2 {
        true => None,
        false => Some(format!("`{shown}` is not understood: expected mailto:ADDRESS")),
    }
}

/// The domain of a `mailto:`.
pub fn mail_domain(uri: &str) -> Option<String> {
    let rest = uri.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("mailto:")).and_then(|_| uri.get(7..))?;
    let address = rest.split(['!', '?']).next()?;
    address.rsplit_once('@').map(|(_, domain)| domain.trim_end_matches('.').to_ascii_lowercase())
}

/// Whether somebody meant a text at the name of a record to be one, although it need not begin as it has to: it has the
/// `word` of its version somewhere, in whatever case, or one of its `tags`.
pub fn is_meant(text: &str, word: &str, tags: &[&str]) -> bool {
    let read = Tags::parse(text);
    text.to_ascii_lowercase().contains(word) || tags.iter().any(|tag| read.get(tag).is_some())
}
