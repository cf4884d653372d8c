//! `mailweir sink`: a fake provider that throttles, greylists and fails on demand.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::screen;
use super::text::Table;
use super::{Code, Failed, Outcome};
use crate::config::Count;
use crate::config::units::{Size, Span};
use crate::model::{Change, Fail, Limit, Model, PERSONAS, Persona, Setting};
use crate::sink::{Extensions, Options, Report, Sink as Server};

/// What rates count.
#[derive(Clone, Copy, ValueEnum, Debug)]
enum Counted {
    Messages,
    Recipients,
}

/// `unknown=10% too-many-errors=3`.
#[derive(Clone, Debug)]
struct Settings(Vec<Setting>);

impl FromStr for Settings {
    type Err = String;

    fn from_str(s: &str) -> Result<Settings, String> {
        Setting::list(s).map(Settings)
    }
}

/// `rate=451 4.7.1 Langsamer bitte`.
#[derive(Clone, Debug)]
struct Words(Setting);

impl FromStr for Words {
    type Err = String;

    fn from_str(s: &str) -> Result<Words, String> {
        let (cap, said) = s.split_once('=').ok_or_else(|| format!("`{s}`: expected cap=code text"))?;
        Setting::say(cap, said).map(Words)
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Point a provider at it: relay = \"127.0.0.1:2600\", tls = \"off\". It stops at Ctrl-C, \
                        SIGTERM or --duration and tells what it saw. Caps given here replace those that --as brings.")]
pub(super) struct Sink {
    /// Where it listens: loopback only; may be given more than once [default: 127.0.0.1:2600]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Whose texts and caps it has; `list` shows all
    #[arg(long = "as", value_name = "NAME", default_value = "generic")]
    persona: String,
    /// At most so many messages: 20/s, 600/m, 1000/h, 5000/d, in any such window; may be given more than once
    #[arg(long, value_name = "RATE")]
    rate: Vec<Limit>,
    /// What --rate counts
    #[arg(long, value_enum)]
    count: Option<Counted>,
    /// Connections at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// New connections; may be given more than once
    #[arg(long, value_name = "RATE")]
    connect_rate: Vec<Limit>,
    /// Messages of one connection; then 421
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    messages_per_connection: Option<u32>,
    /// Then close without a word
    #[arg(long)]
    close_silently: bool,
    /// Recipients of one message; then 452
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    recipients: Option<u32>,
    /// Refuse first attempts of a (sender, recipient, client) for so long
    #[arg(long, value_name = "SPAN")]
    greylist: Option<Span>,
    /// How long each answer takes
    #[arg(long, value_name = "SPAN")]
    latency: Option<Span>,
    /// Share of recipients to refuse: 2% (or 2%:4xx), 1%:5xx; may be given more than once
    #[arg(long, value_name = "SHARE")]
    fail: Vec<Fail>,
    /// Any other cap, by its name in docs/sink.md: 'greylist-data=2%:30s blocked-sender=a@b.example'; may be
    /// given more than once
    #[arg(long, value_name = "'CAP=VALUE…'")]
    cap: Vec<Settings>,
    /// Its own words for a cap: 'rate=451 4.7.1 Langsamer bitte' (`\\xNN` is a byte); may be given more than once
    #[arg(long, value_name = "'CAP=CODE TEXT'")]
    say: Vec<Words>,
    /// Caps that change during the run: '60s rate=40/s connections=4'; may be given more than once
    #[arg(long, value_name = "'TIME CAP=VALUE…'")]
    change: Vec<Change>,
    /// Write each accepted message to DIR/NNNNNNNN.eml and its envelope to DIR/NNNNNNNN.json
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Largest message
    #[arg(long, value_name = "SIZE", default_value = "50MiB")]
    max_message_size: Size,
    /// Seed of --fail
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Offer AUTH; any user and password will do
    #[arg(long)]
    auth: bool,
    /// Do not offer PIPELINING
    #[arg(long)]
    no_pipelining: bool,
    /// Do not offer CHUNKING
    #[arg(long)]
    no_chunking: bool,
    /// Do not offer BINARYMIME
    #[arg(long)]
    no_binarymime: bool,
    /// Do not offer 8BITMIME
    #[arg(long)]
    no_8bitmime: bool,
    /// Do not offer SMTPUTF8
    #[arg(long)]
    no_smtputf8: bool,
    /// Do not offer DSN
    #[arg(long)]
    no_dsn: bool,
    /// Do not offer SIZE
    #[arg(long)]
    no_size: bool,
    /// Length of a slot of the series
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    series: Span,
    /// Stop by itself after so long
    #[arg(long, value_name = "SPAN")]
    duration: Option<Span>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn sink(args: &Sink) -> Outcome {
    if args.persona == "list" {
        return list();
    }
    let options = options(args)?;
    let runtime = super::runtime(&mut tokio::runtime::Builder::new_multi_thread())?;
    let report = runtime.block_on(async {
        let name = options.name.clone();
        let server = Server::bind(options).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput => Failed::new(Code::Usage, e),
            _ => Failed::new(Code::Unavailable, e),
        })?;
        let stop = stop(args.duration)?;
        for address in server.addresses()? {
            writeln!(screen::stderr(), "mailweir sink: listening on {address} as {name}")?;
        }
        Ok::<_, Failed>(server.run(stop).await?)
    })?;
    let mut out = screen::stdout();
    if args.json {
        let line = serde_json::to_string(&report).map_err(|e| Failed::new(Code::Temporary, e))?;
        writeln!(out, "{line}")?;
        return Ok(());
    }
    print(&report, &mut out)?;
    Ok(())
}

