//! What a domain publishes on TLS, found together with its hosts: which of them may get mail, and what they have to
//! show.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::private::is_private;
use super::super::sts::{Fetch, Mode, Policy, PolicyHost, Record, Standing, Sts, host_of};
use super::super::tls_policy::{Dane, PolicyFault, TlsPolicy};
use super::super::tlsa::{Published, name_of};
use super::super::{Host, NO_ENCRYPTION, NO_REQUIRETLS, NO_TLS, Route, RouteError};
use super::{Addresses, Candidate, Inner, Router, Whose, parse_name, printed};
use crate::clock::{Clock, Timestamp};
use crate::config::{Dnssec, Provider, TlsMode};
use crate::tls_report::ResultType;

/// A route to a domain that has a policy is put together anew after this, from what is kept: a policy that was fetched
/// meanwhile then holds.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// Of what is not asked for.
const LONG: Duration = Duration::from_secs(86_400);
/// Mail that was put off because a policy is awaited asks again after this.
const AWAITED: Duration = Duration::from_secs(1);

impl Router {
    /// Honours MTA-STS from now on; without this, nothing is asked for.
    #[must_use]
    pub fn with_sts(self, fetch: Arc<dyn Fetch>, clock: Clock) -> Router {
        let _ = self.inner.sts.set(Arc::new(Sts::new(fetch, clock)));
        self
    }

    /// The policies of MTA-STS, if they are honoured.
    pub fn sts(&self) -> Option<&Arc<Sts>> {
        self.inner.sts.get()
    }

    /// Why mail to a domain waits for its policy, in words; `None`: it does not. Nobody is asked.
    pub fn awaited_policy(&self, domain: &str, now: Timestamp) -> Option<String> {
        let provider = self.inner.config.provider_for_domain(domain).unwrap_or(&self.inner.config.default);
        let sts = self.sts().filter(|_| wants_sts(provider))?;
        sts.awaited(domain).map(|awaited| awaited.told(now))
    }

    /// Begins to fetch policies again that are about to end, so that a domain with little mail has one still.
    pub fn renew_policies(&self) {
        let Some(sts) = self.sts() else { return };
        for due in sts.due() {
            let provider = self.inner.config.provider_for_domain(due.domain()).unwrap_or(&self.inner.config.default);
            let host = self.policy_host(due.domain(), provider);
            sts.renew(due, host);
        }
    }

    /// What holds for mail to a domain by this provider, and until when; `None`: nothing is to be asked for.
    pub(super) async fn standing(
        &self,
        domain: &Arc<str>,
        provider: &Provider,
        whose: Whose,
    ) -> Option<(Standing, Instant)> {
        let sts = self.sts().filter(|_| wants_sts(provider))?;
        let record = self.inner.records.get(domain, self.inner.dns.look_up_sts(domain, whose)).await;
        let host = self.policy_host(domain, provider);
        let standing = sts.standing(domain, &record.value, host).await;
        let now = Instant::now();
        let until = match &standing {
            Standing::None => record.until,
            Standing::Unfetched(_) | Standing::Policy(_) => record.until.min(now + LOOK_AGAIN),
            Standing::Awaited => now + AWAITED,
        };
        Some((standing, until))
    }

    /// Finds the host of a domain's policy, which must not be inside our own network.
    fn policy_host(
        &self,
        domain: &str,
        provider: &Provider,
    ) -> impl Future<Output = Result<PolicyHost, String>> + Send + 'static + use<> {
        let (inner, host) = (self.inner.clone(), host_of(domain));
        let (allow_private, trusted) = (provider.allow_private, provider.tls_ca.clone());
        async move { Ok(PolicyHost { addresses: inner.web_host(&host, allow_private).await?, trusted }) }
    }

    /// The addresses of a host that a domain has named for reports, which must not be inside our own network either; and
    /// the provider of that domain, whose `tls_ca` vouches for it.
    ///
    /// # Errors
    /// It has none, or nobody knows now: why, for people.
    pub async fn report_host(&self, domain: &str, host: &str) -> Result<(Vec<IpAddr>, Arc<Provider>), String> {
        let config = &self.inner.config;
        let provider = config.provider_for_domain(domain).unwrap_or(&config.default).clone();
        Ok((self.inner.web_host(host, provider.allow_private).await?, provider))
    }
}

