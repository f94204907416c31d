//! Services of installed packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Debian's packages start their services unless this program forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs something, and starts no service.
pub(crate) fn withhold<T>(install: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_ours = !Path::new(POLICY).exists();
    if is_ours {
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot write {POLICY}"))?;
    }
    let installed = install();
    if is_ours {
        fs::remove_file(POLICY).with_context(|| format!("cannot remove {POLICY}"))?;
    }
    installed
}
