//! `gemma/didChangeStatus`: the model and what it does, told to clients that want to show it all the time.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_lsp::gen_lsp_types::{LspNotificationMethod, MessageDirection, Notification};

use super::host::{self, Phase, closed};
use super::session::Session;

/// The least time between two announcements: faster than this nobody reads a status bar.
const PAUSE: Duration = Duration::from_millis(50);

enum DidChangeStatus {}

impl Notification for DidChangeStatus {
    type Params = Announcement;
    const METHOD: LspNotificationMethod<'static> = LspNotificationMethod::Custom("gemma/didChangeStatus");
    const MESSAGE_DIRECTION: MessageDirection = MessageDirection::ServerToClient;
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Announcement {
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// One line for a status bar.
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Loading,
    Ready,
    Working,
    Failed,
}

impl Announcement {
    fn of(status: host::Status, doing: &str, running: usize) -> Self {
        let host::Status { name, state, percent, error, device, .. } = status;
        let model = name.as_deref().unwrap_or("The model");
        let (state, message) = match state {
            Phase::Loading => {
                let percent = percent.map(|percent| format!(" {percent}%")).unwrap_or_default();
                (State::Loading, format!("{doing}{percent}"))
            }
            _ if running > 0 => (State::Working, format!("{model} is working")),
            Phase::Ready => (State::Ready, format!("{model} is ready")),
            Phase::Failed => (State::Failed, "The model cannot be loaded".to_owned()),
        };
        Self { state, percent, model: name, device, error, message }
    }
}

/// Tells of every change until the conversation ends. Changes that come quickly are told together; the last
/// one always is.
pub(super) async fn keep_told(session: Arc<Session>) {
    if !session.agreed().status {
        return;
    }
    let (mut host, mut running) = (session.host.changes(), session.running.subscribe());
    let mut closing = session.closing.subscribe();
    let work = async {
        let mut told = None;
        loop {
            host.mark_unchanged();
            running.mark_unchanged();
            let (status, doing) = (session.host.status(), session.host.doing());
            let now = Announcement::of(status, &doing, session.running.count());
            if told.as_ref() != Some(&now) {
                session.client.send_notification::<DidChangeStatus>(now.clone()).await;
                told = Some(now);
                tokio::time::sleep(PAUSE).await;
            }
            let changed = tokio::select! {
                changed = host.changed() => changed,
                changed = running.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = closed(&mut closing) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_how_it_is() {
        let status = |state, name: Option<&str>| host::Status {
            name: name.map(str::to_owned),
            state,
            percent: (state == Phase::Loading).then_some(40),
            error: (state == Phase::Failed).then(|| "why".to_owned()),
            device: None,
            weight_bytes: None,
        };
        for (phase, name, running, state, message) in [
            (Phase::Loading, None, 0, State::Loading, "Loading m 40%"),
            (Phase::Loading, Some("m"), 1, State::Loading, "Loading m 40%"),
            (Phase::Ready, Some("m"), 0, State::Ready, "m is ready"),
            (Phase::Ready, Some("m"), 2, State::Working, "m is working"),
            (Phase::Failed, None, 0, State::Failed, "The model cannot be loaded"),
            (Phase::Failed, Some("m"), 1, State::Working, "m is working"),
        ] {
            let now = Announcement::of(status(phase, name), "Loading m", running);
            assert_eq!((now.state, now.message.as_str()), (state, message));
        }
    }
}
