//! Files of a release, packed by `deploy/release/build` from the program built with the tests.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_test};
use trunkline_tests::harness::tools::{python, run, shipped};

/// Strips the program's symbols, because packing them takes longer than the rest of these tests.
async fn program(fixture: &Fixture) -> Result<PathBuf> {
    let program = fixture.folder().join("trunkline");
    run(Command::new("strip").arg("-o").arg(&program).arg(profile_folder()?.join("trunkline"))).await?;
    Ok(program)
}

async fn pack(fixture: &Fixture, folder: &str, kinds: &[&str]) -> Result<PathBuf> {
    let folder = fixture.folder().join(folder);
    let mut command = Command::new(shipped("release/build"));
    command.arg("--binary").arg(program(fixture).await?).arg("--out").arg(&folder).args(kinds);
    // Without a commit, like sources from an archive, and with fast compression.
    run(command.envs([("SOURCE_DATE_EPOCH", "1700000000"), ("DPKG_DEB_COMPRESSOR_LEVEL", "0")])).await?;
    Ok(folder)
}

/// The only file of a folder with this ending.
fn only(folder: &Path, ending: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        found.push(entry?.path());
    }
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    ensure!(found.len() == 1, "files *{ending}: {found:?}");
    found.pop().context("one was there")
}

/// Checks that a program prints the version, commit and target of the packed program.
async fn has_our_version(program: &Path) -> Result<()> {
    let ours = run(Command::new(profile_folder()?.join("trunkline")).arg("--version")).await?;
    let told = run(Command::new(program).arg("--version")).await?;
    ensure!(told == ours, "{}: {told}", program.display());
    Ok(())
}

#[test]
fn a_tarball_unpacks_into_a_program_with_completions_manual_and_units() {
    run_test(async |fixture| {
        let files = pack(fixture, "files", &["tarball", "chart", "checksums"]).await?;
        let root = fixture.folder().join("usr-local");
        std::fs::create_dir(&root)?;
        let tarball = only(&files, ".tar.gz")?;
        run(Command::new("tar").arg("-C").arg(&root).args(["--strip-components=1", "-xzf"]).arg(&tarball)).await?;
        has_our_version(&root.join("bin/trunkline")).await?;
        for (path, has) in [
            ("share/bash-completion/completions/trunkline", "_trunkline"),
            ("share/zsh/site-functions/_trunkline", "#compdef trunkline"),
            ("share/fish/vendor_completions.d/trunkline.fish", "complete -c trunkline"),
            ("share/doc/trunkline/LICENSE", "Apache License"),
            ("share/doc/trunkline/systemd/trunkline.service", "ExecStart="),
            ("share/doc/trunkline/examples/trunkline.toml", "#upstream = "),
        ] {
            let text = std::fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
            ensure!(text.contains(has), "{path} has no {has}");
        }
        // Pages of the command itself, of a subcommand, and of one below that.
        for page in ["trunkline", "trunkline-serve", "trunkline-token-user"] {
            let path = root.join(format!("share/man/man1/{page}.1.gz"));
            let text = run(Command::new("gzip").arg("-dc").arg(&path)).await?;
            ensure!(text.contains(".TH") && text.contains("SYNOPSIS"), "{page}: {text}");
        }
        let listed = run(Command::new("tar").arg("-tzf").arg(only(&files, ".tgz")?)).await?;
        let expected = ["trunkline/Chart.yaml", "trunkline/values.yaml", "trunkline/templates/deployment.yaml"];
        ensure!(expected.iter().all(|name| listed.lines().any(|line| line == *name)), "{listed}");
        run(Command::new("sha256sum").args(["--strict", "-c", "SHA256SUMS"]).current_dir(&files)).await?;
        Ok(())
    });
}

#[test]
fn a_wheel_installs_the_command_by_pip() {
    run_test(async |fixture| {
        let wheel = only(&pack(fixture, "files", &["wheel"]).await?, ".whl")?;
        let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(name.contains("-py3-none-manylinux_2_"), "{name}");
        let root = fixture.folder().join("environment");
        let mut pip = python("python")?;
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-index",
            "--ignore-installed",
        ]);
        run(pip.arg("--prefix").arg(&root).arg(&wheel)).await?;
        has_our_version(&root.join("bin/trunkline")).await?;
        // Packing is reproducible.
        let again = only(&pack(fixture, "again", &["wheel"]).await?, ".whl")?;
        ensure!(std::fs::read(&wheel)? == std::fs::read(again)?, "the bytes of two wheels differ");
        Ok(())
    });
}

