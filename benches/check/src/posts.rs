//! Which posts one reader was shown of one room, in all its lives: each once, and those of a sender
//! in the order of sending. A reset ends neither rule.

use std::collections::{HashMap, HashSet};

use crate::event::Post;

#[derive(Debug, Default)]
pub(crate) struct Posts {
    shown: HashSet<usize>,
    newest_of: HashMap<String, u64>,
}

/// How a post stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostStanding {
    New,
    Doubled,
    /// A later post of this sender, with this number, was shown before.
    Overtaken {
        by: u64,
    },
}

impl Posts {
    /// Takes a post that is not a repeated record; `key` is its own.
    pub(crate) fn show(&mut self, key: usize, post: Post<'_>) -> PostStanding {
        if !self.shown.insert(key) {
            return PostStanding::Doubled;
        }
        let Some(newest) = self.newest_of.get_mut(post.sender) else {
            self.newest_of.insert(post.sender.to_owned(), post.number);
            return PostStanding::New;
        };
        if post.number < *newest {
            return PostStanding::Overtaken { by: *newest };
        }
        *newest = post.number;
        PostStanding::New
    }

    pub(crate) fn shows(&self, key: usize) -> bool {
        self.shown.contains(&key)
    }
}
