"""Where StarPU's source comes from: apt's configuration, the choice of a suite, the checks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from getstarpu.apt import PrivateApt, Source, fetch, verified_tarball, version_numbers
from getstarpu.apt_sources import (
    Archive,
    Distribution,
    configured_archives,
    distribution,
    parse_deb822,
    parse_one_line,
    suites_to_try,
)
from getstarpu.process import GetStarpuError, Processes

from tests.scripts.conftest import AptStandIn

DEBIAN_SUITES = [(suite, "http://mirror/debian") for suite in ("stable", "testing", "unstable")]


def os_release(folder: Path, text: str) -> Distribution:
    file = folder / "os-release"
    file.write_text(text, encoding="utf-8")
    return distribution(file)


@pytest.fixture
def debian(tmp_path: Path) -> Distribution:
    return os_release(tmp_path, 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n')


@pytest.fixture
def private_apt(tmp_path: Path, apt_stand_in: AptStandIn) -> PrivateApt:
    return PrivateApt(tmp_path / "work" / "apt", Processes(), tmp_path / "log", apt_stand_in.keyrings)


def test_one_line_sources_give_uri_and_suite() -> None:
    text = """\
    # deb http://commented/debian stable main
    deb http://mirror/debian bookworm main contrib # why
    deb-src [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] https://mirror/debian  sid  main

    deb [ trusted=yes ] file:/srv/debian trixie main
    """
    assert parse_one_line(text) == [
        Archive("http://mirror/debian", ("bookworm",)),
        Archive("https://mirror/debian", ("sid",)),
        Archive("file:/srv/debian", ("trixie",)),
    ]


def test_deb822_sources_give_every_enabled_uri_with_its_suites() -> None:
    text = """\
# Written by the installer
Types: deb deb-src
URIs: http://mirror/debian
 http://second/debian
# a comment within a field's stanza
Suites: trixie
 trixie-updates
Components: main

Enabled: no
Types: deb
URIs: http://off/debian
Suites: sid

