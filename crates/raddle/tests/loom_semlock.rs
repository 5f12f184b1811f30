//! `semlock`: threads of the model stand for processes; a table says which of them have ended.
#![cfg(raddle_loom)]
