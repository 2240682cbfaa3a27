//! Windows of one history, written to another that tracks the same pages.
use std::path::Path;

use migcast_model::dirty as model;

use crate::format::Manifest;
use crate::reader::View;
use crate::sample::Tracked;
use crate::vcpu::VcpuTime;
use crate::windows::State;
use crate::writer::{NewWindow, WriteError, Writer, ZeroChange};

/// A new history, written from windows that others have.
#[derive(Debug)]
pub(crate) struct CopyWriter(Writer);

impl CopyWriter {
    /// Creates `out` for windows of which `first` is the first, with the zero map it starts with. `tracked` are the pages
    /// of its history, and of `manifest`.
    pub(crate) fn create(
        out: &Path,
        manifest: Manifest,
        tracked: &Tracked,
        first: &View<'_>,
    ) -> Result<CopyWriter, WriteError> {
        // However long anything was kept there, here it stays.
        let manifest = Manifest { keep_pages_seconds: None, keep_index_seconds: None, ..manifest };
        let zero = first.zero_at_start.iter().flatten().map(|rank| tracked.page_of_rank(rank));
        Ok(CopyWriter(Writer::create(out, manifest, &zero.collect::<Vec<_>>())?))
    }

    /// Appends a window, with these changes of the zero map in place of its own, and what the vCPUs used in it.
    pub(crate) fn window(
        &mut self,
        view: &View<'_>,
        zero_changes: &[model::ZeroChange],
        vcpu_time: Option<VcpuTime>,
    ) -> Result<(), WriteError> {
        let written: Vec<u64> = view.written.iter().map(|rank| self.0.tracked().page_of_rank(*rank)).collect();
        self.0.push(NewWindow {
            start_unix_ns: view.window.start_unix_ns,
            end_unix_ns: view.window.end_unix_ns,
            state: view.window.state,
            written: &written,
            zero_changes: &self.in_pages(zero_changes),
            cost_us: view.window.cost_us,
        })?;
        vcpu_time.into_iter().for_each(|time| self.0.add_vcpu_time(time));
        Ok(())
    }

    /// Appends a gap in which the zero map changed so.
    pub(crate) fn gap(
        &mut self,
        start_unix_ns: i64,
        end_unix_ns: i64,
        zero_changes: &[model::ZeroChange],
    ) -> Result<(), WriteError> {
        let zero_changes = &self.in_pages(zero_changes);
        self.0.push(NewWindow { start_unix_ns, end_unix_ns, state: State::Gap, written: &[], zero_changes, cost_us: 0 })
    }

    /// Makes everything durable.
    pub(crate) fn finish(self) -> Result<(), WriteError> {
        self.0.finish()
    }

    fn in_pages(&self, changes: &[model::ZeroChange]) -> Vec<ZeroChange> {
        let page = |rank| self.0.tracked().page_of_rank(rank);
        changes.iter().map(|change| ZeroChange { page: page(change.rank), zero: change.zero }).collect()
    }
}