impl Inner {
    /// The addresses of a host of HTTPS that somebody else has named.
    async fn web_host(&self, host: &str, allow_private: bool) -> Result<Vec<IpAddr>, String> {
        let name = parse_name(host).ok_or_else(|| format!("{host} is no name"))?;
        let key: Arc<str> = printed(&name).into();
        let kept = self.hosts.get(&key, self.dns.look_up_addresses(&name, Whose::Unknown)).await;
        let ips = match kept.value.addresses {
            Addresses::Found(ips) => ips,
            Addresses::None | Addresses::NoDomain => return Err(format!("{host} has no address")),
            Addresses::Failed(text) | Addresses::Bogus(text) => return Err(format!("{host}: {text}")),
        };
        let ips = ips.iter().map(IpAddr::to_canonical);
        let good: Vec<IpAddr> = ips.filter(|ip| allow_private || !is_private(*ip)).collect();
        match good.is_empty() {
            true => Err(format!("{host} has a loopback or private address only")),
            false => Ok(good),
        }
    }

    /// The policy that is known of a domain and honoured by this provider; nobody is asked.
    pub(super) fn policy_of(&self, domain: &str, provider: &Provider) -> Option<Arc<Policy>> {
        self.sts.get().filter(|_| wants_sts(provider))?.holds(domain).filter(|policy| policy.mode != Mode::None)
    }

    /// Whether records of DANE are looked for.
    pub(super) fn wants_dane(&self, provider: &Provider) -> bool {
        self.config.dns.dnssec != Dnssec::Off && provider.relay.is_none() && provider.tls != TlsMode::Off
    }

    /// What is published for a host, whose address is signed: at the end of its CNAME, else at its own name
    /// (RFC 7672 §2.2.2); where that is, and until when it holds. Nothing without a port.
    pub(super) async fn records_of(
        &self,
        host: &Arc<str>,
        canonical: Option<&Arc<str>>,
        port: Option<u16>,
        whose: Whose,
    ) -> ((Arc<str>, Published), Instant) {
        let mut until = Instant::now() + LOOK_AGAIN;
        let Some(port) = port else { return ((host.clone(), Published::Nothing), Instant::now() + LONG) };
        for base in canonical.into_iter().chain([host]) {
            let Some(name) = name_of(base, port) else { continue };
            let kept = self.tlsa.get(&printed(&name).into(), self.dns.look_up_tlsa(&name, whose)).await;
            until = until.min(kept.until);
            if kept.value != Published::Nothing {
                return ((base.clone(), kept.value), kept.until);
            }
        }
        ((host.clone(), Published::Nothing), until)
    }

    /// Why a host gets no mail because of its records; empty if it is not because of them. Nobody is asked.
    pub(super) async fn why_not_dane(&self, host: &str, provider: &Provider) -> String {
        let Some(name) = name_of(host, provider.port).filter(|_| self.wants_dane(provider)) else {
            return String::new();
        };
        match self.tlsa.kept(&printed(&name).into()).await.map(|kept| kept.value) {
            Some(Published::Failed(why)) => format!("its TLSA records cannot be had: {why}"),
            _ if provider.tls == TlsMode::Dane => "it has no signed TLSA record that can be used".into(),
            _ => String::new(),
        }
    }

    /// Whether a record was found, of a domain whose policy is not known.
    pub(super) async fn has_record(&self, domain: &Arc<str>) -> bool {
        self.records.kept(domain).await.is_some_and(|kept| matches!(kept.value, Record::Id(_)))
    }
}

fn wants_sts(provider: &Provider) -> bool {
    provider.relay.is_none() && provider.tls != TlsMode::Off && (provider.mta_sts || provider.tls == TlsMode::MtaSts)
}

