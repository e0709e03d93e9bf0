//! Whether a run has room, and whether what it saves is staged on the device: decided by the estimate beforehand.

use models::Config;

use crate::memory::{self, Estimate};
use crate::recipe::{Resolved, Staging};

/// Of the estimate, in percent: what must be free for staging that nobody asked for. The estimate is good to 10 %.
const MARGIN: u64 = 110;

/// What a run takes.
#[derive(Debug, Clone)]
pub struct Room {
    /// The memory of a step.
    pub estimate: Estimate,
    /// Bytes of a copy of weights and state on the device, from which they are saved; 0 where none is made there.
    pub copy: u64,
    /// What the user should know of that.
    pub note: Option<String>,
}

impl Room {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.estimate.total() + self.copy
    }
}

impl Resolved {
    /// What the run takes on a device with so many bytes free, a GPU or the CPU.
    pub fn room(&self, config: &Config, cuda: bool, free: Option<u64>) -> Result<Room, optim::Error> {
        let estimate = memory::estimate(config, &self.step(cuda)?);
        let (train, copy) = (&self.recipe.train, estimate.copy);
        let wanted = Room { estimate, copy, note: None };
        let fits = free.is_none_or(|free| wanted.total() / 100 * MARGIN <= free);
        let made = match train.staging {
            Staging::On => true,
            Staging::Auto => train.saves_meanwhile() && fits,
            Staging::Off => false,
        };
        if made || !cuda {
            return Ok(wanted);
        }
        let note = (train.staging == Staging::Auto && train.saves_meanwhile()).then(|| {
            format!(
                "train.staging is off: {} MiB for a copy of weights and state are not free beside about {} MiB; training \
                 stands still until what it saves is on the host",
                copy >> 20,
                estimate.total() >> 20
            )
        });
        Ok(Room { estimate, copy: 0, note })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Setting, Sources, resolve};

    fn with(settings: &[&str]) -> Resolved {
        let setting = |text: &&str| {
            let (key, value) = text.split_once('=').expect("KEY=VALUE");
            Setting { key: key.into(), value: value.into(), flag: "--set".into() }
        };
        let flags: Vec<Setting> = settings.iter().map(setting).collect();
        resolve(&Sources { flags: &flags, ..Sources::default() }).unwrap()
    }

    fn room(settings: &[&str], cuda: bool, free: u64) -> Room {
        let resolved = with(settings);
        resolved.room(&resolved.config, cuda, Some(free)).unwrap()
    }

    #[test]
    fn staging_is_on_where_there_is_room_and_something_to_save_meanwhile() {
        const RUN: [&str; 2] = ["train.steps=500", "train.device=cuda"];
        let on = room(&RUN, true, 80 << 30);
        assert!(on.copy > 0 && on.note.is_none());
        let full = room(&RUN, true, on.total() + 1);
        assert!(full.copy == 0);
        assert!(full.note.is_some_and(|note| note.starts_with("train.staging is off: ")));
        for settings in [
            &["train.staging=off"][..],
            &["train.checkpoint_steps=500", "train.save_steps=0"],
            &["train.checkpoint_steps=0", "train.save_steps=1000"],
        ] {
            let off = room(&[&RUN, settings].concat(), true, 80 << 30);
            assert!(off.copy == 0 && off.note.is_none(), "{settings:?}");
        }
        let told = room(&[&RUN[..], &["train.staging=on"]].concat(), true, 1);
        assert!(told.copy > 0 && told.note.is_none());
        let cpu = room(&RUN[..1], false, 1);
        assert!(cpu.copy > 0, "made in memory for each checkpoint");
    }
}