/// Folder to install a package into: a shell, the commands of the package's scripts, and dpkg's database.
async fn system(fixture: &Fixture) -> Result<PathBuf> {
    let root = fixture.folder().join("system");
    for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "")?;
    let mut lay_out = Command::new(shipped("image/root.sh"));
    lay_out.arg(&root).args(["/bin/sh", "/bin/rm", "/bin/rmdir"]).arg(profile_folder()?.join("trunkline"));
    run(&mut lay_out).await?;
    std::fs::remove_file(root.join("usr/bin/trunkline"))?;
    Ok(root)
}

#[test]
fn a_debian_package_installs_makes_a_key_keeps_it_and_leaves_nothing_when_purged() {
    run_test(async |fixture| {
        let package = only(&pack(fixture, "files", &["deb"]).await?, ".deb")?;
        let field = async |name: &str| run(Command::new("dpkg-deb").arg("-f").arg(&package).arg(name)).await;
        let depends = field("Depends").await?;
        ensure!(depends.starts_with("libc6 (>= 2.") && depends.contains("libgcc-s1"), "{depends}");
        let listed = run(Command::new("dpkg-deb").arg("-c").arg(&package)).await?;
        ensure!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
        let root = system(fixture).await?;
        // The libraries exist, but not as packages.
        let dpkg = || {
            let mut command = Command::new("dpkg");
            command.arg(format!("--root={}", root.display())).arg("--force-depends");
            command
        };
        run(dpkg().arg("--install").arg(&package)).await?;
        let inside = run(Command::new("chroot").arg(&root).args(["/usr/bin/trunkline", "--version"])).await?;
        ensure!(inside.starts_with("trunkline "), "{inside}");
        let key = root.join("etc/trunkline/access-key");
        let made = std::fs::read(&key)?;
        assert_eq!(std::fs::metadata(&key)?.permissions().mode() & 0o777, 0o600, "it is for root alone");
        let settings = root.join("etc/trunkline/trunkline.toml");
        std::fs::write(&settings, "upstream = [\"http://10.0.0.1:5000\"]\n")?;
        run(dpkg().arg("--install").arg(&package)).await?;
        assert_eq!(std::fs::read(&key)?, made, "the key stays");
        assert!(std::fs::read_to_string(&settings)?.contains("10.0.0.1"), "what was changed stays");
        for unit in ["trunkline.service", "trunkline.socket"] {
            let installed = root.join("usr/lib/systemd/system").join(unit);
            assert_eq!(std::fs::read(installed)?, std::fs::read(shipped("systemd").join(unit))?, "{unit}");
        }
        // Steps of the page for teams: app keys, and a drop-in that loads them.
        std::fs::write(root.join("etc/trunkline/app-keys"), "shop=key;shop\n")?;
        let drop_ins = root.join("etc/systemd/system/trunkline.service.d");
        std::fs::create_dir_all(&drop_ins)?;
        std::fs::write(drop_ins.join("override.conf"), "[Service]\n")?;
        run(dpkg().args(["--purge", "trunkline"])).await?;
        assert!(!root.join("usr/bin/trunkline").exists() && !drop_ins.exists());
        assert!(!root.join("etc/trunkline").exists(), "no key and no setting stays");
        Ok(())
    });
}

#[test]
fn what_is_no_program_of_this_version_is_refused_in_words() {
    run_test(async |fixture| {
        let mut command = Command::new(shipped("release/build"));
        command.args(["--binary", "/bin/true", "tarball", "--out"]).arg(fixture.folder());
        let error = run(&mut command).await.unwrap_err().to_string();
        ensure!(error.contains("/true --version tells no version, commit and target"), "{error}");
        let shown = run(Command::new(shipped("release/build")).arg("--help")).await?;
        for kind in ["tarball", "deb", "wheel", "image", "sbom", "chart", "checksums"] {
            ensure!(shown.contains(&format!("\n    {kind} ")), "{kind} is not explained: {shown}");
        }
        Ok(())
    });
}
