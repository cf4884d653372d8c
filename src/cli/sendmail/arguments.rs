//! The arguments of sendmail, as programs have written them since 1983: glued (`-fa@b`) and apart
//! (`-f a@b`), in groups (`-ti`), before and after recipients, until `--`.
//!
//! Pure: arguments in, a [`Request`] out. Written by hand, since no parser of command lines knows
//! this grammar: `-oi` is an option, `-oem` another one, and `-h5` is a hop count. What only matters
//! to other mailers (`-odb`, `-O`, `-L`, `-X` …) is read and has no effect. What nobody knows is an
//! error, because a message that is silently treated in another way than asked is worse.

use std::path::PathBuf;

use crate::mail::Ret;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Mode {
    /// `-bm`: take a message.
    #[default]
    Deliver,
    /// `-bs`, `-ba`: speak SMTP on standard input and output.
    Smtp,
    /// `-bv`: say whether the recipients would be taken.
    Verify,
    /// `-bp`, `mailq`: list the queue.
    Queue,
    /// `-bi`, `-I`, `newaliases`: look at the aliases.
    Aliases,
    /// `-q`: try what is queued again.
    Flush,
    /// `-bd`, `-bD`, `-bt` and the like: what the relay itself does, or nobody.
    NotHere(char),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// What the arguments say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Request {
    /// What to do.
    pub mode: Mode,
    /// `-f`, `-r`: the reverse-path; empty for the null sender. `None`: that of the user.
    pub sender: Option<String>,
    /// `-F`: the full name.
    pub full_name: Option<String>,
    /// `-t`: recipients from the header too.
    pub header_recipients: bool,
    /// `-i`, `-oi`: a line with a single dot does not end the message.
    pub ignore_dots: bool,
    /// `-v`: print the queue id.
    pub verbose: bool,
    /// `-N`: `NOTIFY=` of all recipients.
    pub notify: Option<String>,
    /// `-R`: `RET=`.
    pub ret: Option<Ret>,
    /// `-V`: `ENVID=`, decoded.
    pub envid: Option<String>,
    /// `-C`, `--config`: the configuration file of mailweir.
    pub config: Option<PathBuf>,
    /// `--file`: the message, instead of standard input.
    pub file: Option<PathBuf>,
    /// All that is no option: addresses, or lists of them.
    pub recipients: Vec<String>,
}

/// An argument that cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadArgument {
    /// It is no option of any sendmail.
    #[error("`{0}` is not an option that sendmail has")]
    Unknown(String),
    /// It wants a value, and is the last argument.
    #[error("`{0}` wants a value")]
    NoValue(String),
    /// Its value is none of those that it can have.
    #[error("`{option} {value}` is not known: expected {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
}

/// Options with a value that is glued or the next argument, and has no effect here.
const IGNORED_WITH_VALUE: &str = "ABDhLMOopQTXe";
/// Options without a value that have no effect here. `-e` has one.
const IGNORED: &str = "cGmnsUx";

/// Reads the arguments without the program's name.
///
/// # Errors
/// The first that cannot be followed.
pub(super) fn parse(arguments: &[String]) -> Result<Request, BadArgument> {
    let mut request = Request::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            request.recipients.extend(rest.by_ref().cloned());
        } else if let Some(long) = argument.strip_prefix("--") {
            request.long(long, &mut rest)?;
        } else if let Some(group) = argument.strip_prefix('-').filter(|group| !group.is_empty()) {
            request.group(group, argument, &mut rest)?;
        } else {
            request.recipients.push(argument.clone());
        }
    }
    Ok(request)
}

type Rest<'a> = std::slice::Iter<'a, String>;

