//! Store of slices: one file per peer and round. Existing ones are not measured again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::peer::Peer;
use crate::slice::{Settings, Slice};

/// Maximum number of rounds, which is part of the file names.
pub(crate) const ROUNDS_MAX: u32 = 99;

/// Folder of all slices.
#[derive(Debug)]
pub(crate) struct Results(PathBuf);

impl Results {
    /// Opens this folder, creating it if necessary.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder.to_owned()))
    }

    /// Slice of a peer and round. Fails if it was measured with other settings.
    pub(crate) fn find(&self, peer: Peer, round: u32, settings: &Settings) -> Result<Option<Slice>> {
        let path = self.path(peer, round);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let slice: Slice = serde_json::from_str(&text).with_context(|| format!("{} is no slice", path.display()))?;
        ensure!(
            slice.settings == *settings,
            "{} was measured with other settings: {:?}; remove it, or give the same",
            path.display(),
            slice.settings
        );
        Ok(Some(slice))
    }

    pub(crate) fn keep(&self, slice: &Slice) -> Result<()> {
        let path = self.path(slice.peer, slice.round);
        // Written atomically, even if interrupted.
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_string_pretty(slice)?)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Slices measured with these settings, by peer and round.
    pub(crate) fn all(&self, settings: &Settings) -> Result<Vec<Slice>> {
        let places = Peer::ALL.into_iter().flat_map(|peer| (1..=ROUNDS_MAX).map(move |round| (peer, round)));
        places.filter_map(|(peer, round)| self.find(peer, round, settings).transpose()).collect()
    }

    fn path(&self, peer: Peer, round: u32) -> PathBuf {
        self.0.join(format!("{}-{round}.json", peer.name()))
    }
}