/// Says of the hosts what they have to show, and leaves out those that get no mail.
///
/// # Errors
/// There is none left, or what the provider demands is not published.
pub(super) fn apply(
    hosts: Vec<Host>,
    candidates: &[Candidate],
    standing: Option<Standing>,
    provider: &Provider,
    domain: &str,
    faults: &mut Vec<PolicyFault>,
) -> Result<Vec<Host>, RouteError> {
    let refused = |text| RouteError::Temporary { enhanced: NO_TLS, text };
    let hosts = by_dane(hosts, candidates, provider, domain, faults).map_err(refused)?;
    if let Some(Standing::Unfetched(why)) = &standing {
        faults.push(PolicyFault::of_sts(why.result, &why.text));
    }
    let demands = provider.tls == TlsMode::MtaSts;
    let policy = match standing {
        Some(Standing::Awaited) => {
            let text = format!("the MTA-STS policy of {domain} is awaited from {}", host_of(domain));
            return Err(refused(text));
        }
        Some(Standing::Policy(policy)) if policy.mode == Mode::Enforce || !demands => policy,
        _ if demands => {
            let text = format!(
                "tls = \"mta-sts\" of provider {} demands an MTA-STS policy in mode enforce, and {domain} has none",
                provider.name
            );
            return Err(refused(text));
        }
        _ => return Ok(hosts),
    };
    if policy.mode == Mode::Testing {
        let of = |name: &str| match policy.names(name) {
            true => TlsPolicy::MtaStsTesting(Arc::from(&*policy.domain)),
            false => TlsPolicy::Unnamed(Arc::from(&*policy.domain)),
        };
        return Ok(hosts.into_iter().map(|host| without_dane(host, of)).collect());
    }
    // Who has records of DANE is asked for these instead (RFC 8461 §2).
    let stays = |host: &Host| policy.names(&host.name) || matches!(host.policy, TlsPolicy::Dane(_));
    let (named, others): (Vec<Host>, Vec<Host>) = hosts.into_iter().partition(stays);
    if named.is_empty() {
        let others: Vec<&str> = others.iter().map(|host| host.name.as_str()).take(5).collect();
        let text = format!(
            "the MTA-STS policy of {domain} (mode enforce, id {}) names none of its mail hosts that have an address: \
             it names {}, and DNS {}",
            policy.id,
            policy.hosts(),
            others.join(", ")
        );
        faults.push(PolicyFault::of_sts(ResultType::ValidationFailure, "the policy names none of the mail hosts"));
        return Err(refused(text));
    }
    let of: Arc<str> = Arc::from(&*policy.domain);
    let strict = |host: Host| match host.policy {
        TlsPolicy::Dane(_) => host,
        _ => Host { policy: TlsPolicy::MtaSts(of.clone()), ..host },
    };
    Ok(named.into_iter().map(strict).collect())
}

/// Mail whose sender demands REQUIRETLS goes to no host whose name somebody on the way can have put there: it needs signed
/// MX records, or none at all, or a policy in mode enforce that names the host (RFC 8689 §4.2.1). `unfetched`: why there is no policy, of
/// which DNS says that it is there.
///
/// # Errors
/// There is none left; for now only, where a policy may be had later.
pub(super) fn by_name_alone(
    hosts: Vec<Host>,
    named: bool,
    unfetched: Option<String>,
    domain: &str,
) -> Result<Vec<Host>, RouteError> {
    let by_policy = |host: &Host| matches!(host.policy, TlsPolicy::MtaSts(_) | TlsPolicy::Dane(_));
    if named || hosts.iter().all(by_policy) {
        return Ok(hosts);
    }
    Err(match unfetched {
        Some(why) => RouteError::Temporary {
            enhanced: NO_TLS,
            text: format!(
                "the sender demands REQUIRETLS (RFC 8689), and the MTA-STS policy of {domain} cannot be had: {why}"
            ),
        },
        None => RouteError::Permanent {
            code: 550,
            enhanced: NO_REQUIRETLS,
            text: format!(
                "the sender demands REQUIRETLS (RFC 8689), and nothing vouches for the mail hosts of {domain}: neither \
                 signed MX records (DNSSEC) that are checked here nor an MTA-STS policy in mode enforce"
            ),
        },
    })
}

/// A way whose hosts have to keep REQUIRETLS.
///
/// # Errors
/// The provider forbids TLS.
pub(super) fn with_tls(route: Arc<Route>) -> Result<Arc<Route>, RouteError> {
    if route.provider.tls == TlsMode::Off {
        let text =
            format!("the sender demands REQUIRETLS (RFC 8689), and tls = \"off\" of provider {}", route.provider.name);
        return Err(RouteError::Permanent { code: 550, enhanced: NO_ENCRYPTION, text });
    }
    let required = |host: &Host| Host { policy: TlsPolicy::Required(Box::new(host.policy.clone())), ..host.clone() };
    let hosts = route.hosts.iter().map(required).collect();
    Ok(Arc::new(Route { hosts, facts: None, ..Route::clone(&route) }))
}