impl Request {
    /// An option of mailweir's own.
    fn long(&mut self, long: &str, rest: &mut Rest<'_>) -> Result<(), BadArgument> {
        let (name, glued) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let mut value =
            || glued.clone().or_else(|| rest.next().cloned()).ok_or_else(|| BadArgument::NoValue(format!("--{name}")));
        match name {
            "file" => self.file = Some(value()?.into()),
            "config" => self.config = Some(value()?.into()),
            "help" if glued.is_none() => self.mode = Mode::Help,
            "version" if glued.is_none() => self.mode = Mode::Version,
            _ => return Err(BadArgument::Unknown(format!("--{long}"))),
        }
        Ok(())
    }

    /// `-ti`, `-fa@b`, `-oi`: letters until one that takes what is left, or the next argument.
    fn group(&mut self, group: &str, whole: &str, rest: &mut Rest<'_>) -> Result<(), BadArgument> {
        let mut chars = group.chars();
        while let Some(letter) = chars.next() {
            match letter {
                't' => self.header_recipients = true,
                'i' => self.ignore_dots = true,
                'v' => self.verbose = true,
                'I' => self.mode = Mode::Aliases,
                // Queue runs (`-q`, `-q30m`, `-qRtext`) and debugging (`-d0.1`): a value is always glued.
                'q' => {
                    if self.mode == Mode::Deliver {
                        self.mode = Mode::Flush;
                    }
                    return Ok(());
                }
                'd' => return Ok(()),
                letter if IGNORED.contains(letter) => {}
                letter if "fFrNRVbC".contains(letter) || IGNORED_WITH_VALUE.contains(letter) => {
                    let glued = chars.as_str();
                    let value = match glued {
                        "" => rest.next().cloned().ok_or_else(|| BadArgument::NoValue(whole.to_owned()))?,
                        glued => glued.to_owned(),
                    };
                    return self.with_value(letter, value);
                }
                _ => return Err(BadArgument::Unknown(whole.to_owned())),
            }
        }
        Ok(())
    }

    fn with_value(&mut self, letter: char, value: String) -> Result<(), BadArgument> {
        match letter {
            'f' | 'r' => self.sender = Some(value),
            'F' => self.full_name = Some(value),
            'V' => self.envid = Some(value),
            'C' => self.config = Some(value.into()),
            'N' => self.notify = Some(notify(value)?),
            'R' => {
                self.ret = Some(match value.to_ascii_lowercase().as_str() {
                    "full" => Ret::Full,
                    "hdrs" => Ret::Headers,
                    _ => return Err(BadArgument::Value { option: "-R", value, expected: "full or hdrs" }),
                });
            }
            'b' => self.mode = mode(value)?,
            // `-oi` alone has a meaning here; `-oitrue` is how configuration files of old wrote it.
            'o' => self.ignore_dots |= matches!(value.as_str(), "i" | "itrue"),
            'O' => {
                let name = value.split('=').next().unwrap_or_default();
                self.ignore_dots |=
                    name.eq_ignore_ascii_case("IgnoreDots") && !value.to_ascii_lowercase().ends_with("=false");
            }
            _ => {}
        }
        Ok(())
    }
}

/// The value of `-b`.
fn mode(value: String) -> Result<Mode, BadArgument> {
    let mut chars = value.chars();
    let (Some(letter), None) = (chars.next(), chars.next()) else {
        return Err(bad_mode(value));
    };
    Ok(match letter {
        'm' => Mode::Deliver,
        's' | 'a' => Mode::Smtp,
        'v' => Mode::Verify,
        'p' | 'P' => Mode::Queue,
        'i' => Mode::Aliases,
        'd' | 'D' | 't' | 'l' | 'h' | 'H' | 'z' => Mode::NotHere(letter),
        _ => return Err(bad_mode(value)),
    })
}

fn bad_mode(value: String) -> BadArgument {
    BadArgument::Value { option: "-b", value, expected: "m, s, v, p or i" }
}

