//! The thread that reads, and what is told to it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LockResult, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::walk::{About, Scope};
use super::{Coverage, Facts, Shared, texts};
use crate::context::facts::identity;
use crate::context::pieces::stem;
use crate::language::Language;

/// The longest pause before a file: an index is made also where somebody never stops typing.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// When more files than this have changed, looking at all is cheaper.
const MANY: usize = 256;
/// Files by which others come or go.
const RULES: [&str; 2] = [".gitignore", ".ignore"];

/// What is to be done.
#[derive(Default)]
pub(super) struct Work {
    state: Mutex<State>,
    /// Told of every change of the state.
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// What the index is of, if of anything.
    scope: Option<Arc<Scope>>,
    /// Whether all is to be looked at.
    all: bool,
    /// What else is.
    some: BTreeSet<PathBuf>,
    /// Whether there is a thread, and whether it is at work.
    begun: bool,
    busy: bool,
    /// How many want the thread to stand still.
    resting: isize,
    /// When all was looked at last.
    walked: Option<Instant>,
    ended: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        !self.busy && !self.all && self.some.is_empty()
    }
}

/// A part of the work.
struct Task {
    scope: Arc<Scope>,
    about: About,
}

impl Work {
    /// True where this is another coverage than before.
    pub(super) fn cover(&self, coverage: &Coverage) -> bool {
        let mut state = self.state();
        let before = state.scope.as_ref().map(|scope| scope.coverage.clone()).unwrap_or_default();
        if before == *coverage {
            return false;
        }
        state.scope = (!coverage.roots.is_empty()).then(|| Arc::new(Scope::new(coverage)));
        state.all = state.scope.is_some();
        state.some.clear();
        self.news.notify_all();
        true
    }

    pub(super) fn changed(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut state = self.state();
        let Some(scope) = state.scope.clone() else { return };
        let inside = |path: &PathBuf| scope.coverage.roots.iter().any(|root| path.starts_with(root));
        for path in paths.into_iter().filter(inside) {
            let is_rule = RULES.iter().any(|rule| path.file_name().is_some_and(|name| name == *rule));
            state.some.insert(path);
            if is_rule || state.some.len() > MANY {
                state.all = true;
            }
        }
        self.news.notify_all();
    }

    /// Counts who wants the thread to stand still.
    pub(super) fn rest(&self, more: isize) {
        let mut state = self.state();
        state.resting += more;
        // One that sleeps is not woken for this.
        if state.busy {
            self.news.notify_all();
        }
    }

    /// What the index is of. Where the last look at all is older than `stale`, there is another.
    pub(super) fn scope(&self, stale: Duration) -> Option<Arc<Scope>> {
        let mut state = self.state();
        if state.walked.is_some_and(|walked| walked.elapsed() > stale) {
            state.walked = None;
            state.all = true;
            self.news.notify_all();
        }
        state.scope.clone()
    }

    pub(super) fn is_going_on(&self) -> bool {
        !self.state().is_idle()
    }

    /// The thread goes home.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.news.notify_all();
    }

    #[cfg(test)]
    pub(super) fn settle(&self, patience: Duration) -> bool {
        let wait = self.news.wait_timeout_while(self.state(), patience, |state| !state.is_idle());
        wait.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }

    /// Waits for something to do; `None` at the end.
    fn next(&self) -> Option<Task> {
        let mut state = self.state();
        state.busy = false;
        loop {
            if state.ended {
                return None;
            }
            if let (Some(scope), false) = (state.scope.clone(), state.is_idle()) {
                state.busy = true;
                let some = std::mem::take(&mut state.some);
                let about = if state.all { About::All } else { About::Some(Arc::new(some)) };
                if state.all {
                    state.all = false;
                    state.walked = Some(Instant::now());
                }
                return Some(Task { scope, about });
            }
            self.news.notify_all();
            state = locked(self.news.wait(state));
        }
    }

    /// Stands still while somebody wants it; false when the task is void.
    fn may_go_on(&self, task: &Task) -> bool {
        let is_void = |state: &State| {
            state.ended || !state.scope.as_ref().is_some_and(|scope| Arc::ptr_eq(scope, &task.scope))
        };
        let state = self.state();
        let waits = |state: &mut State| state.resting > 0 && !is_void(state);
        let (state, _) = locked(self.news.wait_timeout_while(state, LONGEST_REST, waits));
        !is_void(&state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(self.state.lock())
    }
}

/// No lock here is held over anything that can leave its data half-changed.
pub(super) fn locked<T>(lock: LockResult<T>) -> T {
    lock.unwrap_or_else(PoisonError::into_inner)
}

/// Begins the thread, unless it has begun. Without one there is no index.
pub(super) fn begin(shared: &Arc<Shared>) {
    if std::mem::replace(&mut shared.work.state().begun, true) {
        return;
    }
    let owned = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("index".into()).spawn(move || {
        yield_to_others();
        let mut pass = 0;
        while let Some(task) = owned.work.next() {
            pass += 1;
            run(&owned, &task, pass);
        }
    });
    if let Err(error) = thread {
        tracing::warn!("the workspace is not indexed, the system gives no thread to do it in: {error}");
    }
}

/// Lets every other thread go first, where the system knows of priorities of threads.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    {
        const LAST: i32 = 19;
        let thread = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(thread), LAST) {
            tracing::debug!("the index runs at an ordinary priority: {error}");
        }
    }
}

fn run(shared: &Shared, task: &Task, pass: u64) {
    let begun = Instant::now();
    for (path, language) in task.scope.files(&task.about) {
        if !shared.work.may_go_on(task) {
            return;
        }
        let Some(stamp) = texts::stamp(&path) else { continue };
        // A file that is said to have changed may have the same time and length.
        let whole = matches!(task.about, About::All);
        if whole && locked(shared.table.write()).seen(&path, stamp, pass) {
            continue;
        }
        let is_known = locked(shared.table.read()).number(&path).is_some();
        if is_known || locked(shared.table.read()).has_room() {
            // A bug in reading one file costs that file.
            let read = catch_unwind(AssertUnwindSafe(|| index(shared, &path, language, pass)));
            if read.is_err() {
                tracing::error!("{} is not indexed: this is a bug in gemma-ls", path.display());
            }
        }
    }
    if shared.work.may_go_on(task) {
        locked(shared.table.write()).sweep(pass, |path| task.about.is_about(path));
        let files = locked(shared.table.read()).len();
        tracing::debug!(files, took = ?begun.elapsed(), "the index is up to date");
    }
}

fn index(shared: &Shared, path: &Path, language: Language, pass: u64) {
    let Some((stamp, document)) = texts::read(path) else { return };
    let facts = Facts::of(&document);
    let stem = stem(path).map(|stem| identity(&stem));
    let names = facts.names(&document.text);
    locked(shared.table.write()).put(path, stamp, language, stem, names, pass);
}