fn without_dane(host: Host, of: impl Fn(&str) -> TlsPolicy) -> Host {
    match host.policy {
        TlsPolicy::None => Host { policy: of(&host.name), ..host },
        _ => host,
    }
}

/// Says of the hosts what they have to show by DANE, and leaves out those of which nobody knows.
///
/// # Errors
/// There is none left: why, for people.
fn by_dane(
    hosts: Vec<Host>,
    candidates: &[Candidate],
    provider: &Provider,
    domain: &str,
    faults: &mut Vec<PolicyFault>,
) -> Result<Vec<Host>, String> {
    let demands = provider.tls == TlsMode::Dane;
    let mut why = None;
    let mut good = Vec::with_capacity(hosts.len());
    for mut host in hosts {
        let published =
            candidates.iter().find(|candidate| *candidate.name == host.name).map(|candidate| &candidate.tlsa);
        match published {
            Some((base, Published::Records(records))) => {
                let mut names = vec![base.clone()];
                names
                    .extend([Arc::from(host.name.as_str()), Arc::from(domain)].into_iter().filter(|name| name != base));
                host.policy = TlsPolicy::Dane(Arc::new(Dane { names, records: records.clone() }));
            }
            Some((base, Published::Failed(text))) => {
                faults.push(PolicyFault::of_dane(ResultType::DnssecInvalid, &host.name, text));
                why.get_or_insert_with(|| format!("the TLSA records of {base} cannot be had: {text}"));
                continue;
            }
            Some((base, Published::Unusable)) if !demands => host.policy = TlsPolicy::DaneUnusable(base.clone()),
            _ if demands => {
                let (result, reason) = match published {
                    Some((_, Published::Unusable)) => (ResultType::TlsaInvalid, "none of the records can be used"),
                    _ => (ResultType::DaneRequired, "there are no signed records"),
                };
                faults.push(PolicyFault::of_dane(result, &host.name, reason));
                why.get_or_insert_with(|| {
                    format!(
                        "tls = \"dane\" of provider {} demands signed TLSA records that can be used, and {} has none",
                        provider.name, host.name
                    )
                });
                continue;
            }
            _ => {}
        }
        good.push(host);
    }
    if good.is_empty() { Err(why.unwrap_or_default()) } else { Ok(good) }
}

#[cfg(test)]
mod tests {
    use super::super::super::tlsa::{Form, Part, Tlsa, Usage};
    use super::*;
    use crate::config::sample;

    fn hosts(names: &[&str]) -> Vec<Host> {
        let host = |name: &&str| Host {
            name: (*name).into(),
            preference: 10,
            addresses: vec!["192.0.2.1".parse().expect("an address")],
            policy: TlsPolicy::None,
        };
        names.iter().map(host).collect()
    }

    fn policy(mode: &str) -> Option<Standing> {
        let text = format!("version: STSv1\nmode: {mode}\nmx: *.a.example\nmax_age: 86400\n");
        let policy = Policy::parse(&text, "a.example", "7", Timestamp(0)).expect("a policy");
        Some(Standing::Policy(Arc::new(policy)))
    }

    fn told(names: &[&str], standing: Option<Standing>, tls: TlsMode) -> Result<Vec<String>, String> {
        let provider = Provider { tls, ..sample::provider("p") };
        let applied =
            apply(hosts(names), &[], standing, &provider, "a.example", &mut Vec::new()).map_err(|e| e.to_string())?;
        Ok(applied.into_iter().map(|host| format!("{} {:?}", host.name, host.policy)).collect())
    }

    #[test]
    fn an_enforced_policy_leaves_out_other_hosts_and_demands_a_certificate_of_the_rest() {
        let named = "mx.a.example MtaSts(\"a.example\")".to_owned();
        assert_eq!(
            told(&["mx.evil.example", "mx.a.example"], policy("enforce"), TlsMode::Opportunistic),
            Ok(vec![named])
        );
        let none = told(&["mx.evil.example", "b.mx.a.example"], policy("enforce"), TlsMode::Opportunistic).unwrap_err();
        assert_eq!(
            none,
            "4.7.5 the MTA-STS policy of a.example (mode enforce, id 7) names none of its mail hosts that have an address: \
             it names *.a.example, and DNS mx.evil.example, b.mx.a.example"
        );
    }