Types: deb
URIs: http://mirror/debian-security
Suites: trixie-security
"""
    assert parse_deb822(text) == [
        Archive("http://mirror/debian", ("trixie", "trixie-updates")),
        Archive("http://second/debian", ("trixie", "trixie-updates")),
        Archive("http://mirror/debian-security", ("trixie-security",)),
    ]


def test_both_formats_are_read_and_other_files_are_not(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one/debian sid main\n", encoding="utf-8")
    (parts / "b.list").write_text("deb http://two/debian sid main\n", encoding="utf-8")
    (parts / "a.sources").write_text("Types: deb\nURIs: http://three/debian\nSuites: sid\n", encoding="utf-8")
    (parts / "c.list.disabled").write_text("deb http://four/debian sid main\n", encoding="utf-8")
    uris = [archive.uri for archive in configured_archives(tmp_path)]
    assert uris == ["http://one/debian", "http://three/debian", "http://two/debian"]


def test_debian_is_asked_for_stable_then_testing_then_unstable(debian: Distribution) -> None:
    archives = [
        Archive("https://elsewhere/apt", ("stable",)),
        Archive("http://mirror/debian/", ("bookworm", "bookworm-updates")),
        Archive("http://mirror/debian-security", ("bookworm-security",)),
        Archive("cdrom:[Debian]/debian", ("bookworm",)),
    ]
    assert suites_to_try(archives, debian) == DEBIAN_SUITES


def test_ubuntu_is_asked_for_the_suites_of_its_own_release_and_then_devel(tmp_path: Path) -> None:
    ubuntu = os_release(tmp_path, "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n")
    archives = [
        Archive("http://archive/ubuntu/", ("noble", "noble-updates", "noble-backports")),
        Archive("http://security/ubuntu/", ("noble-security",)),
    ]
    suites = [suite for suite, uri in suites_to_try(archives, ubuntu) if uri == "http://archive/ubuntu"]
    assert suites == ["noble-updates", "noble", "noble-backports", "devel"]


def test_a_distribution_without_a_known_archive_is_told_of_starpu_src(tmp_path: Path) -> None:
    with pytest.raises(GetStarpuError, match=r"'fedora'.*STARPU_SRC"):
        os_release(tmp_path, 'ID=fedora\nID_LIKE="rhel"\n')


def test_a_machine_without_a_mirror_is_told_of_starpu_src(debian: Distribution) -> None:
    with pytest.raises(GetStarpuError, match=r"no mirror.*STARPU_SRC"):
        suites_to_try([Archive("https://elsewhere/apt", ("stable",))], debian)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("1.4.10+dfsg-2", (1, 4, 10)), ("1:1.4", (1, 4)), ("1.3.10+dfsg-1", (1, 3, 10)), ("1.10~rc1", (1, 10))],
)
def test_versions_compare_by_number(version: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(version) == numbers


def test_the_next_suite_is_tried_when_the_mirror_lacks_a_listed_file(
    apt_stand_in: AptStandIn, private_apt: PrivateApt, debian: Distribution
) -> None:
    apt_stand_in.lists("stable", "1.4.7+dfsg-2")
    apt_stand_in.lists("testing", "1.4.99+dfsg-1")
    sha256 = apt_stand_in.serves("testing", "1.4.99+dfsg-1")
    said: list[str] = []
    source = fetch(private_apt, DEBIAN_SUITES, debian, said.append)
    assert source == Source(source.path, "debian testing, source package starpu 1.4.99+dfsg-1", sha256)
    assert source.path.is_file()
    assert said == ["debian stable: 1.4.7+dfsg-2 is listed but the mirror does not serve it"]
    assert [call.split()[:2] for call in apt_stand_in.calls] == [
        ["stable", "update"],
        ["stable", "source"],
        ["testing", "update"],
        ["testing", "source"],
    ]


def test_an_older_version_of_the_same_suite_is_tried_before_the_next_suite(
    apt_stand_in: AptStandIn, private_apt: PrivateApt, debian: Distribution
) -> None:
    apt_stand_in.lists("stable", "1.3.9-1", "1.4.9-1", "1.4.10-1")
    apt_stand_in.serves("stable", "1.4.9-1")
    source = fetch(private_apt, DEBIAN_SUITES, debian, print)
    assert source.origin == "debian stable, source package starpu 1.4.9-1"


def test_when_no_suite_has_one_the_message_gives_each_ones_reason(
    apt_stand_in: AptStandIn, private_apt: PrivateApt, debian: Distribution
) -> None:
    apt_stand_in.lists("stable", "1.3.10+dfsg-1")
    apt_stand_in.lists("testing")
    with pytest.raises(GetStarpuError) as caught:
        fetch(private_apt, DEBIAN_SUITES, debian, print)
    assert str(caught.value) == (
        "no StarPU >= 1.4 to be had from debian (stable: only has 1.3.10+dfsg-1; testing: has no StarPU;"
        " unstable: no valid signed index (no signature by a known key));"
        " set STARPU_SRC to a folder or a tarball with its sources"
    )
    assert caught.value.log == private_apt.log


def test_a_file_with_another_checksum_than_the_dsc_says_is_refused(
    apt_stand_in: AptStandIn, private_apt: PrivateApt, debian: Distribution
) -> None:
    apt_stand_in.lists("stable", "1.4.99-1")
    true = apt_stand_in.serves("stable", "1.4.99-1", sha256="0" * 64)
    with pytest.raises(
        GetStarpuError, match=rf"1\.4\.99\.orig\.tar\.gz has the SHA-256 {true}, but .* says 000"
    ):
        fetch(private_apt, DEBIAN_SUITES, debian, print)


def test_a_file_that_the_dsc_names_must_be_there(tmp_path: Path) -> None:
    dsc = tmp_path / "starpu.dsc"
    dsc.write_text(f"Checksums-Sha256:\n {'0' * 64} 1 starpu_1.4.orig.tar.gz\n", encoding="utf-8")
    with pytest.raises(GetStarpuError, match=r"starpu_1\.4\.orig.*, named by starpu\.dsc, was not fetched"):
        verified_tarball(dsc)


def test_without_the_keyring_of_the_distribution_nothing_is_fetched(
    apt_stand_in: AptStandIn, private_apt: PrivateApt, debian: Distribution
) -> None:
    (apt_stand_in.keyrings / "debian-archive-keyring.gpg").unlink()
    with pytest.raises(GetStarpuError, match=r"keyring debian-archive-keyring\.gpg of debian is not in"):
        fetch(private_apt, DEBIAN_SUITES, debian, print)
    assert not (apt_stand_in.home / "calls").exists()


@pytest.mark.skipif(
    shutil.which("apt-config") is None, reason="asks the real apt what it makes of the settings"
)
def test_apt_keeps_to_its_private_folder_and_runs_no_hook_of_the_machine(
    tmp_path: Path, private_apt: PrivateApt, debian: Distribution
) -> None:
    machine = tmp_path / "machine.conf"
    machine.write_text(
        'APT::Update::Post-Invoke { "touch /hooked"; };\n'
        'APT::Update::Post-Invoke-Success:: "touch /hooked";\n'
        'Acquire::http::Proxy "http://proxy:3128";\n'
        'APT::Get::AllowUnauthenticated "true";\n',
        encoding="utf-8",
    )
    home, keyring = private_apt.home, private_apt.keyrings / "debian-archive-keyring.gpg"
    private_apt.select("stable", "http://mirror/debian", debian)

    def apt_config(*arguments: str) -> str:
        command = ["apt-config", "-c", str(home / "apt.conf"), *arguments]
        return subprocess.check_output(command, env={**os.environ, "APT_CONFIG": str(machine)}, text=True)

    shown = {
        "Dir::State::lists/d": f"{home}/state/lists/",
        "Dir::Cache::archives/d": f"{home}/cache/archives/",
        "Dir::Etc::sourcelist/f": f"{home}/sources.list",
        "Acquire::http::Proxy": "http://proxy:3128",
        "APT::Get::AllowUnauthenticated": "false",
    }
    for key, value in shown.items():
        assert apt_config("shell", "VALUE", key) == f"VALUE='{value}'\n"
    assert "/hooked" not in apt_config("dump")
    source = (home / "sources.list").read_text(encoding="utf-8")
    assert source == f"deb-src [signed-by={keyring}] http://mirror/debian stable main\n"
