//! What is wrong with the certificates that routes name. Pure: everything is in the snapshot.
//!
//! A missing Secret refuses the spec, as any missing reference does. An unusable pair refuses nothing, because a certificate that a
//! person or a program has broken, or that has expired, must not keep a new version of the code from its rollout.

use std::collections::BTreeSet;

use crds::conditions::{reasons, types};
use crds::function::Route;
use jiff::{SignedDuration, Timestamp};
use operator_core::rollout::CERTIFICATE_UNUSABLE;

use super::conditions::find;
use super::observe::Snapshot;
use crate::function_certificates::CertificateState;
use crate::validate::{Accepted, Violation};

/// Longest time until the validity is looked at again.
const CHECK_INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// Maximum number of names of a certificate in a message.
const NAMES: usize = 3;

/// The state of the certificates that served routes name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CertificateReport {
    /// Explanation of the first certificate that nodes cannot use, with the number of the others.
    pub(super) problem: Option<String>,
    /// Time at which the report may change although no object does.
    pub(super) changes_at: Option<Timestamp>,
}

/// References of the spec to Secrets without a certificate.
pub(super) fn missing<'a>(
    snapshot: &'a Snapshot,
    routes: &'a [Route],
) -> impl Iterator<Item = Violation> + 'a {
    named(routes).filter_map(move |(index, name, _)| {
        let Some(CertificateState::Absent(key)) = snapshot.certificates.get(name) else {
            return None;
        };
        let field = format!("spec.routes[{index}].tls.secretRef");
        let message =
            format!("the Secret {name:?} or its key {key:?} does not exist in this namespace");
        Some(Violation::new(reasons::MISSING_REFERENCE, field, message))
    })
}

/// Reports on the certificates of the routes that take effect: those of the accepted spec, else those accepted before.
pub(super) fn report(snapshot: &Snapshot, accepted: Option<&Accepted>) -> CertificateReport {
    let status = snapshot.function.status.as_ref();
    let before = status.and_then(|status| status.accepted.as_ref());
    let before = before.map_or(&[][..], |before| &before.routes);
    let routes = accepted.map_or(before, |accepted| &accepted.routes);
    let mut report = CertificateReport::default();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, name, hosts) in named(routes) {
        let Some(state) = snapshot.certificates.get(name) else {
            continue;
        };
        if *state == CertificateState::Unknown {
            // what is being read says nothing yet, so what was reported stays
            let known = status.and_then(|it| find(&it.conditions, types::DISTRIBUTED));
            let known = known.filter(|known| known.reason == CERTIFICATE_UNUSABLE);
            report.problem = known.map(|known| known.message.clone());
            return report;
        }
        match verdict(state, hosts, snapshot.now) {
            Err(why) if seen.insert(name) => problems.push((index, name, why)),
            Err(_) => {}
            Ok(until) => {
                let soonest = report.changes_at.into_iter().chain(until).min();
                report.changes_at = soonest;
            }
        }
    }
    let again = snapshot.now.checked_add(CHECK_INTERVAL).ok();
    report.changes_at = report
        .changes_at
        .map(|at| again.map_or(at, |again| at.min(again)));
    report.problem = sentence(snapshot, &problems);
    report
}

/// Routes with a certificate: index, name of the Secret, and hosts.
fn named(routes: &[Route]) -> impl Iterator<Item = (usize, &str, &[String])> {
    let routes = routes.iter().enumerate();
    routes.filter_map(|(index, route)| {
        let name = route.tls.as_ref()?.secret_ref.name.as_str();
        Some((index, name, route.hosts.as_slice()))
    })
}

/// The time at which the certificate changes from usable to unusable.
///
/// # Errors
/// Why nodes cannot use it for these hosts now.
fn verdict(
    state: &CertificateState,
    hosts: &[String],
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    let details = match state {
        CertificateState::Usable(details) => details,
        CertificateState::Unusable(error) => return Err(error.to_string()),
        CertificateState::Absent(key) => {
            return Err(format!("it does not exist, or it has no key {key:?}"));
        }
        CertificateState::Unknown => return Ok(None),
    };
    if !hosts.iter().any(|host| details.covers_any_of(host)) {
        let names = details.names();
        let shown = names.iter().take(NAMES).cloned().collect::<Vec<_>>();
        let shown = match shown.len() {
            0 => "no host name".to_owned(),
            _ => shown.join(", "),
        };
        let more = match names.len().saturating_sub(NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return Err(format!(
            "it is valid for {shown}{more}, and for no host of the route"
        ));
    }
    let at = |second: i64| Timestamp::from_second(second).ok();
    let since = at(details.not_before());
    if let Some(since) = since.filter(|since| *since > now) {
        return Err(format!("it is valid from {since} on"));
    }
    let until = at(details.not_after());
    match until {
        Some(until) if details.not_after() < now.as_second() => {
            Err(format!("it expired at {until}"))
        }
        until => Ok(until.and_then(|until| until.checked_add(SignedDuration::from_secs(1)).ok())),
    }
}

fn sentence(snapshot: &Snapshot, problems: &[(usize, &str, String)]) -> Option<String> {
    let (index, name, why) = problems.first()?;
    let namespace = snapshot.function.metadata.namespace.as_deref();
    let namespace = namespace.unwrap_or_default();
    let others = match problems.len() - 1 {
        0 => String::new(),
        others => format!(" {others} more Secrets hold no usable certificate."),
    };
    Some(format!(
        "The certificate in the Secret {name:?} (spec.routes[{index}].tls) cannot be used: {why}.{others} Nodes keep the \
         certificate that they have. Replace it: kubectl -n {namespace} create secret tls {name} --cert=FILE --key=FILE \
         --dry-run=client -o yaml | kubectl apply -f -"
    ))
}

#[cfg(test)]
mod tests;