    #[test]
    fn testing_leaves_nobody_out() {
        let both = ["mx.evil.example Unnamed(\"a.example\")", "mx.a.example MtaStsTesting(\"a.example\")"];
        let told = told(&["mx.evil.example", "mx.a.example"], policy("testing"), TlsMode::Opportunistic);
        assert_eq!(told, Ok(both.map(str::to_owned).to_vec()));
    }

    #[test]
    fn without_a_policy_all_is_as_before_unless_the_provider_demands_one() {
        let plain = Ok(vec!["mx.a.example None".to_owned()]);
        for standing in [None, Some(Standing::None)] {
            assert_eq!(told(&["mx.a.example"], standing.clone(), TlsMode::Opportunistic), plain);
            let why = told(&["mx.a.example"], standing, TlsMode::MtaSts).unwrap_err();
            assert!(why.starts_with("4.7.5 tls = \"mta-sts\" of provider p demands"), "{why}");
        }
        assert!(told(&["mx.a.example"], policy("testing"), TlsMode::MtaSts).is_err());
        let why = told(&["mx.a.example"], Some(Standing::Awaited), TlsMode::Opportunistic).unwrap_err();
        assert_eq!(why, "4.7.5 the MTA-STS policy of a.example is awaited from mta-sts.a.example");
    }

    fn candidate(name: &str, tlsa: Published) -> Candidate {
        Candidate {
            name: name.into(),
            canonical: None,
            preference: 10,
            addresses: Addresses::None,
            tlsa: (name.into(), tlsa),
        }
    }

    fn records() -> Published {
        let data = vec![7; 32].into_boxed_slice();
        Published::Records([Tlsa { usage: Usage::Host, part: Part::Key, form: Form::Sha256, data }].into())
    }

    /// What becomes of `mx.a.example`, which the policy names, and of `mx.b.example`, which it does not.
    fn by_both(of: [Published; 2], standing: Option<Standing>, tls: TlsMode) -> Result<Vec<String>, String> {
        let provider = Provider { tls, ..sample::provider("p") };
        let [a, b] = of;
        let candidates = [candidate("mx.a.example", a), candidate("mx.b.example", b)];
        let both = hosts(&["mx.a.example", "mx.b.example"]);
        let applied =
            apply(both, &candidates, standing, &provider, "a.example", &mut Vec::new()).map_err(|e| e.to_string())?;
        let shown = |policy: &TlsPolicy| match policy {
            TlsPolicy::None => "none",
            TlsPolicy::MtaSts(_) => "mta-sts",
            TlsPolicy::MtaStsTesting(_) | TlsPolicy::Unnamed(_) => "testing",
            TlsPolicy::Dane(_) => "dane",
            TlsPolicy::DaneUnusable(_) => "unusable",
            TlsPolicy::Required(_) => "required",
        };
        Ok(applied.into_iter().map(|host| format!("{} {}", host.name, shown(&host.policy))).collect())
    }

    #[test]
    fn dane_wins_over_mta_sts_and_who_cannot_be_checked_gets_no_mail() {
        let failed = || Published::Failed("forged".into());
        let (none, bad) = (|| Published::Nothing, || Published::Unusable);
        let easy = TlsMode::Opportunistic;
        let all = |a: &str, b: &str| {
            let names = [("mx.a.example", a), ("mx.b.example", b)];
            Ok(names.iter().filter(|(_, p)| !p.is_empty()).map(|(name, p)| format!("{name} {p}")).collect::<Vec<_>>())
        };
        assert_eq!(by_both([records(), none()], None, easy), all("dane", "none"));
        assert_eq!(by_both([bad(), none()], None, easy), all("unusable", "none"));
        assert_eq!(by_both([failed(), none()], None, easy), all("", "none"));
        assert_eq!(by_both([records(), records()], policy("enforce"), easy), all("dane", "dane"));
        assert_eq!(by_both([none(), none()], policy("enforce"), easy), all("mta-sts", ""));
        assert_eq!(by_both([bad(), bad()], policy("enforce"), easy), all("mta-sts", ""));
        assert_eq!(by_both([failed(), records()], policy("enforce"), easy), all("", "dane"));
        assert_eq!(by_both([records(), none()], policy("testing"), easy), all("dane", "testing"));
        assert_eq!(by_both([records(), none()], None, TlsMode::Dane), all("dane", ""));
        let why = by_both([failed(), failed()], policy("enforce"), easy).unwrap_err();
        assert_eq!(why, "4.7.5 the TLSA records of mx.a.example cannot be had: forged");
        let why = by_both([bad(), none()], None, TlsMode::Dane).unwrap_err();
        assert!(why.starts_with("4.7.5 tls = \"dane\" of provider p demands signed TLSA records"), "{why}");
    }

