//! Which child a job is for: whose rights it needs, and whether it keeps to the mailboxes.
//!
//! A child that only puts mail into mailboxes confines itself (Landlock) to its owner's home and to
//! the folders that the configuration names for mailboxes. Commands, and files elsewhere, get a
//! second child of the same owner, which has all of his rights.

use std::path::{Component, Path, PathBuf};

use posta::courier::request::{Owner, Place, Request};

/// A child's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seat {
    /// Whose rights; without the home, so that equal ids are one owner.
    pub owner: Owner,
    /// Whether it is confined. Users of a users file share ids but not homes: then it is confined to
    /// the folder that their homes lie in, too.
    pub confined: Option<Option<PathBuf>>,
}

impl Seat {
    /// The seat of a request for `owner`. `folders`: those of all mailboxes; `None`: nobody is
    /// confined.
    pub fn of(owner: Owner, request: &Request, folders: Option<&[PathBuf]>) -> Seat {
        let homes = match &owner {
            Owner::Ids(_, _, home) => {
                Path::new(home).parent().filter(|above| *above != Path::new("/")).map(Path::to_path_buf)
            }
            Owner::Account(_) => None,
        };
        let is_within = |path: &str| {
            let path = Path::new(path);
            let around = |folder: &PathBuf| path.starts_with(folder);
            path.components().all(|step| step != Component::ParentDir)
                && (path.starts_with("~")
                    || folders.is_some_and(|folders| folders.iter().any(around))
                    || homes.as_ref().is_some_and(around))
        };
        let keeps_within = request.recipients.iter().all(|recipient| match &recipient.place {
            Some(Place::Home(mailbox)) => path(mailbox).is_some_and(is_within),
            Some(place) => path(place).is_some_and(is_within),
            None => true,
        });
        let owner = match owner {
            Owner::Ids(uid, gid, _) => Owner::Ids(uid, gid, String::new()),
            account => account,
        };
        Seat { owner, confined: (folders.is_some() && keeps_within).then_some(homes) }
    }
}

fn path(place: &Place) -> Option<&str> {
    match place {
        Place::Maildir(path) | Place::Mbox(path) => Some(path),
        Place::Command(_) | Place::Home(_) => None,
    }
}

/// The folder that all mailboxes of a path as `/srv/mail/{domain}/{user}/` lie in. None of a path in
/// homes, or where it is the root.
pub fn folder_of(mailbox: &str) -> Option<PathBuf> {
    let fixed = mailbox.split('{').next().unwrap_or_default();
    // Where it has no words, it may be missing itself, and is then made.
    let fixed = if fixed == mailbox { fixed.trim_end_matches('/') } else { fixed };
    let folder = Path::new(&fixed[..=fixed.rfind('/')?]);
    (folder.is_absolute() && folder != Path::new("/")).then(|| folder.components().collect())
}

#[cfg(test)]
mod tests {
    use posta::mail::address::{Mailbox, ReversePath};
    use posta::mail::envelope::{BodyKind, Notify};
    use posta::mail::id::Id;

    use posta::courier::request::{Rcpt, Target};

    use super::*;

    fn request(owner: &Owner, places: &[Place]) -> Request {
        let address = Mailbox::parse("a@x.example", false).unwrap();
        let recipient = |place: &Place| Rcpt {
            n: 0,
            address: address.clone(),
            original: address.clone(),
            notify: Notify::default(),
            orcpt: None,
            place: Some(place.clone()),
            limit: None,
        };
        Request {
            job: 1,
            id: Id::parse("0123456789ABCDE").unwrap(),
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            arrived: 0,
            trace: Vec::new(),
            size: 0,
            others: false,
            target: Target::Local(owner.clone()),
            terms: Default::default(),
            recipients: places.iter().map(recipient).collect(),
        }
    }

    fn confined(owner: &Owner, places: &[Place]) -> Option<Option<PathBuf>> {
        let folders = [PathBuf::from("/srv/mail")];
        Seat::of(owner.clone(), &request(owner, places), Some(&folders)).confined
    }

    fn maildir(path: &str) -> Place {
        Place::Maildir(path.into())
    }

    #[test]
    fn mailboxes_are_written_by_a_confined_child_and_all_else_by_another() {
        let alice = Owner::Account("alice".into());
        let home = Place::Home(Box::new(maildir("~/Maildir/")));
        assert_eq!(confined(&alice, &[home.clone(), maildir("/srv/mail/a/")]), Some(None));
        for other in [
            Place::Command("x".into()),
            maildir("/srv/mailbox/"),
            maildir("/srv/mail/../x/"),
            maildir("~/../x/"),
        ] {
            assert_eq!(confined(&alice, &[home.clone(), other]), None);
        }
        assert_eq!(Seat::of(alice.clone(), &request(&alice, &[home]), None).confined, None);
    }

    #[test]
    fn users_of_a_file_are_confined_to_where_their_homes_lie() {
        let user = |home: &str| Owner::Ids(5000, 5000, home.into());
        let homes = Some(Some(PathBuf::from("/srv/homes")));
        assert_eq!(confined(&user("/srv/homes/alice"), &[maildir("~/Maildir/")]), homes);
        assert_eq!(confined(&user("/srv/homes/bob"), &[maildir("/srv/homes/bob/x/")]), homes);
        assert_eq!(confined(&user("/alice"), &[maildir("~/Maildir/")]), Some(None));
        assert_eq!(confined(&user(""), &[maildir("/srv/mail/x/")]), Some(None));
    }

    #[test]
    fn a_mailbox_path_has_a_folder_around_it() {
        let folder = |path: &str| folder_of(path).map(|folder| folder.display().to_string());
        assert_eq!(folder("/srv/mail/{domain}/{user}/"), Some("/srv/mail".into()));
        assert_eq!(folder("/srv/box-{user}"), Some("/srv".into()));
        assert_eq!(folder("/var/mail/root/"), Some("/var/mail".into()));
        assert_eq!(folder("/var/mail/root"), Some("/var/mail".into()));
        assert_eq!([folder("~/Maildir/"), folder("/{user}/"), folder("/box")], [None, None, None]);
    }
}
