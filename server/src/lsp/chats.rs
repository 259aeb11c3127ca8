//! The conversations of a session, by the names that the client gave them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gemma_engine::CancelFlag;

use crate::chat::{Conversation, Turn};

/// A client that never forgets a chat must not fill the memory with them: the one longest unused goes.
const MOST: usize = 100;

/// All conversations.
#[derive(Default)]
pub(super) struct Chats {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chats: HashMap<String, (u64, Arc<Chat>)>,
    clock: u64,
}

/// A conversation. One question is answered at a time.
#[derive(Default)]
pub(super) struct Chat {
    /// Held for as long as an answer takes: not for a thread that others wait for.
    conversation: Mutex<Conversation>,
    running: Mutex<CancelFlag>,
}

impl Chats {
    /// The conversation of this name; a new one begins with `history`.
    pub(super) fn open(&self, id: &str, history: Vec<Turn>) -> Arc<Chat> {
        let mut state = lock(&self.state);
        state.clock += 1;
        let now = state.clock;
        if let Some((used, chat)) = state.chats.get_mut(id) {
            *used = now;
            return chat.clone();
        }
        if state.chats.len() >= MOST {
            let oldest = state.chats.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| id.clone());
            oldest.map(|id| state.chats.remove(&id));
        }
        let chat = Chat { conversation: Mutex::new(Conversation::of(history)), running: Mutex::default() };
        let chat = Arc::new(chat);
        state.chats.insert(id.to_owned(), (now, chat.clone()));
        chat
    }

    /// Forgets a conversation, and stops the answer that it waits for.
    pub(super) fn forget(&self, id: &str) {
        if let Some((_, chat)) = lock(&self.state).chats.remove(id) {
            lock(&chat.running).cancel();
        }
    }
}

impl Chat {
    /// Begins a question and stops the one before it. The flag stops this one.
    pub(super) fn begin(&self) -> CancelFlag {
        let flag = CancelFlag::new();
        std::mem::replace(&mut *lock(&self.running), flag.clone()).cancel();
        flag
    }

    /// What was said; waits for the answer before.
    pub(super) fn conversation(&self) -> MutexGuard<'_, Conversation> {
        lock(&self.conversation)
    }
}

/// A panic while a conversation is held leaves it without the answer, which is what it then is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Role;

    #[test]
    fn a_new_question_stops_the_one_before_and_forgetting_stops_it_too() {
        let chats = Chats::default();
        let turns = vec![Turn::new(Role::User, "a"), Turn::new(Role::Model, "b")];
        let chat = chats.open("x", turns.clone());
        let first = chat.begin();
        let second = chats.open("x", Vec::new()).begin();
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert_eq!(chats.open("x", Vec::new()).conversation().turns(), turns);
        chats.forget("x");
        assert!(second.is_cancelled());
        assert!(chats.open("x", Vec::new()).conversation().turns().is_empty());
        chats.forget("never heard of");
    }

    #[test]
    fn the_one_longest_unused_goes() {
        let chats = Chats::default();
        let turns = || vec![Turn::new(Role::User, "a"), Turn::new(Role::Model, "b")];
        for n in 0..MOST {
            chats.open(&n.to_string(), turns());
        }
        chats.open("0", Vec::new());
        chats.open("one more", Vec::new());
        assert_eq!(chats.open("0", Vec::new()).conversation().turns().len(), 2);
        assert!(chats.open("1", Vec::new()).conversation().turns().is_empty());
    }
}