fn list() -> Outcome {
    let mut table = Table::new(["NAME", "CONNECTIONS", "MESSAGES", "RATE", "WHO"]);
    for persona in PERSONAS {
        let caps = persona.caps();
        let most = |n: u32| if n == u32::MAX { "-".to_owned() } else { n.to_string() };
        let rates: Vec<String> = caps.rates.iter().map(ToString::to_string).collect();
        table.row([
            persona.name.to_owned(),
            most(caps.connections),
            most(caps.messages_per_connection),
            if rates.is_empty() { "-".to_owned() } else { rates.join(" ") },
            persona.about.to_owned(),
        ]);
    }
    table.write(&mut screen::stdout())?;
    Ok(())
}

/// Resolves at Ctrl-C, SIGTERM or the end of the time.
fn stop(duration: Option<Span>) -> io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = tokio::time::sleep(duration.map_or(Duration::MAX, |span| span.0)) => {}
        }
    })
}

fn options(args: &Sink) -> Result<Options, Failed> {
    let persona = Persona::find(&args.persona).ok_or_else(|| {
        let names: Vec<&str> = PERSONAS.iter().map(|p| p.name).collect();
        Failed::new(Code::Usage, format!("--as {}: expected one of {}", args.persona, names.join(", ")))
    })?;
    let mut caps = persona.caps();
    let mut set = |setting: Option<Setting>| setting.iter().for_each(|s| caps.set(s));
    set((!args.rate.is_empty()).then(|| Setting::Rates(args.rate.clone())));
    set(args.count.map(|count| {
        Setting::Count(match count {
            Counted::Messages => Count::Messages,
            Counted::Recipients => Count::Recipients,
        })
    }));
    set(args.max_connections.map(Setting::Connections));
    set((!args.connect_rate.is_empty()).then(|| Setting::ConnectRates(args.connect_rate.clone())));
    set(args.messages_per_connection.map(Setting::MessagesPerConnection));
    set(args.messages_per_connection.map(|_| Setting::CloseSilently(args.close_silently)));
    set(args.close_silently.then_some(Setting::CloseSilently(true)));
    set(args.recipients.map(Setting::Recipients));
    set(args.greylist.map(|span| Setting::Greylist(span.0)));
    set(args.latency.map(|span| Setting::Latency(span.0)));
    let fail = args.fail.iter().fold(Fail::default(), |sum, one| Fail {
        temporary: sum.temporary + one.temporary,
        permanent: sum.permanent + one.permanent,
    });
    if fail.temporary + fail.permanent > 1.0 {
        return Err(Failed::new(Code::Usage, "--fail: more than 100% in all"));
    }
    set(Some(Setting::Fail(fail)));
    args.cap.iter().flat_map(|settings| &settings.0).chain(args.say.iter().map(|words| &words.0)).for_each(|setting| {
        caps.set(setting);
    });
    let listen = match args.listen.as_slice() {
        [] => vec![SocketAddr::from(([127, 0, 0, 1], 2600))],
        given => given.to_vec(),
    };
    Ok(Options {
        listen,
        name: persona.name.to_owned(),
        model: Model::new(persona, caps, args.change.clone(), args.seed),
        extensions: Extensions {
            pipelining: !args.no_pipelining,
            size: !args.no_size,
            chunking: !args.no_chunking,
            binary_mime: !args.no_binarymime,
            eight_bit_mime: !args.no_8bitmime,
            smtputf8: !args.no_smtputf8,
            dsn: !args.no_dsn,
            auth: args.auth,
        },
        dump: args.dump.clone(),
        max_size: args.max_message_size.0,
        slot: args.series.0,
    })
}

/// For people.
fn print(r: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["SEEN", ""]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("as", r.provider.clone());
    row("for", format!("{:.1} s", r.seconds));
    row("messages", r.messages.to_string());
    row("recipients", r.recipients.to_string());
    row("bytes", r.bytes.to_string());
    row("goodput", format!("{:.1} messages/s", r.messages as f64 / r.seconds.max(0.001)));
    row(
        "connections",
        format!("{} ({} at once, {} turned away)", r.connections, r.peak_connections, r.connections_refused),
    );
    row(
        "messages per connection",
        format!("{} at most, {:.1} on average", r.messages_per_connection.max, r.messages_per_connection.mean),
    );
    row("throttled", format!("{} ({:.2} % of attempts)", r.throttled, r.throttled_share * 100.0));
    for (cap, n) in &r.refusals {
        row("refused", format!("{n} by {cap}"));
    }
    table.write(out)?;
    let mut table = Table::new(["WORST WINDOW", "CONNECTIONS", "ATTEMPTS", "MESSAGES", "RECIPIENTS"]);
    for w in &r.windows {
        table.row([
            w.length.to_owned(),
            w.connections.to_string(),
            w.attempts.to_string(),
            w.messages.to_string(),
            w.recipients.to_string(),
        ]);
    }
    writeln!(out)?;
    table.write(out)?;
    let mut table = Table::new(["FROM", "MESSAGES", "PER SECOND", "THROTTLED"]);
    for (i, slot) in (0u64..).zip(&r.series) {
        let begin = i * r.series_seconds;
        let length = (r.seconds - begin as f64).clamp(0.001, r.series_seconds as f64);
        table.row([
            format!("{begin} s"),
            slot.messages.to_string(),
            format!("{:.1}", slot.messages as f64 / length),
            slot.throttled.to_string(),
        ]);
    }
    writeln!(out)?;
    table.write(out)
}
