//! `hold`, `release`, `delete`, `bounce`, `retry`: what becomes of messages.

use posta::unix::sysexits;

use posta::mail::address::parse_domain;
use posta::mail::id::Id;

use posta::courier::order::Order;

use posta::config::Config;

use crate::show::{parse_id, print_answers};
use crate::word::Word;
use crate::{Refusal, give};

/// Does the same to each of several messages. One that fails does not keep the others from it.
pub fn change(word: &Word, words: &[String], config: &Config) -> Result<u8, Refusal> {
    if words.is_empty() {
        return Err(Refusal::usage("which messages? \"postactl queue\" lists their ids"));
    }
    let ids = words.iter().map(|text| parse_id(text)).collect::<Result<Vec<Id>, _>>()?;
    let mut failed = sysexits::OK;
    for id in ids {
        if let Err(Refusal(code, why)) = give(&order(word, id), config) {
            // Nobody there, or not allowed: the rest would say the same.
            if !matches!(code, sysexits::DATA | sysexits::TEMPFAIL) {
                return Err(Refusal(code, why));
            }
            let why = why.strip_prefix(&format!("{id}: ")).unwrap_or(&why);
            eprintln!("postactl: {id}: {why}");
            failed = code;
        }
    }
    Ok(failed)
}

fn order(word: &Word, id: Id) -> Order {
    match word {
        Word::Hold => Order::Hold(id),
        Word::Release => Order::Release(id),
        Word::Bounce => Order::Bounce(id),
        _ => Order::Delete(id),
    }
}

/// Tries now: a message, what waits for a domain, or everything.
pub fn retry(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let order = match words {
        [] => Order::RetryAll,
        [all] if all == "all" => Order::RetryAll,
        [word] => one(word)?,
        _ => return Err(Refusal::usage("retry takes one queue id, one domain, or \"all\"")),
    };
    give(&order, config)?;
    Ok(sysexits::OK)
}

/// Pauses or resumes a domain's destination.
pub fn of_domain(order: fn(String) -> Order, words: &[String], config: &Config) -> Result<u8, Refusal> {
    let [word] = words else { return Err(Refusal::usage("which domain?")) };
    let domain = parse_domain(word).map_err(|why| Refusal::usage(format!("\"{word}\": {why}")))?;
    // The answer names the destination, which is not always the domain.
    print_answers(&order(domain), config)
}

/// A queue id has no dot and no lower case; a domain nearly always has one of both.
fn one(word: &str) -> Result<Order, Refusal> {
    if let Some(id) = Id::parse(word) {
        return Ok(Order::RetryId(id));
    }
    let domain = parse_domain(word);
    domain
        .map(Order::RetryDomain)
        .map_err(|why| Refusal::usage(format!("\"{word}\": no queue id, and as a domain: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_domains_are_told_apart() {
        assert!(matches!(one("0123456789ABCDE"), Ok(Order::RetryId(_))));
        assert!(matches!(one("Example.net"), Ok(Order::RetryDomain(d)) if d == "example.net"));
        assert!(one("a@b").is_err());
    }
}
