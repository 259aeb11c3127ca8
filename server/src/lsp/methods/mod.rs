//! One file a method of the protocol.

pub(super) mod ask;
pub(super) mod cancel_progress;
pub(super) mod chat;
pub(super) mod code_action;
pub(super) mod completion;
pub(super) mod did_accept_completion;
pub(super) mod did_change;
pub(super) mod did_change_configuration;
pub(super) mod did_change_watched_files;
pub(super) mod did_change_workspace_folders;
pub(super) mod did_close;
pub(super) mod did_move_cursor;
pub(super) mod did_open;
pub(super) mod did_rename_files;
pub(super) mod did_save;
pub(super) mod did_show_completion;
pub(super) mod execute_command;
pub(super) mod explain_image;
pub(super) mod forget_chat;
pub(super) mod initialize;
pub(super) mod initialized;
pub(super) mod inline_completion;
pub(super) mod models;
pub(super) mod pull_model;
pub(super) mod statistics;
pub(super) mod status;
