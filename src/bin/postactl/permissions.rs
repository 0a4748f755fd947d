//! `set-permissions`: the spool's folders and whose they are.

use posta::unix::{privilege, sysexits, users};

use posta::config::Config;

use posta::spool::{Owners, Spool};

use crate::Refusal;

/// Makes what is missing and sets owners and modes of the rest. Without root, or with
/// `drop_privileges = false`, all is the caller's.
pub fn set(words: &[String], config: &Config) -> Result<u8, Refusal> {
    if !words.is_empty() {
        return Err(Refusal::usage("set-permissions takes nothing"));
    }
    let owners = if privilege::is_root() && config.drop_privileges { Some(owners(config)?) } else { None };
    Spool::make(&config.spool, owners).map_err(|error| Refusal(sysexits::CANTCREAT, error.to_string()))?;
    println!("{}: made as it should be", config.spool.display());
    Ok(sysexits::OK)
}

fn owners(config: &Config) -> Result<Owners, Refusal> {
    let refusal = |what: String| Refusal(sysexits::CONFIG, what);
    let account = |setting: &str, name: &str| {
        let found =
            users::by_name(name).map_err(|error| refusal(format!("{setting} = \"{name}\": {error}")))?;
        found.ok_or_else(|| {
            refusal(format!("{setting} = \"{name}\": no such user; make it with \"useradd -r -U {name}\""))
        })
    };
    let queue = account("queue_user", &config.queue_user)?;
    let posta = account("user", &config.user)?;
    let group = &config.drop_group;
    let drop_group = users::group_id(group)
        .map_err(|error| refusal(format!("drop_group = \"{group}\": {error}")))?
        .ok_or_else(|| {
            refusal(format!("drop_group = \"{group}\": no such group; make it with \"groupadd -r {group}\""))
        })?;
    Ok(Owners { queue: queue.uid, queue_group: queue.gid, posta_group: posta.gid, drop_group })
}
