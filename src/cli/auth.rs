//! `mailweir auth`: log in to a smart host's service by a device code, and try a login step by step.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;

use super::screen::{self, shown};
use super::{Code, Failed, Outcome};
use crate::clock::Clock;
use crate::config::{Config, Loaded, Provider};
use crate::deliver::oauth::LoginFault;
use crate::deliver::probe::Told;
use crate::deliver::{Connector, probe};
use crate::route::Router;

#[derive(Subcommand, Debug)]
pub(super) enum AuthCommand {
    /// Log in at the service that gives out the tokens of a provider: shows an address and a code for a browser,
    /// waits, and stores the refresh token beside the queue
    Login {
        /// Name of a provider with `oauth`
        name: String,
    },
    /// Go through a login at the smart host of a provider, up to MAIL FROM, and tell each step
    Test {
        /// Name of a provider with `relay`
        name: String,
        /// Sender of the MAIL that is tried [default: the user, if that is an address, else the null sender]
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
    },
}

pub(super) async fn auth(loaded: Loaded, command: AuthCommand) -> Outcome {
    let config = Arc::new(loaded.config);
    let (AuthCommand::Login { name } | AuthCommand::Test { name, .. }) = &command;
    let provider = provider(&config, name)?;
    let router = Router::new(config.clone()).map_err(|e| Failed::new(Code::Config, e))?;
    let router = Arc::new(router);
    let connector = Connector::new(&config.hostname).map_err(|e| Failed::new(Code::Config, e))?;
    let connector = connector.with_tokens(&config, router.clone(), Clock::System);
    match &command {
        AuthCommand::Login { .. } => login(&connector, &provider).await,
        AuthCommand::Test { from, .. } => {
            let sender = match from {
                Some(from) => from.clone(),
                None => user_of(&provider).filter(|user| user.contains('@')).unwrap_or_default().to_owned(),
            };
            if sender.chars().any(|c| c.is_control() || c.is_whitespace() || "<>".contains(c)) {
                return Err(Failed::new(Code::Usage, "--from is no address"));
            }
            test(&connector, &provider, &router, &sender).await
        }
    }
}

fn provider(config: &Config, name: &str) -> Result<Arc<Provider>, Failed> {
    let found = config.provider(name).cloned();
    found.ok_or_else(|| Failed::new(Code::Usage, format_args!("there is no provider \"{}\"", shown(name))))
}

fn user_of(provider: &Provider) -> Option<&str> {
    let relay = provider.relay.as_ref()?;
    let of_password = || relay.auth.as_ref().map(|auth| auth.user.as_str());
    relay.oauth.as_ref().map(|oauth| oauth.user.as_str()).or_else(of_password)
}

async fn login(connector: &Connector, provider: &Provider) -> Outcome {
    let Some(oauth) = provider.relay.as_ref().and_then(|relay| relay.oauth.as_ref()) else {
        let why = format!("{} has no `oauth`: there is nobody to log in", provider.name);
        return Err(Failed::new(Code::Config, why));
    };
    let mut out = screen::stdout();
    let user = shown(&oauth.user);
    let tell = |code: &crate::deliver::oauth::Code| {
        let minutes = code.holds.as_secs() / 60;
        let (address, code) = (shown(&code.address), shown(&code.code));
        let _ =
            writeln!(out, "open {address} in a browser, enter {code}, and log in as {user} (within {minutes} minutes)");
        let _ = out.flush();
    };
    connector.tokens().log_in(provider, tell).await.map_err(|fault| {
        let code = match &fault {
            LoginFault::Config(_) => Code::Config,
            LoginFault::Store(_) => Code::Temporary,
            LoginFault::Service(_) => Code::Unavailable,
        };
        Failed::new(code, shown(&fault.to_string()))
    })?;
    writeln!(screen::stdout(), "logged in; try it with `mailweir auth test {}`", provider.name)?;
    Ok(())
}

async fn test(connector: &Connector, provider: &Provider, router: &Router, sender: &str) -> Outcome {
    let mut tell = |told: Told| {
        let _ = write_step(&mut screen::stdout(), &told);
    };
    match connector.probe(provider, router, sender, &mut tell).await {
        Ok(()) => {
            writeln!(screen::stdout(), "{} works", provider.name)?;
            Ok(())
        }
        Err(probe::Failed) => Err(Failed { code: Code::Unavailable, message: String::new(), broken_pipe: false }),
    }
}

fn write_step(out: &mut impl std::io::Write, told: &Told) -> std::io::Result<()> {
    let (mark, text) = match &told.result {
        Ok(text) => ("ok", text),
        Err(text) => ("FAILED", text),
    };
    writeln!(out, "{:<6} {:<6} {:>8}  {}", told.step, mark, took(told.took), shown(text))?;
    for (name, value) in &told.more {
        writeln!(out, "{:25}{name}: {}", "", shown(value))?;
    }
    if let Some(advice) = told.advice {
        writeln!(out, "{:25}{advice}", "")?;
    }
    out.flush()
}

fn took(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}
