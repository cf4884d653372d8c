//! What a file says itself: the values that differ from the built-in ones.

use std::fmt;

use super::Setting;

/// Those values as TOML, each with where it stands.
pub struct OwnValues<'a>(pub &'a [Setting]);

impl OwnValues<'_> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|setting| setting.own).count()
    }
}

impl fmt::Display for OwnValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each entry of a list of tables begins with the first key of its table again.
        let mut entry: Option<(&str, &str)> = None;
        let (mut headed, mut any) = (true, false);
        for setting in self.0 {
            if entry.is_none_or(|(table, first)| table != setting.table || first == setting.key) {
                entry = Some((&setting.table, &setting.key));
                headed = setting.table.is_empty();
            }
            let Some(value) = setting.value.as_ref().filter(|_| setting.own) else { continue };
            if !headed {
                writeln!(f, "{}{}", if any { "\n" } else { "" }, setting.table)?;
                headed = true;
            }
            writeln!(f, "{} = {}  # {}", setting.key, value.to_string().trim(), setting.from)?;
            any = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Loaded;
    use super::*;

    #[test]
    fn only_what_differs_is_told_and_each_entry_has_its_header() {
        let text = "hostname = 'a.example'\ndrain = '30s'\n[default]\nrate = '9/s'\nconnections = 7\n[provider.a]\nmatch.mx = ['x.example']\n\
                    relay = 'h.example:25'\nconnections = 5\n[provider.gmail]\nrate = '20/s'\n[[route]]\nsender = '*@a.example'\nvia = 'a'\n\
                    [[route]]\nrecipient = '*@b.example'\npriority = 3\n[[provider.gmail.on_reply]]\ntext = 'slow'\ndelay = '1h'\n";
        let loaded = Loaded::parse(text, "x").unwrap();
        let own = OwnValues(&loaded.settings);
        let printed = own.to_string();
        assert_eq!(
            printed,
            "hostname = \"a.example\"  # x:1\n\n[default]\nconnections = 7  # x:5\nrate = [\"9/s\"]  # x:4\n\n[provider.a]\n\
             match.mx = [\"x.example\"]  # x:7\nrelay = \"h.example:25\"  # x:8\nconnections = 5  # x:9\n\n[provider.gmail]\n\
             rate = [\"20/s\"]  # x:11\n\n[[provider.gmail.on_reply]]\nscope = \"recipient\"  # x:18\ntext = \"slow\"  # x:18\n\
             delay = \"1h\"  # x:18\n\n[[route]]\nsender = \"*@a.example\"  # x:13\nvia = \"a\"  # x:14\n\n[[route]]\n\
             recipient = \"*@b.example\"  # x:16\npriority = 3  # x:17\n"
        );
        assert_eq!(own.count(), 14);
        let none = Loaded::parse("", "x").unwrap();
        assert_eq!((OwnValues(&none.settings).count(), OwnValues(&none.settings).to_string()), (0, String::new()));
    }
}