    /// What reports have of it, by the words of RFC 8460.
    #[test]
    fn what_is_wrong_with_what_is_published_is_told_for_reports() {
        use ResultType as R;
        let (unusable, none) = (|| Published::Unusable, || Published::Nothing);
        let failed = || Published::Failed("forged".into());
        let unfetched = || Standing::Unfetched(Arc::new("no answer".to_owned().into()));
        for (of, standing, tls, told) in [
            ([records(), records()], policy("enforce"), TlsMode::Opportunistic, vec![]),
            ([failed(), none()], None, TlsMode::Opportunistic, vec![("mx.a.example", R::DnssecInvalid)]),
            (
                [unusable(), none()],
                None,
                TlsMode::Dane,
                vec![("mx.a.example", R::TlsaInvalid), ("mx.b.example", R::DaneRequired)],
            ),
            // It is told of each session with it.
            ([unusable(), none()], None, TlsMode::Opportunistic, vec![]),
            ([none(), none()], Some(unfetched()), TlsMode::Opportunistic, vec![("", R::StsPolicyFetchError)]),
            ([none(), none()], Some(unfetched()), TlsMode::MtaSts, vec![("", R::StsPolicyFetchError)]),
            ([none(), none()], Some(Standing::Awaited), TlsMode::Opportunistic, vec![]),
        ] {
            let (provider, mut faults) = (Provider { tls, ..sample::provider("p") }, Vec::new());
            let [a, b] = of;
            let candidates = [candidate("mx.a.example", a), candidate("mx.b.example", b)];
            let both = hosts(&["mx.a.example", "mx.b.example"]);
            let _ = apply(both, &candidates, standing, &provider, "a.example", &mut faults);
            let found: Vec<_> = faults.iter().map(|it| (it.host.as_str(), it.fault.result)).collect();
            assert_eq!(found, told);
        }
        let (provider, mut faults) = (sample::provider("p"), Vec::new());
        let other = hosts(&["mx.c.example"]);
        assert!(apply(other, &[], policy("enforce"), &provider, "a.example", &mut faults).is_err());
        assert_eq!(faults.iter().map(|it| it.fault.result).collect::<Vec<_>>(), [R::ValidationFailure]);
    }

    /// RFC 8689 §4.2.1: names that nobody vouches for are not good enough, and what may be had later is waited for.
    #[test]
    fn who_requires_tls_goes_to_hosts_that_somebody_vouches_for() {
        let standing = |mode: &str| match mode {
            "" => None,
            mode => policy(mode),
        };
        let told = |mode: &str, named: bool, unfetched: Option<&str>| {
            let provider = sample::provider("p");
            let applied = apply(hosts(&["mx.a.example"]), &[], standing(mode), &provider, "a.example", &mut Vec::new());
            by_name_alone(applied?, named, unfetched.map(str::to_owned), "a.example").map(|hosts| hosts.len())
        };
        assert_eq!(told("", true, None), Ok(1));
        assert_eq!(told("enforce", false, None), Ok(1));
        for mode in ["", "testing"] {
            let Err(RouteError::Permanent { code, enhanced, text }) = told(mode, false, None) else {
                panic!("{mode}: a way")
            };
            assert_eq!((code, enhanced), (550, NO_REQUIRETLS));
            assert!(text.contains("nothing vouches for the mail hosts of a.example"), "{text}");
        }
        let Err(RouteError::Temporary { text, .. }) = told("", false, Some("no answer")) else { panic!("not for now") };
        assert!(text.ends_with("the MTA-STS policy of a.example cannot be had: no answer"), "{text}");
    }
}
