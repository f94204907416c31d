//! Kernels: how they are named, and which Debian package each name stands for.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// Architecture of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit ARM
    Arm64,
}

impl Arch {
    /// That of this program, if it is supported.
    pub(super) fn host() -> Option<Self> {
        [Self::Amd64, Self::Arm64].into_iter().find(|arch| arch.target().starts_with(std::env::consts::ARCH))
    }

    /// Its name in Debian.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The QEMU program for it.
    pub(super) fn qemu(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The target triple of the tests.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// A kernel to test, as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The running kernel.
    Host,
    /// The newest of a series: `6.1`.
    Series(u32, u32),
    /// Debian's newest.
    Newest,
}

impl FromStr for Wanted {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.split_once('.').map(|(major, minor)| (major.parse(), minor.parse()))) {
            ("host", _) => Ok(Self::Host),
            ("newest", _) => Ok(Self::Newest),
            (_, Some((Ok(major), Ok(minor)))) => Ok(Self::Series(major, minor)),
            _ => bail!("a kernel is `host`, a series such as `6.1`, or `newest`"),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Newest => f.write_str("newest"),
            Self::Series(major, minor) => write!(f, "{major}.{minor}"),
        }
    }
}

/// A part of Debian's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// Whether it is in the archive of security updates.
    pub(super) is_security: bool,
}

/// A suite of the main archive.
const fn suite(name: &'static str) -> Suite {
    Suite { name, is_security: false }
}

/// A suite of the security updates.
const fn security(name: &'static str) -> Suite {
    Suite { name, is_security: true }
}

/// The suite of the programs in the virtual machine.
pub(super) const PROGRAMS: &[Suite] = &[suite("bookworm")];

const DEBIAN_11: &[Suite] = &[suite("bullseye"), security("bullseye-security")];
const DEBIAN_12: &[Suite] = &[suite("bookworm"), security("bookworm-security")];
const LATER: &[Suite] = &[suite("trixie-backports"), suite("sid")];

impl Wanted {
    /// The suites of this kernel in Debian.
    pub(super) fn suites(&self) -> &'static [Suite] {
        match self {
            Self::Series(..=5, _) => DEBIAN_11,
            Self::Series(6, ..=12) => DEBIAN_12,
            _ => LATER,
        }
    }

    /// The newest release that matches, from names of packages.
    pub(super) fn choose(&self, arch: Arch, packages: &str) -> Option<Release> {
        let suffix = format!("-cloud-{}", arch.debian());
        packages
            .lines()
            .filter_map(|name| name.trim().strip_prefix("linux-image-"))
            .filter(|name| name.ends_with(&suffix))
            .map(|name| Release(name.to_owned()))
            .filter(|release| match (self, release.numbers().as_slice()) {
                // A name with only a series is a metapackage for the newest release.
                (_, [] | [_] | [_, _]) | (Self::Host, _) => false,
                (Self::Newest, _) => true,
                (Self::Series(major, minor), numbers) => numbers[..2] == [*major, *minor],
            })
            .max_by_key(Release::numbers)
    }
}

/// A kernel's release, as `uname -r` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release(pub(super) String);

impl Release {
    /// Its numbers: `6.1.0-56-cloud-amd64` has 6, 1, 0, 56.
    fn numbers(&self) -> Vec<u32> {
        let version = self.0.split("-cloud-").next().unwrap_or_default();
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    }

    /// Its Debian packages: one up to about 7.0, several since.
    pub(super) fn packages<'a>(&self, packages: &'a str) -> Vec<&'a str> {
        const PARTS: [&str; 4] = ["linux-image-", "linux-base-", "linux-binary-", "linux-modules-"];
        let is_part = |name: &&str| PARTS.iter().any(|part| name.strip_prefix(part) == Some(&self.0));
        packages.lines().map(str::trim).filter(is_part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &str = "linux-image-6.1-cloud-amd64
linux-image-6.1.0-0.deb11.52-cloud-amd64
linux-image-6.1.0-9-cloud-amd64
linux-image-6.1.0-56-cloud-amd64
linux-image-6.1.0-56-cloud-amd64-dbg
linux-image-6.1.0-57-cloud-arm64
linux-image-6.1.0-58-amd64
linux-image-6.12.90+deb12.1-cloud-amd64
linux-image-6.12.117+deb12-cloud-amd64
linux-image-7.3.4+deb13-cloud-amd64
linux-binary-7.3.4+deb13-cloud-amd64
linux-headers-7.3.4+deb13-cloud-amd64
linux-modules-7.3.4+deb13-cloud-amd64
linux-image-cloud-amd64
";

    fn chosen(wanted: &str, arch: Arch) -> Option<String> {
        let wanted: Wanted = wanted.parse().expect("a kernel");
        wanted.choose(arch, PACKAGES).map(|release| release.0)
    }

    #[test]
    fn the_newest_of_a_series_is_chosen_by_its_numbers() {
        assert_eq!(chosen("6.1", Arch::Amd64).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(chosen("6.12", Arch::Amd64).as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(chosen("newest", Arch::Amd64).as_deref(), Some("7.3.4+deb13-cloud-amd64"));
        assert_eq!(chosen("6.1", Arch::Arm64).as_deref(), Some("6.1.0-57-cloud-arm64"));
        assert_eq!(chosen("6.2", Arch::Amd64), None);
        assert_eq!(chosen("host", Arch::Amd64), None);
    }

    #[test]
    fn a_kernel_can_be_several_packages() {
        let release = Release("7.3.4+deb13-cloud-amd64".to_owned());
        let parts = ["image", "binary", "modules"].map(|part| format!("linux-{part}-{}", release.0));
        assert_eq!(release.packages(PACKAGES), parts);
        let release = Release("6.1.0-56-cloud-amd64".to_owned());
        assert_eq!(release.packages(PACKAGES), ["linux-image-6.1.0-56-cloud-amd64"]);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        for text in ["", "6", "6.x", "latest", "6.1.2"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
        for text in ["host", "newest", "5.10"] {
            assert_eq!(text.parse::<Wanted>().expect("a kernel").to_string(), text);
        }
    }
}