/// The value of `-N`, in the form of `NOTIFY=` (RFC 3461 §4.1).
fn notify(value: String) -> Result<String, BadArgument> {
    let upper = value.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(',').map(str::trim).collect();
    let good = words == ["NEVER"] || words.iter().all(|w| ["SUCCESS", "FAILURE", "DELAY"].contains(w));
    if good {
        Ok(words.join(","))
    } else {
        Err(BadArgument::Value { option: "-N", value, expected: "never, or some of success,failure,delay" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, BadArgument> {
        let arguments: Vec<String> = line.split(' ').filter(|w| !w.is_empty()).map(|w| w.replace('_', " ")).collect();
        parse(&arguments)
    }

    fn good(line: &str) -> Request {
        read(line).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// How programs call it, from their sources and from `strace`.
    #[test]
    fn what_programs_say_is_understood() {
        let base = Request::default;
        let to = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let some = |text: &str| Some(text.to_owned());
        for (program, line, wanted) in [
            ("PHP", "-t -i", Request { header_recipients: true, ignore_dots: true, ..base() }),
            (
                "PHPMailer",
                "-oi -f a@b -t",
                Request { header_recipients: true, ignore_dots: true, sender: some("a@b"), ..base() },
            ),
            ("PHPMailer, glued", "-t -i -fa@b", Request { sender: some("a@b"), ..good("-t -i") }),
            ("Symfony", "-bs", Request { mode: Mode::Smtp, ..base() }),
            ("Symfony, pipe", "-t -i -fa@b", Request { sender: some("a@b"), ..good("-ti") }),
            (
                "cron",
                "-FCronDaemon -i -B8BITMIME -oem root",
                Request { full_name: some("CronDaemon"), ignore_dots: true, recipients: to(&["root"]), ..base() },
            ),
            (
                "cronie",
                "-FCronDaemon -i -odi -oem -oi -t -f root",
                Request { full_name: some("CronDaemon"), sender: some("root"), ..good("-t -i") },
            ),
            (
                "anacron",
                "-FAnacron -odi root",
                Request { full_name: some("Anacron"), recipients: to(&["root"]), ..base() },
            ),
            ("at", "-i jo", Request { ignore_dots: true, recipients: to(&["jo"]), ..base() }),
            (
                "mutt",
                "-oem -oi -f a@b -- c@d e@f",
                Request { ignore_dots: true, sender: some("a@b"), recipients: to(&["c@d", "e@f"]), ..base() },
            ),
            (
                "mutt with DSN",
                "-oem -oi -B8BITMIME -N failure,delay -R hdrs -- c@d",
                Request {
                    ignore_dots: true,
                    notify: some("FAILURE,DELAY"),
                    ret: Some(Ret::Headers),
                    recipients: to(&["c@d"]),
                    ..base()
                },
            ),
            ("mailutils", "-oi -f a@b -t", good("-t -i -f a@b")),
            ("s-nail", "-i -r a@b -- c@d", Request { ignore_dots: true, recipients: to(&["c@d"]), ..good("-r a@b") }),
            ("bsd-mailx", "-i -m -v c@d", Request { verbose: true, recipients: to(&["c@d"]), ..good("-i") }),
            ("git", "-f a@b -i c@d", Request { recipients: to(&["c@d"]), ..good("-i -fa@b") }),
            ("nmh", "-m -t -i -v", Request { verbose: true, ..good("-ti") }),
            ("Emacs", "-oi -f jo -oem -odb -t", Request { sender: some("jo"), ..good("-t -i") }),
            ("smartd and debconf", "-i root", Request { recipients: to(&["root"]), ..good("-i") }),
            ("unattended-upgrades", "-oi -t", good("-it")),
            ("a bounce", "-f <> c@d", Request { sender: some("<>"), recipients: to(&["c@d"]), ..base() }),
            ("gitolite", "-f_ c@d", Request { sender: some(" "), recipients: to(&["c@d"]), ..base() }),
        ] {
            assert_eq!(good(line), wanted, "{program}: {line}");
        }
    }

    #[test]
    fn options_are_read_glued_apart_in_groups_and_behind_recipients() {
        for (same, as_this) in [
            ("-ti", "-t -i"),
            ("-itv", "-v -i -t"),
            ("-tfa@b", "-t -f a@b"),
            ("-r a@b", "-f a@b"),
            ("-ra@b", "-f a@b"),
            ("-o i", "-i"),
            ("-oitrue", "-i"),
            ("-O IgnoreDots=true", "-i"),
            ("c@d -t -f a@b", "-t -f a@b c@d"),
            ("-V id -V_x", "-V_x"),
            ("-bs -q", "-bs"),
            ("-q -bs", "-bs"),
            ("-b m c@d", "c@d"),
            ("-C /x --config=/x", "--config /x"),
            ("-Nnever", "-N never"),
            ("-N success,delay", "-NSuccess,Delay"),
        ] {
            assert_eq!(good(same), good(as_this), "{same} and {as_this}");
        }
        assert_eq!(good("-i -- -t -f").recipients, ["-t", "-f"]);
        assert_eq!(good("-").recipients, ["-"], "which is no address, and is refused as one");
        assert_eq!(good("-i --file m.eml").file, Some("m.eml".into()));
    }

    #[test]
    fn what_only_matters_to_other_mailers_has_no_effect() {
        let plain = good("c@d");
        for line in [
            "-h5",
            "-h 5",
            "-odb",
            "-odq",
            "-oem",
            "-oep",
            "-om",
            "-o m",
            "-oA/etc/aliases",
            "-oQ/tmp",
            "-oXyz",
            "-OTimeout.queuereturn=1d",
            "-O DeliveryMode=b",
            "-O Nonsense",
            "-L tag",
            "-Ltag",
            "-X/dev/null",
            "-X log",
            "-G",
            "-U",
            "-m",
            "-n",
            "-c",
            "-s",
            "-x",
            "-Am",
            "-Ac",
            "-A m",
            "-B7BIT",
            "-B 8BITMIME",
            "-d",
            "-d0.1",
            "-D log",
            "-e m",
            "-em",
            "-p smtp",
            "-pESMTP:host",
            "-Mx",
            "-M id",
            "-Qreason",
            "-T 1d",
            "-bm",
        ] {
            assert_eq!(good(&format!("{line} c@d")), plain, "{line}");
        }
    }

    #[test]
    fn modes() {
        for (line, mode) in [
            ("-bp", Mode::Queue),
            ("-bi", Mode::Aliases),
            ("-I", Mode::Aliases),
            ("-bv c@d", Mode::Verify),
            ("-bd", Mode::NotHere('d')),
            ("-bd -q1h", Mode::NotHere('d')),
            ("-bt", Mode::NotHere('t')),
            ("-q", Mode::Flush),
            ("-q30m", Mode::Flush),
            ("-qRx@y", Mode::Flush),
            ("--help", Mode::Help),
            ("--version", Mode::Version),
        ] {
            assert_eq!(good(line).mode, mode, "{line}");
        }
    }

    #[test]
    fn what_nobody_knows_is_refused_with_the_word() {
        for (line, told) in [
            ("-Z", "`-Z` is not an option"),
            ("-tZ", "`-tZ` is not"),
            ("-\u{e4}", "is not an option"),
            ("--frob", "`--frob` is not"),
            ("--help=x", "`--help=x` is not"),
            ("-f", "`-f` wants a value"),
            ("-tf", "`-tf` wants a value"),
            ("-o", "`-o` wants a value"),
            ("--file", "`--file` wants a value"),
            ("-bX", "`-b X` is not known: expected m, s, v, p or i"),
            ("-bmm", "`-b mm` is not known"),
            ("-R some", "`-R some` is not known: expected full or hdrs"),
            ("-N never,delay", "`-N never,delay` is not known"),
        ] {
            let error = read(line).expect_err(line).to_string();
            assert!(error.starts_with(told) || error.ends_with(told) || error.contains(told), "{line}: {error}");
        }
    }
}
