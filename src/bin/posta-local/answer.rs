//! The packet that answers a job.

use posta::courier::report::{FromHand, Outcome, Report};

use crate::refusal::Refusal;

/// The answer to job number `job`. Where what `.forward` files say is too long for one packet, as
/// many of them as needed are put off: the next attempt has fewer recipients.
pub fn answer(job: u64, mut outcomes: Vec<Outcome>) -> Option<Vec<u8>> {
    loop {
        let report = FromHand::Report(Report { job, outcomes: outcomes.clone(), unreachable: false });
        let error = match report.encode() {
            Ok(packet) => return Some(packet),
            Err(error) => error,
        };
        let Some(last) = outcomes.iter_mut().rev().find(|outcome| outcome.forward.is_some()) else {
            // A hundred outcomes always fit, and a request has no more recipients.
            log::error!("report of job {job}: {error}");
            return None;
        };
        let why = "too much is to be forwarded at once; tried again";
        *last = Refusal::new((4, 3, 0), why).outcome(last.n);
    }
}

/// The answer to a job that is refused as a whole.
pub fn refused(job: u64, recipients: &[u32], refusal: &Refusal) -> Option<Vec<u8>> {
    answer(job, recipients.iter().map(|n| refusal.clone().outcome(*n)).collect())
}

#[cfg(test)]
mod tests {
    use posta::courier::forward::Forward;
    use posta::courier::request::Place;

    use super::*;

    #[test]
    fn what_does_not_fit_is_put_off() {
        let long = Forward { addresses: Vec::new(), places: vec![Place::Command("x".repeat(16 * 1024))] };
        let forwarded =
            |n| Outcome { forward: Some(long.clone()), ..Refusal::new((2, 0, 0), "forwarded").outcome(n) };
        let packet = answer(7, (0..10).map(forwarded).collect()).unwrap();
        let Ok(FromHand::Report(report)) = FromHand::decode(&packet) else { panic!() };
        let forwarded = report.outcomes.iter().filter(|outcome| outcome.forward.is_some()).count();
        let later = report.outcomes.iter().filter(|outcome| outcome.status.class == 4).count();
        assert_eq!((report.outcomes.len(), forwarded, later), (10, 3, 7));
    }
}
